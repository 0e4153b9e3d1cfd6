"""Decode every video once, to small frames in one memory-mapped file.

For sets whose resized frames fit on a disk (and, to be quick, in memory): 2,000 clips of 16 frames at 64x64 take
0.4 GB. The frames come from the same reader as without the cache, resized to cover the configured size and cropped in
the centre; a random crop is then taken from those. Whole videos are kept, so clips are still drawn at random in time.

Layout of <cache folder>/<hash of the settings and of every file's path, size and time>/:
  frames.bin   uint8 (F, h, w, 3), all videos one after the other
  index.json   settings, per path [first frame, frames, fps], and the files that could not be decoded
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from .errors import DataError
from .isolated import Failure, isolated_map
from .reader import open_video
from .tars import file_state
from .transforms import resize_and_crop

__all__ = ["FrameCache"]

LAYOUT = 1
CHUNK = 256e6  # bytes decoded at once, so that a long 4K video does not fill the memory


class FrameCache:
    """The cached frames of a list of videos; build it with `FrameCache.build`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            index = json.loads((folder / "index.json").read_text())
            self.height, self.width = index["size"]
            self.bad: dict[str, str] = index["bad"]
            self._place: dict[str, list[float]] = index["videos"]
            total = int(sum(length for _, length, _ in self._place.values()))
            shape = (total, self.height, self.width, 3)
            self._frames = (
                np.memmap(folder / "frames.bin", np.uint8, "r", shape=shape) if total else np.empty(shape, "u1")
            )
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise DataError(f"{folder} is damaged ({error}): delete it, and the videos are decoded again") from None

    def __reduce__(self) -> tuple[type[FrameCache], tuple[Path]]:
        return FrameCache, (self.folder,)  # a memory map would travel to a spawned worker as a copy of all its bytes

    def __contains__(self, path: str) -> bool:
        return path in self._place

    def length(self, path: str) -> int:
        return int(self._place[path][1])

    def fps(self, path: str) -> float:
        return float(self._place[path][2])

    def frames(self, path: str, indices: np.ndarray) -> np.ndarray:
        """Frames of a video at `indices`, (T,h,w,3) uint8."""
        return self._frames[np.asarray(indices, dtype=np.int64) + int(self._place[path][0])]

    @classmethod
    def build(
        cls,
        paths: Sequence[str],
        size: tuple[int, int],
        folder: Path,
        backend: str = "auto",
        max_gb: float = 8.0,
        workers: int = 2,
        timeout: float = 600.0,
        progress: bool = True,
    ) -> FrameCache:
        """Open the cache below `folder`; where it is not there yet, decode in parallel, with a bar if `progress`.
        DataError beyond `max_gb`.

        Where it cannot be written, as on a full disk, the OSError names the file and nothing of it stays.
        """
        paths = sorted(set(paths))
        target = folder / _key(paths, size, backend)
        if (target / "index.json").is_file():
            return cls(target)
        partial_folder = target.with_name(f"{target.name}.partial-{os.getpid()}")
        shutil.rmtree(partial_folder, ignore_errors=True)
        partial_folder.mkdir(parents=True)
        try:
            with _naming(target / "frames.bin"):
                _decode_all(paths, size, partial_folder, backend, max_gb, workers, timeout, progress)
            try:
                os.replace(partial_folder, target)
            except OSError:
                if not (target / "index.json").is_file():  # otherwise another process was faster, with the same frames
                    raise
        finally:
            shutil.rmtree(partial_folder, ignore_errors=True)
        return cls(target)


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(file)) from None  # "No space left on device" names nothing


def _key(paths: Sequence[str], size: tuple[int, int], backend: str) -> str:
    digest = hashlib.sha256(json.dumps([LAYOUT, list(size), backend]).encode())
    for path in paths:
        try:
            _, size_in_bytes, changed = file_state(path)
            digest.update(os.fsencode(f"{path}\0{size_in_bytes}\0{changed}\n"))
        except (OSError, DataError):
            digest.update(os.fsencode(f"{path}\0missing\n"))
    return digest.hexdigest()[:16]


def _decode_all(
    paths: Sequence[str],
    size: tuple[int, int],
    folder: Path,
    backend: str,
    max_gb: float,
    workers: int,
    timeout: float,
    progress: bool,
) -> None:
    videos: dict[str, tuple[int, int, float]] = {}
    bad: dict[str, str] = {}
    written = 0
    decode = partial(_decode, size=size, backend=backend)
    with open(folder / "frames.bin", "wb") as stream:
        results = isolated_map(decode, paths, workers, timeout)
        every = 0.1 if sys.stderr.isatty() else 10.0  # seconds: a log file keeps every line
        words, off = "decoding videos once", not progress
        for path, result in tqdm(results, words, len(paths), unit="video", mininterval=every, disable=off):
            if isinstance(result, Failure):
                bad[path] = str(result) if path in result else f"{path}: {result}"
                continue
            frames, fps = result
            if (written + len(frames)) * size[0] * size[1] * 3 > max_gb * 1e9:
                raise DataError(
                    f"the cache would be larger than data.cache_max_gb={max_gb:g}, which holds {len(videos)} of "
                    f"{len(paths)} videos: raise it, make data.size smaller, or set data.cache=false"
                )
            stream.write(frames.tobytes())
            videos[path] = (written, len(frames), fps)
            written += len(frames)
    index = {"size": list(size), "videos": videos, "bad": bad}
    (folder / "index.json").write_text(json.dumps(index))


def _decode(path: str, size: tuple[int, int], backend: str) -> tuple[np.ndarray, float]:
    """All frames of a video, resized: ((T,h,w,3) uint8, frames per second)."""
    video = open_video(path, backend)
    pieces = []
    count = max(1, int(CHUNK / (video.height * video.width * 3))) if len(video) > 16 else 16
    for start in range(0, len(video), count):
        frames = torch.from_numpy(video.frames(range(start, min(start + count, len(video)))))
        pieces.append(resize_and_crop(frames.movedim(-1, 1), size).movedim(1, -1).numpy())
    return np.concatenate(pieces), video.fps
