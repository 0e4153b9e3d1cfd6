"""`jepa probe`: frozen features of a checkpoint beside a random encoder and raw pixels. A composition root."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from data.dataset import list_videos
from data.errors import DataError
from data.module import DataConfig, build_cache, collate_clips, make_dataset
from jepa.config import ConfigError, choose
from jepa.files import replacing, write_text
from jepa.jepa import JEPA
from jepa.probe import PROBES, Features, ProbeResult, pixel_tokens, run_probe, subset
from jepa.training import autocast, pick_device

REPRESENTATIONS = ("jepa", "random", "pixels")


@dataclass
class TaskConfig:
    """One thing to ask of the features: a name, and the column of the tables that answers it."""

    name: str = "label"
    column: str = "label"


@dataclass
class ProbeConfig:
    """Everything `jepa probe` reads.

    data            `data.train` are the labelled clips a probe learns from, `data.val` those it is scored on.
    out             where the table and the features go; empty: probe/ beside the checkpoint.
    encoder         which of the two is frozen and probed: target (the usual choice) or context (after a short
                    training the slow target still lags behind).
    """

    checkpoint: str = "???"
    out: str = ""
    encoder: str = "target"
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    tasks: list[TaskConfig] = field(default_factory=lambda: [TaskConfig()])
    probes: list[str] = field(default_factory=lambda: ["linear", "attentive", "knn"])
    label_fractions: list[float] = field(default_factory=lambda: [1.0])
    progress: bool = True


def probe(config: ProbeConfig) -> dict[str, dict[str, dict[str, dict[str, ProbeResult]]]]:
    """results[task][representation][probe][label fraction]; also written to `out/probe.json` and printed as a table."""
    if not config.data.val:
        raise ConfigError("data.val is empty: name the labelled videos the probe is scored on")
    choose("encoder", config.encoder, ("target", "context"))
    for kind in config.probes:
        choose("probes", kind, PROBES)
    if not all(0 < fraction <= 1 for fraction in config.label_fractions):
        raise ConfigError(f"label_fractions is {list(config.label_fractions)}: give shares above 0 and up to 1")
    out = Path(config.out) if config.out else Path(config.checkpoint).parent / "probe"
    trained = JEPA.load(config.checkpoint)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    random = JEPA(trained.config).eval()
    paths = {"train": config.data.train, "test": config.data.val}
    features = {split: _extract(trained, random, config, path, out) for split, path in paths.items()}
    results: dict[str, dict[str, dict[str, dict[str, ProbeResult]]]] = {}
    for task in config.tasks:
        y = {split: _labels(config, path, task) for split, path in paths.items()}
        known = sorted(set(y["train"]))
        codes = {split: np.array([known.index(v) if v in known else len(known) for v in y[split]]) for split in y}
        for name in REPRESENTATIONS:
            for kind in config.probes:
                for fraction in config.label_fractions:
                    rows = subset(codes["train"], fraction, config.seed)
                    train, test = features["train"][name][rows], features["test"][name]
                    found = run_probe(kind, train, codes["train"][rows], test, codes["test"], config.seed)
                    results.setdefault(task.name, {}).setdefault(name, {}).setdefault(kind, {})[f"{fraction:g}"] = found
    _write(results, out, config)
    return results


def _labels(config: ProbeConfig, path: str, task: TaskConfig) -> list[str]:
    videos = list_videos(path, config.data.labels, task.column)
    if not videos.classes or min(videos.labels) < 0:
        raise DataError(f"{path} has no labels in the column {task.column!r}, which the probe task {task.name!r} needs")
    return [videos.classes[label] for label in videos.labels]


@torch.no_grad()
def _extract(trained: JEPA, random: JEPA, config: ProbeConfig, path: str, out: Path) -> dict[str, Features]:
    """Features of every clip of `path` under each representation, computed once and kept in `out/features`."""
    videos = list_videos(path, config.data.labels, config.tasks[0].column)
    files = [(name, os.stat(name).st_size, os.stat(name).st_mtime_ns) for name in videos.paths]
    keep_places = "attentive" in config.probes  # the other probes look at averages over space, a fraction of the size
    aside = ("workers", "prefetch", "batch_size")
    pixels = {key: value for key, value in asdict(config.data).items() if key not in aside}
    settings = json.dumps([pixels, files, config.seed, config.encoder, keep_places, _digest(trained)], sort_keys=True)
    cache = out / "features" / f"{hashlib.sha256(settings.encode()).hexdigest()[:16]}.npz"
    if cache.is_file():
        with np.load(cache) as stored:
            return {name: Features(stored[name]) for name in REPRESENTATIONS}
    dataset = make_dataset(config.data, videos, cache=build_cache(config.data, videos))
    if len(dataset) != len(videos):
        raise ConfigError("data.clips_per_video must be 1 for a probe: every video has one row of features")
    device = pick_device()
    trained, random = trained.to(device), random.to(device)
    loader = DataLoader(dataset, config.data.batch_size, num_workers=config.data.workers, collate_fn=collate_clips)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in REPRESENTATIONS}
    for batch in tqdm(loader, desc=f"features of {Path(path).name}", disable=not config.progress):
        if "skipped" in batch:
            raise DataError(f"{path} lists videos that cannot be read; `jepa check-data` says which")
        video: Tensor = batch["video"].to(device)
        grid = trained.grid(video)
        with autocast(device):
            learnt = trained.context_encoder if config.encoder == "context" else trained.target_encoder
            encoded = {"jepa": learnt(video), "random": random.target_encoder(video)}
        tokens = {name: x.unflatten(1, (grid.t, grid.h * grid.w)) for name, x in encoded.items()}
        tokens["pixels"] = pixel_tokens(batch["video"], grid)
        for name, x in tokens.items():
            x = x if keep_places else x.float().mean(2, keepdim=True)
            parts[name].append(x.half().cpu().numpy())
    arrays = {name: np.concatenate(part) for name, part in parts.items()}
    with replacing(cache) as part, part.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
    return {name: Features(array) for name, array in arrays.items()}


def _digest(model: JEPA) -> str:
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def _write(results: dict[str, dict[str, dict[str, dict[str, ProbeResult]]]], out: Path, config: ProbeConfig) -> None:
    write_text(out / "probe.json", json.dumps(results, indent=2, default=asdict) + "\n")
    print(f"{'task':<12} {'labels':>6}  {'probe':<9} " + "  ".join(f"{name:^24}" for name in REPRESENTATIONS))
    for task, by_representation in results.items():
        for kind in config.probes:
            for fraction in config.label_fractions:
                found = [by_representation[name][kind][f"{fraction:g}"] for name in REPRESENTATIONS]
                cells = "  ".join(f"{r.accuracy:.3f} [{r.ci95[0]:.3f}, {r.ci95[1]:.3f}]".center(24) for r in found)
                print(f"{task:<12} {fraction:>6.0%}  {kind:<9} {cells}")
