"""Clips for training: an endless stream that resumes exactly, and a finite pass for validation.

Notable:
- The model's masks come in by `collate`: samples -> batch. This package does not know what a mask is.
- Files that cannot be read are replaced, counted once each and listed in skipped.csv; above `max_bad_fraction` training
  stops. Under DDP every rank counts and lists what it met.
"""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, default_collate

from .cache import FrameCache
from .config import DataConfig, SourceConfig, validate
from .dataset import ClipDataset, Skip, VideoList, list_videos
from .errors import DataError, printable, worker_death
from .isolated import leave_signals_to_main
from .stream import ClipStream
from .transforms import ClipTransform, frame_size

__all__ = ["ClipDataModule", "ClipStream", "DataConfig", "SourceConfig", "collate_clips", "make_dataset"]

log = logging.getLogger(__name__)
Collate = Callable[[list[dict[str, Any]]], dict[str, Any]]


def build_cache(config: DataConfig, videos: VideoList, progress: bool = True) -> FrameCache | None:
    """The decoded frames of `videos`, made now where they are not yet there, with a bar if `progress`; None without
    `data.cache`."""
    if not config.cache:
        return None
    folder = Path(config.cache_dir) if config.cache_dir else _cache_folder(Path(videos.root))
    workers = config.workers or os.cpu_count() or 1
    return FrameCache.build(videos.paths, frame_size(config.size), folder, config.backend, config.cache_max_gb,
                            workers=workers, progress=progress)  # fmt: skip


def make_dataset(
    config: DataConfig, videos: VideoList, train: bool = False, cache: FrameCache | None = None
) -> ClipDataset:
    """The dataset a config describes, over `videos` (see `list_videos`)."""
    return ClipDataset(
        videos,
        ClipTransform(config.size, train, config.scale, config.ratio, config.flip, shorter_side=config.shorter_side),
        num_frames=config.num_frames,
        stride=None if config.fps is not None else config.stride,
        fps=config.fps,
        position="random" if train else "uniform",
        clips_per_video=1 if train else config.clips_per_video,
        short=config.short,
        backend=config.backend,
        cache=cache,
        timeout=config.timeout,
    )


def collate_clips(samples: list[dict[str, Any]], collate: Collate | None = None) -> dict[str, Any]:
    """Samples to a batch by `collate` (default: stack); what was skipped travels under "skipped", if anything was."""
    skipped = [skip for sample in samples for skip in sample.pop("skipped", [])]
    batch = (collate or default_collate)(samples)
    return batch | {"skipped": skipped} if skipped else batch


class _Collate:
    """`collate_clips` with the injected collate, as an object that spawned workers can unpickle."""

    def __init__(self, collate: Collate | None) -> None:
        self.collate = collate

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        return collate_clips(samples, self.collate)


def _worker_init(number: int) -> None:
    leave_signals_to_main()


class ClipLoader(DataLoader[dict[str, Any]]):
    """A DataLoader that hands what its workers skipped to `on_skip`, in the main process."""

    on_skip: Callable[[list[Skip]], None] | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        try:
            for batch in super().__iter__():
                skipped = batch.pop("skipped", [])
                if skipped and self.on_skip is not None:
                    self.on_skip(skipped)
                yield batch
        except DataError as error:
            # Without the worker's traceback, which torch puts into the message; in this process there is none.
            text = str(error)
            raise DataError((text.partition("data.errors.DataError: ")[2] or text).strip()) from None
        except (RuntimeError, ConnectionError, EOFError) as error:
            if (death := worker_death(error)) is None:
                raise
            raise death from None


