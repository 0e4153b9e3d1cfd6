"""Videos inside tar shards, read in place: which there are, and where in its tar each one lies.

Not `decoder/shards.py`, which keeps latents: these are the videos themselves, some thousand to a file, as a network
disk likes them.

Notable:
- A shard is a plain tar in the convention of WebDataset; `tar` and the webdataset library read it too. `shards.json`
  beside the shards says what lies where, so that any video is reached at once, and keeps the columns of the table and
  the order of the folder or table that was packed: both mean the same to training, but for the paths.
- A video inside is named as if the tar were a folder, `shards/shard-000003.tar/bridge/clip_17.mp4`. FFmpeg's subfile
  protocol, which decord's FFmpeg knows too, reads that range of bytes: nothing is unpacked, nothing copied.
- A shard that is missing or cut short is found when the list is read, an index that lies when a video is opened, by
  the tar's own header before it; changed bytes by their checksum, which `jepa check-data` compares.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import DataError
from .writer import replacing

__all__ = [
    *("INDEX", "Member", "Shards", "TarShard"),
    *("check", "ffmpeg_name", "file_state", "find", "read_shards", "verify", "write_index"),
]

INDEX = "shards.json"  # not index.json, as many a folder of videos has one of its own


class TarShard(NamedTuple):
    name: str
    size: int
    sha256: str


class Member(NamedTuple):
    """A range of bytes of a tar."""

    tar: Path
    name: str
    offset: int
    size: int


@dataclass
class Shards:
    """What `shards.json` says, a row for each video in the order of what was packed. `columns`: those of a table."""

    folder: Path
    shards: list[TarShard]
    names: list[str]
    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    columns: dict[str, list[str]] | None

    @functools.cached_property
    def tars(self) -> list[Path]:
        return [self.folder / shard.name for shard in self.shards]

    @functools.cached_property
    def paths(self) -> list[str]:
        tars = [f"{tar}{os.sep}" for tar in self.tars]
        names = zip(self.shard.tolist(), self.names, strict=True)
        return [tars[shard] + name.replace("/", os.sep) for shard, name in names]

    @functools.cached_property
    def row_of(self) -> dict[str, int]:
        return {path: row for row, path in enumerate(self.paths)}


def read_shards(folder: str | os.PathLike[str]) -> Shards:
    """The index of a folder of shards, all of which are there and whole. DataError names the shard that is not."""
    shards = _index(str(Path(folder)))
    for tar, (_, size, _) in zip(shards.tars, shards.shards, strict=True):
        found = tar.stat().st_size if tar.is_file() else None
        if found != size:
            what = "is missing" if found is None else f"has {found} bytes and not the {size} it was written with"
            raise DataError(f"{tar} {what}: copy it again, or make the shards anew with `jepa shard`")
    return shards


def verify(folder: str | os.PathLike[str]) -> None:
    """Read all shards and compare their checksums. DataError names those that were changed."""
    shards = read_shards(folder)
    pairs = zip(shards.tars, shards.shards, strict=True)
    changed = [tar.name for tar, shard in pairs if _sha256(tar) != shard.sha256]
    if changed:
        raise DataError(
            f"{shards.folder}: other bytes than were written are in {', '.join(changed)} (sha256): "
            "copy them again, or make the shards anew with `jepa shard`"
        )


def find(path: str | os.PathLike[str]) -> Member | None:
    """Where a video inside a shard lies; None for the path of an ordinary file. DataError if the index lacks it."""
    path = os.fspath(path)
    end = path.find(f".tar{os.sep}")
    while end >= 0:
        folder = os.path.dirname(path[:end])
        try:
            shards = _index(folder)
        except OSError:  # no index: a folder of that name, here or inside the tar
            end = path.find(f".tar{os.sep}", end + 1)
            continue
        row = shards.row_of.get(path)
        if row is None:
            raise DataError(f"{path} is not in {shards.folder / INDEX}")
        tar = shards.tars[shards.shard[row]]
        return Member(tar, shards.names[row], int(shards.offset[row]), int(shards.size[row]))
    return None


def check(member: Member, path: str | os.PathLike[str]) -> None:
    """DataError where the tar does not hold the video at the place that its index names."""
    try:
        with open(member.tar, "rb", buffering=0) as stream:
            stream.seek(member.offset - tarfile.BLOCKSIZE)
            block = stream.read(tarfile.BLOCKSIZE)
            size = os.fstat(stream.fileno()).st_size
        header = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        # What does not fit in a header stands in one before it: other letters, the rest of the name, a size of 8 GiB.
        name = member.name.encode("ascii", "replace")[: tarfile.LENGTH_NAME].decode()
        fits = member.size if member.size < 8**11 else 0
        if (header.name, header.size) == (name, fits) and member.offset + member.size <= size:
            return
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except (tarfile.HeaderError, UnicodeError):
        pass
    raise DataError(
        f"{path} does not lie where {INDEX} says, {member.tar} was changed: copy it again, or make the shards anew "
        "with `jepa shard`"
    )


def ffmpeg_name(path: str | os.PathLike[str]) -> str:
    """What FFmpeg calls this file, or this range of a tar."""
    member = find(path)
    if member is None:
        return os.fspath(path)
    end = member.offset + member.size
    return f"subfile,,start,{member.offset},end,{end},,:{member.tar}"


def file_state(path: str) -> tuple[str, int, int]:
    """(path, size, time of the last change in ns): other contents have another. OSError if there is no such file."""
    member = find(path)
    stat = os.stat(path if member is None else member.tar)
    return path, stat.st_size if member is None else member.size, stat.st_mtime_ns


def write_index(
    folder: Path, places: Sequence[Member], columns: dict[str, list[str]] | None, left_out: dict[str, str]
) -> None:
    """`shards.json` of videos that lie at `places`; `left_out`, why by path, is for people."""
    shards = sorted({place.tar for place in places})
    number = {tar: i for i, tar in enumerate(shards)}
    index = {
        "shards": [{"name": tar.name, "size": tar.stat().st_size, "sha256": _sha256(tar)} for tar in shards],
        "videos": {
            "shard": [number[place.tar] for place in places],
            "name": [place.name for place in places],
            "offset": [place.offset for place in places],
            "size": [place.size for place in places],
        },
        "columns": columns,
        "left_out": left_out,
    }
    with replacing(folder / INDEX) as part:
        part.write_text(json.dumps(index), encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _index(folder: str) -> Shards:
    return _parsed(folder, os.stat(os.path.join(folder, INDEX)).st_mtime_ns)


@functools.cache  # every process that reads videos needs it for each of them
def _parsed(folder: str, changed: int) -> Shards:
    file = Path(folder) / INDEX
    try:
        index: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        shards = [TarShard(**shard) for shard in index["shards"]]
        videos, columns = index["videos"], index["columns"]
        of, offset, size = (np.array(videos[key], np.int64) for key in ("shard", "offset", "size"))
        lengths = {len(videos["name"]), *map(len, (of, offset, size)), *map(len, (columns or {}).values())}
        ends = np.array([shard.size for shard in shards])[of]
        away = any(shard.name != os.path.basename(shard.name) for shard in shards)  # an index from elsewhere stays here
        if away or len(lengths) > 1 or not len(of) or of.min() < 0 or size.min() < 1 or (offset + size > ends).any():
            raise ValueError
        return Shards(file.parent, shards, videos["name"], of, offset, size, columns)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise DataError(f"{file} is damaged: copy it again, or make the shards anew with `jepa shard`") from None
