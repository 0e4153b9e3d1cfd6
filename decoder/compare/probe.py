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
from decoder.estimates import paired
from jepa.jepa import JEPA
from jepa.probe import Features, pixel_tokens, predict, score, subset
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
    right: dict[tuple[str, str, float, int], np.ndarray] = {}  # of a task, an encoder, a share of labels and a step

    def ask(task: str, name: str, features: dict[str, Features], fraction: float, step: int) -> dict[str, Any]:
        found, right[task, name, fraction, step] = _ask(features, sets, task, fraction, trained.jepa.seed)
        return found

    for name, features in baselines.items():
        for task in TASKS:
            labels[task][name] = {f"{f:g}": ask(task, name, features, f, 0) for f in config.label_fractions}
            steps[task][name] = [{"step": 0, "clips_seen": 0, "operations": 0, **labels[task][name]["1"]}]
    for name, settings in (("jepa", trained.jepa), ("masked_pixels", trained.masked_pixels)):
        total, last = pretrain_operations(settings), settings.trainer.max_steps
        for step, path in _kept(Path(settings.out), last):
            model = JEPA.load(path)
            features = {split: clips.read(model, "trained") for split, clips in sets.items()}
            at = {"step": step, "clips_seen": step * settings.data.batch_size, "operations": total * step / last}
            for task in TASKS:
                steps[task].setdefault(name, []).append({**at, **ask(task, name, features, 1.0, step)})
                if step == last:
                    found = {f"{f:g}": ask(task, name, features, f, step) for f in config.label_fractions if f < 1}
                    labels[task][name] = {**found, "1": steps[task][name][-1]}
    for (task, name, fraction, step), answers in list(right.items()):
        if name == "jepa":
            others = {other: right.get((task, other, fraction, at)) for other, at in
                      (("masked_pixels", step), ("random", 0), ("pixels", 0))}  # fmt: skip
            known = {other: found for other, found in others.items() if found is not None}
            for pair, gap in paired({"jepa": answers, **known}).items():
                if fraction == 1:
                    steps[task].setdefault(pair, []).append({"step": step, **gap})
                if step == trained.jepa.trainer.max_steps:
                    labels[task].setdefault(pair, {})[f"{fraction:g}"] = gap
    chance = {task: float(np.bincount(sets["test"].answers(task)).max() / len(sets["test"])) for task in TASKS}
    return {"steps": steps, "labels": labels, "chance": chance, "probe": "linear",
            "train_clips": len(sets["train"]), "test_clips": len(sets["test"])}  # fmt: skip


class Clips:
    """The labelled clips of a split, and their features."""

    def __init__(self, bench: "Bench", split: str, most: int) -> None:
        self.bench, data = bench, bench.data
        table = bench.out / "worlds" / f"{split}.csv"
        videos = list_videos(str(table), data.labels, data.label_column)
        dataset = make_dataset(data, videos, cache=build_cache(data, videos, bench.config.progress))
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
        """Features averaged over space, of the model's context encoder; for the name `pixels` the raw pixels, whose
        token of a moment is a small picture and keeps its layout."""
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


def _ask(
    features: dict[str, Features], sets: dict[str, Clips], task: str, fraction: float, seed: int
) -> tuple[dict[str, Any], np.ndarray]:
    """What a probe scores that learns from a share of the labels, and (clips,) 1 where it is right, else 0.

    Every model seed draws a share of its own, so that the interval of several seeds holds the luck of the draw too.
    """
    y, y_test = sets["train"].answers(task), sets["test"].answers(task)
    rows = subset(y, fraction, seed)
    said = predict("linear", features["train"][rows], y[rows], features["test"])
    return asdict(score(said, y_test)) | {"labels": len(rows)}, (said == y_test).astype(float)


def _kept(folder: Path, steps: int) -> list[tuple[int, Path]]:
    """(step, checkpoint) of everything that `trainer.keep_every` kept, and of the last step."""
    found = {int(path.stem.partition("=")[2]): path for path in folder.glob("step=*.ckpt")}
    return sorted({steps: folder / "last.ckpt", **found}.items())