class ClipDataModule(LightningDataModule):
    """Loaders for a `DataConfig`. `collate` turns samples into a batch (default: stack), in the workers.

    `start` is the first batch of the training stream; left out, it follows the trainer's global step. Use it with
    `Trainer(use_distributed_sampler=False)`: the stream shards itself. `progress`: a bar while videos are decoded once.
    """

    def __init__(
        self, config: DataConfig, collate: Collate | None = None, start: int | None = None, progress: bool = True
    ) -> None:
        super().__init__()
        validate(config)
        self.config, self.collate, self.start, self.progress = config, collate, start, progress
        self.train_set: ClipDataset | None = None
        self.val_set: ClipDataset | None = None
        self.skipped: dict[str, Skip] = {}
        self._recorded: set[str] | None = None
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
        train, groups = self._train_videos()
        train_cache = val_cache = build_cache(config, train, self.progress)
        self._total = len(train)
        val: VideoList | None = None
        if config.val:
            val = self._listed(config.val, config.labels, train.classes)
            val_cache = build_cache(config, val, self.progress)
            self._total += len(val)
        elif config.val_fraction > 0:
            rest, val = train.split(config.val_fraction)
            train, groups = rest, _regroup(groups, train, rest)
        kept = _readable(train, train_cache)
        self._groups = _regroup(groups, train, kept)
        if val is not None:
            self.val_set = make_dataset(config, _readable(val, val_cache), False, val_cache)
        self.train_set = make_dataset(config, kept, True, train_cache)
        caches = [cache for cache in (train_cache, val_cache) if cache is not None]
        self.note([Skip(path, why) for cache in caches for path, why in cache.bad.items()])

    def _train_videos(self) -> tuple[VideoList, list[tuple[range, float]] | None]:
        config = self.config
        if not config.mixture:
            return self._listed(config.train, config.labels), None
        parts = [self._listed(part.path, part.labels) for part in config.mixture]
        classes = sorted({name for part in parts for name in part.classes})
        if classes and not all(name.isdigit() for name in classes):
            parts = [self._listed(part.path, part.labels, classes) for part in config.mixture]
        groups, first = [], 0
        for part, source in zip(parts, config.mixture, strict=True):
            groups.append((range(first, first + len(part)), source.weight))
            first += len(part)
        paths, labels = [p for part in parts for p in part.paths], [n for part in parts for n in part.labels]
        root = os.path.commonpath([os.path.abspath(part.root) for part in parts])
        return VideoList(paths, labels, max((part.classes for part in parts), key=len), root), groups

    def _listed(self, path: str, labels: str, classes: Sequence[str] = ()) -> VideoList:
        return list_videos(path, labels, self.config.label_column, classes, self.config.root)

    # ------------------------------------------------------------------ loaders

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Endless: give the trainer `max_steps`.

        Batches hold video (B,C,T,H,W) float32, label, index and seed (B,) int64, and what `collate` adds.
        """
        self.setup()
        assert self.train_set is not None
        stream = ClipStream(
            len(self.train_set),
            self.config.batch_size,
            self.config.seed,
            *self._rank(),
            start=self._first_batch,
            groups=self._groups,
            shards=self.train_set.videos.shards,
        )
        return self._loader(self.train_set, stream)

    def clips_at(self, batches: Iterable[Sequence[int]]) -> DataLoader[dict[str, Any]]:
        """The training clips at these positions of the stream (see `ClipStream.at`), a batch for each list of them."""
        self.setup()
        assert self.train_set is not None
        shards = self.train_set.videos.shards
        stream = ClipStream(len(self.train_set), 1, self.config.seed, groups=self._groups, shards=shards)
        return self._loader(self.train_set, [stream.at(positions) for positions in batches])

    def val_dataloader(self) -> DataLoader[dict[str, Any]] | list[Any]:
        """Finite, every clip on exactly one rank, mixed in an order that never changes: a prefix is a fair sample."""
        self.setup()
        if self.val_set is None:
            return []
        rank, world_size = self._rank()
        mine = np.random.default_rng(0).permutation(len(self.val_set))[rank::world_size].tolist()
        size = self.config.batch_size
        batches = [[(i, 0) for i in mine[first : first + size]] for first in range(0, len(mine), size)]
        return self._loader(self.val_set, batches)

    def _loader(self, dataset: Dataset[dict[str, Any]], batches: Iterable[list[tuple[int, int]]]) -> ClipLoader:
        workers = self.config.workers
        loader = ClipLoader(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_Collate(self.collate),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0 and isinstance(batches, ClipStream),
            prefetch_factor=self.config.prefetch if workers else None,
            worker_init_fn=_worker_init,
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
        """Count files that gave no clip, each once. DataError when more than `max_bad_fraction` of them are bad."""
        for skip in skipped:
            self.skipped.setdefault(skip.path, skip)
        if skipped and self.trainer is not None:
            self._record(Path(self.trainer.default_root_dir))
        bad = [skip for skip in self.skipped.values() if skip.bad]
        allowed = self.config.max_bad_fraction
        if len(bad) > allowed * self._total:
            share = f"{len(bad)} of {self._total} video files cannot be read"
            raise DataError(f"{share}, more than data.max_bad_fraction={allowed:g} allows:\n{_listing(bad)}")

    def _record(self, folder: Path) -> None:
        """Add what was skipped to skipped.csv (path, reason; of rank r: skipped-r.csv), which a resumed run goes on."""
        rank, _ = self._rank()
        path = folder / (f"skipped-{rank}.csv" if rank else "skipped.csv")
        if self._recorded is None:
            with path.open(newline="", encoding="utf-8") if path.is_file() else nullcontext(()) as lines:
                self._recorded = {row["path"] for row in csv.DictReader(lines)}
        rows = [skip for skip in self.skipped.values() if skip.path not in self._recorded]
        if rows:
            folder.mkdir(parents=True, exist_ok=True)
            with path.open("a", newline="", encoding="utf-8", errors="backslashreplace") as stream:
                table = csv.writer(stream, lineterminator="\n")
                table.writerows(
                    ([] if stream.tell() else [("path", "reason")]) + [(row.path, row.reason) for row in rows]
                )
            self._recorded.update(row.path for row in rows)

    def teardown(self, stage: str | None = None) -> None:
        for dataset in (self.train_set, self.val_set):
            if dataset is not None:
                dataset.close()
        if self.skipped:
            log.warning("%d video files were skipped:\n%s", len(self.skipped), _listing(list(self.skipped.values())))


def _listing(skips: list[Skip], most: int = 50) -> str:
    lines = [f"  {printable(skip.reason)}" for skip in skips[:most]]
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


def _readable(videos: VideoList, cache: FrameCache | None) -> VideoList:
    """Without the videos that could not be decoded into the cache."""
    if cache is None:
        return videos
    good = [i for i, path in enumerate(videos.paths) if path in cache]
    if not good:
        bad = [Skip(path, cache.bad[path]) for path in videos.paths]
        raise DataError(f"none of {len(videos)} video files can be read:\n{_listing(bad)}")
    return videos[good]


def _cache_folder(root: Path) -> Path:
    """`.cache` beside the videos, or the user's cache folder where that cannot be written."""
    if os.access(root, os.W_OK):
        return root / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jepa-decoded"
