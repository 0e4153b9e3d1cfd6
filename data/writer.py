"""Write clips as H.264 mp4 (PyAV) and as GIF (Pillow).

Notable:
- Colours are converted to and tagged as BT.709 limited range, so that every player, decord and PyAV undo the same
  matrix; what is lost is chroma resolution (4:2:0) and quantisation.
- No B-frames: frame i of the file is frame i of the array, without an edit list.
- One thread and no date in the header: the same frames give the same bytes.
- Written beside the target and renamed, so an interruption never leaves half a file.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from PIL import Image

from .errors import DataError

__all__ = ["replacing", "write_gif", "write_video"]

BT709 = 1  # the value of AVCOL_SPC_BT709, AVCOL_PRI_BT709 and AVCOL_TRC_BT709 alike


def write_video(
    path: str | os.PathLike[str],
    frames: np.ndarray | Iterable[np.ndarray],
    fps: float,
    crf: float = 14,
    preset: str = "superfast",
) -> Path:
    """Write frames (T,H,W,3) uint8 RGB, or an iterable of (H,W,3), as H.264 yuv420p in an mp4 file, atomically.

    Odd heights and widths are padded by one repeated row or column, which 4:2:0 needs. `crf` is x264's constant rate
    factor (0 best, 51 worst; 14 is hard to tell from the source). Raises DataError for frames of another form.
    """
    stream_of_frames = iter(frames)
    try:
        first = next(stream_of_frames)
    except StopIteration:
        raise DataError(f"cannot write {path}: there are no frames") from None
    height, width = _checked(first, path).shape[:2]
    reformatter = VideoReformatter()  # kept for all frames: each holds one scaling context
    with replacing(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(10_000))
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        stream.options = {"crf": str(crf), "preset": preset, "tune": "zerolatency"}
        codec = stream.codec_context
        codec.thread_count = 1
        codec.colorspace = codec.color_primaries = codec.color_trc = BT709
        codec.color_range = ColorRange.MPEG
        for index, frame in enumerate(chain([first], stream_of_frames)):
            if _checked(frame, path).shape[:2] != (height, width):
                raise DataError(
                    f"cannot write {path}: frame {index} is {frame.shape}, the first was {(height, width, 3)}"
                )
            if height % 2 or width % 2:
                frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            picture = reformatter.reformat(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=Interpolation.AREA,  # an eighth less colour error at edges than the default
                threads=1,  # starting threads costs more than converting a small frame
            )
            picture.pts = index
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return Path(path)


def write_gif(path: str | os.PathLike[str], frames: np.ndarray | Iterable[np.ndarray], fps: float) -> Path:
    """Write frames (T,H,W,3) uint8 RGB as an endlessly looping GIF, atomically. GIF times are multiples of 10 ms."""
    checked = [_checked(frame, path) for frame in frames]
    if not checked:
        raise DataError(f"cannot write {path}: there are no frames")
    if len(sizes := {frame.shape for frame in checked}) > 1:
        raise DataError(f"cannot write {path}: frames must be of one size, not {sorted(sizes)}")
    # One palette for all frames: with one for each, still ground flickers, and the file is half as large again.
    shown = [checked[place] for place in np.linspace(0, len(checked) - 1, min(len(checked), 32)).round().astype(int)]
    palette = Image.fromarray(np.concatenate(shown)).quantize(256)
    pictures = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in checked]
    with replacing(path) as partial:
        duration = max(20, round(100 / fps) * 10)  # browsers slow down anything shorter than 20 ms
        pictures[0].save(partial, format="GIF", save_all=True, append_images=pictures[1:], duration=duration, loop=0)
    return Path(path)


def _checked(frame: np.ndarray, path: str | os.PathLike[str]) -> np.ndarray:
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise DataError(f"cannot write {path}: frames must be uint8 arrays of shape (height, width, 3), not {found}")
    return frame


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it on success and removed on any failure. An OSError names `path`."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, target)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(partial)):
            raise
        raise OSError(error.errno, error.strerror, str(target)) from None  # "No space left on device" names nothing
    finally:
        partial.unlink(missing_ok=True)
