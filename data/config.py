"""The settings of this package: everything below `data:` in a YAML file."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field

from .clips import SHORT_POLICIES
from .errors import DataError
from .reader import BACKENDS

__all__ = ["LABELS", "DataConfig", "SourceConfig", "machine_memory", "validate"]

LABELS = ("auto", "folder", "none")


@dataclass
class SourceConfig:
    """One part of a mixture: a folder or table, and how often its videos are drawn relative to the other parts."""

    path: str = ""
    weight: float = 1.0
    labels: str = "auto"


@dataclass
class DataConfig:
    """Where clips come from and what they look like. Everything below `data:` in a YAML file."""

    train: str = ""  # folder (recursive), tar shards, video, CSV with a header, or V-JEPA's `path label` lines
    val: str = ""  # the same; empty: hold out `val_fraction` of train by file
    mixture: list[SourceConfig] = field(default_factory=list)  # instead of train: several sources with weights
    root: str = ""  # folder that the paths of a table may not leave; empty: the table's own folder; "/": anywhere
    labels: str = "auto"  # auto: a table's label column; folder: a folder per class; none
    label_column: str = "label"
    val_fraction: float = 0.1  # 0: no validation
    num_frames: int = 16
    stride: int = 1  # video frames from one clip frame to the next
    fps: float | None = None  # or: clip frames a second, whatever the video's rate
    short: str = "error"  # a video shorter than a clip: loop | pad (repeat its end) | skip | error (it counts as bad)
    clips_per_video: int = 1  # spread evenly in validation
    size: list[int] = field(default_factory=lambda: [64, 64])  # height, width
    shorter_side: float = 1.0  # centre crops: frames are first resized to so many times `size` (V-JEPA: 256 / 224)
    scale: list[float] = field(default_factory=lambda: [0.3, 1.0])  # random crop, share of the area; [1, 1]: no crop
    ratio: list[float] = field(default_factory=lambda: [0.75, 1.35])  # random crop, width / height
    flip: bool = True
    batch_size: int = 32  # per device
    workers: int = 2
    prefetch: int = 4  # batches each worker has ready
    timeout: float = 60.0  # seconds for a clip, after which its file counts as unreadable; 0: no process for decoding
    max_bad_fraction: float = 0.05  # more files unreadable than this: stop
    backend: str = "auto"  # auto | decord | pyav
    cache: bool = False  # decode every video once, to frames of `size` in a memory-mapped file
    cache_dir: str = ""  # empty: .cache beside the videos, or the user's cache folder where that cannot be written
    cache_max_gb: float = 8.0
    seed: int = 0


def machine_memory() -> float:
    """Bytes of this machine's memory; infinite where the system does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):  # Windows has no such call
        return math.inf


def validate(config: DataConfig) -> None:
    """DataError for values that cannot be meant, naming the key."""
    low_scale, high_scale = config.scale if len(config.scale) == 2 else (0.0, 0.0)
    low_ratio, high_ratio = config.ratio if len(config.ratio) == 2 else (0.0, 0.0)
    rules = [
        (
            config.train or config.mixture,
            "train is empty: name a folder, a video or a CSV file",
        ),
        (not (config.train and config.mixture), "mixture takes the place of data.train: give one of the two"),
        (all(part.weight > 0 for part in config.mixture), "mixture: every weight must be positive"),
        (config.labels in LABELS, f"labels={config.labels!r} is not one of {', '.join(LABELS)}"),
        (
            config.short in SHORT_POLICIES,
            f"short={config.short!r}: choose error, loop, pad or skip",
        ),
        (config.backend in BACKENDS, f"backend={config.backend!r} is not one of {', '.join(BACKENDS)}"),
        (config.num_frames >= 1, f"num_frames={config.num_frames} must be at least 1"),
        (config.stride >= 1, f"stride={config.stride} must be at least 1"),
        (config.fps is None or config.fps > 0, f"fps={config.fps} must be positive, or null to sample by stride"),
        (config.clips_per_video >= 1, f"clips_per_video={config.clips_per_video} must be at least 1"),
        (len(config.size) in (1, 2) and min(config.size) >= 1, f"size={config.size} must be [height, width] in pixels"),
        (
            12 * config.batch_size * config.num_frames * math.prod(config.size * (2 // len(config.size or [0, 0])))
            <= machine_memory(),
            f"batch_size={config.batch_size} clips of num_frames={config.num_frames} and size={config.size} do not fit "
            "into this machine's memory: give less of one",
        ),
        (
            config.shorter_side >= 1 and not (config.cache and config.shorter_side > 1),
            f"shorter_side={config.shorter_side} must be at least 1, and 1 with data.cache, which keeps crops",
        ),
        (
            0 < low_scale <= high_scale <= 1,
            f"scale={config.scale} must be two shares of the area, low <= high <= 1",
        ),
        (0 < low_ratio <= high_ratio, f"ratio={config.ratio} must be two values of width / height, the lower first"),
        (config.batch_size >= 1, f"batch_size={config.batch_size} must be at least 1"),
        (config.workers >= 0, f"workers={config.workers} must be at least 0"),
        (config.prefetch >= 1, f"prefetch={config.prefetch} must be at least 1"),
        (config.timeout >= 0, f"timeout={config.timeout} must be at least 0 seconds"),
        (0 <= config.val_fraction < 1, f"val_fraction={config.val_fraction} must be in [0, 1)"),
        (0 <= config.max_bad_fraction <= 1, f"max_bad_fraction={config.max_bad_fraction} must be in [0, 1]"),
    ]
    for holds, sentence in rules:
        if not holds:
            raise DataError(f"data.{sentence}")
