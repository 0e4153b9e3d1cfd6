"""What every training run of the project shares: the trainer, its checkpoints, and the time spent waiting."""

import math
import os
import shutil
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import ModelParallelStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

from jepa.config import ConfigError, choose, save_config, within
from jepa.recovery import FiniteSteps, LastCheckpoint, StopSignals, WholeCheckpointIO
from jepa.resuming import check_run, check_settings, mark_job
from jepa.scaling import compile_blocks, recompute_activations
from jepa.weights import check_fit, read_checkpoint


@dataclass
class TrainerConfig:
    """Passed to Lightning's Trainer: one CPU, one GPU, many nodes under SLURM, by the same keys.

    max_steps   optimizer steps, over which the schedules stretch: a run that is resumed with more of them goes on as a
                run of that length would, with its learning rate, not as the shorter run ended.
    precision   auto: bf16-mixed on hardware that multiplies bf16 natively, else 32.
    threads     of torch on a CPU; 0 leaves torch's choice.
    strategy    auto, ddp, or fsdp (a JEPA's weights, gradients and averages are cut up among the devices).
    activation_checkpointing    activations of the blocks are computed again in the backward pass instead of kept: less
                memory, about a third more time, the same gradients.
    compile     torch.compile of the blocks, which takes a minute at the start and needs a C++ compiler on a CPU.
    max_skipped steps in a row whose gradients are not finite, and whose update is left out, before a run stops; 0: none
                is left out.
    keep_every  also keep a checkpoint every so many steps, as `step=N.ckpt`, to see afterwards what was learnt when;
                0: none.
    """

    max_steps: int = 10_000
    accelerator: str = "auto"
    devices: str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "auto"
    accumulate_grad_batches: int = 1
    gradient_clip: float = 1.0
    val_every: int = 500
    val_batches: int = 32
    log_every: int = 20
    threads: int = 0
    activation_checkpointing: bool = False
    compile: bool = False
    max_skipped: int = 10
    keep_every: int = 0
    progress: bool = True


class DataWait(Callback):
    """Seconds the training loop spent between batches, waiting for the next one, and seconds in all."""

    def __init__(self) -> None:
        self.waited = self.total = 0.0
        self._since: float | None = None
        self._recent: deque[tuple[float, float]] = deque(maxlen=100)  # both sums after each step

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        now = time.perf_counter()
        if self._since is not None:
            self.waited += now - self._since
            self.total += now - self._since
        self._since = now

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        now = time.perf_counter()
        if self._since is not None:
            self.total += now - self._since
        self._since = now
        self._recent.append((self.waited, self.total))
        waited, total = (last - first for first, last in zip(self._recent[0], self._recent[-1], strict=True))
        if total:
            pl_module.log("train/wait", waited / total)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.perf_counter()  # validation is neither training nor waiting

    def state_dict(self) -> dict[str, Any]:
        return {"waited": self.waited, "total": self.total}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.waited, self.total = state_dict["waited"], state_dict["total"]

    @property
    def fraction(self) -> float:
        """Share of the training time spent waiting."""
        return self.waited / self.total if self.total else 0.0


def skipped_steps(trainer: pl.Trainer) -> int:
    """Optimizer steps whose update was left out, see `FiniteSteps`."""
    found = (callback.skipped for callback in trainer.callbacks if isinstance(callback, FiniteSteps))  # type: ignore[attr-defined]
    return next(found, 0)


