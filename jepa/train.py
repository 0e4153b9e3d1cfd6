"""`jepa pretrain`: a config in, a trained JEPA out. A composition root: the only file here that knows both data and model."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytorch_lightning as pl

from data.module import ClipDataModule, DataConfig
from jepa.config import ConfigError, JEPAConfig, save_config
from jepa.grid import token_grid
from jepa.jepa import JEPA
from jepa.masks import MaskCollator, MaskConfig
from jepa.module import JEPAModule
from jepa.optim import OptimConfig
from jepa.training import DataWait, TrainerConfig, build_trainer, fit


@dataclass
class PretrainConfig:
    """Everything `jepa pretrain` reads.

    resume          go on from `out/last.ckpt`, exactly where it stopped.
    init_from       start from the weights of another run or folder (a new run, step 0).
    teacher         a frozen target encoder from another run or folder; no moving average (SALT, arXiv 2509.24317).
    masks_per_step  how many of `masks` a step trains on, drawn at random; null: all of them.
    """

    out: str = "runs/pretrain"
    seed: int = 0
    resume: bool = False
    init_from: str = ""
    teacher: str = ""
    data: DataConfig = field(default_factory=DataConfig)
    model: JEPAConfig = field(default_factory=JEPAConfig)
    masks: list[MaskConfig] = field(
        default_factory=lambda: [MaskConfig(), MaskConfig(num_blocks=2, spatial_scale=0.7), MaskConfig(kind="future")]
    )
    masks_per_step: int | None = None
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


def pretrain(config: PretrainConfig) -> Path:
    """Train and return the path of the best checkpoint. Leaves best.ckpt, last.ckpt, config.yaml, summary.json, csv/ and
    tensorboard/ in `config.out`."""
    started = time.perf_counter()
    out = Path(config.out)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    jepa = JEPA(config.model)
    if config.init_from:
        jepa = _same_architecture(JEPA.load(config.init_from), config, "init_from")
    if config.teacher:
        jepa.target_encoder = _same_architecture(JEPA.load(config.teacher), config, "teacher").target_encoder
        jepa.target_encoder.requires_grad_(False)
    tubelet, patch = config.model.encoder.tubelet_size, config.model.encoder.patch_size
    token_grid((config.data.num_frames, *config.data.size), tubelet, patch)  # a wrong size stops here, not in a worker
    collate = MaskCollator(config.masks, tubelet, patch, config.masks_per_step)
    data = ClipDataModule(config.data, collate)
    module = JEPAModule(jepa, config.optim, config.trainer.max_steps, bool(config.teacher))
    wait = DataWait()
    trainer = build_trainer(config.trainer, out, monitor="val/choose", callbacks=[wait])
    out.mkdir(parents=True, exist_ok=True)
    if trainer.is_global_zero:
        save_config(config, out / "config.yaml")
    fit(trainer, module, data, config.resume, out)
    if trainer.is_global_zero:
        summary = {
            "seconds": time.perf_counter() - started,
            "steps": trainer.global_step,
            "clips_seen": trainer.global_step * config.data.batch_size * trainer.world_size * trainer.accumulate_grad_batches,
            "data_wait_fraction": wait.fraction,
            "parameters": sum(p.numel() for p in jepa.parameters() if p.requires_grad),
            "health": module.health,
        }
        (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        if module.health:
            print(f"health: {module.health['verdict']}. {module.health['sentence']}")
    best = out / "best.ckpt"
    return best if best.is_file() else out / "last.ckpt"


def _same_architecture(found: JEPA, config: PretrainConfig, key: str) -> JEPA:
    if found.config.encoder != config.model.encoder:
        raise ConfigError(f"{key}: its encoder is {found.config.encoder}, and model.encoder is {config.model.encoder}")
    found.train()
    return found
