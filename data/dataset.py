"""Videos on disk as a map-style dataset of clips.

Notable:
- A source is a video file, a folder (searched recursively; a folder per class on request), a table (CSV with a header,
  or V-JEPA's header-less `path label` lines), or a folder of tar shards that `jepa shard` made of one of these.
- What a table names lies below the table's folder, or below `root`: a table from elsewhere reads nothing else.
- A sample is asked for by (index, seed): every random choice follows from the two, whatever the worker or the order.
- A file that cannot be read does not stop anything here: the sample is drawn from another file, chosen by the seed, and
  says under "skipped" what was wrong. Counting and stopping is the data module's business.
- With a `timeout`, files are decoded in a process that may crash or hang: that costs one file, like any bad one.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from .clips import clip_place, clip_step, frame_indices
from .config import LABELS
from .errors import DataError, printable
from .isolated import Failure, Isolated, attempt
from .reader import VIDEO_SUFFIXES, open_video
from .seeds import mix
from .tars import INDEX, read_shards
from .transforms import ClipTransform

__all__ = ["ClipDataset", "FrameSource", "Skip", "VideoList", "find_videos", "list_videos", "table_paths"]

MAX_CLASSES = 1_000_000
ATTEMPTS = 10  # files tried for one sample before giving up
RECYCLE = 1024  # clips decoded in one process: decord leaks up to 8 kB each time it opens a file
SOURCE, REPLACE, PLACE = 11, 12, 13  # which choice a seed is mixed for


class Skip(NamedTuple):
    """A file that gave no clip. `bad` is False where it could be read but is shorter than the policy allows."""

    path: str
    reason: str
    bad: bool = True


@dataclass
class VideoList:
    """Paths with labels (-1: none), the names of the classes, and in which shard each video lies, if they do."""

    paths: list[str]
    labels: list[int]
    classes: list[str] = field(default_factory=list)
    root: str = ""
    shards: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Sequence[int]) -> VideoList:
        shards = [self.shards[i] for i in rows] if self.shards else []
        return VideoList([self.paths[i] for i in rows], [self.labels[i] for i in rows], self.classes, self.root, shards)

    def split(self, fraction: float) -> tuple[VideoList, VideoList]:
        """(rest, held out): `fraction` of the files by a hash of their path below the root; at least one each."""
        if len(self) < 2:
            raise DataError(
                f"{self.root} has too few videos to hold one out: name a set in data.val or set data.val_fraction=0"
            )
        names = [Path(os.path.relpath(path, self.root)).as_posix() for path in self.paths]
        if self.shards:  # whatever tar it is in: packed otherwise, the same videos are held out
            names = [name.partition("/")[2] for name in names]
        order = sorted(range(len(self)), key=lambda i: hashlib.md5(os.fsencode(names[i])).digest())
        count = min(max(1, round(fraction * len(self))), len(self) - 1)
        held = set(order[:count])
        return self[[i for i in range(len(self)) if i not in held]], self[sorted(held)]


def find_videos(folder: str | os.PathLike[str]) -> list[str]:
    """Every video file below a folder, by suffix, sorted; hidden files and folders are left out."""
    found: list[str] = []
    others: list[str] = []
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if os.path.realpath(here) in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(os.path.realpath(here))
        for name in files:
            if name.startswith("."):
                continue
            (found if Path(name).suffix.lower() in VIDEO_SUFFIXES else others).append(os.path.join(here, name))
    if not found:
        what = f"it holds {len(others)} other files, such as {Path(others[0]).name}" if others else "it is empty"
        packed = [Path(name).parent for name in others if Path(name).name == INDEX]
        if packed:
            what = f"it holds tar shards in {packed[0]}, which is the folder to name"
        elif any(name.endswith(".tar") for name in others):
            what = f"it holds tar files and no {INDEX}, as an interrupted `jepa shard` leaves them: run that again"
        raise DataError(f"{folder} has no video files: {what}")
    return sorted(found)


def list_videos(
    source: str | os.PathLike[str],
    labels: str = "auto",
    label_column: str = "label",
    classes: Sequence[str] = (),
    root: str = "",
) -> VideoList:
    """The videos of a file, folder or table.

    labels: "auto" (a table's label column; none for a folder), "folder" (the first folder below the source names the
    class), "none". `classes` fixes the order of the class names, as a validation set needs; else they are sorted.
    `root`: see `table_paths`.
    """
    if labels not in LABELS:
        raise DataError(f"unknown labels {labels!r}; choose one of {', '.join(LABELS)}")
    path = Path(source)
    if not str(source) or not os.path.exists(path):  # false, not an error, where the name is too long for one
        raise DataError(f"{source or 'the data source'} does not exist: name a folder of videos, a video or a CSV file")
    if (path / INDEX).is_file():
        packed = read_shards(path)
        if packed.columns is None:
            videos = _folder(path, packed.paths, [name.split("/") for name in packed.names], labels, classes)
        else:
            videos = _named(packed.paths, _column(path, packed.columns, labels, label_column), classes, path, path)
        return replace(videos, shards=packed.shard.tolist())
    if path.is_dir():
        paths = find_videos(path)
        return _folder(path, paths, [os.path.relpath(video, path).split(os.sep) for video in paths], labels, classes)
    if path.suffix.lower() in VIDEO_SUFFIXES - {".ts"} or (path.suffix.lower() == ".ts" and _binary(path)):
        return VideoList([str(path)], [-1], [], str(path.parent))
    return _table(path, labels, label_column, classes, root)


def _binary(path: Path) -> bool:
    with path.open("rb") as stream:
        return b"\0" in stream.read(512)


def _folder(root: Path, paths: list[str], names: list[list[str]], labels: str, classes: Sequence[str]) -> VideoList:
    """`names`: the parts of each path below the root, the first of which may be its class."""
    if labels != "folder":
        return VideoList(paths, [-1] * len(paths), [], str(root))
    lost = next((path for path, parts in zip(paths, names, strict=True) if len(parts) < 2), None)
    if lost is not None:
        raise DataError(f"{lost} lies in no class folder: with labels=folder every video lies in {root}/<class>/")
    return _named(paths, [parts[0] for parts in names], classes, root, root)


def table_paths(table: Path, names: Sequence[str], root: str = "") -> list[str]:
    """The paths that a table names, relative to its folder; DataError where one is not below `root`.

    An empty `root` is the table's folder, and "/" allows any path. Paths are compared as they are written, once `..` is
    taken out, and opened as they were compared. Links are followed wherever they lead: who can put a link into the
    folder can put a video there as well, and large sets are often kept as links.
    """
    fence = os.path.abspath(root or table.parent)
    paths = [os.path.normpath(table.parent / name) for name in names]
    strange = [name for name in names if "\0" in name]
    if strange:
        raise DataError(f"{table} is no table of videos: a path in it holds a zero byte, {strange[0][:80]!r}")
    inside = [Path(os.path.abspath(path)).is_relative_to(fence) for path in paths]
    out = [name for name, fits in zip(names, inside, strict=True) if not fits]
    if out:
        raise DataError(
            f"{table} names {len(out)} of {len(names)} videos outside {fence}, the first {out[0][:200]}: "
            "if you trust the table, add data.root=/ (root=/ to `jepa check-data`, `jepa shard`, `jepa surprise`)"
        )
    return paths


def read_table(path: Path) -> tuple[dict[str, list[str]], bool]:
    """(columns by name, with or without a header): the columns of V-JEPA's header-less lines are path and label."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise DataError(f"{path} is neither a folder, a video nor a text table") from None
    if not lines:
        raise DataError(f"{path} is an empty table")
    try:
        rows = list(csv.reader(lines))
    except csv.Error as error:  # a field of more than 128 KiB: a quote that is never closed
        raise DataError(f"{path} is not a readable CSV table: {error}") from None
    if "path" in rows[0]:
        header = rows[0]
        if len(rows) == 1:
            raise DataError(f"{path} has a header and no rows")
        short = next((row for row in rows if len(row) < len(header)), None)
        if short is not None:
            raise DataError(f"{path}: a row has {len(short)} fields, the header {len(header)}: {','.join(short)[:80]}")
        return {name: [row[i] for row in rows[1:]] for i, name in enumerate(header)}, True
    pairs = [line.rsplit(None, 1) for line in lines]
    wrong = [line for line, pair in zip(lines, pairs, strict=True) if len(pair) != 2 or not _integer(pair[1])]
    if wrong:
        raise DataError(f"{path} is neither a CSV with a 'path' column nor lines of 'path label': {wrong[0][:80]!r}")
    return {"path": [pair[0] for pair in pairs], "label": [pair[1] for pair in pairs]}, False


