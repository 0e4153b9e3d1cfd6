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

WITH_CONTEXT = ("forward", "backward")  # the tasks that `mix.contexts` is for


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
class TaskMixConfig:
    """What is hidden from a model while it trains.

    tasks               one is drawn for each batch; name a task twice to draw it twice as often.
    contexts            visible tubelets that `forward` and `backward` are drawn with; empty: half of the clip.
    condition_dropout   share of samples that lose their condition, for classifier-free guidance; 0 for none.
    """

    tasks: list[str] = field(default_factory=lambda: ["forward", "forward", "backward", "animate", "connect", "infill"])
    contexts: list[int] = field(default_factory=list)
    condition_dropout: float = 0.0

    def draw(self, draw: torch.Generator) -> tuple[str, int | None]:
        """A task, and how many tubelets it shows (None: its own default)."""
        task = self.tasks[int(torch.randint(len(self.tasks), (), generator=draw))]
        if not self.contexts or task not in WITH_CONTEXT:
            return task, None
        return task, self.contexts[int(torch.randint(len(self.contexts), (), generator=draw))]

    def drawable(self) -> list[tuple[str, int | None]]:
        """Everything that `draw` can give, each once."""
        found: list[tuple[str, int | None]] = []
        for task in self.tasks:
            many = self.contexts and task in WITH_CONTEXT
            found += [(task, context) for context in self.contexts] if many else [(task, None)]
        return list(dict.fromkeys(found))


@dataclass
class LatentMixConfig(TaskMixConfig):
    """What the decoder is fed while it trains.

    p_target            share of a batch drawn from target latents; the rest from predicted ones.
    latent_noise        target latents get Gaussian noise of strength uniform in [0, latent_noise], in units of their
                        own spread.
    """

    p_target: float = 0.5
    latent_noise: float = 0.5

    def targets(self, count: int) -> int:
        """How many samples of a batch of `count`, the first ones, meet target latents."""
        return round(self.p_target * count)


@dataclass
class SamplingConfig:
    """How pictures are drawn in validation: steps of `method` (euler or heun), seed, task, and clips shown in
    TensorBoard."""

    steps: int = 8
    method: str = "euler"
    seed: int = 0
    task: str = "forward"
    show: int = 4


class FlowModule(pl.LightningModule):
    """What the trainings of drawers and of futures share: which task a batch meets, the optimizer, the checkpoint."""

    kind: str  # of the checkpoint
    model: nn.Module  # what is trained; it has a `config`
    mix: TaskMixConfig
    source: LatentSource | None = None  # a frozen JEPA, where latents are read; no part of the module

    def __init__(
        self, mix: TaskMixConfig, optim: DecoderOptimConfig, flow: FlowConfig, sampling: SamplingConfig
    ) -> None:
        super().__init__()
        if not mix.tasks:
            raise ConfigError("mix.tasks is empty: name at least one task")
        for task in mix.tasks:
            choose("mix.tasks", task, TASKS)
        if any(context < 1 for context in mix.contexts):
            raise ConfigError(f"mix.contexts is {list(mix.contexts)}: a context has at least one tubelet")
        choose("sampling.task", sampling.task, TASKS)
        choose("sampling.method", sampling.method, METHODS)
        choose("flow.time", flow.time, TIMES)
        self.mix, self.optim, self.flow, self.sampling = mix, optim, flow, sampling

    def on_fit_start(self) -> None:
        if self.source is not None:
            self.source.to(self.device)

    def on_validation_start(self) -> None:
        if self.source is not None:
            self.source.to(self.device)

    def draw_task(self, draw: torch.Generator) -> tuple[str, int | None]:
        """What the batch meets; see `TaskMixConfig.draw`."""
        return self.mix.draw(draw)

    def draw_keep(self, count: int, draw: torch.Generator) -> Tensor:
        """(count,) bool: the samples that keep their condition."""
        return (torch.rand(count, generator=draw) >= self.mix.condition_dropout).to(self.device)

    def noise_of(self, draw: torch.Generator) -> torch.Generator:
        """A generator on the device, seeded by `draw`."""
        return torch.Generator(self.device).manual_seed(int(torch.randint(2**62, (), generator=draw)))

    def seeds(self, count: int) -> list[int]:
        """Seeds of the clips of a validation batch."""
        return [self.sampling.seed + 7919 * i for i in range(count)]

    def show(self, name: str, videos: Sequence[Tensor]) -> None:
        """Log the first clips of `videos` (B, C, T, H, W) as film strips, one video below the other."""
        log_image = getattr(getattr(self.logger, "experiment", None), "add_image", None)
        if log_image is None or not self.trainer.is_global_zero:
            return
        clips = [video[: self.sampling.show].transpose(1, 2).float().cpu() for video in videos]  # each (n, T, C, H, W)
        strips = torch.stack(clips, 1).flatten(0, 2)  # (n * rows * T, C, H, W)
        log_image(name, make_grid(strips, nrow=clips[0].shape[1], padding=1, pad_value=0.2), self.global_step)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        config = self.optim
        optimizer = adamw(self.model, config.lr, config.weight_decay, config.betas)
        total = int(self.trainer.estimated_stepping_batches)
        lr = lambda step: warmup_cosine(step + 1, total, config.warmup_steps, 0.0, config.lr, config.final_lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr(step) / config.lr)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["kind"] = self.kind
        checkpoint["config"] = asdict(cast(Any, self.model.config))


