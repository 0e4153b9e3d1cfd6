"""`jepa shard`: pack a folder or table of videos into tar shards in the convention of WebDataset.

`tars.py` reads them in place.

Notable:
- A sample is the video's bytes as they are, `<key>.mp4`, and `<key>.json` with its path and what the table says of
  it. The key is the path below the source, without what WebDataset or `tar` would misread.
- Videos are shuffled once, so that every shard is a mixture; the same videos, seed and size give the same bytes.
- Every shard appears whole or not at all, and `shards.json` last: what was interrupted does not look complete. The same
  command then goes on, for a shard is a function of its place in the plan.
- Only videos that can be decoded to the end go in; the others are named, in the report and in `shards.json`.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from .check import inspect_file
from .dataset import VideoList, list_videos, read_table
from .errors import DataError
from .isolated import Failure, isolated_map
from .tars import INDEX, Member, write_index
from .writer import replacing

__all__ = ["Packed", "ShardConfig", "packed_report", "shard_videos"]


@dataclass
class ShardConfig:
    """Everything `jepa shard` reads.

    path              a folder (searched recursively), a table or a video.
    out               the folder of shards to make.
    shard_mb          megabytes of video in a shard, unless one video has more.
    check             decode every video first and leave out those that break; false: only those that are not there.
    workers, timeout  processes that check, and the seconds each video is given.
    seed              of the order in which videos are spread over shards.
    root              folder that a table's paths may not leave; empty: the table's own ("/" allows any path).
    """

    path: str = "???"
    out: str = "???"
    shard_mb: float = 512.0
    check: bool = True
    workers: int = 2
    timeout: float = 60.0
    seed: int = 0
    root: str = ""
    progress: bool = True


class Packed(NamedTuple):
    """What came of it; `left_out`: why, by path."""

    out: Path
    videos: int
    shards: int
    size: int
    left_out: dict[str, str]


class _Video(NamedTuple):
    """A video to be packed: its row in the source, its file, its name in the tar, and what is said of it there."""

    row: int
    path: str
    name: str
    size: int
    facts: dict[str, str]


def shard_videos(config: ShardConfig) -> Packed:
    """Pack the videos of `config.path` into `config.out`. DataError where there is nothing to pack, or the folder holds
    something else."""
    out, source = Path(config.out), Path(config.path)
    if (out / INDEX).exists():
        raise DataError(f"{out} already holds shards: name another out=, or remove it")
    if config.shard_mb <= 0:
        raise DataError(f"shard_mb={config.shard_mb:g} must be positive")
    videos = list_videos(source, "none", root=config.root)
    if videos.shards:
        raise DataError(f"{source} holds shards already: name the videos they were made of")
    table = None if source.is_dir() or videos.paths == [str(source)] else read_table(source)[0]
    plan = _plan(_videos(videos, table), config)
    there = set(out.glob("shard-*.tar"))
    if strange := sorted(there - plan.keys()):
        raise _other(strange[0])
    for rest in out.glob(".shard-*.partial"):
        rest.unlink()  # of a run that was killed
    if there:
        tqdm.write(f"going on in {out}, where {len(there)} of {len(plan)} shards are done")
    left_out: dict[str, str] = {}
    places: dict[int, Member] = {}  # by row
    with tqdm(total=len(videos), desc="packing", unit="video", disable=not config.progress) as bar:
        for tar, members in plan.items():
            places |= _pack(tar, members, config, left_out, bar)
    if not places:
        reasons = "\n".join(f"  {reason}" for reason in list(left_out.values())[:10])
        raise DataError(f"none of the {len(videos)} videos of {source} can be read:\n{reasons}")
    rows = sorted(places)
    columns = None if table is None else {name: [values[row] for row in rows] for name, values in table.items()}
    write_index(out, [places[row] for row in rows], columns, left_out)
    size = sum(place.size for place in places.values())
    return Packed(out, len(places), len({place.tar for place in places.values()}), size, left_out)


def packed_report(packed: Packed) -> str:
    """What a person wants to know: how much was packed, then every video that was not, and why."""
    lines = [f"wrote {packed.out}: {packed.videos} videos, {packed.size / 1e6:.1f} MB, in {packed.shards} shards"]
    if packed.left_out:
        total = packed.videos + len(packed.left_out)
        lines.append(f"left out {len(packed.left_out)} of {total} videos, which cannot be read:")
    return "\n".join([*lines, *(f"  {reason}" for reason in packed.left_out.values())])


def _videos(videos: VideoList, table: dict[str, list[str]] | None) -> list[_Video]:
    found, taken = [], set[str]()
    for row, path in enumerate(videos.paths):
        below = Path(os.path.relpath(path, videos.root))
        key = wanted = _key(below)
        copies = 0
        while key.casefold() in taken:  # the key is without the suffix, and some disks do not tell a from A
            copies += 1
            key = f"{wanted}-{copies}"
        taken.add(key.casefold())
        size = os.path.getsize(path) if os.path.isfile(path) else 0
        facts = {"path": below.as_posix()} if table is None else {name: table[name][row] for name in table}
        found.append(_Video(row, path, key + (below.suffix or ".video"), size, facts))
    return found


def _key(below: Path) -> str:
    """Without dots in the file's name, after the first of which WebDataset begins the suffix, and no way out."""
    folders = [part for part in below.parts[:-1] if part not in ("..", below.anchor)]
    return "/".join([*folders, below.stem.replace(".", "_")])


