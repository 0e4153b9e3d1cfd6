"""Where a token is: a 3D sin-cos table that is added, or a 3D rotary embedding that turns queries and keys.

Both split the channels in three, in the order depth (time), height, width. Angles are float32 (tables float64) whatever
the autocast: in bf16 neighbouring positions of a long clip would collide.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa.grid import Grid, coordinates


@lru_cache(maxsize=64)
def _sincos3d(dim: int, grid: Grid, device: torch.device) -> Tensor:
    per_axis = -(-dim // 6) * 2  # every axis gets ceil(dim / 6) * 2 channels; the excess is cut (`uniform_power`)
    half = per_axis // 2
    omega = 1.0 / 10000 ** (torch.arange(half, dtype=torch.float64) / half)
    angles = coordinates(grid).double()[:, :, None] * omega  # (N, 3, half)
    table = torch.cat([angles.sin(), angles.cos()], dim=-1)  # (N, 3, per_axis)
    return table.flatten(1)[:, :dim].float().to(device)


@lru_cache(maxsize=64)
def _resized(dim: int, trained: Grid, grid: Grid, device: torch.device) -> Tensor:
    volume = _sincos3d(dim, trained, torch.device("cpu")).T.reshape(1, dim, *trained)
    return F.interpolate(volume, size=tuple(grid), mode="trilinear")[0].flatten(1).T.contiguous().to(device)


def sincos3d(dim: int, grid: Grid, device: torch.device | None = None, trained: Grid | None = None) -> Tensor:
    """(N, dim) float32 table of V-JEPA 1: [depth | height | width], each [sin | cos], omega = 10000^(-2i/per_axis).

    `trained`: the grid whose table the weights know; on another it is that table, resized, as V-JEPA 1 does it.
    """
    where = torch.device(device or "cpu")
    if trained is not None and tuple(trained) != tuple(grid):
        return _resized(dim, Grid(*trained), Grid(*grid), where)
    return _sincos3d(dim, Grid(*grid), where)


@lru_cache(maxsize=64)
def _rope3d(head_dim: int, grid: Grid, kind: str, device: torch.device) -> tuple[Tensor, Tensor]:
    per_axis = 2 * ((head_dim // 3) // 2)
    half = per_axis // 2
    omega = 1.0 / 10000 ** (torch.arange(half, dtype=torch.float32) / half)
    angles = coordinates(grid).float()[:, :, None] * omega  # (N, 3, half)
    # standard: both members of a pair turn by the same angle. vjepa2: halves instead of pairs, as released; that is not
    # a rotation, but what its weights were trained with.
    angles = angles.repeat_interleave(2, dim=-1) if kind == "standard" else angles.repeat(1, 1, 2)
    angles = F.pad(angles.flatten(1), (0, head_dim - 3 * per_axis))  # the rest stays unrotated
    sign = torch.tensor([-1.0, 1.0]).repeat(head_dim // 2)  # (a, b) -> (a cos - b sin, b cos + a sin)
    return angles.cos().to(device), (sign * angles.sin()).to(device)


def rope3d(
    head_dim: int, grid: Grid, kind: str = "standard", device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """(cos, signed sin), each (N, head_dim) float32, for `rotate`. `kind`: standard, or vjepa2 for its checkpoints."""
    if kind not in ("standard", "vjepa2"):
        raise ValueError(f"rope must be standard or vjepa2, not {kind!r}")
    return _rope3d(head_dim, Grid(*grid), kind, torch.device(device or "cpu"))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the interleaved pairs of x (B, heads, K, head_dim) by angles (B or 1, 1, K, head_dim) (RoFormer, eq. 34)."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    swapped = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)  # (b, a, d, c, ...) for pairs (a, b), (c, d)
    return x * cos + swapped * sin
