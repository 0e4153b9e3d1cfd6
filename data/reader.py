"""Open a video behind one function: decord where it is installed, PyAV by choice, in its absence or where it fails.

Notable:
- Frames are (T,H,W,3) uint8 RGB, upright: decord applies the display matrix of phone videos itself, for PyAV it is
  done here. Both choose the stream that FFmpeg calls best and undo the file's own colour matrix and range: for 8-bit
  video of even height the pixels are identical, else they differ by a few levels (two generations of FFmpeg's scaler).
- decord 0.6.0 is unmaintained. It cannot open AV1 or VVC, fails on frames 48, 72 or at most 24 pixels wide and on some
  files that are a little damaged, and loses the first frames of MPEG streams without a word, so that it is not asked:
  `backend="auto"` reads all those with PyAV.
- Containers may promise more frames than they hold; `len` is what the packets promise. Past the last frame that can be
  decoded PyAV raises DataError; decord repeats that frame, or raises. `data.check` decodes with PyAV to tell.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from . import tars
from .errors import DataError

__all__ = ["BACKENDS", "VIDEO_SUFFIXES", "Video", "open_video"]

BACKENDS = ("auto", "decord", "pyav")
MPEG_STREAMS = frozenset({".m2ts", ".mpeg", ".mpg", ".mts", ".ps", ".ts", ".vob"})
VIDEO_SUFFIXES = MPEG_STREAMS | {
    *(".3g2", ".3gp", ".asf", ".avi", ".flv", ".gif", ".m4v", ".mkv"),
    *(".mov", ".mp4", ".mxf", ".ogv", ".webm", ".wmv", ".y4m"),
}
PLAUSIBLE_FPS = 240  # a rate above this is a container's time base, not a frame rate


class Video(Protocol):
    """What both backends offer. `fps` is the average frame rate; `height` and `width` are those of upright frames."""

    path: Path
    backend: str
    fps: float

    def __len__(self) -> int: ...

    @property
    def codec(self) -> str: ...

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Frames at `indices` (any order, repeats allowed), (T,H,W,3) uint8 RGB; DataError where that is impossible."""
        ...


def open_video(path: str | os.PathLike[str], backend: str = "auto") -> Video:
    """Open a video, a file or inside a tar shard, without decoding it yet. DataError, naming it, if it is not one."""
    if backend not in BACKENDS:
        raise DataError(f"unknown video backend {backend!r}; choose one of {', '.join(BACKENDS)}")
    path = Path(path)
    member = tars.find(path)
    if member is not None:
        tars.check(member, path)
    elif not os.path.exists(path):  # nor can it where its name is too long
        raise DataError(f"{path} does not exist")
    elif not path.is_file():
        raise DataError(f"{path} is not a file")
    elif os.fsencode(path).decode(errors="replace") != str(path):
        raise DataError(f"{path} has a name that is not UTF-8, and no reader here takes it: rename it")
    elif path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes)")
    stream = path.suffix.lower() in MPEG_STREAMS
    if backend == "decord":
        if stream:
            raise DataError(
                f"{path} is an MPEG stream, of which decord loses the first frames; use backend auto or pyav"
            )
        return DecordVideo(path)
    if backend == "auto" and decord_installed() and not stream:
        try:
            return DecordVideo(path, fall_back=True)
        except DataError:
            pass  # PyAV has the last word, and the better sentence
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
    """A video read by decord. With `fall_back`, PyAV takes over where decord fails half-way."""

    def __init__(self, path: Path, fall_back: bool = False) -> None:
        decord = _decord()
        self.path, self.backend, self._fall_back = path, "decord", fall_back
        self._second: PyAVVideo | None = None
        try:
            self._reader = decord.VideoReader(tars.ffmpeg_name(path), ctx=decord.cpu(0), num_threads=1)
            self._length = len(self._reader)
            times = self._reader.get_frame_timestamp(range(self._length))[:, 0] if self._length else np.empty(0)
            self.fps = float(self._reader.get_avg_fps())
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            raise DataError(f"{path} cannot be read by decord: {_sentence(error)}") from None
        if self._length < 1:
            raise DataError(f"{path} has no video frames")
        if not 0 < self.fps <= PLAUSIBLE_FPS:
            self.fps = _rate(times)
        # An edit list hides the frames before time zero: decord does not show them, and still counts them.
        self._length -= int(((times > -1e6) & (times < 0)).sum()) % self._length

    @functools.cached_property
    def codec(self) -> str:
        with _opened(self.path) as container:  # decord does not tell
            return _best_stream(container, self.path).codec_context.codec.canonical_name

    @functools.cached_property
    def height(self) -> int:
        return int(self.frames([0]).shape[1])

    @functools.cached_property
    def width(self) -> int:
        return int(self.frames([0]).shape[2])

    def __len__(self) -> int:
        return self._length

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        if self._second is not None:
            return self._second.frames(indices)
        decord = _decord()
        try:
            return self._reader.get_batch(_inside(indices, self)).asnumpy()
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            if not self._fall_back:
                raise DataError(f"{self.path} breaks off while decord decodes it: {_sentence(error)}") from None
        second = PyAVVideo(self.path)
        found = second.frames(indices)
        self._second, self.backend, self._length, self.fps = second, "pyav", len(second), second.fps
        return found


