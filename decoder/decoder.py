"""The decoder: latents in, video out. A `VideoDiT`, the statistics of its latents, and the scale of its pixels.

    decoder = Decoder.from_pretrained("runs/decoder/decoder")
    video = decoder.decode(latents, grid, seeds=0)    # (B, C, T, H, W) in [0, 1]

Everything that inference needs is in the checkpoint: latent statistics are buffers, the pixel scale and the clip it was
trained on are in the config, and so is a fingerprint of the JEPA: another JEPA of the same size has other latents, and
the decoder would paint something plausible for them without a word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor

from decoder.conditioning import LatentCondition, Observation
from decoder.drawer import ClipConfig, Drawer, DrawerConfig, draw_video
from decoder.flow import FlowConfig, FlowLoss
from decoder.latents import LatentSource, LatentStats
from jepa.grid import Grid
from jepa.weights import CheckpointError, load_model, load_shared, save_shared

__all__ = ["KIND", "ClipConfig", "Decoder", "DecoderConfig", "draw_video"]

KIND = "decoder"  # how the Lightning checkpoints of a decoder say what they are


@dataclass
class DecoderConfig(DrawerConfig):
    """A drawer of latents.

    jepa        fingerprint of the JEPA whose latents it draws; empty if unknown.
    latent_dim  width of a latent; 0: `dit.condition_dim`, which may be wider (see there).
    """

    jepa: str = ""
    latent_dim: int = 0


class Decoder(Drawer, PyTorchModelHubMixin):
    """Draws a video from one latent for each of its tokens; it never sees a pixel of the clip."""

    config: DecoderConfig

    def __init__(self, config: DecoderConfig | None = None) -> None:
        config = config or DecoderConfig()
        super().__init__(config)
        self.condition = LatentCondition(config.latent_dim or config.dit.condition_dim)

    @classmethod
    def load(cls, path: str | Path) -> "Decoder":
        """Read a decoder from the checkpoint of a run (`last.ckpt`, averaged weights) or from a shared folder."""
        return load_model(cls, DecoderConfig, path, KIND, "decoder.")

    def check_source(self, source: LatentSource) -> None:
        """CheckpointError unless these latents are the ones this decoder was trained to draw."""
        encoder, dit = source.jepa.config.encoder, self.config.dit
        theirs = (encoder.embed_dim, encoder.tubelet_size, encoder.patch_size, encoder.in_channels)
        ours = (self.condition.dim, dit.tubelet_size, dit.patch_size, dit.in_channels)
        if theirs != ours:
            raise CheckpointError(
                f"the JEPA's tokens (width, tubelet, patch, channels) are {theirs}, "
                f"and the decoder was trained on {ours}: give the JEPA that this decoder was trained with"
            )
        if self.config.jepa and self.config.jepa != source.fingerprint:
            raise CheckpointError(
                "this decoder was trained on the latents of another JEPA "
                f"({self.config.jepa}, not {source.fingerprint}): give that JEPA, or train a decoder for this one"
            )

    def set_statistics(self, stats: LatentStats) -> None:
        """Normalise latents by these from now on; they are saved with the weights."""
        self.condition.mean.copy_(stats.mean)
        self.condition.std.copy_(stats.std)

    def mean_latents(self, batch_size: int, grid: Grid) -> Tensor:
        """(B, N, D): the dataset's mean latent everywhere, what one would say knowing nothing of the clip."""
        return self.condition.mean.expand(batch_size, grid[0] * grid[1] * grid[2], -1)

    def loss(
        self,
        video: Tensor,
        normalised: Tensor,
        grid: Grid,
        flow: FlowConfig,
        *,
        keep: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> FlowLoss:
        """Flow-matching loss of drawing `video` (normalised, B C T H W) from normalised latents (B, N, D)."""
        return self.drawing_loss(video, normalised, grid, flow, keep, generator)

    def decode(
        self,
        latents: Tensor,
        grid: Grid,
        seeds: int | Sequence[int] = 0,
        steps: int = 8,
        method: str = "euler",
        guidance: float = 1.0,
    ) -> Tensor:
        """Latents (B, N, D) as the JEPA gives them -> video (B, C, T, H, W) in [0, 1]; options of `sample_pixels`."""
        with torch.no_grad():
            condition = self.condition.tokens(Observation(Grid(*grid), latents=latents))
        return self.sample_pixels(condition, grid, seeds, steps, method, guidance)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_shared(self, self.config, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: object) -> "Decoder":
        return load_shared(cls, DecoderConfig, model_id, options)
