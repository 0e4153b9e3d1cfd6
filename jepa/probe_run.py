"""`jepa probe`: frozen features of a checkpoint beside a random encoder and raw pixels. A composition root.

Notable: linear, attentive and kNN probes are cheap, because every clip is encoded once and its features are kept. The
`classifier` is the papers' own evaluation: it meets new random clips in every epoch, so the encoder runs all along.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.lib.format import open_memmap
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from data.dataset import VideoList, list_videos
from data.errors import DataError
from data.module import ClipDataModule, DataConfig, build_cache, collate_clips, make_dataset
from data.tars import file_state
from jepa.attentive import ClassifierConfig
from jepa.config import ConfigError, choose
from jepa.errors import CheckpointError
from jepa.files import replacing, write_text
from jepa.heads import HeadResult, HeadsConfig, HeadsModule, PixelTokens, check_heads, head_result, train_heads
from jepa.jepa import JEPA
from jepa.probe import PROBES, Features, ProbeResult, pixel_tokens, run_probe, score, subset
from jepa.resuming import SAME_CLIPS
from jepa.training import autocast, pick_device
from jepa.vit import VideoViT

REPRESENTATIONS = ("jepa", "random", "pixels")
CLASSIFIER = "classifier"
Results = dict[str, dict[str, dict[str, dict[str, ProbeResult]]]]  # [task][representation][probe][label fraction]


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
    representations what is asked: the checkpoint (jepa), the same network untrained (random), raw pixels.
    probes          linear, attentive, knn: on features computed once. classifier: V-JEPA's own evaluation, trained on
                    random clips as `heads` says, each representation anew; always on all labels.
    """

    checkpoint: str = "???"
    out: str = ""
    encoder: str = "target"
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    tasks: list[TaskConfig] = field(default_factory=lambda: [TaskConfig()])
    representations: list[str] = field(default_factory=lambda: ["jepa", "random", "pixels"])
    probes: list[str] = field(default_factory=lambda: ["linear", "attentive", "knn"])
    label_fractions: list[float] = field(default_factory=lambda: [1.0])
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    progress: bool = True


def probe(config: ProbeConfig) -> Results:
    """results[task][representation][probe][label fraction]; also written to `out/probe.json` and printed as a table.

    The chosen classifiers are left in `out/classifier/<task>/<representation>`, for
    `AttentiveClassifier.from_pretrained`.
    """
    _check(config)
    checkpoint = Path(config.checkpoint)
    out = Path(config.out) if config.out else (checkpoint if checkpoint.is_dir() else checkpoint.parent) / "probe"
    trained = JEPA.load(config.checkpoint)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    random = VideoViT(trained.config.encoder).eval() if "random" in config.representations else None
    paths = {"train": config.data.train, "test": config.data.val}
    kinds = [kind for kind in config.probes if kind != CLASSIFIER]
    features = {split: _extract(trained, random, config, path, out) for split, path in paths.items() if kinds}
    results: Results = {}
    for task in config.tasks:
        y = {split: _labels(config, path, task) for split, path in paths.items()}
        known = sorted(set(y["train"]))
        codes = {split: np.array([known.index(v) if v in known else len(known) for v in y[split]]) for split in y}
        for name in config.representations:
            found: dict[str, dict[str, ProbeResult]] = results.setdefault(task.name, {}).setdefault(name, {})
            for kind in kinds:
                for fraction in config.label_fractions:
                    rows = subset(codes["train"], fraction, config.seed)
                    train, test = features["train"][name], features["test"][name]
                    train = train if fraction == 1 else train[rows]  # a selection is a copy, in memory
                    result = run_probe(kind, train, codes["train"][rows], test, codes["test"], config.seed)
                    found.setdefault(kind, {})[f"{fraction:g}"] = result
            if CLASSIFIER in config.probes:
                found[CLASSIFIER] = {"1": _classify(trained, random, config, task, name, y["test"], out)}
    _write(results, out, config)
    return results


