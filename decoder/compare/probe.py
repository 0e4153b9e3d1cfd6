"""What frozen features know, of a JEPA and of its masked-pixel twin, along training and by labels. A composition root.

Notable: both are probed at the same steps, with the same clips and probe, beside a random encoder and raw pixels. The
abscissa is compute: clips seen, and floating-point operations of the training so far.
"""

import csv
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Subset

from data.dataset import list_videos
from data.module import build_cache, make_dataset
from decoder.budget import pretrain_operations
from jepa.jepa import JEPA
from jepa.probe import Features, pixel_tokens, run_probe, subset
from jepa.training import autocast

if TYPE_CHECKING:
    from decoder.compare.bench import Bench

TASKS = {"motion": "label", "appearance": "shape"}  # what is asked: the column of the tables that answers


def representation(bench: "Bench") -> dict[str, Any]:
    """{"steps": {task: {arm: [{"step", "clips_seen", "operations", "accuracy", "ci95", ...}]}}, "labels": {task: {arm:
    {fraction: {...}}}}, "chance", "train_clips", "test_clips"}: linear probes of the context encoder."""
    config, trained = bench.config, bench.trained
    sets = {split: Clips(bench, split, config.probe_clips if split == "train" else 0) for split in ("train", "test")}
    pl.seed_everything(trained.jepa.seed, workers=True, verbose=False)
    random = JEPA(trained.jepa.model).eval()
    baselines = {
        name: {split: clips.read(random, name) for split, clips in sets.items()} for name in ("random", "pixels")
    }
    steps: dict[str, dict[str, list[dict[str, Any]]]] = {task: {} for task in TASKS}
    labels: dict[str, dict[str, dict[str, Any]]] = {task: {} for task in TASKS}
    for name, features in baselines.items():
        for task in TASKS:
            labels[task][name] = {f"{f:g}": _ask(features, sets, task, f) for f in config.label_fractions}
            steps[task][name] = [{"step": 0, "clips_seen": 0, "operations": 0, **labels[task][name]["1"]}]
    for name, settings in (("jepa", trained.jepa), ("masked_pixels", trained.masked_pixels)):
        total = pretrain_operations(settings)
        for step, path in _kept(Path(settings.out), settings.trainer.max_steps):
            model = JEPA.load(path)
            features = {split: clips.read(model, "trained") for split, clips in sets.items()}
            at = {"step": step, "clips_seen": step * settings.data.batch_size,
                  "operations": total * step / settings.trainer.max_steps}  # fmt: skip
            for task in TASKS:
                steps[task].setdefault(name, []).append({**at, **_ask(features, sets, task, 1.0)})
                if step == settings.trainer.max_steps:
                    found = {f"{f:g}": _ask(features, sets, task, f) for f in config.label_fractions if f < 1}
                    labels[task][name] = {**found, "1": steps[task][name][-1]}
    chance = {task: float(np.bincount(sets["test"].answers(task)).max() / len(sets["test"])) for task in TASKS}
    return {"steps": steps, "labels": labels, "chance": chance, "probe": "linear",
            "train_clips": len(sets["train"]), "test_clips": len(sets["test"])}  # fmt: skip


class Clips:
    """The labelled clips of a split, and their features."""

    def __init__(self, bench: "Bench", split: str, most: int) -> None:
        self.bench, data = bench, bench.data
        table = bench.out / "worlds" / f"{split}.csv"
        videos = list_videos(str(table), data.labels, data.label_column)
        dataset = make_dataset(data, videos, cache=build_cache(data, videos))
        self.rows = range(min(most, len(dataset)) if most else len(dataset))
        self.loader: DataLoader[Any] = DataLoader(Subset(dataset, self.rows), 256)
        with table.open(newline="") as lines:
            self.table = list(csv.DictReader(lines))

    def __len__(self) -> int:
        return len(self.rows)

    def answers(self, task: str) -> np.ndarray:
        """Classes (clips,) as numbers, in the order of their names."""
        words = [row[TASKS[task]] for row in self.table]
        names = sorted(set(words))
        return np.array([names.index(words[row]) for row in self.rows])

    @torch.no_grad()
    def read(self, model: JEPA, name: str) -> Features:
        """Features averaged over space, of the model's context encoder, or of raw pixels for the name `pixels`."""
        device, parts = self.bench.device, []
        model = model.to(device)
        for batch in self.loader:
            video = batch["video"].to(device)
            grid = model.grid(video)
            if name == "pixels":
                tokens = pixel_tokens(batch["video"], grid)
            else:
                with autocast(device):
                    tokens = model.context_encoder(video).unflatten(1, (grid.t, grid.h * grid.w))
            parts.append(tokens.float().mean(2, keepdim=True).half().cpu().numpy())
        return Features(np.concatenate(parts))


def _ask(features: dict[str, Features], sets: dict[str, Clips], task: str, fraction: float) -> dict[str, Any]:
    y, y_test = sets["train"].answers(task), sets["test"].answers(task)
    rows = subset(y, fraction)
    found = asdict(run_probe("linear", features["train"][rows], y[rows], features["test"], y_test))
    return found | {"labels": len(rows)}


def _kept(folder: Path, steps: int) -> list[tuple[int, Path]]:
    """(step, checkpoint) of everything that `trainer.keep_every` kept, and of the last step."""
    found = {int(path.stem.partition("=")[2]): path for path in folder.glob("step=*.ckpt")}
    return sorted({steps: folder / "last.ckpt", **found}.items())
