"""A run of the command line that is to be killed, stopped and resumed: tiny, with a worker, in float32 on the CPU."""

import sys
from pathlib import Path

import torch

from jepa.weights import read_checkpoint


def command(worlds: Path, out: Path, *more: str, steps: int = 400, val_every: int = 10) -> list[str]:
    """`jepa pretrain` of `steps` steps on a world, with a checkpoint every `val_every`."""
    words = [
        f"out={out}",
        f"data.train={worlds / 'train.csv'}",
        f"data.val={worlds / 'val.csv'}",
        "data={num_frames: 4, size: [16, 16], batch_size: 4, workers: 1, cache: true}",
        "model.encoder={embed_dim: 24, depth: 1, num_heads: 2, patch_size: 8}",
        "model.predictor={embed_dim: 12, depth: 1, num_heads: 2}",
        "masks=[{kind: tube, ratio: 0.5}, {kind: future}]",
        "masks_per_step=1",
        f"trainer={{max_steps: {steps}, val_every: {val_every}, val_batches: 1, accelerator: cpu, threads: 1}}",
        "trainer.precision=32-true",
        "trainer.progress=false",
    ]
    return [sys.executable, "-m", "jepa.cli", "pretrain", *words, *more]


def weights(out: Path) -> dict[str, torch.Tensor]:
    """All weights of a run's last checkpoint, averages included."""
    return read_checkpoint(out / "last.ckpt")["state_dict"]