def _check(config: ProbeConfig) -> None:
    if not config.data.val:
        raise ConfigError("data.val is empty: name the labelled videos the probe is scored on")
    choose("encoder", config.encoder, ("target", "context"))
    for key, known in (("probes", (*PROBES, CLASSIFIER)), ("representations", REPRESENTATIONS)):
        if not getattr(config, key):
            raise ConfigError(f"{key} is empty: give some of {', '.join(known)}")
        for name in getattr(config, key):
            choose(key, name, known)
    if not all(0 < fraction <= 1 for fraction in config.label_fractions):
        raise ConfigError(f"label_fractions is {list(config.label_fractions)}: give shares above 0 and up to 1")
    if config.data.clips_per_video != 1:
        raise ConfigError("data.clips_per_video must be 1 for a probe: every video has one row of features")
    check_heads(config.heads)


def _labels(config: ProbeConfig, path: str, task: TaskConfig) -> list[str]:
    videos = list_videos(path, config.data.labels, task.column, root=config.data.root)
    if not videos.classes or min(videos.labels) < 0:
        raise DataError(f"{path} has no labels in the column {task.column!r}, which the probe task {task.name!r} needs")
    return [videos.classes[label] for label in videos.labels]


@torch.no_grad()
def _extract(trained: JEPA, random: VideoViT | None, config: ProbeConfig, path: str, out: Path) -> dict[str, Features]:
    """Features of every clip of `path` under each representation, computed once and kept in `out/features`.

    They go to disk batch by batch and are read from there: with places those of a ViT-L are 4 MB a clip.
    """
    videos = list_videos(path, config.data.labels, config.tasks[0].column, root=config.data.root)
    keep_places = "attentive" in config.probes  # the other probes look at averages over space, a fraction of the size
    pixels = {key: value for key, value in asdict(config.data).items() if key not in (*SAME_CLIPS, "batch_size")}
    chosen = list(config.representations)
    folder = out / "features" / _key(pixels, _files(videos), config, keep_places, chosen, _digest(trained))
    files = {name: folder / f"{name}.npy" for name in chosen}
    if all(file.is_file() for file in files.values()):
        return {name: _stored(file) for name, file in files.items()}
    device = pick_device()
    encoders = {name: _encoder(name, trained, random, config).to(device) for name in chosen if name != "pixels"}
    with ExitStack() as stack:
        parts = {name: stack.enter_context(replacing(file)) for name, file in files.items()}
        arrays: dict[str, np.memmap] = {}
        done = 0
        for video in _clips(config, videos, path, f"features of {Path(path).name}"):
            grid = trained.grid(video)
            with autocast(device):
                encoded = {name: encoder(video.to(device)) for name, encoder in encoders.items()}
            tokens = {name: x.unflatten(1, (grid.t, grid.h * grid.w)) for name, x in encoded.items()}
            if "pixels" in chosen:
                tokens["pixels"] = pixel_tokens(video, grid)
            for name, x in tokens.items():
                x = x if keep_places else x.float().mean(2, keepdim=True)
                if name not in arrays:
                    arrays[name] = open_memmap(parts[name], "w+", np.float16, (len(videos), *x.shape[1:]))
                arrays[name][done : done + len(x)] = x.half().cpu().numpy()
            done += len(video)
        for array in arrays.values():
            array.flush()
    return {name: _stored(file) for name, file in files.items()}


def _stored(file: Path) -> Features:
    try:
        return Features(open_memmap(file, "c"))  # c: nothing is written, but torch wants arrays that could be
    except (ValueError, EOFError) as error:  # a pickle in it is not read, which np.load leaves to an option
        raise CheckpointError(f"{file} is damaged ({error}): delete it, and it will be computed anew") from None


def _encoder(name: str, trained: JEPA, random: VideoViT | None, config: ProbeConfig) -> nn.Module:
    """What turns videos into the tokens of a representation."""
    if name == "pixels":
        return PixelTokens(trained.config.encoder)
    if name == "random":
        assert random is not None
        return random
    return trained.context_encoder if config.encoder == "context" else trained.target_encoder