class DecoderModule(FlowModule):
    """Trains a `Decoder` on the latents of a frozen JEPA."""

    kind = KIND
    mix: LatentMixConfig
    source: LatentSource

    def __init__(
        self,
        decoder: Decoder,
        source: LatentSource,
        mix: LatentMixConfig,
        optim: DecoderOptimConfig,
        flow: FlowConfig,
        sampling: SamplingConfig,
    ) -> None:
        super().__init__(mix, optim, flow, sampling)
        self.decoder, self.source = decoder, source
        rows = ("target", "predicted", "mean")
        self.psnr = nn.ModuleDict({row: PeakSignalNoiseRatio(data_range=1.0) for row in rows})

    @property
    def model(self) -> Decoder:  # type: ignore[override]
        return self.decoder

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        video = batch["video"]
        draw = torch.Generator().manual_seed(int(batch["seed"][0]))
        latents, targets, task = self.draw_latents(video, draw, batch.get("latents"))
        keep, noise = self.draw_keep(len(video), draw), self.noise_of(draw)
        result = self.decoder.loss(video, latents, self.source.grid(video), self.flow, keep=keep, generator=noise)
        self.log("train/loss", result.loss, prog_bar=True)
        if targets:
            self.log("train/loss_target", result.per_sample[:targets].mean())
        if targets < len(video):
            self.log(f"train/loss_{task}", result.per_sample[targets:].mean())
        return result.loss

    def draw_latents(
        self, video: Tensor, draw: torch.Generator, stored: Tensor | None = None
    ) -> tuple[Tensor, int, str]:
        """Normalised latents (B, N, D); how many samples, the first ones, have target latents; the task of the rest.

        `stored` (B, N, D): what the JEPA would say of each sample, read by someone who made the same draw.
        """
        targets = self.mix.targets(len(video))
        task, context = self.draw_task(draw)
        parts = []
        if targets:
            h = self.source.target(video[:targets]) if stored is None else stored[:targets].float()
            latents = self.decoder.condition.normalise(h)
            strength = self.mix.latent_noise * torch.rand(targets, 1, 1, generator=draw)
            noise = strength * torch.randn(latents.shape, generator=draw)
            parts.append(latents + noise.to(latents.device))
        if targets < len(video):
            rest = video[targets:]
            if stored is None:
                z = self.source.predicted(rest, self.source.task_mask(task, rest, context))
            else:
                z = stored[targets:].float()
            parts.append(self.decoder.condition.normalise(z))
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
        seeds, steps, method = self.seeds(len(video)), self.sampling.steps, self.sampling.method
        drawings = {row: self.decoder.decode(z, grid, seeds, steps, method) for row, z in latents.items()}
        for row, drawing in drawings.items():
            metric = cast(PeakSignalNoiseRatio, self.psnr[row])
            metric.update(drawing[..., hidden], truth[..., hidden])
            self.log(f"val/{row}_psnr", metric, prog_bar=row != "mean", batch_size=len(video))
        if batch_idx == 0:
            self.show("val/truth_target_predicted", [truth, drawings["target"], drawings["predicted"]])


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
