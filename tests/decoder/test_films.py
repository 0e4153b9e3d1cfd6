"""Claims:

1. A film holds every panel frame by frame, seen and predicted frames framed in their colours, in columns of one width,
   and survives being written as a video.
2. Frame by frame, a row holds one panel and a column one moment.
3. The moments of a clip are spread from its first frame to its last.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from data import open_video, write_video
from decoder.compose import DRAWN, REFERENCE, VISIBLE, Panel
from decoder.films import FILM, frame_by_frame, moments, png, side_by_side


def panels(length: int = 8, side: int = 32) -> list[Panel]:
    """Six panels that become brighter with time; the first three are predicted from the middle on."""
    drawn = np.arange(length) >= length // 2
    levels = np.linspace(40, 200, length).astype(np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (length, side, side, 3))
    return [Panel(str(i), frames, drawn if i < 3 else None) for i in range(6)]


def test_films_hold_every_panel_and_say_what_it_is(tmp_path: Path) -> None:
    shown = side_by_side(panels(), side=128)
    assert shown.shape == (8, 140, 6 * 140, 3)
    assert (shown[0, 0, :] == FILM).all()
    for i, (before, after) in enumerate([(VISIBLE, DRAWN)] * 3 + [(REFERENCE, REFERENCE)] * 3):
        assert tuple(shown[3, 4, i * 140 + 70]) == before and tuple(shown[4, 4, i * 140 + 70]) == after
        assert (shown[5, 70, i * 140 + 70] == panels()[i].frames[5, 0, 0]).all()
    video = open_video(write_video(tmp_path / "film.mp4", shown, fps=4, crf=10))
    assert len(video) == 8 and (video.height, video.width) == (140, 840)
    assert abs(video.frames([5])[0, 70, 70].astype(int) - shown[5, 70, 70]).max() < 4


def test_frame_by_frame() -> None:
    sheet = frame_by_frame(panels(), side=64)
    assert sheet.shape == (6 * 72, 8 * 72, 3)
    assert (sheet[5 * 72 + 36, 2 * 72 + 36] == panels()[5].frames[2, 0, 0]).all()


def test_moments() -> None:
    strip = moments(panels()[0].frames, count=4)
    assert strip.shape == (32, 4 * 32 + 3 * 3, 4)
    assert strip[0, 0, 0] == 40 and strip[0, -1, 0] == 200
    assert strip[0, 0, 3] == 255 and strip[0, 33, 3] == 0
    assert Image.open(io.BytesIO(png(strip))).size == (137, 32)
