"""jepa: predict the latents of hidden parts of a video from the visible ones.

The public names are loaded when they are first used: the `jepa` command answers before torch is imported.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jepa.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from jepa.attentive import AttentiveClassifier
    from jepa.config import EncoderConfig, JEPAConfig, PredictorConfig, load_config
    from jepa.grid import Grid, patchify, token_grid, unpatchify
    from jepa.jepa import JEPA, JEPALoss, from_pretrained
    from jepa.masks import TASKS, Mask, MaskCollator, MaskConfig, sample_mask, task_mask
    from jepa.presets import preset

_ROOMS = {
    "attentive": ("AttentiveClassifier",),
    "config": ("EncoderConfig", "JEPAConfig", "PredictorConfig", "load_config"),
    "grid": ("Grid", "patchify", "token_grid", "unpatchify"),
    "jepa": ("JEPA", "JEPALoss", "from_pretrained"),
    "presets": ("preset",),
    "masks": ("TASKS", "Mask", "MaskCollator", "MaskConfig", "sample_mask", "task_mask"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "JEPA",
    "TASKS",
    "AttentiveClassifier",
    "CheckpointError",
    "ConfigError",
    "EncoderConfig",
    "Grid",
    "JEPAConfig",
    "JEPALoss",
    "Mask",
    "MaskCollator",
    "MaskConfig",
    "PredictorConfig",
    "from_pretrained",
    "load_config",
    "patchify",
    "preset",
    "sample_mask",
    "task_mask",
    "token_grid",
    "unpatchify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"jepa.{_HOME[name]}"), name)
