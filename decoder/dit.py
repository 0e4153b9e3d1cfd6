"""A video diffusion transformer: noisy spacetime patches in, clean ones out, conditioned token by token.

Notable:
- One class for both arms of the comparison: `condition` is one vector for each token, be it a latent or visible pixels
  (`decoder.conditioning`), projected and added *at the token's own place*. A pooled condition would lose where things
  are.
- Tokens are the encoder's tubelets, on any grid, decided at call time: 3D sin-cos position is added (a token knows
  where it is) and 3D RoPE turns queries and keys (it knows how far the others are).
- Time enters by adaLN-zero (Peebles and Xie, arXiv 2212.09748): at initialisation every block is the identity and the
  guess is zero, the mean of pixels in [-1, 1].
- The output is x1_hat, the clean patch; a bottleneck in the patch embedding as in JiT (arXiv 2511.13720) is optional.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from jepa.config import check_sizes, check_tokens, within
from jepa.grid import Grid
from jepa.layers import Attention, Rope, run_blocks
from jepa.posembed import rope3d, sincos3d


@dataclass
class DenoiserSize:
    """What is free to choose; `bottleneck` is the width of a linear bottleneck in the patch embedding, 0 for none."""

    width: int = 384
    depth: int = 12
    num_heads: int = 6
    mlp_ratio: float = 4.0
    bottleneck: int = 0


@dataclass
class VideoDiTConfig(DenoiserSize):
    """What follows from the clips and from the condition: tokens are the encoder's.

    condition_dim   values of a condition for each token. A narrower condition is filled up with zeros, so that models
                    of different conditions can be equal to the last parameter.
    """

    patch_size: int = 16
    tubelet_size: int = 2
    in_channels: int = 3
    condition_dim: int = 384

    @property
    def patch_dim(self) -> int:
        """Values in one token's tubelet of pixels."""
        return self.in_channels * self.tubelet_size * self.patch_size**2


class TimeEmbedding(nn.Module):
    """Sinusoids of t in [0, 1], periods from 1e-3 to 10, then a two-layer perceptron."""

    omega: Tensor

    def __init__(self, width: int, frequencies: int = 128) -> None:
        super().__init__()
        omega = 1000.0 * torch.exp(-math.log(10000.0) * torch.arange(frequencies) / frequencies)
        self.register_buffer("omega", omega, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        angles = t.float()[:, None] * self.omega  # (B, frequencies)
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))  # (B, width)


class DiTBlock(nn.Module):
    """Attention and MLP, each normalised, scaled, shifted and gated by time."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = Mlp(width, int(width * mlp_ratio), act_layer=nn.GELU)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, time: Tensor, rope: Rope) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(time))[:, None].chunk(6, dim=-1)
        x = x + gate1 * self.attn(modulate(self.norm1(x), shift1, scale1), rope)
        return x + gate2 * self.mlp(modulate(self.norm2(x), shift2, scale2))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Shift and scale (B, 1, width) of a sample, applied to all its tokens (B, N, width)."""
    return x * (1 + scale) + shift


class VideoDiT(nn.Module):
    """(x_t, t, condition) -> guess of the clean patches x1."""

    def __init__(self, config: VideoDiTConfig) -> None:
        super().__init__()
        self.config = config
        width, patch = config.width, config.patch_dim
        check_sizes("dit", width, config.depth, config.num_heads, config.mlp_ratio)
        check_tokens("dit", config.patch_size, config.tubelet_size, min(config.in_channels, 1000))
        for key in ("in_channels", "condition_dim"):  # a head for latents has as many channels as they have values
            within(f"dit.{key}", getattr(config, key), 1, 1_000_000)
        within("dit.bottleneck", config.bottleneck, 0, 100_000)
        if config.bottleneck:
            self.patch_embed: nn.Module = nn.Sequential(
                nn.Linear(patch, config.bottleneck, bias=False), nn.Linear(config.bottleneck, width)
            )
        else:
            self.patch_embed = nn.Linear(patch, width)
        self.condition_embed = nn.Linear(config.condition_dim, width)
        self.no_condition = nn.Parameter(torch.zeros(width))
        self.time_embed = TimeEmbedding(width)
        self.blocks = nn.ModuleList(DiTBlock(width, config.num_heads, config.mlp_ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, patch)
        self.recompute = False
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise in place.

        | parameter                                | value                                          |
        |------------------------------------------|------------------------------------------------|
        | Linear weights                           | Xavier uniform                                 |
        | biases                                   | 0                                              |
        | time_embed                               | normal, std 0.02                               |
        | modulation of the blocks and of the head | 0: gates closed, every block is the identity   |
        | head                                     | 0: the first guess is zero                     |
        | no_condition                             | normal, std 0.02                               |
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layer in self.time_embed.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
        gates = [module.modulation for module in self.blocks if isinstance(module, DiTBlock)]
        for zero in (*gates, self.modulation, self.head):
            nn.init.zeros_(zero.weight)
            nn.init.zeros_(zero.bias)
        nn.init.normal_(self.no_condition, std=0.02)

    def forward(
        self, x_t: Tensor, t: Tensor, grid: Grid, condition: Tensor | None = None, keep: Tensor | None = None
    ) -> Tensor:
        """Noisy patches (B, N, P) at times t (B,), conditions (B, N, C) -> clean patches (B, N, P), float32.

        `condition=None` is the unconditional model; `keep` (B,) bool drops the condition of the samples where it is
        False (training for classifier-free guidance).
        """
        if x_t.shape[1] != grid[0] * grid[1] * grid[2]:
            raise ValueError(f"{x_t.shape[1]} tokens do not fill the grid {grid[0]} x {grid[1]} x {grid[2]}")
        width, head_dim = self.config.width, self.config.width // self.config.num_heads
        x = self.patch_embed(x_t) + sincos3d(width, grid, x_t.device)  # (B, N, width)
        x = x + self._embed_condition(condition, keep)
        cos, sin = rope3d(head_dim, grid, device=x_t.device)
        rope = cos[None, None], sin[None, None]  # (1, 1, N, head_dim)
        time = self.time_embed(t)  # (B, width)
        x = run_blocks(self.blocks, x, time, rope, recompute=self.recompute)
        shift, scale = self.modulation(F.silu(time))[:, None].chunk(2, dim=-1)
        return self.head(modulate(self.norm(x), shift, scale)).float()  # (B, N, P)

    def _embed_condition(self, condition: Tensor | None, keep: Tensor | None) -> Tensor:
        if condition is None:
            return self.no_condition
        missing = self.config.condition_dim - condition.shape[-1]
        embedded = self.condition_embed(F.pad(condition, (0, missing)) if missing > 0 else condition)  # (B, N, width)
        if keep is None:
            # Touched in every pass, so that every parameter has a gradient whatever the dropout (DDP asks for that).
            return embedded + 0 * self.no_condition
        return torch.where(keep[:, None, None], embedded, self.no_condition.to(embedded.dtype))
