"""Tiny trainings through the trainer that every run has: random clips, a tiny JEPA, one thread."""

import copy
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from tiny import tiny_config
from torch.utils.data import DataLoader

from data.module import ClipDataModule, DataConfig
from jepa import JEPA, MaskCollator, MaskConfig
from jepa.module import JEPAModule
from jepa.optim import OptimConfig
from jepa.training import TrainerConfig, build_trainer, fit

TUBES = [MaskConfig(kind="tube", ratio=0.6), MaskConfig(kind="future")]
OPTIM = OptimConfig(lr=1e-2, start_lr=1e-3, warmup_steps=2, momentum=0.5, final_momentum=0.9, stretch=1.0)


class Clips(pl.LightningDataModule):
    """Random clips with masks: batch number n is a function of n, from wherever the run stands."""

    def __init__(self, batch: int = 2, seconds: float = 0.0) -> None:
        super().__init__()
        self.batch, self.seconds = batch, seconds
        self.collate = MaskCollator(TUBES, 2, 8)

    def __getitem__(self, index: int) -> dict[str, Any]:
        time.sleep(self.seconds / self.batch)
        draw = torch.Generator().manual_seed(index)
        return {"video": torch.randn(3, 4, 16, 16, generator=draw), "label": index % 2, "seed": index}

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        first = trainer.global_step * trainer.accumulate_grad_batches * self.batch
        return DataLoader(self, self.batch, sampler=range(first, first + 10_000), collate_fn=self.collate)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self, 8, sampler=range(90_000, 90_016), collate_fn=self.collate)


def settings(**changes: Any) -> TrainerConfig:
    plain: dict[str, Any] = {"accelerator": "cpu", "precision": "32-true", "progress": False, "log_every": 1}
    return TrainerConfig(**(plain | {"max_steps": 4, "val_every": 2, "val_batches": 2} | changes))


def built(changes: dict[str, Any] | None = None, norm: str = "batch", **model: Any) -> JEPAModule:
    torch.manual_seed(5)
    config = settings(**(changes or {}))
    return JEPAModule(JEPA(tiny_config(target_norm=norm, **model)), OPTIM, config.max_steps)


def train(
    out: Path,
    data: pl.LightningDataModule,
    module: JEPAModule,
    resume: bool = False,
    callbacks: Any = (),
    **changes: Any,
) -> pl.Trainer:
    trainer = build_trainer(settings(**changes), out, "val/choose", list(callbacks))
    fit(trainer, module, data, resume, out, TrainerConfig())
    return trainer


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


class Recorder(pl.Callback):
    """Both encoders after every micro-batch."""

    def __init__(self) -> None:
        self.student: list[dict[str, torch.Tensor]] = []
        self.teacher: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        self.student.append(copy.deepcopy(module.jepa.context_encoder.state_dict()))
        self.teacher.append(copy.deepcopy(module.jepa.target_encoder.state_dict()))


def worlds_data(worlds: Path, **changes: Any) -> ClipDataModule:
    plain: dict[str, Any] = {"num_frames": 8, "size": [32, 32], "scale": [0.5, 1.0], "batch_size": 4, "workers": 0}
    config = DataConfig(str(worlds / "train.csv"), str(worlds / "val.csv"), **(plain | changes))
    return ClipDataModule(config, MaskCollator(TUBES, 2, 8, per_step=1))
