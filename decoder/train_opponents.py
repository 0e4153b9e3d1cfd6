"""`jepa train-pixels` and `jepa train-futures`: what stands beside the decoder in the comparison. A composition root.

train_pixels(PixelTrainConfig(data=DataConfig(train="clips.csv"), out="runs/pixels"))
train_futures(FuturesTrainConfig(jepa="runs/pretrain/best.ckpt", out="runs/futures"))
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytorch_lightning as pl

from data.module import ClipDataModule, DataConfig
from data.transforms import IMAGENET_MEAN, IMAGENET_STD, frame_size
from decoder.dit import VideoDiTConfig
from decoder.futures import Futures, FuturesConfig
from decoder.latents import LatentSource, measure_latents
from decoder.opponents import FuturesModule, PixelModule
from decoder.pixels import PixelModel, PixelModelConfig
from decoder.train import FlowTrainConfig, LatentTrainConfig, clip_config, data_settings, run
from jepa.config import ConfigError
from jepa.grid import token_grid
from jepa.jepa import JEPA
from jepa.resuming import check_run


@dataclass
class PixelTrainConfig(FlowTrainConfig):
    """Everything `jepa train-pixels` reads.

    patch_size, tubelet_size    of a token, in pixels and frames.
    condition_dim               width of the denoiser's condition; 0: a token's pixels and the flag that it is visible.
    """

    out: str = "runs/pixels"
    data: DataConfig = field(default_factory=DataConfig)
    patch_size: int = 8
    tubelet_size: int = 2
    condition_dim: int = 0


@dataclass
class FuturesTrainConfig(LatentTrainConfig):
    """Everything `jepa train-futures` reads."""

    out: str = "runs/futures"


def train_pixels(config: PixelTrainConfig) -> Path:
    """Train and return the folder of the pixel model, `out/pixels`; leaves there what `train_decoder` leaves."""
    config = replace(config, resume=check_run(config.out, config.resume))
    pl.seed_everything(config.seed, workers=True, verbose=False)
    model = build_pixels(config)
    module = PixelModule(model, config.mix, config.optim, config.flow, config.sampling)
    data = ClipDataModule(config.data, progress=config.trainer.progress)
    return run(config, module, data, "pixels", "val/predicted_psnr")


def build_pixels(config: PixelTrainConfig) -> PixelModel:
    """An untrained pixel model; ConfigError where the clips do not divide into its tokens."""
    token_grid((config.data.num_frames, *frame_size(config.data.size)), config.tubelet_size, config.patch_size)
    dit = VideoDiTConfig(**asdict(config.model), patch_size=config.patch_size, tubelet_size=config.tubelet_size)
    needed = dit.patch_dim + 1
    if config.condition_dim and config.condition_dim < needed:
        raise ConfigError(f"condition_dim is {config.condition_dim}, and a token has {needed} values to be told")
    dit.condition_dim = config.condition_dim or needed
    pixels = list(IMAGENET_MEAN), list(IMAGENET_STD)
    return PixelModel(PixelModelConfig(dit, clip_config(config.data), *pixels, config.mix.condition_dropout > 0))


def train_futures(config: FuturesTrainConfig) -> Path:
    """Train and return the folder of the head, `out/futures`; leaves there what `train_decoder` leaves."""
    config = replace(config, resume=check_run(config.out, config.resume))
    if config.mix.condition_dropout:
        raise ConfigError("mix.condition_dropout: futures are always told the prediction; leave it at 0")
    pl.seed_everything(config.seed, workers=True, verbose=False)
    source = LatentSource(JEPA.load(config.jepa))
    settings = data_settings(config.jepa, config.data)
    model = Futures(FuturesConfig(config.model, source.dim, source.fingerprint))
    module = FuturesModule(model, source, config.mix, config.optim, config.flow, config.sampling)
    statistics = lambda videos: model.set_statistics(measure_latents(source, videos, config.latent_clips))
    data = ClipDataModule(settings, progress=config.trainer.progress)
    return run(config, module, data, "futures", "val/skill", source, statistics)
