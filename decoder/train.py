"""`jepa train-decoder`: a trained JEPA in, a decoder of its latents out. A composition root.

    train_decoder(DecoderTrainConfig(jepa="runs/pretrain/best.ckpt", out="runs/decoder"))

The decoder learns from the clips the JEPA learned from: what `data` does not say is as in the JEPA's own run.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data.module import ClipDataModule, ClipStream, DataConfig
from data.tars import file_state
from data.transforms import IMAGENET_MEAN, IMAGENET_STD, ClipTransform, frame_size
from decoder.decoder import ClipConfig, Decoder, DecoderConfig
from decoder.dit import DenoiserSize, VideoDiTConfig
from decoder.flow import FlowConfig
from decoder.latents import LatentSource, measure_latents
from decoder.module import (
    DecoderModule,
    DecoderOptimConfig,
    FlowModule,
    LatentMixConfig,
    SamplingConfig,
    TaskMixConfig,
    WeightEMA,
)
from decoder.shards import TARGET, VIDEO, ShardIndex, Shards, task_name
from jepa.config import ConfigError, load_config, stored_settings
from jepa.errors import DivergedError
from jepa.files import write_text
from jepa.grid import token_grid
from jepa.jepa import JEPA
from jepa.resuming import check_run
from jepa.training import DataWait, TrainerConfig, build_trainer, fit, scale, skipped_steps
from jepa.weights import shipped


@dataclass
class FlowTrainConfig:
    """What the trainings of the decoder, its pixel opponent and the futures have in common.

    resume          go on from `out/last.ckpt`, with the settings of that run (see `jepa.resuming.MAY_CHANGE`).
    """

    out: str = "runs/decoder"
    seed: int = 0
    resume: bool = False
    model: DenoiserSize = field(default_factory=DenoiserSize)
    flow: FlowConfig = field(default_factory=FlowConfig)
    mix: TaskMixConfig = field(default_factory=TaskMixConfig)
    optim: DecoderOptimConfig = field(default_factory=DecoderOptimConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


@dataclass
class LatentTrainConfig(FlowTrainConfig):
    """The same for what is trained on the latents of a JEPA.

    jepa            best.ckpt of a run, or the folder of a shared model.
    data            any keys of a run's `data`; the others are taken from the config.yaml beside the JEPA's checkpoint.
    latent_clips    training clips over which latents are normalised.
    """

    jepa: str = "???"
    data: dict[str, Any] = field(default_factory=dict)
    latent_clips: int = 2048


@dataclass
class DecoderTrainConfig(LatentTrainConfig):
    """Everything `jepa train-decoder` reads.

    condition_dim   width of the denoiser's condition; 0: that of a latent. Wider makes room for an equal opponent.
    shards          a folder: encode the first `shard_clips` clips of the training stream once, keep pixels and latents
                    there, and train on these clips again and again. For a JEPA that costs more than a step of the
                    decoder. Empty: encode at every step, clips that are always new.
    """

    mix: LatentMixConfig = field(default_factory=LatentMixConfig)
    condition_dim: int = 0
    shards: str = ""
    shard_clips: int = 4096


@dataclass
class _Run:
    """The part of a JEPA run's config that matters here."""

    data: DataConfig = field(default_factory=DataConfig)


def train_decoder(config: DecoderTrainConfig) -> Path:
    """Train and return the folder of the decoder (config.json, model.safetensors; averaged weights), `out/decoder`.

    Also leaves last.ckpt, best.ckpt, config.yaml, summary.json and tensorboard/ in `config.out`.
    """
    config = replace(config, resume=check_run(config.out, config.resume))
    pl.seed_everything(config.seed, workers=True, verbose=False)
    source = LatentSource(JEPA.load(config.jepa))
    settings = data_settings(config.jepa, config.data)
    unconditional = config.mix.condition_dropout > 0
    decoder = build_decoder(config.model, source, settings, unconditional, config.condition_dim)
    module = DecoderModule(decoder, source, config.mix, config.optim, config.flow, config.sampling)
    data = ClipDataModule(settings, progress=config.trainer.progress)
    measured = lambda videos: measure_latents(source, videos, config.latent_clips)
    if config.shards:
        data = stored = ShardData(settings, config, source)
        measured = lambda _: stored.shards.statistics(config.latent_clips)
    statistics = lambda videos: decoder.set_statistics(measured(videos))
    return run(config, module, data, "decoder", "val/predicted_psnr", source, statistics)


