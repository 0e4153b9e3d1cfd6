"""Which tokens are visible (context) and which must be predicted (target).

Training masks: V-JEPA's spatial blocks through time, tubes, and the future. Every sample of a batch must keep as many
tokens as its neighbours. Upstream sorts and cuts to the shortest, which throws away the *latest* tokens and makes the
last tubelet a rare target; `truncation: random` drops tokens evenly instead (`prefix` remains for parity).

Tasks: one named mask each, the same for everything that is ever compared: `task_mask`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import default_collate

from jepa.config import ConfigError, choose
from jepa.grid import Grid, coordinates, token_grid

TASKS = ("forward", "backward", "animate", "loop", "connect", "infill")


class Mask(NamedTuple):
    """Token ids, int64 and sorted: what is seen (B, K) and what is to be predicted (B, M)."""

    context_ids: Tensor
    target_ids: Tensor


@dataclass
class MaskConfig:
    """One kind of training mask.

    kind            block: `num_blocks` rectangles of `spatial_scale` of the frame each, through `temporal_scale` of the
                    clip; tube: `ratio` of the places, hidden through the whole clip; future: the first `visible` part
                    is seen.
    aspect          smallest and largest height / width of a block.
    visible         smallest and largest visible fraction of the tubelets (future); drawn once a batch.
    min_context     a sample sees at least this fraction of its tokens, whatever was drawn.
    """

    kind: str = "block"
    num_blocks: int = 8
    spatial_scale: float = 0.15
    temporal_scale: float = 1.0
    aspect: list[float] = field(default_factory=lambda: [0.75, 1.5])
    ratio: float = 0.75
    visible: list[float] = field(default_factory=lambda: [0.25, 0.75])
    min_context: float = 0.1
    truncation: str = "random"


def sample_mask(config: MaskConfig, grid: Grid, batch_size: int, generator: torch.Generator | None = None) -> Mask:
    """Draw the mask of a batch."""
    draw: dict[str, Callable[[MaskConfig, Grid, int, torch.Generator | None], Tensor]] = {
        "block": _blocks,
        "tube": _tubes,
        "future": _future,
    }
    rule = draw[choose("masks.kind", config.kind, tuple(draw))]
    choose("masks.truncation", config.truncation, ("random", "prefix"))
    keep = max(1, round(config.min_context * grid.num_tokens))
    target = rule(config, grid, batch_size, generator)  # (B, N) bool
    for _ in range(20):
        poor = (~target).sum(1) < keep
        if not poor.any():
            break
        target[poor] = rule(config, grid, batch_size, generator)[poor]
    else:
        order = torch.rand(target.shape, generator=generator).argsort(1)
        target[poor] &= (order >= keep)[poor]
    if not target.any(1).all():
        raise ConfigError(f"a {config.kind} mask hides nothing on a grid of {tuple(grid)}: raise its scale or ratio")
    return Mask(_sorted_ids(~target, config, generator), _sorted_ids(target, config, generator))


def task_mask(task: str, grid: Grid, batch_size: int, context: int | None = None) -> Mask:
    """The mask of a task, the same for every sample.

    | task     | visible                                                            |
    |----------|--------------------------------------------------------------------|
    | forward  | the first `context` tubelets (default: half)                       |
    | backward | the last `context` tubelets                                        |
    | animate  | the first tubelet                                                  |
    | loop     | the first tubelet and the last                                     |
    | connect  | the first `context` and the last `context` tubelets (default: 1/4) |
    | infill   | all but a central block of half the height and width, all the time |
    """
    choose("task", task, TASKS)
    if context is not None and context < 1:
        raise ConfigError(f"context is {context}: give at least one visible tubelet")
    t, h, w = coordinates(grid).unbind(1)
    length = grid.t
    if task == "infill":
        visible = ~((h >= grid.h // 4) & (h < grid.h - grid.h // 4) & (w >= grid.w // 4) & (w < grid.w - grid.w // 4))
    else:
        default = {"forward": length // 2, "backward": length // 2, "connect": length // 4}.get(task, 1)
        size = context or max(1, default)
        at_start = t < size if task != "backward" else torch.zeros_like(t, dtype=torch.bool)
        at_end = t >= length - size if task in ("backward", "loop", "connect") else torch.zeros_like(at_start)
        visible = at_start | at_end
    if visible.all() or not visible.any():
        seen = "everything" if visible.all() else "nothing"
        cure = "larger frames" if task == "infill" else "a longer clip or another context"
        raise ConfigError(f"task {task!r} sees {seen} of {length} x {grid.h} x {grid.w} tokens: use {cure}")
    ids = torch.arange(grid.num_tokens)
    return Mask(ids[visible].repeat(batch_size, 1), ids[~visible].repeat(batch_size, 1))


class MaskCollator:
    """Collates samples and draws their masks: `batch["masks"]` is a list of `Mask`, `batch["mask_kinds"]` their places
    in `configs`.

    All masks of `configs`, or `per_step` of them drawn at random for each batch. Draws are a function of the samples'
    own seeds, so that a resumed run meets the masks it would have met.
    """

    def __init__(
        self, configs: Sequence[MaskConfig], tubelet_size: int, patch_size: int, per_step: int | None = None
    ) -> None:
        if not configs:
            raise ConfigError("masks is empty: name at least one mask to train on")
        self.configs, self.per_step = list(configs), per_step
        self.tubelet_size, self.patch_size = tubelet_size, patch_size

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = default_collate(samples)
        generator = torch.Generator().manual_seed(int(samples[0]["seed"]))
        chosen = list(range(len(self.configs)))
        if self.per_step:
            chosen = torch.randperm(len(chosen), generator=generator)[: self.per_step].sort().values.tolist()
        grid = token_grid(batch["video"].shape, self.tubelet_size, self.patch_size)
        batch["mask_kinds"] = chosen
        batch["masks"] = [sample_mask(self.configs[i], grid, len(samples), generator) for i in chosen]
        return batch


def _blocks(config: MaskConfig, grid: Grid, batch_size: int, generator: torch.Generator | None) -> Tensor:
    # The size of a block is drawn once a batch, as in V-JEPA, so that samples hide similar amounts; places differ.
    low, high = _range("masks.aspect", config.aspect)
    aspect = low + (high - low) * torch.rand((), generator=generator)
    area = config.spatial_scale * grid.h * grid.w
    height = int((area * aspect).sqrt().round().clamp(1, grid.h))
    width = int((area / aspect).sqrt().round().clamp(1, grid.w))
    duration = max(1, round(config.temporal_scale * grid.t))
    shape = (batch_size, config.num_blocks, 1)
    t, h, w = coordinates(grid).unbind(1)  # each (N,)
    inside = torch.ones(batch_size, config.num_blocks, grid.num_tokens, dtype=torch.bool)
    for place, size, extent in ((t, duration, grid.t), (h, height, grid.h), (w, width, grid.w)):
        start = torch.randint(0, extent - size + 1, shape, generator=generator)
        inside &= (place >= start) & (place < start + size)
    return inside.any(1)


def _tubes(config: MaskConfig, grid: Grid, batch_size: int, generator: torch.Generator | None) -> Tensor:
    places = grid.h * grid.w
    order = torch.rand(batch_size, places, generator=generator).argsort(1)
    hidden = order < round(config.ratio * places)  # (B, h*w)
    return hidden.repeat(1, grid.t)


def _future(config: MaskConfig, grid: Grid, batch_size: int, generator: torch.Generator | None) -> Tensor:
    if grid.t < 2:
        raise ConfigError(f"a future mask needs at least two tubelets, and the clip has {grid.t}: raise num_frames")
    visible = _range("masks.visible", config.visible)
    low, high = (min(max(round(v * grid.t), 1), grid.t - 1) for v in visible)
    seen = int(torch.randint(low, high + 1, (), generator=generator))
    return (coordinates(grid)[:, 0] >= seen).repeat(batch_size, 1)


def _range(key: str, values: list[float]) -> tuple[float, float]:
    if len(values) != 2 or not 0 < values[0] <= values[1]:
        raise ConfigError(f"{key} is {list(values)}: give two positive numbers, the smaller first")
    return values[0], values[1]


def _sorted_ids(chosen: Tensor, config: MaskConfig, generator: torch.Generator | None) -> Tensor:
    """Ids (B, n) where `chosen` (B, N) is set, cut to the fewest of any sample."""
    fewest = int(chosen.sum(1).min())
    rank = torch.arange(chosen.shape[1]).float().expand(chosen.shape)
    if config.truncation == "random":
        rank = torch.rand(chosen.shape, generator=generator)
    rank = rank.masked_fill(~chosen, float("inf"))
    return rank.argsort(1)[:, :fewest].sort(1).values
