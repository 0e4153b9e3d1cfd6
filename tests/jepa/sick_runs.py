"""Runs that are made sick on purpose, and ten that are not: what the rules of jepa/health.py are measured on.

    python tests/jepa/sick_runs.py out=FOLDER [runs=nan,masks]

Each is 400 steps of a small JEPA in a tiny world, one core, half a minute; the curves of all are written to
jepa/shipped/runs.json, which `jepa health` draws beside yours and test_health.py replays, and drawn as the README's
notebooks/health.png.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure

from data.worlds import WorldConfig, generate
from data.writer import write_video
from jepa.config import load_config
from jepa.errors import DivergedError
from jepa.files import write_text
from jepa.health import TRAIN, VALIDATION, judge
from jepa.module import JEPAModule
from jepa.train import PretrainConfig, pretrain
from jepa.training import read_history

STORED = Path(__file__).parents[2] / "jepa" / "shipped" / "runs.json"
STEPS, WIDTH = 400, 96
BASE = [
    "data={num_frames: 8, stride: 2, size: [32, 32], scale: [1, 1], ratio: [1, 1], workers: 0, cache: true}",
    f"model.encoder={{embed_dim: {WIDTH}, depth: 3, num_heads: 3, patch_size: 8}}",
    "model.predictor={embed_dim: 64, depth: 2, num_heads: 2}",
    "masks=[{kind: future}, {num_blocks: 4, spatial_scale: 0.15}, {kind: future}, {num_blocks: 2, spatial_scale: 0.5}]",
    "masks_per_step=1",
    "optim={lr: 1.0e-3, start_lr: 1.0e-5, final_lr: 1.0e-5, warmup_steps: 40, weight_decay: 0.05}",
    "optim={final_weight_decay: 0.05, momentum: 0.998, final_momentum: 0.9999, betas: [0.9, 0.95], stretch: 1.0}",
    f"trainer={{max_steps: {STEPS}, val_every: 20, val_batches: 3, log_every: 5, threads: 1, progress: false}}",
    *("trainer.accelerator=cpu", "trainer.precision=32-true", "stop_sick=false"),
]
# name -> (its verdict, what makes it so)
SICK: dict[str, tuple[str, list[str]]] = {
    "ema": ("partially collapsed", ["optim={momentum: 0.0, final_momentum: 0.0, lr: 8.0e-3}"]),
    "rate": ("diverged", ["optim.lr=1.0", "trainer.gradient_clip=0"]),
    "masks": ("starved", ["masks=[{num_blocks: 1, spatial_scale: 0.07, temporal_scale: 0.25}]"]),
    "blank": ("starved", ["data={train: blank.mp4, val: blank.mp4}"]),
    "nan": ("diverged", []),
}
HEALTHY = {f"seed{n}": [f"seed={n}", f"data.seed={n}"] for n in range(10)}
SINCE = 60  # the step from which on the run `nan` is given clips that are not a number


def spoil(module: pl.LightningModule, batch: dict[str, Any]) -> None:
    if module.global_step >= SINCE:
        batch["video"] = torch.full_like(batch["video"], torch.nan)


def make(name: str, out: Path) -> dict[str, list[tuple[int, float]]]:
    """Train one of the runs below `out` and return its curves."""
    world, run = out / "world", out / name
    if not (world / "train.csv").is_file():
        words = [f"out={world}", "clips=1200", "objects_max=2", "main_radius=[9.0, 13.0]", "speed=[2.0, 2.9]"]
        generate(load_config(WorldConfig, None, [*words, "texture=0.2", "workers=1"]), progress=False)
        write_video(world / "blank.mp4", np.full((32, 32, 32, 3), 90, np.uint8), fps=8)
    more = HEALTHY.get(name) or [word.replace("blank.mp4", str(world / "blank.mp4")) for word in SICK[name][1]]
    videos = [f"data={{train: {world / 'train.csv'}, val: {world / 'val.csv'}}}"]
    shutil.rmtree(run, ignore_errors=True)
    step = JEPAModule.training_step

    def spoilt(self: JEPAModule, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        spoil(self, batch)
        return step(self, batch, batch_idx)

    if name == "nan":
        JEPAModule.training_step = spoilt  # type: ignore[method-assign]
    try:
        pretrain(load_config(PretrainConfig, None, [*BASE, *videos, *more, f"out={run}"]))
    except DivergedError as error:
        print(f"{name} stopped: {error}")
    finally:
        JEPAModule.training_step = step  # type: ignore[method-assign]
    keys = (*TRAIN, *VALIDATION, "train/prediction", "train/skipped", "val/skill_vs_copy")
    return {key: points for key, points in read_history(run).items() if key in keys}


def draw(found: dict[str, dict[str, list[list[float]]]], path: Path) -> None:
    """The README's picture: three statistics of all runs, dotted lines where the verdicts begin."""
    wanted = {
        "val/std": "spread of the latents",
        "val/rank": "effective rank",
        "val/skill_vs_mean": "skill against the mean",
    }
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, 3), wanted.items(), strict=True):
        healthy = np.array([found[name][key] for name in HEALTHY])  # (10, n, 2)
        x, y = healthy[0, :, 0], healthy[:, :, 1]
        axes.fill_between(x, y.min(0), y.max(0), color="0.75", label="ten healthy seeds")
        for name, colour in (("ema", "#8350a8"), ("rate", "#2a8579"), ("masks", "#2f62b8"), ("nan", "#b3372f")):
            steps, values = np.array(found[name][key]).T
            axes.plot(steps, np.maximum(values, -2), color=colour, label=f"{name}: {SICK[name][0]}")
            verdict = judge(found[name])  # type: ignore[arg-type]
            axes.axvline(verdict.since, color=colour, linestyle=":", linewidth=1)
        axes.set(title=title, xlabel="step")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path, dpi=110)


def main(out: str, runs: str = "") -> None:
    torch.set_num_threads(1)
    found = json.loads(STORED.read_text()) if STORED.is_file() else {}
    for name in runs.split(",") if runs else [*SICK, *HEALTHY]:
        curves = make(name, Path(out))
        thin = {
            key: points[:: max(1, len(points) // 40)] if "val" not in key else points for key, points in curves.items()
        }
        thin["train/skipped"] = curves.get("train/skipped", [])
        found[name] = {key: [[step, float(f"{value:.4g}")] for step, value in thin[key]] for key in thin}
        write_text(STORED, json.dumps(found, separators=(",", ":")) + "\n")
        print(f"{name}: done", flush=True)
    draw(found, STORED.parents[2] / "notebooks" / "health.png")


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))  # type: ignore[arg-type]