def _clips(config: ProbeConfig, videos: VideoList, path: str, words: str) -> Iterator[Tensor]:
    """Batches (B, C, T, H, W) of one clip of each video, in their order. DataError where a file cannot be read: the
    clip that takes its place would have another's label."""
    dataset = make_dataset(config.data, videos, cache=build_cache(config.data, videos, config.progress))
    loader = DataLoader(dataset, config.data.batch_size, num_workers=config.data.workers, collate_fn=collate_clips)
    for batch in tqdm(loader, desc=words, disable=not config.progress):
        if "skipped" in batch:
            raise DataError(f"{path} lists videos that cannot be read; `jepa check-data` says which")
        yield batch["video"]


def _classify(
    trained: JEPA,
    random: VideoViT | None,
    config: ProbeConfig,
    task: TaskConfig,
    name: str,
    y_test: list[str],
    out: Path,
) -> HeadResult:
    """Train the grid of heads on one representation, choose one on held-out training videos, score it on `data.val`.

    The training lies in `out/heads`, under a name that follows from its settings: the same command, started again,
    goes on where it stopped, or finds it complete.
    """
    pl.seed_everything(config.seed, workers=True, verbose=False)  # the same start for every representation
    shares = {"val": "", "val_fraction": config.heads.held_out, "label_column": task.column}
    data = ClipDataModule(replace(config.data, **shares), progress=config.progress)  # type: ignore[arg-type]
    classes = data.classes
    assert data.train_set is not None and data.val_set is not None
    shape, encoder = trained.config.encoder, _encoder(name, trained, random, config)
    dim = encoder.dim if isinstance(encoder, PixelTokens) else shape.embed_dim
    num_heads = next(n for n in range(config.heads.num_heads, 0, -1) if dim % n == 0)
    classifier = ClassifierConfig(dim, num_heads, config.heads.depth, len(classes))
    batches = (ceil(len(data.train_set) / config.data.batch_size), ceil(len(data.val_set) / config.data.batch_size))
    clips = {key: value for key, value in asdict(data.config).items() if key not in SAME_CLIPS}
    videos = list_videos(config.data.train, config.data.labels, task.column, root=config.data.root)
    key = _key(clips, _files(videos), config, videos.labels, classes, asdict(config.heads), _digest(trained))
    run = out / "heads" / f"{task.name}-{name}-{key}"
    module = train_heads(encoder, classifier, config.heads, data, batches, run, config.progress)
    module.heads[module.chosen].save_pretrained(out / CLASSIFIER / task.name / name)  # type: ignore[operator]
    predicted = [classes[row] for row in _answers(module, config, task)]
    return head_result(score(np.array(predicted), np.array(y_test)), module)


@torch.no_grad()
def _answers(module: HeadsModule, config: ProbeConfig, task: TaskConfig) -> list[int]:
    """What the chosen head says of every video of `data.val`."""
    device = pick_device()
    head, encoder = module.heads[module.chosen].to(device).eval(), module.frozen.to(device)
    videos = list_videos(config.data.val, config.data.labels, task.column, root=config.data.root)
    rows: list[int] = []
    for video in _clips(config, videos, config.data.val, f"answers of {Path(config.data.val).name}"):
        with autocast(device):
            rows += head(encoder(video.to(device))).argmax(1).tolist()
    return rows


def _files(videos: VideoList) -> list[tuple[str, int, int]]:
    return [file_state(path) for path in videos.paths]


def _key(clips: dict[str, Any], files: list[tuple[str, int, int]], config: ProbeConfig, *more: object) -> str:
    """16 hexadecimal digits that tell what was computed from what."""
    settings = json.dumps([clips, files, config.seed, config.encoder, *more], sort_keys=True)
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def _digest(model: JEPA) -> str:
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def _write(results: Results, out: Path, config: ProbeConfig) -> None:
    write_text(out / "probe.json", json.dumps(results, indent=2, default=asdict) + "\n")
    names = list(config.representations)
    print(f"{'task':<12} {'labels':>6}  {'probe':<10} " + "  ".join(f"{name:^24}" for name in names))
    for task, by_representation in results.items():
        for kind in config.probes:
            for fraction in by_representation[names[0]][kind]:
                found = [by_representation[name][kind][fraction] for name in names]
                cells = "  ".join(f"{r.accuracy:.3f} [{r.ci95[0]:.3f}, {r.ci95[1]:.3f}]".center(24) for r in found)
                print(f"{task:<12} {float(fraction):>6.0%}  {kind:<10} {cells}")
