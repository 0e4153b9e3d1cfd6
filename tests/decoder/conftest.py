"""A tiny JEPA (untrained: what these tests claim holds for any weights), a decoder that fits it, and moving squares."""

import numpy as np
import pytest
import torch
from torch import Tensor

from decoder import ClipConfig, Decoder, DecoderConfig, LatentSource, VideoDiTConfig
from jepa import JEPA, EncoderConfig, JEPAConfig, PredictorConfig

DIT = VideoDiTConfig(width=48, depth=2, num_heads=3, patch_size=8, tubelet_size=2, condition_dim=24)
MEAN, STD = (torch.tensor(v).view(3, 1, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def squares(count: int, frames: int = 8, size: int = 32) -> np.ndarray:
    """(count, frames, size, size, 3) uint8: one bright square that moves over a grey ground."""
    video = np.full((count, frames, size, size, 3), 90, np.uint8)
    for n in range(count):
        for t in range(frames):
            x, y = (3 + 5 * n + 2 * t) % (size - 9), (7 * n) % (size - 9)
            video[n, t, y : y + 9, x : x + 9] = (220, 60 + 20 * (n % 5), 40)
    return video


@pytest.fixture
def video() -> Tensor:
    """(3, 3, 8, 32, 32) normalised as the data module does."""
    return (torch.from_numpy(squares(3)).permute(0, 4, 1, 2, 3) / 255 - MEAN) / STD


@pytest.fixture
def jepa() -> JEPA:
    torch.manual_seed(1)
    encoder = EncoderConfig(embed_dim=24, depth=2, num_heads=3, patch_size=8, tubelet_size=2, position="rope+sincos")
    return JEPA(JEPAConfig(encoder=encoder, predictor=PredictorConfig(embed_dim=24, depth=1, num_heads=3)))


@pytest.fixture
def source(jepa: JEPA) -> LatentSource:
    return LatentSource(jepa)


@pytest.fixture
def decoder(source: LatentSource) -> Decoder:
    """Initialised at random throughout, zero-initialised layers too, so that everything has an effect."""
    torch.manual_seed(2)
    clip = ClipConfig(num_frames=8, size=[32, 32])
    decoder = Decoder(DecoderConfig(dit=DIT, clip=clip, jepa=source.fingerprint))
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return decoder.eval()