def _table(path: Path, labels: str, label_column: str, classes: Sequence[str], root: str) -> VideoList:
    columns, header = read_table(path)
    if not header and labels != "none" and label_column != "label":
        raise DataError(
            f"{path} has no header, so no column {label_column!r}: give a CSV with columns path,{label_column}"
        )
    paths = table_paths(path, columns["path"], root)
    return _named(paths, _column(path, columns, labels, label_column), classes, path.parent, path)


def _column(path: Path, columns: dict[str, list[str]], labels: str, label_column: str) -> list[str]:
    """What a table says of each row's class; "" where it says nothing."""
    if labels == "none" or (label_column == "label" and "label" not in columns):
        return [""] * len(columns["path"])
    if label_column not in columns:
        raise DataError(f"{path} has no column {label_column!r}; its columns are {_few(list(columns))}")
    return columns[label_column]


def _integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _named(paths: list[str], values: list[str], classes: Sequence[str], root: Path, source: Path) -> VideoList:
    """Labels as numbers: integers as they are, names by their place among the sorted (or given) class names."""
    given = [value for value in values if value]
    if all(map(_integer, given)):
        wild = [value for value in given if len(value) > 7 or not -1 <= int(value) < MAX_CLASSES]
        if wild:  # as many names of classes would be made
            raise DataError(f"{source} has a label {wild[0][:40]}: number the classes from 0 to below {MAX_CLASSES}")
        labels = [int(value) if value else -1 for value in values]
        return VideoList(paths, labels, [str(i) for i in range(max(labels, default=-1) + 1)], str(root))
    known = list(classes) or sorted(set(given))
    place = {name: i for i, name in enumerate(known)}
    strange = sorted(set(given) - place.keys())
    if strange:
        raise DataError(f"{source} has classes that training lacks: {_few(strange)} (known: {_few(known)})")
    return VideoList(paths, [place[value] if value else -1 for value in values], known, str(root))


