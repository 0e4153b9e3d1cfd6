"""The decoder: latents in, video out. A `VideoDiT`, the statistics of its latents, and the scale of its pixels.

    decoder = Decoder.from_pretrained("runs/decoder/decoder")
    video = decoder.decode(latents, grid, seeds=0)    # (B, C, T, H, W) in [0, 1]

Everything that inference needs is in the checkpoint: latent statistics are buffers, the pixel scale and the clip it was
trained on are in the config, and so is a fingerprint of the JEPA: another JEPA of the same size has other latents, and
the decoder would paint something plausible for them without a word.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from decoder.conditioning import LatentCondition, Observation
from decoder.dit import VideoDiT, VideoDiTConfig
from decoder.flow import FlowConfig, FlowLoss, flow_loss
from decoder.latents import LatentSource, LatentStats
from decoder.sampler import guided, sample, seeded_noise
from jepa.checkpoints import CheckpointError, load_model, load_shared, save_shared
from jepa.config import ConfigError
from jepa.grid import Grid, patchify, unpatchify

KIND = "decoder"  # how the Lightning checkpoints of a decoder say what they are


@dataclass
class ClipConfig:
    """The clips a decoder was trained on; `fps` counts clip frames a second, and None means every `stride`-th frame."""

    num_frames: int = 16
    size: list[int] = field(default_factory=lambda: [64, 64])  # height, width
    stride: int = 1
    fps: float | None = None


@dataclass
class DecoderConfig:
    """Everything a decoder needs to be built and used.

    clip            what `render` cuts from a video unless told otherwise; the network itself takes any grid.
    pixel_mean/std  how the training videos were normalised, so that pixels can be put on [-1, 1].
    unconditional   trained without latents too (`condition_dropout`), so that guidance has something to lead away from.
    jepa            fingerprint of the JEPA whose latents it draws; empty if unknown.
    """

    dit: VideoDiTConfig = field(default_factory=VideoDiTConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    pixel_mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    pixel_std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    unconditional: bool = False
    jepa: str = ""


class Decoder(nn.Module, PyTorchModelHubMixin):
    """Draws a video from one latent for each of its tokens; it never sees a pixel of the clip."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: DecoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DecoderConfig()
        self.dit = VideoDiT(config.dit)
        self.condition = LatentCondition(config.dit.condition_dim)
        for name, values in (("pixel_mean", config.pixel_mean), ("pixel_std", config.pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1, 1), persistent=False)

    @classmethod
    def load(cls, path: str | Path) -> "Decoder":
        """Read a decoder from the checkpoint of a run (`last.ckpt`, averaged weights) or from a shared folder."""
        return load_model(cls, DecoderConfig, path, KIND, "decoder.")

    def check_source(self, source: LatentSource) -> None:
        """CheckpointError unless these latents are the ones this decoder was trained to draw."""
        encoder, dit = source.jepa.config.encoder, self.config.dit
        theirs = (encoder.embed_dim, encoder.tubelet_size, encoder.patch_size, encoder.in_channels)
        ours = (dit.condition_dim, dit.tubelet_size, dit.patch_size, dit.in_channels)
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

    def to_unit(self, video: Tensor) -> Tensor:
        """Normalised training video (B, C, T, H, W) -> pixels in [0, 1]."""
        return video * self.pixel_std + self.pixel_mean

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
        """Flow-matching loss of drawing `video` (normalised, B C T H W) from normalised latents (B, N, D).

        `keep` (B,) drops the latents of some samples (for guidance).
        """
        x1 = patchify(self.to_unit(video) * 2 - 1, self.config.dit.tubelet_size, self.config.dit.patch_size)
        return flow_loss(lambda x, t: self.dit(x, t, grid, normalised, keep), x1, flow, generator)

    @torch.no_grad()
    def decode(
        self,
        latents: Tensor,
        grid: Grid,
        seeds: int | Sequence[int] = 0,
        steps: int = 8,
        method: str = "euler",
        guidance: float = 1.0,
    ) -> Tensor:
        """Latents (B, N, D) as the JEPA gives them -> video (B, C, T, H, W) in [0, 1].

        A clip's noise depends on its seed alone: one integer is used for every clip, a sequence gives one for each.
        `guidance` other than 1 needs a decoder trained with `condition_dropout`, else ConfigError.
        """
        if guidance != 1 and not self.config.unconditional:
            raise ConfigError(
                f"guidance is {guidance:g}, and this decoder was trained with condition_dropout=0: leave it at 1"
            )
        condition = self.condition.tokens(Observation(Grid(*grid), latents=latents))
        return draw_video(self.dit, grid, condition, seeds, steps, method, guidance).add(1).div(2).clamp(0, 1)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_shared(self, self.config, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: object) -> "Decoder":
        return load_shared(cls, DecoderConfig, model_id, options)


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
