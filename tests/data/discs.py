"""Small videos made on the spot: a disc of one colour that moves over a gradient, with the frame number in a corner."""

import numpy as np
import torch

from data.transforms import IMAGENET_MEAN, IMAGENET_STD


def moving_disc(seed: int, frames: int = 16, height: int = 64, width: int = 64) -> np.ndarray:
    """(T,H,W,3) uint8. The frame number can be read off: the top left corner is a grey block of level 8 * frame."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    background = rng.uniform(20, 150, 3) + rng.uniform(-60, 60, 3) * (x / width)[..., None]
    colour, speed, radius = rng.uniform(0, 255, 3), rng.uniform(-2, 2, 2), height / 5
    pictures = []
    for t in range(frames):
        disc = np.hypot(x - width / 2 - speed[0] * t, y - height / 2 - speed[1] * t) < radius
        picture = np.where(disc[..., None], colour, background).clip(0, 255)
        picture[: height // 4, : width // 4] = 8 * (t % 32)
        pictures.append(picture)
    return np.stack(pictures).astype(np.uint8)


def frame_numbers(frames: np.ndarray) -> list[int]:
    """The frame numbers that `moving_disc` wrote into the corners of (T,H,W,3)."""
    height, width = frames.shape[1:3]
    corner = frames[:, 2 : height // 4 - 2, 2 : width // 4 - 2].reshape(len(frames), -1)
    return [round(float(level) / 8) for level in corner.mean(1)]


def pixels(video: torch.Tensor) -> torch.Tensor:
    """Pixels in [0, 1] of a normalised clip (..., C, T, H, W)."""
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (video * std + mean).clamp(0, 1)