class Falling(Callback):
    """Ends a training whose score falls FALL below its best, where that of drawings is in dB: it has diverged.

    What a diverged denoiser draws says nothing of its kind, and would pass for a result.
    """

    FALL = 3.0  # dB: in healthy trainings scores hardly fall, in one that diverged they fell by 5, and then by 13
    LASTS = 30  # steps: the first few of a training may fall anywhere

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.best: tuple[float, int] = (-math.inf, 0)  # score, step
        self.since: int | None = None  # the first of the validations in a row that are far below it

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        score, step = trainer.callback_metrics.get(self.monitor), trainer.global_step
        if score is None or trainer.sanity_checking:
            return
        if float(score) > self.best[0] - self.FALL:
            self.best, self.since = max(self.best, (float(score), step)), None
            return
        self.since = step if self.since is None else self.since
        if step - self.since >= self.LASTS:
            raise DivergedError(
                f"{self.monitor} is {float(score):.1f} after step {step}, and was {self.best[0]:.1f} after step "
                f"{self.best[1]}: training has diverged. {trainer.default_root_dir}/best.ckpt is from before that; "
                "start again with a lower optim.lr"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "since": self.since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        score, step = state_dict["best"]
        self.best, self.since = (score, step), state_dict["since"]


def run(
    config: FlowTrainConfig,
    module: FlowModule,
    data: ClipDataModule,
    name: str,
    monitor: str,
    source: LatentSource | None = None,
    prepare: Callable[[Iterable[Tensor]], None] | None = None,
) -> Path:
    """Train `module` as a config with out, resume, optim and trainer says; the shared folder is `out/name`.

    `prepare` meets the training videos (batches on the device) before a new run begins, to take statistics.
    """
    started, out = time.perf_counter(), Path(config.out)
    if config.trainer.strategy == "fsdp":
        raise ConfigError("trainer.strategy=fsdp is for pretraining; a decoder keeps its average whole: use ddp")
    wait, average = DataWait(), WeightEMA(config.optim.ema_decay)
    trainer = build_trainer(config.trainer, out, monitor=monitor, callbacks=[wait, average, Falling(monitor)])
    device = trainer.strategy.root_device
    if source is not None:
        source.to(device)
    if isinstance(data, ShardData):
        data.fill(trainer)
    if not config.resume and prepare is not None:
        prepare(batch["video"].to(device) for batch in data.train_dataloader())
    used = asdict(data.config) if isinstance(config, LatentTrainConfig) else data.config
    scale(module, config.trainer)
    fit(trainer, module, data, config.resume, out, settings=replace(config, resume=False, data=used))  # type: ignore[call-arg]
    average.on_train_end(trainer, module)  # again, because resuming a run that was complete skips it
    if trainer.is_global_zero:
        module.model.save_pretrained(out / name)  # type: ignore[operator]
        scores = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
        summary = {
            "seconds": time.perf_counter() - started,
            "steps": trainer.global_step,
            "skipped_steps": skipped_steps(trainer),
            "data_wait_fraction": wait.fraction,
            "parameters": sum(p.numel() for p in module.model.parameters()),
            **scores,
        }
        write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    return out / name


class ShardClips(Dataset[dict[str, Any]]):
    """The clips of shards, asked for by (clip, seed) as those of a `ClipDataset` are.

    A sample also has "latents" (N, D) float16: those that its place in the batch, and the batch's draw, call for.
    """

    def __init__(self, shards: Shards, mix: LatentMixConfig, transform: ClipTransform) -> None:
        self.shards, self.mix, self.transform = shards, mix, transform

    def __len__(self) -> int:
        return self.shards.index.clips

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        seeds = [seed for _, seed in keys]
        # As in `DecoderModule.training_step`, which draws from the seed of the batch's first sample.
        task, targets = self.mix.draw(torch.Generator().manual_seed(seeds[0])), self.mix.targets(len(keys))
        pixels = torch.stack([self.shards.read(clip, VIDEO) for clip, _ in keys])
        videos = self.transform.finish(pixels, np.array(seeds))
        names = [TARGET if place < targets else task_name(*task) for place in range(len(keys))]
        latents = [self.shards.read(clip, name) for (clip, _), name in zip(keys, names, strict=True)]
        return [
            {"video": video, "latents": z, "index": clip, "seed": seed}
            for video, z, (clip, seed) in zip(videos, latents, keys, strict=True)
        ]


def _digest(paths: list[str]) -> str:
    """16 hexadecimal digits of the names, sizes and dates of files: others, or the same ones changed, have others."""
    return hashlib.sha256(json.dumps([file_state(path) for path in paths]).encode()).hexdigest()[:16]


class ShardData(ClipDataModule):
    """Trains on shards, which `fill` computes; validates on videos, as without shards."""

    def __init__(self, settings: DataConfig, config: DecoderTrainConfig, source: LatentSource) -> None:
        super().__init__(settings)
        self.setup()
        assert self.train_set is not None
        encoder, shape = source.jepa.config.encoder, (settings.num_frames, *frame_size(settings.size))
        all_targets = config.mix.targets(settings.batch_size) == settings.batch_size
        index = ShardIndex(
            jepa=source.fingerprint,
            predictor=source.predictor_fingerprint,
            data=asdict(settings),
            videos=_digest(self.train_set.videos.paths),
            tasks=[] if all_targets else [task_name(*drawn) for drawn in config.mix.drawable()],
            clips=config.shard_clips,
            video=[*shape, encoder.in_channels],
            grid=list(token_grid(shape, encoder.tubelet_size, encoder.patch_size)),
            dim=source.dim,
        )
        self.source, self.shards, self.progress = source, Shards(config.shards, index), config.trainer.progress
        self.clips = ShardClips(self.shards, config.mix, ClipTransform(settings.size))

    def fill(self, trainer: pl.Trainer) -> None:
        """Compute what is missing on the trainer's device, in its precision."""
        size, device = self.config.batch_size, trainer.strategy.root_device

        def clips(ranges: list[range]) -> Iterator[tuple[Tensor, Tensor]]:
            parts = [rows[first : first + size] for rows in ranges for first in range(0, len(rows), size)]
            for batch in self.clips_at(parts):
                yield self.clips.transform.to_bytes(batch["video"]), batch["video"].to(device)

        share = trainer.global_rank / trainer.world_size
        with trainer.precision_plugin.forward_context():
            self.shards.fill(self.source, clips, share, self.progress and trainer.is_global_zero)

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Endless: batches as of the clips, with what `ShardClips` adds; a function of seed and step, as they are."""
        size, seed = self.config.batch_size, self.config.seed
        return self._loader(self.clips, ClipStream(len(self.clips), size, seed, *self._rank(), start=self._first_batch))


def data_settings(jepa: str, chosen: dict[str, Any]) -> DataConfig:
    """The data settings of the run that a JEPA came from, with `chosen` keys replaced. ConfigError for unknown keys."""
    words = dict(chosen)
    for folder in (shipped(jepa), shipped(jepa).parent):
        file = folder / "config.yaml"
        if file.is_file():
            inherited = stored_settings(file).get("data", {})
            if not isinstance(inherited, dict):
                raise ConfigError(f"data in {file} must be a table of settings, not {inherited!r}")
            if chosen.get("train") or chosen.get("mixture"):  # other clips altogether: the old ones must not mix in
                inherited = {k: v for k, v in inherited.items() if k not in ("train", "val", "mixture", "root")}
            words = {**inherited, **chosen}
            break
    return load_config(_Run, None, [f"data.{key}={json.dumps(value)}" for key, value in words.items()]).data


def build_decoder(
    size: DenoiserSize, source: LatentSource, data: DataConfig, unconditional: bool = False, condition_dim: int = 0
) -> Decoder:
    """An untrained decoder of that size on the JEPA's tokens; ConfigError where the clips do not divide into them."""
    if condition_dim and condition_dim < source.dim:
        raise ConfigError(f"condition_dim is {condition_dim}, and a latent of this JEPA has {source.dim} values")
    encoder, size_of_frame = source.jepa.config.encoder, frame_size(data.size)
    token_grid((data.num_frames, *size_of_frame), encoder.tubelet_size, encoder.patch_size)
    dit = VideoDiTConfig(
        **asdict(size),
        patch_size=encoder.patch_size,
        tubelet_size=encoder.tubelet_size,
        in_channels=encoder.in_channels,
        condition_dim=condition_dim or source.dim,
    )
    drawn = {"clip": clip_config(data), "pixel_mean": list(IMAGENET_MEAN), "pixel_std": list(IMAGENET_STD)}
    return Decoder(
        DecoderConfig(dit, **drawn, unconditional=unconditional, jepa=source.fingerprint, latent_dim=source.dim)  # type: ignore[arg-type]
    )


def clip_config(data: DataConfig) -> ClipConfig:
    """What a model that draws remembers of the clips it was trained on."""
    return ClipConfig(data.num_frames, list(frame_size(data.size)), data.stride or 1, data.fps)
