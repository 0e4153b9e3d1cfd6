"""The settings of this package: everything below `data:` in a YAML file."""

from __future__ import annotations

from dataclasses import dataclass, field

from .clips import SHORT_POLICIES
from .errors import DataError
from .reader import BACKENDS

__all__ = ["DataConfig", "SourceConfig", "validate"]


@dataclass
class SourceConfig:
    """One part of a mixture: a folder or table, and how often its videos are drawn relative to the other parts."""

    path: str = ""
    weight: float = 1.0
    labels: str = "auto"


@dataclass
class DataConfig:
    """Where clips come from and what they look like. Everything below `data:` in a YAML file."""

    train: str = ""  # folder (recursive), video, CSV with a header, or V-JEPA's `path label` lines
    val: str = ""  # the same; empty: hold out `val_fraction` of train by file
    mixture: list[SourceConfig] = field(default_factory=list)  # instead of train: several sources with weights
    labels: str = "auto"  # auto: a table's label column; folder: a folder per class; none
    label_column: str = "label"
    val_fraction: float = 0.1  # 0: no validation
    num_frames: int = 16
    stride: int = 1  # video frames from one clip frame to the next
    fps: float | None = None  # or: clip frames a second, whatever the video's rate
    short: str = "error"  # a video shorter than a clip: loop | pad (repeat its end) | skip | error (it counts as bad)
    clips_per_video: int = 1  # spread evenly in validation
    size: list[int] = field(default_factory=lambda: [64, 64])  # height, width
    scale: list[float] = field(default_factory=lambda: [0.3, 1.0])  # random crop, share of the area; [1, 1]: no crop
    ratio: list[float] = field(default_factory=lambda: [0.75, 1.35])  # random crop, width / height
    flip: bool = True
    batch_size: int = 32  # per device
    workers: int = 2
    prefetch: int = 4  # batches each worker has ready
    max_bad_fraction: float = 0.05  # more files unreadable than this: stop
    backend: str = "auto"  # auto | decord | pyav
    cache: bool = False  # decode every video once, to frames of `size` in a memory-mapped file
    cache_dir: str = ""  # empty: .cache beside the videos, or the user's cache folder where that cannot be written
    cache_max_gb: float = 8.0
    seed: int = 0


def validate(config: DataConfig) -> None:
    """DataError for values that cannot be meant, naming the key."""
    if not config.train and not config.mixture:
        raise DataError("data.train is empty: name a folder of videos, a video or a CSV file, or set data.mixture")
    if config.train and config.mixture:
        raise DataError("give either data.train or data.mixture, not both")
    if config.short not in SHORT_POLICIES:
        raise DataError(f"data.short={config.short!r} is unknown; choose one of {', '.join(SHORT_POLICIES)}")
    if config.backend not in BACKENDS:
        raise DataError(f"data.backend={config.backend!r} is unknown; choose one of {', '.join(BACKENDS)}")
    if config.batch_size < 1 or config.workers < 0 or config.prefetch < 1:
        raise DataError("data.batch_size and data.prefetch must be at least 1, data.workers at least 0")
    if not 0 <= config.val_fraction < 1 or not 0 <= config.max_bad_fraction <= 1:
        raise DataError("data.val_fraction must be in [0, 1) and data.max_bad_fraction in [0, 1]")
    if any(part.weight <= 0 for part in config.mixture):
        raise DataError("every weight in data.mixture must be positive")
