"""What the denoiser is told about each token: a latent, the visible pixels, or nothing.

The arms of the comparison differ here and nowhere else. Each condition turns the same `Observation` of a clip into one
vector for each token; the denoiser (`decoder.dit.VideoDiT`) does not know which it was given.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from jepa.grid import Grid, patchify
from jepa.masks import Mask


@dataclass(frozen=True)
class Observation:
    """What is known of a batch of clips when it is to be drawn; each condition reads the part that it may see."""

    grid: Grid
    latents: Tensor | None = None  # (B, N, D) one latent for each token, as they come from the JEPA
    video: Tensor | None = None  # (B, C, T, H, W) pixels in [-1, 1]; hidden ones are ignored
    mask: Mask | None = None  # which tokens of the video are visible (context) and which are to be drawn (target)


class Condition(Protocol):
    """One vector of width `dim` for each token."""

    dim: int

    def tokens(self, seen: Observation) -> Tensor | None:
        """(B, N, dim), or None where nothing is said."""
        ...


class LatentCondition(nn.Module):
    """Latents, each channel normalised by its mean and standard deviation over the training clips."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def tokens(self, seen: Observation) -> Tensor:
        """(B, N, D) normalised latents; the video is not looked at."""
        if seen.latents is None:
            raise ValueError("a latent condition needs latents (B, N, D)")
        return self.normalise(seen.latents)

    def normalise(self, latents: Tensor) -> Tensor:
        """(..., D) to zero mean and unit variance over the training clips."""
        return (latents.float() - self.mean) / self.std


class PixelCondition:
    """Visible pixels at their own place, zeros where hidden, and one flag for each token: 1 visible, 0 hidden."""

    def __init__(self, in_channels: int, tubelet_size: int, patch_size: int) -> None:
        self.tubelet_size, self.patch_size = tubelet_size, patch_size
        self.dim = in_channels * tubelet_size * patch_size**2 + 1

    def tokens(self, seen: Observation) -> Tensor:
        """(B, N, P + 1); tokens that are not in `mask.context_ids` count as hidden."""
        if seen.video is None or seen.mask is None:
            raise ValueError("a pixel condition needs the video and the mask that says what of it is visible")
        patches = patchify(seen.video, self.tubelet_size, self.patch_size)  # (B, N, P)
        flag = patches.new_zeros(patches.shape[:2]).scatter(1, seen.mask.context_ids, 1.0)[..., None]  # (B, N, 1)
        # `where`, not a product: a hidden pixel that is NaN or infinite must not come through either.
        return torch.cat([torch.where(flag > 0, patches, 0.0), flag], dim=-1)


class NoCondition:
    """Nothing at all: the unconditional model."""

    dim = 1  # a width is needed to build the denoiser; it is never fed

    def tokens(self, seen: Observation) -> None:
        """None: the denoiser uses its learned `no_condition` vector."""
        return None
