"""What every training run of the project shares: the trainer, its precision, resuming, and the time spent waiting for data."""

import csv
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from jepa.config import ConfigError


@dataclass
class TrainerConfig:
    """Passed to Lightning's Trainer: one CPU, one GPU, many nodes under SLURM, by the same keys.

    precision   auto: bf16-mixed on hardware that multiplies bf16 natively, else 32.
    threads     of torch on a CPU; 0 leaves torch's choice.
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
    progress: bool = True


class DataWait(Callback):
    """Seconds the training loop spent between batches, waiting for the next one, and seconds in all."""

    def __init__(self) -> None:
        self.waited = self.total = 0.0
        self._since: float | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
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

    @property
    def fraction(self) -> float:
        """Share of the training time spent waiting."""
        return self.waited / self.total if self.total else 0.0


def auto_precision(accelerator: str = "auto") -> str:
    """bf16-mixed where the hardware multiplies bf16 natively, else 32-true."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if accelerator in ("auto", "mps") and torch.backends.mps.is_available():
        return "32-true"
    native = any(check() for check in (torch.cpu._is_amx_tile_supported, torch.cpu._is_avx512_bf16_supported))
    return "bf16-mixed" if native else "32-true"


def build_trainer(config: TrainerConfig, out: str | Path, monitor: str, callbacks: list[Callback] | None = None) -> pl.Trainer:
    """A Trainer that keeps `best.ckpt` (largest `monitor`) and `last.ckpt` in `out`, and logs to TensorBoard and CSV there."""
    out = Path(out)
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.max_steps < 1:
        raise ConfigError(f"trainer.max_steps is {config.max_steps}: give the number of optimizer steps to train for")
    every = min(config.val_every, config.max_steps)
    micro = config.accumulate_grad_batches
    best = ModelCheckpoint(out, "best", monitor, mode="max", enable_version_counter=False)
    last = ModelCheckpoint(
        out, "last", every_n_train_steps=every, save_on_exception=True, enable_version_counter=False
    )
    return pl.Trainer(
        accelerator=config.accelerator,
        devices=int(config.devices) if config.devices.isdigit() else config.devices,
        num_nodes=config.num_nodes,
        strategy=config.strategy,
        precision=auto_precision(config.accelerator) if config.precision == "auto" else config.precision,  # type: ignore[arg-type]
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
        logger=[TensorBoardLogger(out, name="", version="tensorboard"), CSVLogger(out, name="", version="csv")],
        callbacks=[best, last, *([TQDMProgressBar(refresh_rate=10)] if config.progress else []), *(callbacks or [])],
        enable_progress_bar=config.progress,
        enable_model_summary=False,
    )


def fit(trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule, resume: bool, out: str | Path) -> None:
    """Train; with `resume`, go on from `out/last.ckpt`. An interrupted run has saved `last.ckpt` and raises KeyboardInterrupt."""
    last = Path(out) / "last.ckpt"
    if resume and not last.is_file():
        raise ConfigError(f"resume=true, but there is no {last} to go on from")
    if not resume and last.exists():
        raise ConfigError(f"{out} already holds a run: add resume=true to go on with it, or give another out=")
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last if resume else None, weights_only=True)
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def read_history(out: str | Path) -> dict[str, list[tuple[int, float]]]:
    """Logged curves of a run: name -> [(step, value), ...]."""
    curves: dict[str, list[tuple[int, float]]] = {}
    file = Path(out) / "csv" / "metrics.csv"
    if not file.is_file():
        raise ConfigError(f"{file}: no such file; is {out} the folder of a run?")
    with file.open() as rows:
        for row in csv.DictReader(rows):
            for key, value in row.items():
                if key not in ("step", "epoch") and value:
                    number = float(value)
                    if math.isfinite(number):
                        curves.setdefault(key, []).append((int(row["step"]), number))
    return curves
