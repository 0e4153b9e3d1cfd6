"""The attentive classifier of V-JEPA: tokens in, one answer out.

    tokens (B, N, D) -> self-attention blocks -> a learned query looks at all of them -> linear -> (B, classes)

As in the papers' evaluation (arXiv 2404.08471 section 4.1, 2506.09985 section 5): V-JEPA 1 has no block before the
cross-attention, V-JEPA 2 has three. The cross-attention has no output projection. Parameter names are those of the
released heads.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from huggingface_hub import PyTorchModelHubMixin
from timm.layers import Mlp
from torch import Tensor, nn

from jepa.config import check_sizes, within
from jepa.layers import Block, attend, rescale
from jepa.weights import load_shared, save_shared


@dataclass
class ClassifierConfig:
    """Width of the tokens, attention heads (16 in every official evaluation), self-attention blocks, and answers.

    eps     of the layer norms: 1e-5 as released by Meta; transformers computes the same weights with 1e-6.
    labels  what the answers are called; empty if unknown.
    """

    embed_dim: int = 1024
    num_heads: int = 16
    depth: int = 3
    num_classes: int = 1000
    mlp_ratio: float = 4.0
    eps: float = 1e-5
    labels: list[str] = field(default_factory=list)


class CrossAttention(nn.Module):
    """Queries (B, Q, D) look at tokens (B, N, D); nothing is projected afterwards."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)

    def forward(self, query: Tensor, x: Tensor) -> Tensor:
        q = self.q(query).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, Q, head_dim)
        k, v = self.kv(x).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return attend(q, k, v).transpose(1, 2).flatten(2)  # (B, Q, D)


class CrossAttentionBlock(nn.Module):
    """query + cross_attention(query, norm(x)), then + mlp(norm): the query itself is not normalised."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.xattn = CrossAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=nn.GELU)

    def forward(self, query: Tensor, x: Tensor) -> Tensor:
        query = query + self.xattn(query, self.norm1(x))
        return query + self.mlp(self.norm2(query))


class AttentivePooler(nn.Module):
    """Tokens (B, N, D) to one token (B, D)."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        check_sizes("classifier", config.embed_dim, config.depth, config.num_heads, config.mlp_ratio)
        dim, heads, ratio, eps = config.embed_dim, config.num_heads, config.mlp_ratio, config.eps
        self.query_tokens = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, ratio, eps) for _ in range(config.depth))
        self.cross_attention_block = CrossAttentionBlock(dim, heads, ratio, eps)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.cross_attention_block(self.query_tokens.expand(len(x), -1, -1), x)[:, 0]


class AttentiveClassifier(nn.Module, PyTorchModelHubMixin):
    """Frozen tokens (B, N, D) to logits (B, classes)."""

    def __init__(self, config: ClassifierConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ClassifierConfig()
        self.pooler = AttentivePooler(config)
        within("classifier.num_classes", config.num_classes, 1, 1_000_000)
        self.linear = nn.Linear(config.embed_dim, config.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.pooler.query_tokens, std=0.02)
        rescale(self.pooler.blocks)
        with torch.no_grad():  # as the last of the blocks
            self.pooler.cross_attention_block.mlp.fc2.weight.div_((2.0 * max(1, config.depth)) ** 0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear(self.pooler(tokens))

    def _save_pretrained(self, save_directory: Path) -> None:
        save_shared(self, self.config, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: object) -> "AttentiveClassifier":
        return load_shared(cls, ClassifierConfig, model_id, options)
