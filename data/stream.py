"""The endless order in which a training run meets its clips.

The stream has positions. Sample p is (index, seed), a pure function of (seed, p); rank r of W takes its batch number
`step` from positions (step * W + r) * batch_size onwards. So neither workers nor resuming change what is trained on.
Videos in shards come from a few shards at a time, other ones together in every epoch: a network disk reads only those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from .seeds import mix, unit

__all__ = ["ClipStream"]

WINDOW = 8  # shards that are mixed with each other


class ClipStream(Sampler[list[tuple[int, int]]]):
    """Endless batches of (index, seed): permutations in turn, or independent draws from a weighted mixture."""

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start: int | Callable[[], int] = 0,
        groups: list[tuple[range, float]] | None = None,
        shards: Sequence[int] = (),
    ) -> None:
        """`start`: the first batch of each rank; `groups`: (indices, weight) of each part of a mixture; `shards`: the
        shard in which each index lies, for permutations that read few shards at a time."""
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world_size, self.start, self.groups = rank, world_size, start, groups
        self.shards = np.asarray(shards, np.int64)
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step = self.start() if callable(self.start) else self.start
        while True:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> list[tuple[int, int]]:
        """What this rank trains on at batch number `step`."""
        first = (step * self.world_size + self.rank) * self.batch_size
        return self.at(range(first, first + self.batch_size))

    def at(self, where: Sequence[int]) -> list[tuple[int, int]]:
        """The samples at these positions, whatever the batch size and the number of ranks."""
        positions = np.asarray(where, np.int64)
        seeds = mix(self.seed, 0, positions) >> np.uint64(1)  # fits int64
        return list(zip(self._indices(positions).tolist(), seeds.tolist(), strict=True))

    def _indices(self, positions: np.ndarray) -> np.ndarray:
        if self.groups is None:
            return np.array([self._permuted(int(position)) for position in positions])
        bounds = np.cumsum([weight for _, weight in self.groups])
        chosen = np.searchsorted(bounds / bounds[-1], unit(self.seed, 1, positions), side="right")
        within = unit(self.seed, 2, positions)
        rows = [self.groups[group][0] for group in chosen]
        return np.array([row[int(u * len(row))] for row, u in zip(rows, within, strict=True)])

    def _permuted(self, position: int) -> int:
        epoch, place = divmod(position, self.size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._permutation(np.random.default_rng([self.seed, epoch]))
        return int(self._order[place])

    def _permutation(self, rng: np.random.Generator) -> np.ndarray:
        order = rng.permutation(self.size)
        if not len(self.shards):
            return order
        window = rng.permutation(self.shards.max() + 1) // WINDOW  # in which each shard is read
        return order[np.argsort(window[self.shards[order]], kind="stable")]
