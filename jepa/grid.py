"""The only place that knows token order: time, height, width, with width fastest.

A video (B, C, T, H, W) becomes N = t*h*w tokens. Token n sits at (n // (h*w), n // w % h, n % w), and its pixels are
flattened as (C, tubelet, patch, patch), the order of a Conv3d weight, so that `patchify` followed by a linear layer
*is* the convolutional patch embedding of V-JEPA.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from jepa.config import ConfigError

MAX_TOKENS = 2**20  # of a clip: fifty times those of the largest released model, and no attention goes further


class Grid(NamedTuple):
    """Number of tokens along time, height and width."""

    t: int
    h: int
    w: int

    @property
    def num_tokens(self) -> int:
        return self.t * self.h * self.w


def token_grid(video_shape: tuple[int, ...] | torch.Size, tubelet_size: int, patch_size: int) -> Grid:
    """Grid of a video whose last three axes are (T, H, W). Raises ConfigError where they do not divide."""
    frames, height, width = video_shape[-3:]
    for name, size, step, key in (
        ("frames", frames, tubelet_size, "tubelet_size"),
        ("height", height, patch_size, "patch_size"),
        ("width", width, patch_size, "patch_size"),
    ):
        if size < 1 or size % step:
            near = max(step, round(size / step) * step)
            raise ConfigError(f"{name} {size} is not a multiple of {key} {step}: choose {near}, or another {key}")
    grid = Grid(frames // tubelet_size, height // patch_size, width // patch_size)
    if grid.num_tokens > MAX_TOKENS:
        raise ConfigError(f"{frames} frames of {height} x {width} are {grid.num_tokens} tokens: give smaller clips")
    return grid


def patchify(video: Tensor, tubelet_size: int, patch_size: int) -> Tensor:
    """(B, C, T, H, W) -> (B, N, C * tubelet * patch * patch)."""
    t, h, w = token_grid(video.shape, tubelet_size, patch_size)
    b, c = video.shape[:2]
    x = video.reshape(b, c, t, tubelet_size, h, patch_size, w, patch_size)
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b, t * h * w, c * tubelet_size * patch_size**2)


def unpatchify(tokens: Tensor, grid: Grid, tubelet_size: int, patch_size: int) -> Tensor:
    """(B, N, C * tubelet * patch * patch) -> (B, C, T, H, W), the inverse of `patchify`."""
    t, h, w = grid
    b, n, values = tokens.shape
    if n != t * h * w:
        raise ValueError(f"{n} tokens do not fill the grid {t} x {h} x {w}")
    c = values // (tubelet_size * patch_size**2)
    x = tokens.reshape(b, t, h, w, c, tubelet_size, patch_size, patch_size)
    return x.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(b, c, t * tubelet_size, h * patch_size, w * patch_size)


def coordinates(grid: Grid, device: torch.device | None = None) -> Tensor:
    """(N, 3) int64: the (t, h, w) place of every token."""
    n = torch.arange(grid[0] * grid[1] * grid[2], device=device)
    return torch.stack([n // (grid[1] * grid[2]), n // grid[2] % grid[1], n % grid[2]], dim=1)


def gather_tokens(x: Tensor, ids: Tensor) -> Tensor:
    """Tokens (B, N, D) at ids (B, K) -> (B, K, D)."""
    return x.gather(1, ids[..., None].expand(-1, -1, x.shape[-1]))


def scatter_tokens(x: Tensor, ids: Tensor, values: Tensor) -> Tensor:
    """A copy of (B, N, D) with `values` (B, K, D) written at ids (B, K)."""
    return x.scatter(1, ids[..., None].expand(-1, -1, x.shape[-1]), values.to(x.dtype))
