"""Many futures instead of their mean: a small flow over target latents, given what the JEPA predicts.

    z = source.predicted(video, mask)                   # one answer: the mean of all futures, roughly
    z = futures.sample(z, mask, grid, seeds=0)          # one future of many, in the same latent space

A deterministic predictor that minimises a distance averages over what could happen. This head learns what is left: it
carries noise to target latents, told the prediction at every token. What it samples goes through the same decoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from decoder.conditioning import LatentCondition
from decoder.dit import DenoiserSize, VideoDiT, VideoDiTConfig
from decoder.flow import FlowConfig, FlowLoss, flow_loss
from decoder.latents import LatentSource, LatentStats
from decoder.sampler import sample, seeded_noise
from jepa.grid import Grid, gather_tokens, scatter_tokens
from jepa.masks import Mask
from jepa.weights import CheckpointError, load_model, load_shared, save_shared

FUTURES = "futures"  # how its Lightning checkpoints say what they are


@dataclass
class FuturesConfig:
    """Size of the head, width of a latent, and the fingerprint of the JEPA that the latents come from."""

    size: DenoiserSize = field(default_factory=DenoiserSize)
    latent_dim: int = 384
    jepa: str = ""


class Futures(nn.Module, PyTorchModelHubMixin):
    """Samples target latents of hidden tokens, given the JEPA's prediction of them."""

    def __init__(self, config: FuturesConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FuturesConfig()
        size, dim = config.size, config.latent_dim
        # The same transformer as in the drawers; a "patch" is one latent.
        self.flow = VideoDiT(
            VideoDiTConfig(size.width, size.depth, size.num_heads, size.mlp_ratio, size.bottleneck, 1, 1, dim, dim)
        )
        self.scale = LatentCondition(dim)

    @classmethod
    def load(cls, path: str | Path) -> "Futures":
        """Read a head from the checkpoint of a run (`last.ckpt`, averaged weights) or from a shared folder."""
        return load_model(cls, FuturesConfig, path, FUTURES, "model.")

    def check_source(self, source: LatentSource) -> None:
        """CheckpointError unless it was trained on the latents of this JEPA."""
        if self.config.latent_dim != source.dim or (self.config.jepa and self.config.jepa != source.fingerprint):
            raise CheckpointError(
                f"these futures were trained on the latents of another JEPA ({self.config.jepa or 'of another width'}, "
                f"not {source.fingerprint}): give that JEPA, or train a head for this one"
            )

    def set_statistics(self, stats: LatentStats) -> None:
        """Normalise latents by these from now on; they are saved with the weights."""
        self.scale.mean.copy_(stats.mean)
        self.scale.std.copy_(stats.std)

    def loss(
        self,
        target: Tensor,
        predicted: Tensor,
        mask: Mask,
        grid: Grid,
        flow: FlowConfig,
        generator: torch.Generator | None = None,
    ) -> FlowLoss:
        """Flow-matching loss over the hidden tokens: target latents (B, N, D) given predicted ones (B, N, D)."""
        x1, given = self.scale.normalise(target), self.scale.normalise(predicted)
        hidden = torch.zeros(x1.shape[:2], dtype=torch.bool, device=x1.device).scatter(1, mask.target_ids, True)
        return flow_loss(lambda x, t: self.flow(x, t, grid, given), x1, flow, generator, hidden)

    @torch.no_grad()
    def sample(
        self,
        predicted: Tensor,
        mask: Mask,
        grid: Grid,
        seeds: int | Sequence[int] = 0,
        steps: int = 8,
        method: str = "euler",
    ) -> Tensor:
        """(B, N, D): sampled latents at the hidden tokens, `predicted` as it was at the visible ones."""
        seeds = [seeds] * len(predicted) if isinstance(seeds, int) else list(seeds)
        given = self.scale.normalise(predicted)
        noise = seeded_noise(given.shape[1:], seeds, given.device)
        drawn = sample(lambda x, t: self.flow(x, t, grid, given), noise, steps, method)
        drawn = drawn * self.scale.std + self.scale.mean
        return scatter_tokens(predicted.float(), mask.target_ids, gather_tokens(drawn, mask.target_ids))

    def _save_pretrained(self, save_directory: Path) -> None:
        save_shared(self, self.config, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: object) -> "Futures":
        return load_shared(cls, FuturesConfig, model_id, options)
