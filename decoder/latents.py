"""A frozen JEPA as a source of latents, and their statistics over a dataset.

Notable:
- No leakage. `predicted` offers a latent for every token without ever reading a hidden pixel: predictions `z` where the
  clip is hidden, and where it is visible the latents of a target encoder *that has read the visible tokens alone*. (In
  the latents of the whole clip attention would have carried the answer into the visible places.)
- The decoder never sees a pixel: what it draws in the visible places is drawn from latents too.
"""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

from jepa.grid import Grid, scatter_tokens
from jepa.jepa import JEPA
from jepa.masks import Mask, task_mask


class LatentSource:
    """A JEPA in evaluation mode, without gradients. Not a Module: it is never saved, averaged or optimised with a
    decoder."""

    def __init__(self, jepa: JEPA) -> None:
        self.jepa = jepa.eval().requires_grad_(False)

    @property
    def dim(self) -> int:
        """Width of a latent."""
        return self.jepa.config.encoder.embed_dim

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell JEPAs apart; half precision gives the same as full."""
        return _digest(self.jepa.target_encoder)

    @property
    def predictor_fingerprint(self) -> str:
        """The same of what predicts: with a frozen target encoder, many predictors share the one `fingerprint`."""
        return _digest(torch.nn.ModuleList([self.jepa.context_encoder, self.jepa.predictor]))

    def to(self, device: torch.device | str) -> "LatentSource":
        """Move the JEPA in place."""
        self.jepa.to(device)
        return self

    def __deepcopy__(self, memo: dict) -> "LatentSource":
        # Frozen, so a copy (the weight average copies its whole module) may share it.
        return self

    def grid(self, video: Tensor) -> Grid:
        """Token grid of a video (..., T, H, W); ValueError where a size does not divide."""
        return self.jepa.grid(video)

    def task_mask(self, task: str, video: Tensor, context: int | None = None) -> Mask:
        """The mask of a task for a batch (B, C, T, H, W), on its device; `context` counts visible tubelets."""
        mask = task_mask(task, self.grid(video), len(video), context)
        return Mask(mask.context_ids.to(video.device), mask.target_ids.to(video.device))

    @torch.no_grad()
    def target(self, video: Tensor) -> Tensor:
        """Latents `h` (B, N, D) of whole clips (B, C, T, H, W): what a perfect predictor would say."""
        return self.jepa.encode(video).float()

    @torch.no_grad()
    def predicted(self, video: Tensor, mask: Mask) -> Tensor:
        """(B, N, D): `z` at the targets, and `h` of the visible tokens, read alone, at the context.

        Raises ValueError where context and targets together leave a token without a latent.
        """
        count = self.grid(video).num_tokens
        if mask.context_ids.shape[1] + mask.target_ids.shape[1] != count:
            seen, hidden_count = mask.context_ids.shape[1], mask.target_ids.shape[1]
            raise ValueError(
                f"the mask names {seen} visible and {hidden_count} hidden of {count} tokens: "
                "to draw a clip every token must be one or the other"
            )
        visible = self.jepa.encode(video, mask.context_ids).float()  # (B, K, D)
        hidden = self.jepa.predict(video, mask).float()  # (B, M, D)
        latents = visible.new_zeros(len(video), count, visible.shape[-1])
        return scatter_tokens(scatter_tokens(latents, mask.context_ids, visible), mask.target_ids, hidden)


def _digest(network: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, weight in network.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(weight.flatten()[:64].half().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


class LatentStats:
    """Mean and standard deviation of each channel, merged batch by batch in float64 (Chan, Golub and LeVeque 1979)."""

    def __init__(self, dim: int) -> None:
        self.count = 0
        self._mean = torch.zeros(dim, dtype=torch.float64)
        self._squares = torch.zeros(dim, dtype=torch.float64)

    def update(self, latents: Tensor) -> None:
        """Count in latents (..., D)."""
        rows = latents.detach().flatten(0, -2).cpu().double()  # in this order: MPS has no float64
        mean = rows.mean(0)
        squares = (rows - mean).square().sum(0)
        total = self.count + len(rows)
        step = mean - self._mean
        self._squares += squares + step.square() * self.count * len(rows) / total
        self._mean += step * len(rows) / total
        self.count = total

    @property
    def mean(self) -> Tensor:
        """(D,) float32."""
        return self._mean.float()

    @property
    def std(self) -> Tensor:
        """(D,) float32, of the population, at least 1e-4 so that a dead channel does not divide by zero."""
        return (self._squares / max(self.count, 1)).sqrt().clamp_min(1e-4).float()


def measure_latents(source: LatentSource, videos: Iterable[Tensor], clips: int) -> LatentStats:
    """Statistics of the target latents of the first `clips` clips of `videos`, batches (B, C, T, H, W)."""
    stats, seen = LatentStats(source.dim), 0
    for video in videos:
        batch = video[: clips - seen]
        stats.update(source.target(batch))
        seen += len(batch)
        if seen >= clips:
            break
    if seen == 0:
        raise ValueError("no clip to measure latents on: the training set is empty")
    return stats
