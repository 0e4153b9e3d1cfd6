"""Open a video behind one function: decord where it is installed, PyAV by choice, in its absence or where it fails.

Notable:
- Frames are (T,H,W,3) uint8 RGB, upright: decord applies the display matrix of phone videos itself, for PyAV it is done here.
- Both backends choose the stream that FFmpeg calls best and convert colours by the file's own matrix and range.
- decord is unmaintained: it cannot open AV1 or VVC and gives up on some odd sizes. `backend="auto"` then reads with PyAV.
- Container headers may promise more frames than the file holds. `len` is what the packets promise; a frame that cannot be
  decoded is a DataError, never a silent copy of another frame.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from .errors import DataError

__all__ = ["BACKENDS", "VIDEO_SUFFIXES", "Video", "open_video"]

BACKENDS = ("auto", "decord", "pyav")
VIDEO_SUFFIXES = frozenset(
    [".3g2", ".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ps", ".ts", ".vob", ".webm", ".wmv", ".y4m"]
)


class Video(Protocol):
    """What both backends offer. `fps` is the average frame rate, `height` and `width` are those of the upright frames."""

    path: Path
    backend: str
    codec: str
    fps: float
    height: int
    width: int

    def __len__(self) -> int: ...

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """The frames at `indices` (any order, repeats allowed) as (T,H,W,3) uint8 RGB; DataError if one cannot be decoded."""
        ...


def open_video(path: str | os.PathLike[str], backend: str = "auto") -> Video:
    """Open a video file. Raises DataError, in one sentence that names the file, if it holds no readable video."""
    if backend not in BACKENDS:
        raise DataError(f"unknown video backend {backend!r}; choose one of {', '.join(BACKENDS)}")
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if not path.is_file():
        raise DataError(f"{path} is not a file")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes)")
    if backend == "pyav" or (backend == "auto" and not decord_installed()):
        return PyAVVideo(path)
    try:
        return DecordVideo(path)
    except DataError:
        if backend == "decord":
            raise
        return PyAVVideo(path)


@functools.cache
def decord_installed() -> bool:
    return importlib.util.find_spec("decord") is not None


@functools.cache
def _decord() -> Any:
    # At the end of a damaged file decord 0.6.0 tries 10,240 times by default, which looks like a hang.
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "1024")
    try:
        import decord
    except (ImportError, OSError) as error:
        raise DataError(f'backend "decord" is not installed here ({error}); use backend "pyav"') from None
    decord.logging.set_level(decord.logging.QUIET)
    return decord


class DecordVideo:
    """A video read by decord."""

    backend = "decord"

    def __init__(self, path: Path) -> None:
        decord = _decord()
        self.path = path
        try:
            self._reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
            self._length = len(self._reader)
            self.fps = float(self._reader.get_avg_fps())
            if self._length < 1:
                raise DataError(f"{path} has no video frames")
            self.height, self.width = (int(n) for n in self._reader[0].shape[:2])
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            raise DataError(f"{path} cannot be read by decord: {_sentence(error)}") from None

    @functools.cached_property
    def codec(self) -> str:
        with _opened(self.path) as container:  # decord does not tell
            return _best_stream(container, self.path).codec_context.name

    def __len__(self) -> int:
        return self._length

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        indices = _inside(indices, self)
        decord = _decord()
        try:
            return self._reader.get_batch(indices).asnumpy()
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            raise DataError(f"{self.path} breaks off while decord decodes it: {_sentence(error)}") from None


class PyAVVideo:
    """A video read by PyAV. Opening lists the packets (no decoding), so any frame is reached from the key frame before it."""

    backend = "pyav"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reformatter = VideoReformatter()  # kept: a new scaling context per frame triples the time
        with _opened(path) as container:
            stream = _best_stream(container, path)
            self.codec = stream.codec_context.name
            self.fps = float(stream.average_rate or stream.guessed_rate or 0)
            times: list[int | None] = []
            keys: list[int] = []
            try:
                for packet in container.demux(stream):
                    if packet.size and not packet.is_discard:
                        times.append(packet.pts)
                        if packet.is_keyframe and packet.pts is not None:
                            keys.append(packet.pts)
            except av.FFmpegError:
                pass  # a truncated file: what came before the break can still be read
        known = [time for time in times if time is not None]
        self._seekable = len(set(known)) == len(times)
        self._times = sorted(known) if self._seekable else []
        self._keys = np.array(sorted(keys), dtype=np.int64)
        self._length = len(times)
        if not times:
            raise DataError(f"{path} has no video frames")
        first = self.frames([0])
        self.height, self.width = first.shape[1:3]

    def __len__(self) -> int:
        return self._length

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        indices = _inside(indices, self)
        wanted = sorted(set(indices))
        found = self._by_time(wanted) if self._seekable else None
        if found is None:
            found = self._by_count(wanted)
        return np.stack([found[index] for index in indices])

    def _by_time(self, wanted: list[int]) -> dict[int, np.ndarray] | None:
        """Seek to the key frame before each wanted frame; None where the timestamps turn out not to be dependable."""
        index_of = {self._times[index]: index for index in wanted}
        found: dict[int, np.ndarray] = {}
        try:
            with _opened(self.path) as container:
                stream = _best_stream(container, self.path)
                frames: Iterator[av.VideoFrame] = iter(())
                segment = -2
                for index in wanted:
                    if index in found:
                        continue
                    time = self._times[index]
                    key = int(np.searchsorted(self._keys, time, side="right")) - 1
                    if segment == -2 or key > segment:
                        if key >= 0 and index > 0:
                            container.seek(int(self._keys[key]), stream=stream, backward=True)
                        frames = container.decode(stream)
                        segment = key
                    for frame in frames:
                        if frame.pts in index_of:
                            found[index_of[frame.pts]] = self._rgb(frame)
                        if frame.pts is None or frame.pts >= time:
                            break
                    if index not in found:
                        return None
        except av.FFmpegError:
            return None
        return found

    def _by_count(self, wanted: list[int]) -> dict[int, np.ndarray]:
        """Decode from the beginning and count: slow, but right for files without dependable timestamps."""
        found: dict[int, np.ndarray] = {}
        count, reason = 0, ""
        with _opened(self.path) as container:
            stream = _best_stream(container, self.path)
            try:
                for frame in container.decode(stream):
                    if count in wanted:
                        found[count] = self._rgb(frame)
                    count += 1
                    if count > wanted[-1]:
                        return found
            except av.FFmpegError as error:
                reason = f": {_sentence(error)}"
        if not count:
            raise DataError(f"{self.path} has no frame that can be decoded{reason}")
        raise DataError(f"{self.path} breaks off: frame {wanted[-1]} was asked for and only {count} can be decoded{reason}")

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        height, width = getattr(self, "height", 0), getattr(self, "width", 0)
        turns = round(frame.rotation / 90) % 4
        if turns % 2:
            height, width = width, height
        picture = self._reformatter.reformat(frame, width or None, height or None, format="rgb24", threads=1)
        return np.ascontiguousarray(np.rot90(picture.to_ndarray(), turns))


def _opened(path: Path) -> av.container.InputContainer:
    try:
        return av.open(str(path), "r", metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{path} is not a video that can be opened: {_sentence(error)}") from None


def _best_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    stream = container.streams.best("video")
    if stream is None:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise DataError(f"{path} has no video stream (it holds {kinds})")
    if stream.codec_context is None:
        raise DataError(f"{path} holds video in a format for which there is no decoder")
    return stream


def _inside(indices: Sequence[int], video: Video) -> list[int]:
    listed = [int(index) for index in indices]
    for index in listed:
        if not 0 <= index < len(video):
            raise DataError(f"{video.path} has {len(video)} frames; frame {index} does not exist")
    return listed


def _sentence(error: BaseException) -> str:
    """The last telling line of a decoder's message, without addresses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: |\[[^\]]*@ 0x[0-9a-f]+\] ", "", lines[0] if lines else type(error).__name__)
    return text[:160]
