"""Video vision transformer: any grid, decided at call time, and only the tokens it is asked to see.

The patch embedding keeps the parameters (and checkpoint keys) of V-JEPA's Conv3d but is applied as a linear layer to
the selected patches, so a masked token is dropped before anything is computed from it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa.config import ConfigError, EncoderConfig, check_sizes, check_tokens, choose
from jepa.grid import MAX_TOKENS, Grid, gather_tokens, patchify, token_grid
from jepa.layers import Block, Rope, init_weights, run_blocks
from jepa.posembed import rope3d, sincos3d


class PatchEmbed(nn.Module):
    """One linear map from tubelet to token."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        size = (config.tubelet_size, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(config.in_channels, config.embed_dim, kernel_size=size, stride=size)

    def forward(self, patches: Tensor) -> Tensor:
        weight = self.proj.weight.flatten(1)
        return F.linear(patches.to(weight.dtype), weight, self.proj.bias)


class Positions:
    """The positions of one stack of blocks: a table to add, angles to rotate by, or both."""

    def __init__(self, config: EncoderConfig, dim: int, num_heads: int) -> None:
        trained = config.position_grid
        if len(trained) not in (0, 3) or min(trained, default=1) < 1 or math.prod(trained) > MAX_TOKENS:
            raise ConfigError(f"position_grid is {list(config.position_grid)}: give [t, h, w] tokens, or nothing")
        self.kinds = choose("position", config.position, ("rope", "sincos", "rope+sincos")).split("+")
        self.rope = choose("rope", config.rope, ("standard", "vjepa2"))
        self.trained = Grid(*config.position_grid) if config.position_grid else None
        self.dim, self.head_dim = dim, dim // num_heads
        if "rope" in self.kinds and (self.head_dim < 6 or self.head_dim % 2):
            raise ConfigError(
                f"embed_dim {dim} over num_heads {num_heads} gives heads {self.head_dim} wide: "
                "a 3D rotary position needs an even width of at least 6"
            )

    def add(self, x: Tensor, grid: Grid, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Tokens (B, K, dim) at `ids` (B, K), with their table's rows added; unchanged without sin-cos.

        `dtype`: of the weights. Under autocast that is float32, whatever x is, and so the stream of the blocks stays.
        """
        if "sincos" not in self.kinds:
            return x
        return x + sincos3d(self.dim, grid, ids.device, self.trained)[ids].to(dtype)

    def angles(self, grid: Grid, ids: Tensor) -> Rope | None:
        """(cos, sin) for `rotate` at `ids` (B, K); None without RoPE."""
        if "rope" not in self.kinds:
            return None
        cos, sin = rope3d(self.head_dim, grid, self.rope, ids.device)
        return cos[ids][:, None], sin[ids][:, None]  # (B, 1, K, head_dim)


class VideoViT(nn.Module):
    """Encoder of V-JEPA (arXiv 2404.08471, 2506.09985): patch embedding, pre-LN blocks, final LayerNorm."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        check_sizes("encoder", config.embed_dim, config.depth, config.num_heads, config.mlp_ratio)
        check_tokens("encoder", config.patch_size, config.tubelet_size, config.in_channels)
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(
            Block(config.embed_dim, config.num_heads, config.mlp_ratio) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.positions = Positions(config, config.embed_dim, config.num_heads)
        self.recompute = False
        init_weights(self, self.blocks, choose("init", config.init, ("xavier", "vjepa")))

    def grid(self, video: Tensor) -> Grid:
        """Token grid of a video (..., T, H, W)."""
        return token_grid(video.shape, self.config.tubelet_size, self.config.patch_size)

    def forward(self, video: Tensor, ids: Tensor | None = None) -> Tensor:
        """Encode (B, C, T, H, W); with `ids` (B, K) only those tokens exist for the network. Returns (B, K or N, D)."""
        grid = self.grid(video)
        patches = patchify(video, self.config.tubelet_size, self.config.patch_size)  # (B, N, C*t*p*p)
        if ids is None:
            ids = _all_ids(grid, video)
        else:
            patches = gather_tokens(patches, ids)  # (B, K, C*t*p*p)
        x = self.positions.add(self.patch_embed(patches), grid, ids, self.norm.weight.dtype)  # (B, K, D)
        x = run_blocks(self.blocks, x, self.positions.angles(grid, ids), recompute=self.recompute)
        return self.norm(x)


def _all_ids(grid: Grid, video: Tensor) -> Tensor:
    # One row serves the whole batch: tables and angles broadcast over it.
    return torch.arange(grid.num_tokens, device=video.device)[None]
