"""The transformer block of encoder and predictor: pre-LN, fused qkv, exact GELU, names as in timm's ViT."""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jepa.errors import ConfigError
from jepa.posembed import rotate

Rope = tuple[Tensor, Tensor]  # (cos, sin), each (B or 1, 1, K, head_dim)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v for (B, heads, K, head_dim)."""
    if q.device.type == "cpu" and q.dtype != torch.float32 and q.shape[-2] <= 512:
        # In bf16 on a CPU torch's fused kernel costs several times the plain products on short sequences, most of all
        # backwards (tests/benchmarks/bench_attention.py); it would be half of a training step here.
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1, dtype=q.dtype)
        return weights @ v
    return F.scaled_dot_product_attention(q, k, v)


class Attention(nn.Module):
    """Multi-head self-attention over (B, K, D), with rotary positions when `rope` is given."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ConfigError(f"embed_dim {dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, rope: Rope | None = None) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, K, 3, heads, head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, K, head_dim)
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        return self.proj(attend(q, k, v).transpose(1, 2).flatten(2))  # (B, K, D)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); LayerNorm eps 1e-6 as in V-JEPA."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=nn.GELU)

    def forward(self, x: Tensor, rope: Rope | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), rope)
        return x + self.mlp(self.norm2(x))


def run_blocks(blocks: nn.ModuleList, x: Tensor, *args: Any, recompute: bool = False) -> Tensor:
    """x through every block. `recompute`: activations are not kept but computed again in the backward pass."""
    for block in blocks:
        again = recompute and torch.is_grad_enabled()
        x = checkpoint(block, x, *args, use_reentrant=False) if again else block(x, *args)
    return x


def init_weights(model: nn.Module, blocks: nn.ModuleList, init: str = "xavier") -> None:
    """Initialise a ViT in place.

    | parameter                        | value                                                              |
    |----------------------------------|--------------------------------------------------------------------|
    | Linear weights                   | truncated normal, std 0.02                                         |
    | Conv3d (patch embedding) weight  | Xavier uniform on the flattened kernel, as MAE: with std 0.02 the  |
    |                                  | sin-cos table would drown the content of small patches; `init`     |
    |                                  | vjepa: std 0.02 all the same, as released                          |
    | biases                           | 0                                                                  |
    | LayerNorm                        | weight 1, bias 0                                                   |
    | attn.proj, mlp.fc2 of block i    | the above divided by sqrt(2 (i + 1)), so depth does not add up     |
    """
    for module in model.modules():
        if isinstance(module, nn.Conv3d) and init == "xavier":
            nn.init.xavier_uniform_(module.weight.flatten(1))
        elif isinstance(module, nn.Linear | nn.Conv3d):
            nn.init.trunc_normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear | nn.Conv3d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    rescale(blocks)


@torch.no_grad()
def rescale(blocks: nn.ModuleList) -> None:
    """Divide what block i adds to the stream, attn.proj and mlp.fc2, by sqrt(2 (i + 1))."""
    for i, block in enumerate(blocks):
        assert isinstance(block, Block)
        for linear in (block.attn.proj, block.mlp.fc2):
            linear.weight.div_((2.0 * (i + 1)) ** 0.5)
