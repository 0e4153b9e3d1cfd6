"""What every model that draws video shares: a `VideoDiT`, and the scale of its pixels.

The decoder (`decoder.decoder`) and its pixel opponent (`decoder.pixels`) differ in what they condition on and in
nothing else; this class is what they have in common.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from decoder.dit import VideoDiT, VideoDiTConfig
from decoder.flow import FlowConfig, FlowLoss, flow_loss
from decoder.sampler import guided, sample, seeded_noise
from jepa.config import ConfigError
from jepa.grid import Grid, patchify, unpatchify


@dataclass
class ClipConfig:
    """The clips a model was trained on; `fps` counts clip frames a second, and None means every `stride`-th frame."""

    num_frames: int = 16
    size: list[int] = field(default_factory=lambda: [64, 64])  # height, width
    stride: int = 1
    fps: float | None = None


@dataclass
class DrawerConfig:
    """Everything a model that draws needs to be built and used.

    clip            what is cut from a video unless told otherwise; the network itself takes any grid.
    pixel_mean/std  how the training videos were normalised, so that pixels can be put on [-1, 1].
    unconditional   trained without its condition too (`condition_dropout`), so that guidance has something to lead
                    away from.
    """

    dit: VideoDiTConfig = field(default_factory=VideoDiTConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    pixel_mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    pixel_std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    unconditional: bool = False


class Drawer(nn.Module):
    """A video diffusion transformer on pixels in [-1, 1], conditioned token by token on whatever it is given."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: DrawerConfig) -> None:
        super().__init__()
        self.config = config
        self.dit = VideoDiT(config.dit)
        for name, values in (("pixel_mean", config.pixel_mean), ("pixel_std", config.pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1, 1), persistent=False)

    def to_unit(self, video: Tensor) -> Tensor:
        """Normalised training video (B, C, T, H, W) -> pixels in [0, 1]."""
        return video * self.pixel_std + self.pixel_mean

    def from_unit(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1] -> normalised as the training videos were."""
        return (pixels - self.pixel_mean) / self.pixel_std

    def drawing_loss(
        self,
        video: Tensor,
        condition: Tensor,
        grid: Grid,
        flow: FlowConfig,
        keep: Tensor | None = None,
        generator: torch.Generator | None = None,
        where: Tensor | None = None,
    ) -> FlowLoss:
        """Flow-matching loss of drawing `video` (normalised, B C T H W) from conditions (B, N, C).

        `keep` (B,) drops the condition of some samples (for guidance); only tokens `where` (B, N) count.
        """
        x1 = patchify(self.to_unit(video) * 2 - 1, self.config.dit.tubelet_size, self.config.dit.patch_size)
        return flow_loss(lambda x, t: self.dit(x, t, grid, condition, keep), x1, flow, generator, where)

    @torch.no_grad()
    def sample_pixels(
        self,
        condition: Tensor,
        grid: Grid,
        seeds: int | Sequence[int],
        steps: int,
        method: str = "euler",
        guidance: float = 1.0,
    ) -> Tensor:
        """Conditions (B, N, C) -> video (B, C, T, H, W) in [0, 1].

        A clip's noise depends on its seed alone: one integer is used for every clip, a sequence gives one for each.
        `guidance` other than 1 needs a model trained with `condition_dropout`, else ConfigError.
        """
        if guidance != 1 and not self.config.unconditional:
            raise ConfigError(
                f"guidance is {guidance:g}, and this decoder was trained with condition_dropout=0: leave it at 1"
            )
        drawn = draw_video(self.dit, grid, condition, seeds, steps, method, guidance)
        return drawn.add(1).div(2).clamp(0, 1)


def draw_video(
    dit: VideoDiT,
    grid: Grid,
    condition: Tensor,
    seeds: int | Sequence[int],
    steps: int,
    method: str = "euler",
    guidance: float = 1.0,
) -> Tensor:
    """Sample pixels around [-1, 1], (B, C, T, H, W), for conditions (B, N, C) of any kind."""
    seeds = [seeds] * len(condition) if isinstance(seeds, int) else list(seeds)
    if len(seeds) != len(condition):
        raise ValueError(f"{len(seeds)} seeds for {len(condition)} clips: give one integer, or one for each clip")
    config = dit.config
    denoise = guided(lambda x, t: dit(x, t, grid, condition), lambda x, t: dit(x, t, grid), guidance)
    noise = seeded_noise((condition.shape[1], config.patch_dim), seeds, condition.device)
    return unpatchify(sample(denoise, noise, steps, method), grid, config.tubelet_size, config.patch_size)
