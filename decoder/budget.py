"""What a training will cost, counted on untrained models before it begins. A composition root (it builds them).

A training step is counted on a few clips and scaled to all of them: operations are the same for every clip of a size.
"""

from itertools import combinations

import torch
from torch import Tensor

from data.transforms import frame_size
from decoder.cost import operations, step_operations
from decoder.flow import FlowConfig
from decoder.futures import Futures, FuturesConfig
from decoder.latents import LatentSource
from decoder.train import DecoderTrainConfig, LatentTrainConfig, build_decoder
from decoder.train_opponents import PixelTrainConfig, build_pixels
from jepa.grid import Grid
from jepa.jepa import JEPA
from jepa.masks import Mask, sample_mask, task_mask
from jepa.train import PretrainConfig

CLIPS = 2  # that a step is counted on
DRAWS = 64  # of masks


def pretrain_operations(config: PretrainConfig) -> float:
    """Floating-point operations of a whole pretraining, target encoder included.

    How much a mask hides is drawn at random, for a whole batch: the mean over `DRAWS` batches.
    """
    jepa, video = JEPA(config.model), _clips(config)
    grid, size = jepa.grid(video), config.data.batch_size
    counted: dict[object, int] = {}

    def count(masks: list[Mask]) -> int:
        shapes = tuple(tuple(ids.shape[1] for ids in mask) for mask in masks)
        if shapes not in counted:  # operations depend on nothing else
            counted[shapes] = step_operations(lambda: jepa(video, masks).total)
        return counted[shapes]

    steps = []
    for draw in range(DRAWS):
        generator = torch.Generator().manual_seed(draw)
        masks = [Mask(*(ids[:CLIPS] for ids in sample_mask(mask, grid, size, generator))) for mask in config.masks]
        each = [count(list(chosen)) for chosen in combinations(masks, config.masks_per_step or len(masks))]
        steps.append(sum(each) / len(each))
    return sum(steps) / DRAWS / CLIPS * size * config.trainer.max_steps


def decoder_operations(config: DecoderTrainConfig, pretrained: PretrainConfig) -> float:
    """Operations of the denoiser in a whole decoder training; those of the frozen JEPA are `latent_operations`."""
    source, video, grid = _source(pretrained)
    decoder = build_decoder(config.model, source, pretrained.data, False, config.condition_dim)
    latents = torch.zeros(CLIPS, grid.num_tokens, source.dim)
    step = step_operations(lambda: decoder.loss(video, latents, grid, FlowConfig()).loss)
    return step / CLIPS * _batch(config, pretrained) * config.trainer.max_steps


def pixels_operations(config: PixelTrainConfig) -> float:
    """Operations of the denoiser in a whole training of the pixel model, counted on that model."""
    model, size = build_pixels(config), frame_size(config.data.size)
    video = torch.randn(CLIPS, model.config.dit.in_channels, config.data.num_frames, *size)
    mask = task_mask("forward", model.grid(video), CLIPS)
    step = step_operations(lambda: model.loss(video, mask, FlowConfig()).loss)
    return step / CLIPS * config.data.batch_size * config.trainer.max_steps


def futures_operations(config: LatentTrainConfig, pretrained: PretrainConfig) -> float:
    """Operations of a whole training of the head that samples latents; those of the frozen JEPA are not in them."""
    source, video, grid = _source(pretrained)
    head = Futures(FuturesConfig(config.model, source.dim, source.fingerprint))
    latents, mask = torch.zeros(CLIPS, grid.num_tokens, source.dim), source.task_mask("forward", video)
    noise = torch.Generator().manual_seed(0)
    step = step_operations(lambda: head.loss(latents, latents, mask, grid, FlowConfig(), noise).loss)
    return step / CLIPS * _batch(config, pretrained) * config.trainer.max_steps


def latent_operations(config: DecoderTrainConfig, pretrained: PretrainConfig) -> float:
    """Operations of reading latents from the frozen JEPA in a whole decoder training."""
    source, video, _ = _source(pretrained)
    mask = source.task_mask("forward", video)
    share = config.mix.p_target
    target, predicted = operations(lambda: source.target(video)), operations(lambda: source.predicted(video, mask))
    step = share * target + (1 - share) * predicted
    return step / CLIPS * _batch(config, pretrained) * config.trainer.max_steps


def _source(pretrained: PretrainConfig) -> tuple[LatentSource, Tensor, Grid]:
    source, video = LatentSource(JEPA(pretrained.model)), _clips(pretrained)
    return source, video, source.grid(video)


def _clips(config: PretrainConfig) -> Tensor:
    return torch.randn(CLIPS, config.model.encoder.in_channels, config.data.num_frames, *frame_size(config.data.size))


def _batch(config: LatentTrainConfig, pretrained: PretrainConfig) -> int:
    return int(config.data.get("batch_size", pretrained.data.batch_size))