def _few(names: list[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


class FrameSource(Protocol):
    """Where frames come from instead of the file: the cache."""

    def __contains__(self, path: str) -> bool: ...

    def length(self, path: str) -> int: ...

    def fps(self, path: str) -> float: ...

    def frames(self, path: str, indices: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class ClipReader:
    """(path, number of the clip, seed) -> uint8 clip (T,h,w,C), cropped and resized: what a process can do for others.

    (0,1,1,3) where the video is shorter than the policy allows; DataError where it cannot be read.
    """

    transform: ClipTransform
    num_frames: int
    stride: int | None
    fps: float | None
    position: str
    clips_per_video: int
    short: str
    backend: str
    cache: FrameSource | None

    def __call__(self, task: tuple[str, int, int]) -> np.ndarray:
        path, clip, seed = task
        if self.cached(path):
            assert self.cache is not None
            indices = self._indices(self.cache.length(path), self.cache.fps(path), clip, seed)
            frames = self.cache.frames(path, indices)
        else:
            video = open_video(path, self.backend)
            indices = self._indices(len(video), video.fps, clip, seed)
            frames = video.frames(indices) if len(indices) else np.empty((0, 1, 1, 3), np.uint8)
        return self.transform.place(frames, seed).numpy() if len(frames) else frames

    def cached(self, path: str) -> bool:
        """Nothing of this file has to be decoded."""
        return self.cache is not None and path in self.cache

    def _indices(self, length: int, fps: float, clip: int, seed: int) -> np.ndarray:
        place = clip_place(self.position, clip, self.clips_per_video, int(mix(seed, PLACE)))
        return frame_indices(length, self.num_frames, clip_step(self.stride, self.fps, fps), place, self.short)


class ClipDataset(Dataset[dict[str, Any]]):
    """Clips of a list of videos. `dataset[i]` or `dataset[i, seed]` gives {"video": float32 (C,T,h,w), "label": int (-1
    if none), "index": int, "seed": int} and, where files failed, "skipped": list[Skip]; "index" is then the
    replacement's. Item i is clip `i % clips_per_video` of video `i // clips_per_video`, placed by `position`.
    """

    def __init__(
        self,
        videos: VideoList,
        transform: ClipTransform,
        num_frames: int = 16,
        stride: int | None = 1,
        fps: float | None = None,
        position: str = "random",
        clips_per_video: int = 1,
        short: str = "error",
        backend: str = "auto",
        cache: FrameSource | None = None,
        timeout: float = 0.0,
    ) -> None:
        if not len(videos):
            raise DataError("the dataset has no videos")
        if num_frames < 1 or clips_per_video < 1:
            raise DataError(f"num_frames ({num_frames}) and clips_per_video ({clips_per_video}) must be at least 1")
        clip_step(stride, fps, 30.0)  # says at once what is wrong with stride and fps
        self.videos, self.transform, self.clips_per_video = videos, transform, clips_per_video
        self._read = ClipReader(transform, num_frames, stride, fps, position, clips_per_video, short, backend, cache)
        self._isolated = Isolated(self._read, timeout, RECYCLE) if timeout else None

    def __len__(self) -> int:
        return len(self.videos) * self.clips_per_video

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[dict[str, Any]]:
        """Several samples, whose "video" are views of one batch: flip and normalise cost once, not once a clip."""
        pairs = [(int(key), 0) if isinstance(key, int | np.integer) else (int(key[0]), int(key[1])) for key in keys]
        drawn = self._draw(pairs)
        seeds = np.array([seed for _, seed in pairs], dtype=np.uint64)
        videos = self.transform.finish(torch.stack([clip for _, clip, _ in drawn]), seeds)
        samples = []
        for (_, seed), (index, _, skipped), video in zip(pairs, drawn, videos, strict=True):
            label = self.videos.labels[index // self.clips_per_video]
            sample: dict[str, Any] = {"video": video, "label": label, "index": index, "seed": seed}
            if skipped:
                sample["skipped"] = skipped
            samples.append(sample)
        return samples

    def close(self) -> None:
        """End the process that decodes, if there is one; it starts again when it is needed."""
        if self._isolated is not None:
            self._isolated.close()

    def _draw(self, pairs: list[tuple[int, int]]) -> list[tuple[int, torch.Tensor, list[Skip]]]:
        """For each (index, seed): the index that was used, its uint8 clip (T,h,w,C), what was skipped on the way."""
        candidates = [self._candidates(index, seed) for index, seed in pairs]
        skipped: list[list[Skip]] = [[] for _ in pairs]
        drawn: dict[int, tuple[int, torch.Tensor, list[Skip]]] = {}
        while left := [k for k in range(len(pairs)) if k not in drawn]:
            indices = [_next(candidates[k], skipped[k]) for k in left]
            tasks = [(*self._clip(index), pairs[k][1]) for k, index in zip(left, indices, strict=True)]
            for k, index, (path, _, _), clip in zip(left, indices, tasks, self._clips(tasks), strict=True):
                if isinstance(clip, Failure):
                    skipped[k].append(Skip(path, str(clip) if path in clip else f"{path}: {clip}"))
                elif len(clip):
                    drawn[k] = index, torch.from_numpy(clip), skipped[k]
                else:
                    skipped[k].append(Skip(path, f"{path} is shorter than the clip", bad=False))
        return [drawn[k] for k in range(len(pairs))]

    def _clip(self, index: int) -> tuple[str, int]:
        """Which video, and which of its clips."""
        return self.videos.paths[index // self.clips_per_video], index % self.clips_per_video

    def _clips(self, tasks: list[tuple[str, int, int]]) -> list[np.ndarray | Failure]:
        here = [self._isolated is None or self._read.cached(path) for path, _, _ in tasks]
        away = [task for task, now in zip(tasks, here, strict=True) if not now]
        results = iter(self._isolated.map(away) if self._isolated is not None and away else ())
        return [attempt(self._read, task) if now else next(results) for task, now in zip(tasks, here, strict=True)]

    def _candidates(self, index: int, seed: int) -> Iterator[int]:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        yield index
        tried = {index // self.clips_per_video}
        for turn in range(4 * ATTEMPTS):
            if len(tried) in (ATTEMPTS, len(self.videos)):
                return
            other = int(mix(seed, REPLACE, index, turn) % np.uint64(len(self)))
            if other // self.clips_per_video not in tried:
                tried.add(other // self.clips_per_video)
                yield other


def _next(candidates: Iterator[int], skipped: list[Skip]) -> int:
    """The next of a sample's candidates. DataError, with what was wrong with all of them, where there is no other."""
    for index in candidates:
        return index
    reasons = "\n".join(f"  {printable(skip.reason)}" for skip in skipped[:10])
    raise DataError(f"no clip could be read from {len(skipped)} files in a row:\n{reasons}")