def _plan(videos: Sequence[_Video], config: ShardConfig) -> dict[Path, list[_Video]]:
    """Which videos go into which tar, in a shuffled order."""
    shards: list[list[_Video]] = []
    size = float("inf")
    for row in np.random.default_rng(config.seed).permutation(len(videos)).tolist():
        if size + videos[row].size > config.shard_mb * 1e6:
            shards.append([])
            size = 0
        shards[-1].append(videos[row])
        size += videos[row].size
    return {Path(config.out) / f"shard-{i:06d}.tar": members for i, members in enumerate(shards)}


def _pack(
    tar: Path, videos: list[_Video], config: ShardConfig, left_out: dict[str, str], bar: tqdm
) -> dict[int, Member]:
    """Where in `tar`, written now unless it is there, each video lies, by row; what is not in it goes to `left_out`."""
    there = _members(tar) if tar.exists() else {}
    planned = {video.name: video.size for video in videos}
    if any(planned.get(name) != size for name, (_, size) in there.items()):
        raise _other(tar)
    bar.update(len(there))
    missing = [video.path for video in videos if video.name not in there]
    bad = {}
    for path, reason in _faults(missing, config):
        bar.update()
        if reason:
            bad[path] = reason
    left_out.update(bad)
    good = [video for video in videos if video.path not in bad]
    if len(good) > len(there):
        _write(tar, good)
        there = _members(tar)
    return {video.row: Member(tar, video.name, *there[video.name]) for video in good}


def _faults(paths: list[str], config: ShardConfig) -> Iterator[tuple[str, str]]:
    """(path, why it cannot be packed, or nothing), in any order."""
    if not config.check:
        for path in paths:
            there = os.path.isfile(path) and os.path.getsize(path) > 0
            yield path, "" if there else f"{path} does not exist or is empty"
        return
    inspect = partial(inspect_file, num_frames=1, stride=1, fps=None, backend="auto")
    for path, report in isolated_map(inspect, paths, config.workers, config.timeout):
        reason = str(report) if isinstance(report, Failure) else "" if report.ok else report.reason
        yield path, reason if path in reason or not reason else f"{path}: {reason}"


def _write(tar: Path, videos: list[_Video]) -> None:
    """A video is held in memory while it is written."""
    from webdataset import TarWriter  # slow to import, and nobody else needs it

    with replacing(tar) as part, part.open("wb") as stream, TarWriter(stream, mtime=0) as writer:
        for video in videos:
            key, _, suffix = video.name.rpartition(".")
            facts = json.dumps(video.facts).encode()
            writer.write({"__key__": key, suffix: Path(video.path).read_bytes(), "json": facts})


def _members(tar: Path) -> dict[str, tuple[int, int]]:
    """(offset, size) of each video of a shard."""
    try:
        with tarfile.open(tar, "r:") as members:
            return {each.name: (each.offset_data, each.size) for each in members if not each.name.endswith(".json")}
    except tarfile.TarError:
        raise _other(tar) from None


def _other(tar: Path) -> DataError:
    return DataError(
        f"{tar} is not of these videos, this shard_mb and this seed, or is damaged: remove it, or name another out="
    )
