"""The pixel opponent: the same denoiser, told the visible pixels instead of predicted latents. No JEPA, no latent.

model = PixelModel.from_pretrained("runs/pixels/pixels")
video = model.draw(clip, mask, seeds=0)    # (B, C, T, H, W) in [0, 1]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor

from decoder.conditioning import Observation, PixelCondition
from decoder.drawer import Drawer, DrawerConfig
from decoder.flow import FlowConfig, FlowLoss
from jepa.grid import Grid, token_grid
from jepa.masks import Mask
from jepa.weights import load_model, load_shared, save_shared

PIXELS = "pixels"  # how the Lightning checkpoints of a pixel model say what they are


@dataclass
class PixelModelConfig(DrawerConfig):
    """A drawer of pixels from pixels; `tokens` names what its tokens are, so that files tell models apart."""

    tokens: str = PIXELS


class PixelModel(Drawer, PyTorchModelHubMixin):
    """Generates the hidden pixels of a clip from the visible ones."""

    config: PixelModelConfig

    def __init__(self, config: PixelModelConfig | None = None) -> None:
        config = config or PixelModelConfig()
        super().__init__(config)
        dit = config.dit
        self.condition = PixelCondition(dit.in_channels, dit.tubelet_size, dit.patch_size)

    @classmethod
    def load(cls, path: str | Path) -> "PixelModel":
        """Read a model from the checkpoint of a run (`last.ckpt`, averaged weights) or from a shared folder."""
        return load_model(cls, PixelModelConfig, path, PIXELS, "model.")

    def grid(self, video: Tensor) -> Grid:
        """Token grid of a video (..., T, H, W); ValueError where a size does not divide."""
        return token_grid(video.shape, self.config.dit.tubelet_size, self.config.dit.patch_size)

    def visible(self, video: Tensor, mask: Mask) -> Tensor:
        """The condition (B, N, P + 1) of a normalised video: visible pixels in [-1, 1], zeros where hidden, a flag."""
        return self.condition.tokens(Observation(self.grid(video), video=self.to_unit(video) * 2 - 1, mask=mask))

    def loss(
        self,
        video: Tensor,
        mask: Mask,
        flow: FlowConfig,
        *,
        keep: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> FlowLoss:
        """Flow-matching loss over the hidden tokens of `video` (normalised, B C T H W)."""
        grid = self.grid(video)
        hidden = torch.zeros(len(video), grid.num_tokens, dtype=torch.bool, device=video.device)
        hidden = hidden.scatter(1, mask.target_ids, True)
        return self.drawing_loss(video, self.visible(video, mask), grid, flow, keep, generator, hidden)

    def draw(
        self,
        video: Tensor,
        mask: Mask,
        seeds: int | Sequence[int] = 0,
        steps: int = 8,
        method: str = "euler",
        guidance: float = 1.0,
    ) -> Tensor:
        """The whole clip (B, C, T, H, W) in [0, 1], drawn from the pixels at `mask.context_ids` alone; options of
        `sample_pixels`."""
        with torch.no_grad():
            condition = self.visible(video, mask)
        return self.sample_pixels(condition, self.grid(video), seeds, steps, method, guidance)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_shared(self, self.config, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: object) -> "PixelModel":
        return load_shared(cls, PixelModelConfig, model_id, options)
