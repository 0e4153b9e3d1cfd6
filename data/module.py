"""Clips for training: an endless stream that resumes exactly, and a finite ordered pass for validation.

Notable:
- The stream has positions. Sample p is (index, seed), a pure function of (data.seed, p); rank r of W takes its batch from positions
  (step * W + r) * batch_size onwards. Worker count and resuming change nothing.
- The model's masks come in by `collate`: samples -> batch. This package does not know what a mask is.
- Files that cannot be read are replaced, counted once each and listed at the end; above `max_bad_fraction` training stops.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Sampler, default_collate

from .cache import FrameCache
from .clips import SHORT_POLICIES
from .dataset import ClipDataset, Skip, VideoList, list_videos
from .errors import DataError
from .reader import BACKENDS
from .seeds import mix, unit
from .transforms import ClipTransform, frame_size

__all__ = ["ClipDataModule", "ClipStream", "DataConfig", "SourceConfig", "collate_clips", "make_dataset"]

log = logging.getLogger(__name__)
Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]


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
    stride: int | None = 1  # video frames from one clip frame to the next; null with fps
    fps: float | None = None  # clip frames a second; needs stride: null
    short: str = "loop"  # videos shorter than a clip: error | loop | pad | skip
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


def make_dataset(
    config: DataConfig, videos: VideoList, train: bool = False, cache: FrameCache | None = None
) -> ClipDataset:
    """The dataset a config describes, over `videos` (see `list_videos`)."""
    return ClipDataset(
        videos,
        ClipTransform(config.size, train, config.scale, config.ratio, config.flip),
        num_frames=config.num_frames,
        stride=None if config.fps is not None else config.stride,
        fps=config.fps,
        position="random" if train else "uniform",
        clips_per_video=1 if train else config.clips_per_video,
        short=config.short,
        backend=config.backend,
        cache=cache,
    )


class ClipStream(Sampler[list[tuple[int, int]]]):
    """Endless batches of (index, seed). Without weights every epoch is a permutation; with weights every draw is independent."""

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start: int | Callable[[], int] = 0,
        groups: list[tuple[range, float]] | None = None,
    ) -> None:
        """`start`: the first batch of each rank; `groups`: (indices, weight) of each part of a mixture."""
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world_size, self.start, self.groups = rank, world_size, start, groups
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step = self.start() if callable(self.start) else self.start
        while True:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> list[tuple[int, int]]:
        """What this rank trains on at batch number `step`."""
        first = (step * self.world_size + self.rank) * self.batch_size
        positions = np.arange(first, first + self.batch_size)
        seeds = mix(self.seed, 0, positions) >> np.uint64(1)  # fits int64
        return list(zip(self._indices(positions).tolist(), seeds.tolist(), strict=True))

    def _indices(self, positions: np.ndarray) -> np.ndarray:
        if self.groups is None:
            return np.array([self._permuted(int(position)) for position in positions])
        bounds = np.cumsum([weight for _, weight in self.groups])
        chosen = np.searchsorted(bounds / bounds[-1], unit(self.seed, 1, positions), side="right")
        within = unit(self.seed, 2, positions)
        return np.array([self.groups[g][0][int(u * len(self.groups[g][0]))] for g, u in zip(chosen, within, strict=True)])

    def _permuted(self, position: int) -> int:
        epoch, place = divmod(position, self.size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.size)
        return int(self._order[place])


def collate_clips(samples: list[dict[str, Any]], collate: Collate | None = None) -> dict[str, Any]:
    """Samples to a batch by `collate` (default: stack); what was skipped travels under "skipped" if there is anything."""
    skipped = [skip for sample in samples for skip in sample.pop("skipped", [])]
    batch = (collate or default_collate)(samples)
    return batch | {"skipped": skipped} if skipped else batch


class _Collate:
    """`collate_clips` with the injected collate, as an object that spawned workers can unpickle."""

    def __init__(self, collate: Collate | None) -> None:
        self.collate = collate

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        return collate_clips(samples, self.collate)


class ClipLoader(DataLoader[dict[str, Any]]):
    """A DataLoader that hands what its workers skipped to `on_skip`, in the main process."""

    on_skip: Callable[[list[Skip]], None] | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        for batch in super().__iter__():
            skipped = batch.pop("skipped", [])
            if skipped and self.on_skip is not None:
                self.on_skip(skipped)
            yield batch


class ClipDataModule(LightningDataModule):
    """Loaders for a `DataConfig`. `collate` turns samples into a batch (default: stack), in the workers.

    `start` is the first batch of the training stream; left out, it follows the trainer's global step. Use it with
    `Trainer(use_distributed_sampler=False)`: the stream shards itself.
    """

    def __init__(self, config: DataConfig, collate: Collate | None = None, start: int | None = None) -> None:
        super().__init__()
        _validate(config)
        self.config, self.collate, self.start = config, collate, start
        self.train_set: ClipDataset | None = None
        self.val_set: ClipDataset | None = None
        self.skipped: dict[str, Skip] = {}
        self._groups: list[tuple[range, float]] | None = None
        self._total = 0

    # ------------------------------------------------------------------ which files

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the labels; empty without labels."""
        self.setup()
        assert self.train_set is not None
        return self.train_set.videos.classes

    def prepare_data(self) -> None:
        self.setup()  # builds the cache once per machine, before the other processes look for it

    def setup(self, stage: str | None = None) -> None:
        if self.train_set is not None:
            return
        config = self.config
        train, self._groups = self._train_videos()
        val: VideoList | None = None
        if config.val:
            val = list_videos(config.val, config.labels, config.label_column, train.classes)
        elif config.val_fraction > 0:
            rest, val = train.split(config.val_fraction)
            self._groups = _regroup(self._groups, train, rest)
            train = rest
        caches = [self._cached(videos) if config.cache else (videos, None) for videos in (train, val) if videos is not None]
        self._total = sum(len(videos) for videos in (train, val) if videos is not None)
        for (kept, cache), videos in zip(caches, (train, val), strict=False):
            if videos is train:
                self._groups = _regroup(self._groups, train, kept)
                self.train_set = make_dataset(config, kept, True, cache)
            else:
                self.val_set = make_dataset(config, kept, False, cache)
        self.note([Skip(path, why) for _, cache in caches if cache is not None for path, why in cache.bad.items()])

    def _train_videos(self) -> tuple[VideoList, list[tuple[range, float]] | None]:
        config = self.config
        if not config.mixture:
            return list_videos(config.train, config.labels, config.label_column), None
        parts = [list_videos(part.path, part.labels, config.label_column) for part in config.mixture]
        classes = sorted({name for part in parts for name in part.classes})
        if classes and not all(name.isdigit() for name in classes):
            parts = [list_videos(p.path, p.labels, config.label_column, classes) for p in config.mixture]
        groups, first = [], 0
        for part, source in zip(parts, config.mixture, strict=True):
            groups.append((range(first, first + len(part)), source.weight))
            first += len(part)
        paths, labels = [p for part in parts for p in part.paths], [n for part in parts for n in part.labels]
        root = os.path.commonpath([os.path.abspath(part.root) for part in parts])
        return VideoList(paths, labels, max((part.classes for part in parts), key=len), root), groups

    def _cached(self, videos: VideoList) -> tuple[VideoList, FrameCache]:
        config = self.config
        folder = Path(config.cache_dir) if config.cache_dir else _cache_folder(Path(videos.root))
        cache = FrameCache.build(
            videos.paths, frame_size(config.size), folder, config.backend, config.cache_max_gb, max(1, config.workers)
        )
        good = [i for i, path in enumerate(videos.paths) if path in cache]
        if not good:
            reasons = "\n".join(f"  {reason}" for reason in list(cache.bad.values())[:20])
            raise DataError(f"none of the {len(videos)} videos can be read:\n{reasons}")
        return videos[good], cache

    # ------------------------------------------------------------------ loaders

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Endless: give the trainer `max_steps`. Batches hold video (B,C,T,H,W), label, index, seed and what `collate` adds."""
        self.setup()
        assert self.train_set is not None
        stream = ClipStream(
            len(self.train_set),
            self.config.batch_size,
            self.config.seed,
            *self._rank(),
            start=self._first_batch,
            groups=self._groups,
        )
        return self._loader(self.train_set, stream)

    def val_dataloader(self) -> DataLoader[dict[str, Any]] | list[Any]:
        """Finite, in order, every clip on exactly one rank."""
        self.setup()
        if self.val_set is None:
            return []
        rank, world_size = self._rank()
        mine = range(rank, len(self.val_set), world_size)
        size = self.config.batch_size
        batches = [[(i, 0) for i in mine[first : first + size]] for first in range(0, len(mine), size)]
        return self._loader(self.val_set, batches)

    def _loader(self, dataset: ClipDataset, batches: Iterable[list[tuple[int, int]]]) -> ClipLoader:
        workers = self.config.workers
        loader = ClipLoader(
            dataset,
            batch_sampler=batches,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=_Collate(self.collate),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            prefetch_factor=self.config.prefetch if workers else None,
        )
        loader.on_skip = self.note
        return loader

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _first_batch(self) -> int:
        if self.start is not None:
            return self.start
        trainer = self.trainer
        return trainer.global_step * trainer.accumulate_grad_batches if trainer is not None else 0

    # ------------------------------------------------------------------ bad files

    def note(self, skipped: list[Skip]) -> None:
        """Count files that gave no clip, each once. DataError when more than `max_bad_fraction` of all files are bad."""
        for skip in skipped:
            self.skipped.setdefault(skip.path, skip)
        bad = [skip for skip in self.skipped.values() if skip.bad]
        allowed = self.config.max_bad_fraction
        if len(bad) > allowed * self._total:
            raise DataError(
                f"{len(bad)} of {self._total} video files cannot be read, more than data.max_bad_fraction={allowed:g} allows:\n"
                + _listing(bad)
            )

    def teardown(self, stage: str | None = None) -> None:
        if self.skipped:
            log.warning("%d video files were skipped:\n%s", len(self.skipped), _listing(list(self.skipped.values())))


def _listing(skips: list[Skip], most: int = 50) -> str:
    lines = [f"  {skip.reason}" for skip in skips[:most]]
    return "\n".join(lines + [f"  and {len(skips) - most} more"] * (len(skips) > most))


def _regroup(
    groups: list[tuple[range, float]] | None, before: VideoList, after: VideoList
) -> list[tuple[range, float]] | None:
    """The parts of a mixture after some of its videos were taken out."""
    if groups is None or len(before) == len(after):
        return groups
    kept, first, result = set(after.paths), 0, []
    for rows, weight in groups:
        count = sum(before.paths[i] in kept for i in rows)
        if count:
            result.append((range(first, first + count), weight))
        first += count
    return result


def _cache_folder(root: Path) -> Path:
    """`.cache` beside the videos, or the user's cache folder where that cannot be written."""
    if os.access(root, os.W_OK):
        return root / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jepa-decoded"


def _validate(config: DataConfig) -> None:
    if bool(config.train) == bool(config.mixture):
        raise DataError("data.train is empty: name a folder of videos, a CSV file or a mixture" if not config.train
                        else "give either data.train or data.mixture, not both")
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
