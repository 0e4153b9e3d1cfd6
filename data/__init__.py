"""Videos to batches of clips. Knows nothing of models.

The public names are loaded when they are first used, so that reading a video does not import torch and Lightning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import DataError

if TYPE_CHECKING:
    from .check import FileReport, check_folder
    from .clips import clip_indices
    from .config import DataConfig, SourceConfig
    from .dataset import ClipDataset, VideoList, find_videos, list_videos
    from .module import ClipDataModule, make_dataset
    from .reader import Video, open_video
    from .transforms import IMAGENET_MEAN, IMAGENET_STD, ClipTransform
    from .writer import write_gif, write_video

_ROOMS = {
    "check": ("FileReport", "check_folder"),
    "clips": ("clip_indices",),
    "config": ("DataConfig", "SourceConfig"),
    "dataset": ("ClipDataset", "VideoList", "find_videos", "list_videos"),
    "module": ("ClipDataModule", "make_dataset"),
    "reader": ("Video", "open_video"),
    "transforms": ("IMAGENET_MEAN", "IMAGENET_STD", "ClipTransform"),
    "writer": ("write_gif", "write_video"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ClipDataModule",
    "ClipDataset",
    "ClipTransform",
    "DataConfig",
    "DataError",
    "FileReport",
    "SourceConfig",
    "Video",
    "VideoList",
    "check_folder",
    "clip_indices",
    "find_videos",
    "list_videos",
    "make_dataset",
    "open_video",
    "write_gif",
    "write_video",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
