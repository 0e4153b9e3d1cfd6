"""The predictor: a narrow transformer that is told where, and answers what is there in latent space."""

import torch
from torch import Tensor, nn

from jepa.config import EncoderConfig, PredictorConfig, check_sizes, within
from jepa.grid import Grid
from jepa.layers import Block, init_weights, run_blocks
from jepa.vit import Positions


class Predictor(nn.Module):
    """Context latents and mask tokens at the targets' places in, predictions out (arXiv 2404.08471, section 3.2)."""

    def __init__(self, config: PredictorConfig, encoder: EncoderConfig, target_dim: int) -> None:
        super().__init__()
        dim = config.embed_dim
        check_sizes("predictor", dim, config.depth, config.num_heads, config.mlp_ratio)
        within("predictor.num_mask_tokens", config.num_mask_tokens, 1, 1000)
        self.predictor_embed = nn.Linear(encoder.embed_dim, dim)
        self.mask_tokens = nn.ParameterList(nn.Parameter(torch.zeros(1, 1, dim)) for _ in range(config.num_mask_tokens))
        self.predictor_blocks = nn.ModuleList(
            Block(dim, config.num_heads, config.mlp_ratio) for _ in range(config.depth)
        )
        self.predictor_norm = nn.LayerNorm(dim, eps=1e-6)
        self.predictor_proj = nn.Linear(dim, target_dim)
        self.positions = Positions(encoder, dim, config.num_heads)
        self.recompute = False
        init_weights(self, self.predictor_blocks)
        if encoder.init != "vjepa":
            for token in self.mask_tokens:
                nn.init.trunc_normal_(token, std=0.02)

    def forward(
        self, context: Tensor, grid: Grid, context_ids: Tensor, target_ids: Tensor, mask_index: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Latents (B, K, D) at `context_ids` -> predictions at the targets (B, M, target_dim) and, from the same
        pass, at the context places (B, K, target_dim), which only the optional context loss uses."""
        x = self.predictor_embed(context)  # (B, K, d)
        # Out of all of them: a token that a step leaves out gets a gradient of zero, where DDP would miss one.
        mask_token = torch.cat([*self.mask_tokens])[mask_index % len(self.mask_tokens)].to(x.dtype)  # (1, d)
        x = torch.cat([x, mask_token.expand(*target_ids.shape, -1)], dim=1)  # (B, K + M, d)
        ids = torch.cat([context_ids, target_ids], dim=1)
        x = self.positions.add(x, grid, ids, self.predictor_norm.weight.dtype)
        x = run_blocks(self.predictor_blocks, x, self.positions.angles(grid, ids), recompute=self.recompute)
        x = self.predictor_proj(self.predictor_norm(x))  # (B, K + M, target_dim)
        visible = context_ids.shape[1]
        return x[:, visible:], x[:, :visible]