class PyAVVideo:
    """A video read by PyAV. Opening lists the packets, so that any frame is reached from the key frame before it."""

    def __init__(self, path: Path) -> None:
        self.path, self.backend = path, "pyav"
        self._reformatter = VideoReformatter()  # kept: a new scaling context per frame triples the time
        self._size: tuple[int, int] | None = None
        times: list[int | None] = []
        keys: list[int] = []
        with _opened(path) as container:
            stream = _best_stream(container, path)
            self.codec = stream.codec_context.codec.canonical_name
            self.fps = float(stream.average_rate or stream.guessed_rate or 0)
            try:
                for packet in container.demux(stream):
                    if packet.size and not packet.is_discard:
                        times.append(packet.pts)
                        if packet.is_keyframe and packet.pts is not None:
                            keys.append(packet.pts)
            except av.FFmpegError:
                pass  # a truncated file: what came before the break can still be read
            if not times:
                raise DataError(f"{path} has no video frames")
            known = sorted(time for time in times if time is not None)
            if not 0 < self.fps <= PLAUSIBLE_FPS and len(known) == len(times):
                self.fps = _rate(np.array(known) * float(stream.time_base or 0))
        self._length = len(times)
        self._seekable = len(set(known)) == len(times)
        self._times = known
        self._keys = np.array(sorted(keys), dtype=np.int64)

    @functools.cached_property
    def height(self) -> int:
        return int(self.frames([0]).shape[1])

    @functools.cached_property
    def width(self) -> int:
        return int(self.frames([0]).shape[2])

    def __len__(self) -> int:
        return self._length

    def count(self) -> tuple[int, str]:
        """Decode everything: (frames that can be decoded, why no more; empty if that is all there is)."""
        frames = 0
        with _opened(self.path) as container:
            try:
                for _ in container.decode(_best_stream(container, self.path)):
                    frames += 1
            except av.FFmpegError as error:
                return frames, _sentence(error)
        return frames, ""

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        rows = _inside(indices, self)
        wanted = sorted(set(rows))
        found = self._by_time(wanted) if self._seekable else None
        if found is None:
            found = self._by_count(wanted)
        return np.stack([found[row] for row in rows])

    def _by_time(self, wanted: list[int]) -> dict[int, np.ndarray] | None:
        """Decode from the key frame before each wanted frame; None where timestamps turn out not to be dependable."""
        index_of = {self._times[index]: index for index in wanted}
        found: dict[int, np.ndarray] = {}
        frames: Iterator[av.VideoFrame] = iter(())
        segment = None
        try:
            with _opened(self.path) as container:
                stream = _best_stream(container, self.path)
                for index in wanted:
                    key = int(np.searchsorted(self._keys, self._times[index], side="right")) - 1
                    if key != segment and index not in found:
                        segment = key
                        if key > 0:
                            container.seek(int(self._keys[key]), stream=stream, backward=True)
                        frames = container.decode(stream)
                    while index not in found:
                        frame = next(frames, None)
                        if frame is None or frame.pts is None or frame.pts > self._times[index]:
                            return None
                        if frame.pts in index_of:
                            found[index_of[frame.pts]] = self._rgb(frame)
        except av.FFmpegError:
            return None
        return found

    def _by_count(self, wanted: list[int]) -> dict[int, np.ndarray]:
        """Decode from the beginning and count: slow, but right without dependable timestamps and up to a break."""
        found: dict[int, np.ndarray] = {}
        count, why = 0, ""
        with _opened(self.path) as container:
            try:
                for frame in container.decode(_best_stream(container, self.path)):
                    if count in wanted:
                        found[count] = self._rgb(frame)
                    count += 1
                    if count > wanted[-1]:
                        return found
            except av.FFmpegError as error:
                why = f" ({_sentence(error)})"
        if not count:
            raise DataError(f"{self.path} has no frame that can be decoded{why}")
        raise DataError(f"{self.path} breaks off after {count} of {len(self)} frames; frame {wanted[-1]} is lost{why}")

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """(H,W,3) upright; a stream that changes its frame size keeps that of its first frame."""
        turns = round(frame.rotation / 90) % 4
        if self._size is None:
            self._size = frame.height, frame.width
        height, width = self._size
        if frame.format.components[0].bits > 8 or frame.height % 2:
            picture = _filtered(frame, width, height)
        else:
            picture = self._reformatter.reformat(frame, width, height, format="rgb24", threads=1)
        return np.ascontiguousarray(np.rot90(picture.to_ndarray(), turns))


