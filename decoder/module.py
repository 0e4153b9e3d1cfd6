"""Lightning glue for the decoder: which latents it meets in training, the weight average, and the pictures it logs.

Notable:
- Each batch is split: one part meets target latents with noise of random strength, the other predicted latents of a
  task, so that the decoder knows what it will be fed. All tokens of the clip count in the loss.
- Every draw of a step (task, noise, time) is a function of the samples' own seeds, as the masks are: a resumed run
  repeats what the uninterrupted one would have drawn.
- The JEPA is not part of the module: not saved, not averaged, not optimised.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics.image import PeakSignalNoiseRatio
from torchvision.utils import make_grid

from decoder.compose import hidden_pixels
from decoder.decoder import KIND, Decoder
from decoder.flow import TIMES, FlowConfig
from decoder.latents import LatentSource
from decoder.sampler import METHODS
from jepa.config import ConfigError, choose
from jepa.masks import TASKS
from jepa.optim import adamw
from jepa.schedules import warmup_cosine


@dataclass
class DecoderOptimConfig:
    """AdamW with linear warm-up and cosine, both counted in optimizer steps, and the decay of the weight average."""

    lr: float = 1e-3
    final_lr: float = 1e-5
    warmup_steps: int = 100
    weight_decay: float = 0.01
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    ema_decay: float = 0.999


@dataclass
class LatentMixConfig:
    """What the decoder is fed while it trains.

    p_target            share of a batch drawn from target latents; the rest from predicted ones.
    latent_noise        target latents get Gaussian noise of strength uniform in [0, latent_noise], in units of their
                        own spread.
    tasks               one is drawn for each batch; name a task twice to draw it twice as often.
    condition_dropout   share of samples that lose their latents, for classifier-free guidance; 0 for none.
    """

    p_target: float = 0.5
    latent_noise: float = 0.5
    tasks: list[str] = field(default_factory=lambda: ["forward", "forward", "backward", "animate", "connect", "infill"])
    condition_dropout: float = 0.0


@dataclass
class SamplingConfig:
    """How pictures are drawn in validation: steps of `method` (euler or heun), seed, task, and clips shown in
    TensorBoard."""

    steps: int = 8
    method: str = "euler"
    seed: int = 0
    task: str = "forward"
    show: int = 4


class DecoderModule(pl.LightningModule):
    """Trains a `Decoder` on the latents of a frozen JEPA."""

    def __init__(
        self,
        decoder: Decoder,
        source: LatentSource,
        mix: LatentMixConfig,
        optim: DecoderOptimConfig,
        flow: FlowConfig,
        sampling: SamplingConfig,
    ) -> None:
        super().__init__()
        if not mix.tasks:
            raise ConfigError("mix.tasks is empty: name at least one task")
        for task in mix.tasks:
            choose("mix.tasks", task, TASKS)
        choose("sampling.task", sampling.task, TASKS)
        choose("sampling.method", sampling.method, METHODS)
        choose("flow.time", flow.time, TIMES)
        self.decoder, self.source = decoder, source
        self.mix, self.optim, self.flow, self.sampling = mix, optim, flow, sampling
        rows = ("target", "predicted", "mean")
        self.psnr = nn.ModuleDict({row: PeakSignalNoiseRatio(data_range=1.0) for row in rows})

    def on_fit_start(self) -> None:
        self.source.to(self.device)

    def on_validation_start(self) -> None:
        self.source.to(self.device)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        video = batch["video"]
        draw = torch.Generator().manual_seed(int(batch["seed"][0]))
        latents, targets, task = self.draw_latents(video, draw)
        keep = torch.rand(len(video), generator=draw) >= self.mix.condition_dropout
        noise = torch.Generator(video.device).manual_seed(int(torch.randint(2**62, (), generator=draw)))
        grid = self.source.grid(video)
        result = self.decoder.loss(video, latents, grid, self.flow, keep=keep.to(video.device), generator=noise)
        self.log("train/loss", result.loss, prog_bar=True)
        if targets:
            self.log("train/loss_target", result.per_sample[:targets].mean())
        if targets < len(video):
            self.log(f"train/loss_{task}", result.per_sample[targets:].mean())
        return result.loss

    def draw_latents(self, video: Tensor, draw: torch.Generator) -> tuple[Tensor, int, str]:
        """Normalised latents (B, N, D); how many samples, the first ones, have target latents; the task of the rest."""
        targets = round(self.mix.p_target * len(video))
        task = self.mix.tasks[int(torch.randint(len(self.mix.tasks), (), generator=draw))]
        parts = []
        if targets:
            latents = self.decoder.condition.normalise(self.source.target(video[:targets]))
            strength = self.mix.latent_noise * torch.rand(targets, 1, 1, generator=draw)
            noise = strength * torch.randn(latents.shape, generator=draw)
            parts.append(latents + noise.to(latents.device))
        if targets < len(video):
            rest = video[targets:]
            mask = self.source.task_mask(task, rest)
            parts.append(self.decoder.condition.normalise(self.source.predicted(rest, mask)))
        return torch.cat(parts), targets, task

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """PSNR over the hidden pixels of decode(target), decode(predicted) and decode(mean); the first clips shown."""
        video = batch["video"]
        grid, config = self.source.grid(video), self.decoder.config.dit
        mask = self.source.task_mask(self.sampling.task, video)
        hidden = hidden_pixels(mask, grid, config.tubelet_size, config.patch_size)[0, 0]  # (T, H, W)
        truth = self.decoder.to_unit(video).clamp(0, 1)
        latents = {
            "target": self.source.target(video),
            "predicted": self.source.predicted(video, mask),
            "mean": self.decoder.mean_latents(len(video), grid),
        }
        seeds = [self.sampling.seed + 7919 * i for i in range(len(video))]
        steps, method = self.sampling.steps, self.sampling.method
        drawings = {row: self.decoder.decode(z, grid, seeds, steps, method) for row, z in latents.items()}
        for row, drawing in drawings.items():
            metric = cast(PeakSignalNoiseRatio, self.psnr[row])
            metric.update(drawing[..., hidden], truth[..., hidden])
            self.log(f"val/{row}_psnr", metric, prog_bar=row != "mean", batch_size=len(video))
        if batch_idx == 0:
            self._show([truth, drawings["target"], drawings["predicted"]])

    def _show(self, videos: Sequence[Tensor]) -> None:
        """Log truth, decode(target) and decode(predicted) of the first clips as film strips, one below the other."""
        log_image = getattr(getattr(self.logger, "experiment", None), "add_image", None)
        if log_image is None or not self.trainer.is_global_zero:
            return
        clips = [video[: self.sampling.show].transpose(1, 2).float().cpu() for video in videos]  # each (n, T, C, H, W)
        strips = torch.stack(clips, 1).flatten(0, 2)  # (n * rows * T, C, H, W)
        picture = make_grid(strips, nrow=clips[0].shape[1], padding=1, pad_value=0.2)
        log_image("val/truth_target_predicted", picture, self.global_step)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        config = self.optim
        optimizer = adamw(self.decoder, config.lr, config.weight_decay, config.betas)
        total = int(self.trainer.estimated_stepping_batches)
        lr = lambda step: warmup_cosine(step + 1, total, config.warmup_steps, 0.0, config.lr, config.final_lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr(step) / config.lr)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["kind"] = KIND
        checkpoint["config"] = asdict(self.decoder.config)


class WeightEMA(WeightAveraging):
    """Lightning's weight average with a warm-up: the decay after n updates is min(decay, (1 + n) / (10 + n)).

    With a constant .999 a run of 2,000 steps would end with 14 % of its first weights. Used in validation, saved as the
    `state_dict` of checkpoints, and copied into the module when training ends. Buffers are copied, not averaged.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False, multi_avg_fn=ema_update(decay))


def ema_decay(decay: float, updates: int) -> float:
    """Decay of the average after `updates` updates."""
    return min(decay, (1 + updates) / (10 + updates))


def ema_update(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """average <- d * average + (1 - d) * current, in place, d = ema_decay(decay, updates)."""

    @torch.no_grad()
    def update(average: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        torch._foreach_lerp_(list(average), list(current), 1 - ema_decay(decay, int(updates)))

    return update
