"""jepa: predict the latents of hidden parts of a video from the visible ones."""

from jepa.config import ConfigError, EncoderConfig, JEPAConfig, PredictorConfig, load_config
from jepa.checkpoints import CheckpointError
from jepa.grid import Grid, patchify, token_grid, unpatchify
from jepa.jepa import JEPA, JEPALoss
from jepa.masks import TASKS, Mask, MaskCollator, MaskConfig, sample_mask, task_mask

__all__ = [
    "JEPA",
    "TASKS",
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
    "load_config",
    "patchify",
    "sample_mask",
    "task_mask",
    "token_grid",
    "unpatchify",
]