def auto_precision(accelerator: str = "auto") -> str:
    """bf16-mixed where the hardware multiplies bf16 natively, else 32-true."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if accelerator in ("auto", "mps") and torch.backends.mps.is_available():
        return "32-true"
    native = any(check() for check in (torch.cpu._is_amx_tile_supported, torch.cpu._is_avx512_bf16_supported))
    return "bf16-mixed" if native else "32-true"


def autocast(device: torch.device) -> torch.autocast:
    """For work outside a Trainer: the precision that `auto_precision` trains with there."""
    half = auto_precision("cpu" if device.type == "cpu" else "auto").startswith("bf16")
    return torch.autocast(device.type, torch.bfloat16, enabled=half)


def pick_device(name: str = "auto") -> torch.device:
    """The device for work outside a Trainer: auto (CUDA, then MPS, then CPU), cuda, mps or cpu."""
    choose("device", name, ("auto", "cuda", "mps", "cpu"))
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in found.items() if there))
    if not found[name]:
        raise ConfigError(f"device is {name!r}, and this machine has none: give device=auto")
    return torch.device(name)


def build_trainer(
    config: TrainerConfig, out: str | Path, monitor: str | None, callbacks: list[Callback] | None = None
) -> pl.Trainer:
    """A Trainer that keeps `best.ckpt` (largest `monitor`; None: none) and `last.ckpt` in `out`, with TensorBoard logs.

    Raises ConfigError for settings that this machine or Lightning does not know.
    """
    for key in ("max_steps", "accumulate_grad_batches", "val_every", "log_every"):
        if getattr(config, key) < 1:
            raise ConfigError(f"trainer.{key} is {getattr(config, key)}: give at least 1")
    within("trainer.threads", config.threads, 0, 1024)
    if config.threads:
        torch.set_num_threads(config.threads)
    try:
        return _build(config, Path(out), monitor, callbacks or [])
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from None


def _build(config: TrainerConfig, out: Path, monitor: str | None, callbacks: list[Callback]) -> pl.Trainer:
    every = min(config.val_every, config.max_steps)
    micro = config.accumulate_grad_batches
    best = ModelCheckpoint(out, "best", monitor, mode="max", enable_version_counter=False)
    return pl.Trainer(
        accelerator=config.accelerator,
        devices=int(config.devices) if config.devices.isdigit() else config.devices,
        num_nodes=config.num_nodes,
        strategy=_sharded() if config.strategy == "fsdp" else config.strategy,
        precision=cast(Any, auto_precision(config.accelerator) if config.precision == "auto" else config.precision),
        default_root_dir=out,
        max_steps=config.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=micro,
        gradient_clip_val=config.gradient_clip or None,
        val_check_interval=every * micro,
        check_val_every_n_epoch=None,
        limit_val_batches=config.val_batches,
        num_sanity_val_steps=0,
        log_every_n_steps=config.log_every,
        use_distributed_sampler=False,  # the stream of clips shards itself, and resumes exactly
        logger=TensorBoardLogger(out, name="", version="tensorboard"),
        callbacks=[
            *([best] if monitor else []),
            *([_kept(out, config.keep_every)] if config.keep_every else []),
            LastCheckpoint(out / "last.ckpt", every),
            StopSignals(),
            *([FiniteSteps(config.max_skipped)] if config.max_skipped else []),
            *([TQDMProgressBar(refresh_rate=10)] if config.progress else []),
            *callbacks,
        ],
        plugins=[WholeCheckpointIO()],
        enable_progress_bar=config.progress,
        enable_model_summary=False,
    )


def _sharded() -> ModelParallelStrategy:
    # One checkpoint file, as every other strategy writes: what is sharded here goes on, or is probed, anywhere.
    return ModelParallelStrategy(save_distributed_checkpoint=False)


def scale(model: torch.nn.Module, config: TrainerConfig) -> None:
    """Make of `model`, in place, what `activation_checkpointing` and `compile` ask for.

    ConfigError where there is nothing to compile with.
    """
    if config.compile and not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++", "cl"))):
        raise ConfigError(
            "trainer.compile=true needs a C++ compiler, and there is none on the path: install one, or false"
        )
    if config.activation_checkpointing:
        recompute_activations(model)
    if config.compile:
        compile_blocks(model)


def _kept(out: Path, every: int) -> ModelCheckpoint:
    """Keeps a checkpoint every `every` steps; weights alone, for nothing is resumed from them.

    A run that was killed after one writes it again: the same file, for its step comes out the same.
    """
    return ModelCheckpoint(out, "{step}", every_n_train_steps=every, save_top_k=-1, save_weights_only=True,
                           enable_version_counter=False)  # fmt: skip


def fit(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    data: pl.LightningDataModule,
    resume: bool,
    out: str | Path,
    settings: object,
) -> None:
    """Train; with `resume`, go on from `out/last.ckpt`. Writes `settings` (a config) to `out/config.yaml` first.

    Asked to stop by a signal, a run saves `last.ckpt` and raises Interrupted. Raises ConfigError as `check_run` and
    `check_settings`, and CheckpointError where `last.ckpt` cannot be read or is of another architecture; nothing is
    written then.
    """
    resume = check_run(out, resume)
    last = Path(out) / "last.ckpt"
    if resume:
        check_settings(settings, Path(out) / "config.yaml")
        check_fit(module, read_checkpoint(last).get("state_dict", {}), last)
    if trainer.is_global_zero:
        for stale in Path(out).glob(".*.ckpt.*"):  # half a checkpoint of a run that was killed while it wrote
            stale.unlink()
        for stale in Path(out).glob("skipped*.csv") if not resume else ():  # what a run that saved nothing has met
            stale.unlink()
        save_config(settings, Path(out) / "config.yaml")
        mark_job(out)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last if resume else None, weights_only=True)
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def read_history(out: str | Path) -> dict[str, list[tuple[int, float]]]:
    """Logged curves of a run: name -> [(step, value), ...], over all its starts; steps done twice count once."""
    folder = Path(out) / "tensorboard"
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; is {out} the folder of a run?")
    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0})  # 0: every point
    events.Reload()
    curves = {}
    for name in events.Tags()[SCALARS]:
        points = {event.step: event.value for event in events.Scalars(name) if math.isfinite(event.value)}
        curves[name] = sorted(points.items())
    return {name: points for name, points in curves.items() if points and name != "epoch"}
