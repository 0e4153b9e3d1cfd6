"""`jepa pretrain`: a config in, a trained JEPA out. A composition root: it knows both data and model."""

import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytorch_lightning as pl
import torch

from data.config import machine_memory
from data.module import ClipDataModule, DataConfig
from data.transforms import frame_size
from jepa.config import ConfigError, JEPAConfig, PredictorConfig
from jepa.files import write_text
from jepa.grid import token_grid
from jepa.health import Watch
from jepa.jepa import JEPA
from jepa.masks import MaskCollator, MaskConfig, sample_mask
from jepa.module import JEPAModule
from jepa.optim import OptimConfig
from jepa.presets import preset
from jepa.resuming import check_run
from jepa.training import DataWait, TrainerConfig, build_trainer, fit, scale, skipped_steps
from jepa.weights import load_strict


@dataclass
class PretrainConfig:
    """Everything `jepa pretrain` reads.

    preset          an official model by name (jepa/presets.py): what the file and the command line do not say is as it
                    was trained, but for the number of devices.
    resume          go on from `out/last.ckpt`, exactly where it stopped and with its settings (those of
                    jepa.resuming.MAY_CHANGE may differ, such as data.workers and trainer.max_steps).
    init_from       start from the weights of another run or folder (a new run, step 0).
    teacher         a frozen target encoder from another run or folder; no moving average (SALT, arXiv 2509.24317).
    stop_sick       end a run whose verdict is diverged or collapsed (jepa/health.py) instead of only saying so.
    masks_per_step  how many of `masks` a step trains on, drawn at random; null: all of them.
    """

    out: str = "runs/pretrain"
    preset: str = ""
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
    stop_sick: bool = True
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    @staticmethod
    def of_preset(name: str) -> "PretrainConfig":
        """What `load_config` starts from where a preset is named."""
        found = preset(name)
        data = DataConfig(num_frames=found.num_frames, stride=found.stride, fps=found.fps)
        data.size, data.batch_size = [found.size, found.size], found.batch_size
        trainer = TrainerConfig(found.steps, gradient_clip=found.clip_gradient, val_every=5_000)
        return PretrainConfig(
            preset=name, data=data, model=found.model, masks=found.masks, optim=found.optim, trainer=trainer
        )


def pretrain(config: PretrainConfig) -> Path:
    """Train and return the path of the best checkpoint.

    Leaves best.ckpt, last.ckpt, config.yaml, summary.json and tensorboard/ in `config.out`.
    """
    started = time.perf_counter()
    out = Path(config.out)
    config = replace(config, resume=check_run(out, config.resume))
    pl.seed_everything(config.seed, workers=True, verbose=False)
    if config.model.one_encoder:
        raise ConfigError("model.one_encoder is true, and a moving average needs two: give false, also with init_from")
    check_mask_tokens(config.model.predictor, config.masks)
    jepa = build_jepa(config)
    tubelet, patch = config.model.encoder.tubelet_size, config.model.encoder.patch_size
    grid = token_grid((config.data.num_frames, *frame_size(config.data.size)), tubelet, patch)
    for mask in config.masks:  # what cannot be drawn stops here, not in a worker
        sample_mask(mask, grid, 2, torch.Generator().manual_seed(config.seed))
    collate = MaskCollator(config.masks, tubelet, patch, config.masks_per_step)
    data = ClipDataModule(config.data, collate, progress=config.trainer.progress)
    module = JEPAModule(jepa, config.optim, config.trainer.max_steps, bool(config.teacher))
    wait, watch = DataWait(), Watch(config.stop_sick, config.model.targets)
    trainer = build_trainer(config.trainer, out, monitor="val/choose", callbacks=[wait, watch])
    scale(module, config.trainer)
    fit(trainer, module, data, config.resume, out, settings=replace(config, resume=False))
    if trainer.is_global_zero:
        clips_per_step = config.data.batch_size * trainer.world_size * trainer.accumulate_grad_batches
        summary = {
            "seconds": time.perf_counter() - started,
            "steps": trainer.global_step,
            "skipped_steps": skipped_steps(trainer),
            "clips_seen": trainer.global_step * clips_per_step,
            "data_wait_fraction": wait.fraction,
            "parameters": sum(p.numel() for p in jepa.parameters() if p.requires_grad),
            "health": module.health,
            "verdict": asdict(watch.verdict) if watch.curves["val/std"] else None,
        }
        write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")
        if watch.verdict.word != "healthy":
            print(f"health: {watch.verdict.word} since step {watch.verdict.since}. {watch.verdict.sentence}")
        elif module.health:
            print(f"health: {module.health['verdict']}. {module.health['sentence']}")
    best = out / "best.ckpt"
    return best if best.is_file() else out / "last.ckpt"


def check_mask_tokens(config: PredictorConfig, masks: list[MaskConfig]) -> None:
    """ConfigError unless there is one mask token for all `masks`, or one for each and tasks use one that fits them.

    Tasks are predicted with one token, which must not be one that never met a future where another did.
    """
    count, index = config.num_mask_tokens, config.mask_index
    if config.token_per == "length":
        count = 1  # the others are never trained
    if count != 1 and count < len(masks):
        raise ConfigError(f"model.predictor.num_mask_tokens is {count}: give 1, or one for each of {len(masks)} masks")
    if not 0 <= index < max(1, min(count, len(masks))):
        raise ConfigError(f"model.predictor.mask_index is {index}: no mask trains that token")
    kinds = [mask.kind for mask in masks]
    if count > 1 and "future" in kinds and kinds[index] != "future":
        raise ConfigError(
            f"tasks are predicted with the mask token of masks[{index}] (model.predictor.mask_index), "
            f"which is a {kinds[index]} mask: point it at a future mask"
        )


def build_jepa(config: PretrainConfig) -> JEPA:
    """The model of `config`, with the weights of `init_from` and the target encoder of `teacher` where given."""
    with torch.device("meta"):  # what is only counted takes no room
        count = sum(p.numel() for p in JEPA(config.model).parameters())
    if 4 * count > machine_memory():
        raise ConfigError(f"model has {count:.3g} weights, more than this machine's memory holds: give a smaller one")
    jepa = JEPA(config.model)
    if config.init_from:
        found = JEPA.load(config.init_from)
        _same_shape(found.config.encoder, config.model.encoder, "init_from", "encoder")
        _same_shape(found.config.predictor, config.model.predictor, "init_from", "predictor")
        load_strict(jepa, found.state_dict(), config.init_from)
    if config.teacher:
        found = JEPA.load(config.teacher)
        _same_shape(found.config.encoder, config.model.encoder, "teacher", "encoder")
        load_strict(jepa.target_encoder, found.target_encoder.state_dict(), config.teacher)
    return jepa


def _same_shape(found: object, wanted: object, key: str, part: str) -> None:
    # Not every setting shows in the shapes of weights: the number of heads and the kind of positions do not.
    if found != wanted:
        raise ConfigError(f"{key}: its {part} is {found}, and model.{part} is {wanted}")