def _filtered(frame: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    """To RGB by FFmpeg's scale filter, as decord does: for 10 bits and odd heights nearer to it than a bare scaler."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 25)
    )
    graph.link_nodes(
        source,
        graph.add("scale", f"{width}:{height}:flags=bilinear"),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ).configure()
    graph.push(frame)
    picture = graph.pull()
    assert isinstance(picture, av.VideoFrame)
    return picture


def _opened(path: Path) -> av.container.InputContainer:
    try:
        return av.open(tars.ffmpeg_name(path), "r", metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{path} cannot be opened as a video: {_sentence(error)}") from None


def _best_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    stream = container.streams.best("video")
    if stream is None:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise DataError(f"{path} has no video stream (it holds {kinds})")
    if not isinstance(stream, av.VideoStream) or stream.codec_context is None:
        raise DataError(f"{path} holds video in a format for which there is no decoder")
    stream.codec_context.thread_count = 1  # clips are read in parallel by processes
    return stream


def _inside(indices: Sequence[int] | np.ndarray, video: Video) -> list[int]:
    listed = [int(index) for index in indices]
    if not listed:
        raise DataError(f"{video.path}: no frames were asked for")
    for index in listed:
        if not 0 <= index < len(video):
            raise DataError(f"{video.path} has {len(video)} frames; frame {index} does not exist")
    return listed


def _rate(times: np.ndarray) -> float:
    """Frames a second from presentation times in seconds; 0 where they do not tell."""
    span = float(times[-1] - times[0]) if len(times) > 1 else 0.0
    rate = (len(times) - 1) / span if span > 0 else 0.0
    return rate if rate <= PLAUSIBLE_FPS else 0.0


def _sentence(error: BaseException) -> str:
    """The first line of a decoder's message without addresses, source lines and the path, which is said already."""
    text = getattr(error, "strerror", None) or next((line for line in str(error).splitlines() if line.strip()), "")
    text = re.sub(r"\[[\d:]+\] \S+:\d+: |\[[^\]]*@ 0x[0-9a-f]+\] |\[subfile,[^\]]*\] ?", "", text.strip())
    return text[:160] or type(error).__name__
