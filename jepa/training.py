"""What every training run of the project shares: the trainer, its checkpoints, and the time spent waiting."""

import errno
import io
import math
import os
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

from jepa.config import ConfigError, choose, save_config
from jepa.errors import DivergedError
from jepa.files import replacing
from jepa.resuming import check_run, check_settings
from jepa.weights import check_fit, read_checkpoint


@dataclass
class TrainerConfig:
    """Passed to Lightning's Trainer: one CPU, one GPU, many nodes under SLURM, by the same keys.

    max_steps   optimizer steps, over which the schedules stretch: a run that is resumed with more of them goes on as a
                run of that length would, with its learning rate, not as the shorter run ended.
    precision   auto: bf16-mixed on hardware that multiplies bf16 natively, else 32.
    threads     of torch on a CPU; 0 leaves torch's choice.
    activation_checkpointing    activations of the blocks are computed again in the backward pass instead of kept: less
                memory, about a third more time, the same gradients.
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
    max_skipped: int = 10
    keep_every: int = 0
    progress: bool = True


class DataWait(Callback):
    """Seconds the training loop spent between batches, waiting for the next one, and seconds in all."""

    def __init__(self) -> None:
        self.waited = self.total = 0.0
        self._since: float | None = None

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


class FiniteSteps(Callback):
    """Leaves out the update of a step whose gradients are not finite, and counts it; stops at `most` in a row.

    Weights, the optimizer's averages and its clock stay as they were, on every process alike: gradients have been
    exchanged by then. What is saved when it stops is therefore the last good state.
    """

    def __init__(self, most: int) -> None:
        self.most, self.skipped, self.in_a_row = most, 0, 0

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not grads or bool(torch.stack([norm.float() for norm in torch._foreach_norm(grads)]).isfinite().all()):
            self.in_a_row = 0
            return
        optimizer.zero_grad(set_to_none=True)  # a parameter without a gradient is not touched, by decay neither
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        pl_module.log("train/skipped", float(self.skipped))
        if self.in_a_row >= self.most:
            raise DivergedError(
                f"gradients were not finite for {self.in_a_row} steps in a row, up to step {trainer.global_step}: no "
                f"update of these was made, and {trainer.default_root_dir}/last.ckpt is the last good state. Lower "
                "optim.lr, look at the data (`jepa check-data`), or use trainer.precision=32-true"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped, self.in_a_row = state_dict["skipped"], 0  # whoever resumes has changed something, or tries again


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt`: every `every` steps, after the last step, and when training is interrupted or fails.

    After a validation it is written again, with the best score and the health of that step: a resumed run must not
    forget them, and does not validate a step twice.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every
        self._saved: int | None = None  # the step that is on disk; None before training has begun

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps:
            self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._saved is not None:
            self._saved = None
            self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        # Before training has begun, a run that was to be resumed may not be restored yet: leave what it left.
        if self._saved is not None and not isinstance(exception, OSError):
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.global_step != self._saved:
            trainer.save_checkpoint(self.path)
            self._saved = trainer.global_step


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, reads back what is on the disk, then renames.

    Lightning's own goes through the system's temporary folder, which is often another disk: its last move is then a
    copy, and a full disk leaves half of it where a good checkpoint was.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()  # torch reports a full disk as an internal error of its zip writer, a plain file by name
        torch.save(checkpoint, buffer)
        with replacing(path) as partial:
            with open(partial, "wb") as file:
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            with zipfile.ZipFile(partial) as stored:  # a checkpoint is a zip, with a checksum for every tensor
                if broken := stored.testzip():
                    raise OSError(errno.EIO, f"what was written is not what is read back ({broken})", str(path))


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
    if "fsdp" in config.strategy:
        raise ConfigError("trainer.strategy=fsdp cannot move the average of sharded weights: use trainer.strategy=ddp")
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
        strategy=config.strategy,
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
            LastCheckpoint(out / "last.ckpt", every),
            *([FiniteSteps(config.max_skipped)] if config.max_skipped else []),
            *([_kept(out, config.keep_every)] if config.keep_every else []),
            *([TQDMProgressBar(refresh_rate=10)] if config.progress else []),
            *callbacks,
        ],
        plugins=[WholeCheckpointIO()],
        enable_progress_bar=config.progress,
        enable_model_summary=False,
    )


def _kept(out: Path, every: int) -> ModelCheckpoint:
    """Keeps a checkpoint every `every` steps; weights alone, for nothing is resumed from them."""
    return ModelCheckpoint(out, "{step}", every_n_train_steps=every, save_top_k=-1, save_weights_only=True)


def fit(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    data: pl.LightningDataModule,
    resume: bool,
    out: str | Path,
    settings: object,
) -> None:
    """Train; with `resume`, go on from `out/last.ckpt`. Writes `settings` (a config) to `out/config.yaml` first.

    An interrupted run has saved `last.ckpt` and raises KeyboardInterrupt. Raises ConfigError as `check_run` and
    `check_settings`, and CheckpointError where `last.ckpt` cannot be read or is of another architecture; nothing is
    written then.
    """
    check_run(out, resume)
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
