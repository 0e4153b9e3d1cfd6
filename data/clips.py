"""Which frames make a clip: pure functions of lengths, rates and a position between 0 and 1."""

from __future__ import annotations

import math

import numpy as np

from .errors import DataError
from .seeds import unit

__all__ = ["SHORT_POLICIES", "clip_indices", "clip_place", "clip_span", "clip_step", "frame_indices"]

SHORT_POLICIES = ("error", "loop", "pad", "skip")
POSITIONS = ("random", "centre", "uniform")


def clip_step(stride: int | None, fps: float | None, video_fps: float) -> float:
    """Video frames from one clip frame to the next, given either `stride` or `fps` (clip frames a second)."""
    if (stride is None) == (fps is None):
        raise DataError(f"give either stride or fps, not both and not neither (stride={stride}, fps={fps})")
    if stride is not None:
        if stride < 1:
            raise DataError(f"stride must be at least 1, not {stride}")
        return float(stride)
    assert fps is not None
    if fps <= 0:
        raise DataError(f"fps must be positive, not {fps}")
    if not video_fps > 0 or math.isinf(video_fps):
        raise DataError("the video does not say its frame rate; sample it by stride instead of fps")
    return video_fps / fps


def clip_span(num_frames: int, step: float) -> int:
    """Video frames from the first to the last frame of a clip, both counted."""
    return math.floor((num_frames - 1) * step) + 1


def frame_indices(length: int, num_frames: int, step: float, at: float, short: str = "error") -> np.ndarray:
    """Frames of one clip, (num_frames,) int64, never decreasing except where a short video loops.

    `at` in [0, 1] is where the clip lies: 0 at the beginning of the video, 0.5 in the middle, 1 at the end. A video
    shorter than the clip is a DataError, starts again ("loop"), repeats its last frame ("pad"), or gives an empty
    array ("skip").
    """
    if short not in SHORT_POLICIES:
        raise DataError(f"unknown policy {short!r} for short videos; choose one of {', '.join(SHORT_POLICIES)}")
    if length < 1:
        raise DataError("the video has no frames")
    offsets = np.floor(np.arange(num_frames) * step).astype(np.int64)
    room = length - clip_span(num_frames, step)
    if room >= 0:
        return offsets + min(int(at * (room + 1)), room)
    if short == "loop":
        return offsets % length
    if short == "pad":
        return np.minimum(offsets, length - 1)
    if short == "skip":
        return offsets[:0]
    raise DataError(
        f"the video has {length} frames and a clip needs {length - room}: "
        "ask for fewer, or set data.short to loop, pad or skip"
    )


def clip_indices(
    length: int,
    num_frames: int,
    *,
    stride: int | None = None,
    fps: float | None = None,
    video_fps: float = 0.0,
    position: str = "random",
    clips: int = 1,
    seed: int = 0,
    short: str = "error",
) -> np.ndarray:
    """Frames of several clips of a video of `length` frames: (clips, num_frames) int64, (0, num_frames) if skipped.

    position: "random" (a pure function of `seed`), "centre", or "uniform" (from the first possible clip to the last).
    """
    if position not in POSITIONS:
        raise DataError(f"unknown clip position {position!r}; choose one of {', '.join(POSITIONS)}")
    step = clip_step(stride, fps, video_fps)
    places = [clip_place(position, clip, clips, seed) for clip in range(clips)]
    rows = [frame_indices(length, num_frames, step, place, short) for place in places]
    return np.concatenate(rows).reshape(-1, num_frames)


def clip_place(position: str, clip: int, clips: int, seed: int) -> float:
    """Where clip number `clip` of `clips` lies, in [0, 1]."""
    if position == "random":
        return float(unit(seed, clip))
    if position == "centre" or clips == 1:
        return 0.5
    return clip / (clips - 1)
