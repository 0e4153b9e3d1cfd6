"""Whole clips from decoded frames to what a model takes: one crop and one flip per clip, then normalise.

Notable: every random choice is a pure function of the sample's seed (torchvision draws from torch's global generator,
which is seeded for the call and put back), and flip and normalise work on a whole batch at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from .errors import DataError
from .seeds import mix

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "ClipTransform", "frame_size", "resize_and_crop"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FLIP, CROP = 1, 2  # which choice a seed is mixed for


def frame_size(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of an int (square) or of [height, width]."""
    sides = [size] if isinstance(size, int) else list(size)
    if len(sides) not in (1, 2) or any(side < 1 for side in sides):
        raise DataError(f"a frame size is one number or [height, width], not {size}")
    return sides[0], sides[-1]


def resize_and_crop(frames: torch.Tensor, size: tuple[int, int], shorter_side: float = 1.0) -> torch.Tensor:
    """Frames (T,C,H,W) resized to cover `size` at their own aspect, then cropped in the centre: (T,C,h,w).

    `shorter_side`: what is covered is so many times as large as what is cropped (256 / 224 in V-JEPA's evaluation).
    """
    height, width = frames.shape[-2:]
    if (height, width) == size and shorter_side == 1:
        return frames
    box = int(size[0] * shorter_side), int(size[1] * shorter_side)
    factor = max(box[0] / height, box[1] / width)
    covering = [max(box[0], int(height * factor)), max(box[1], int(width * factor))]
    return functional.center_crop(functional.resize(frames, covering, antialias=True), list(size))


class ClipTransform:
    """uint8 frames (T,H,W,C) of any size to a normalised float32 clip (C,T,h,w).

    Training: random resized crop (`scale` = share of the area, `ratio` = width / height) and a flip of every second
    clip. Otherwise, and with `scale` [1, 1], the frame is resized to cover `size` (see `resize_and_crop` for
    `shorter_side`) and cropped in the centre.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        train: bool = False,
        scale: Sequence[float] = (0.3, 1.0),
        ratio: Sequence[float] = (0.75, 1.35),
        flip: bool = True,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        shorter_side: float = 1.0,
    ) -> None:
        self.size, self.shorter_side = frame_size(size), shorter_side
        self.flip = train and flip
        self.crop: v2.RandomResizedCrop | None = None
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise DataError(f"scale must be two shares of the area, 0 < low <= high <= 1, not {list(scale)}")
        if len(ratio) != 2 or not 0 < ratio[0] <= ratio[1]:
            raise DataError(f"ratio must be two positive numbers (width / height), low first, not {list(ratio)}")
        if train and tuple(scale) != (1.0, 1.0):
            self.crop = v2.RandomResizedCrop(list(self.size), tuple(scale), tuple(ratio), antialias=True)
        self.gain = 1 / (255 * torch.tensor(std)).view(3, 1, 1, 1)
        self.shift = -(torch.tensor(mean) / torch.tensor(std)).view(3, 1, 1, 1)

    def __call__(self, frames: np.ndarray, seed: int = 0) -> torch.Tensor:
        """One clip: uint8 (T,H,W,C) -> float32 (C,T,h,w)."""
        return self.finish(self.place(frames, seed)[None], np.array([seed]))[0]

    def place(self, frames: np.ndarray, seed: int = 0) -> torch.Tensor:
        """Crop and resize one clip, staying in bytes: uint8 (T,H,W,C) -> uint8 (T,h,w,C)."""
        clip = torch.from_numpy(frames)
        if self.crop is None:
            return resize_and_crop(clip.movedim(-1, 1), self.size, self.shorter_side).movedim(1, -1)
        state = torch.get_rng_state()  # fork_rng and manual_seed also visit every accelerator: 100 times slower
        torch.default_generator.manual_seed(int(mix(seed, CROP) >> np.uint64(1)))
        try:
            return self.crop(clip.movedim(-1, 1)).movedim(1, -1)
        finally:
            torch.set_rng_state(state)

    def finish(self, clips: torch.Tensor, seeds: np.ndarray) -> torch.Tensor:
        """Flip and normalise a batch: uint8 (B,T,h,w,C) -> float32 (B,C,T,h,w)."""
        video = clips.movedim(-1, 1).to(torch.float32, memory_format=torch.contiguous_format)
        video.mul_(self.gain).add_(self.shift)
        if self.flip:
            flipped = torch.from_numpy((mix(seeds, FLIP) & np.uint64(1)).astype(bool))
            video[flipped] = video[flipped].flip(-1)
        return video

    def to_bytes(self, video: torch.Tensor) -> torch.Tensor:
        """Undo the normalising of `finish`, exactly: float32 (B,C,T,h,w) -> uint8 (B,T,h,w,C). A flip stays."""
        pixels = (video - self.shift).div_(self.gain).round_().clamp_(0, 255)
        return pixels.to(torch.uint8).movedim(1, -1).contiguous()
