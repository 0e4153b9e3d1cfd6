"""Panels as film for the report page: side by side and playing, or laid out frame by frame. No text: the page has that.

Notable: columns are equally wide and touch, gap included, so that headings in equal columns stand above them.
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from decoder.compose import BORDER, DRAWN, REFERENCE, VISIBLE, Panel

FILM = (24, 25, 29)  # the page's --film
GAP = 6  # pixels


def side_by_side(panels: Sequence[Panel], side: int = 128) -> np.ndarray:
    """(T, H, W, 3) uint8: all panels in a row, each about `side` pixels, enlarged by whole pixels, with the border of
    `compose_panels`."""
    return np.concatenate([_framed(panel, side, BORDER, GAP) for panel in panels], axis=2)


def frame_by_frame(panels: Sequence[Panel], side: int = 64) -> np.ndarray:
    """(H, W, 3) uint8: a row for each panel, a column for each frame."""
    rows = [_framed(panel, side, 2, 4) for panel in panels]  # each (T, h, w, 3)
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def moments(frames: np.ndarray, count: int = 4, gap: int = 3) -> np.ndarray:
    """(H, W, 4) uint8: `count` frames of (T, H, W, 3), evenly spread, with transparent gaps between them."""
    chosen = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
    opaque = np.concatenate([chosen, np.full_like(chosen[..., :1], 255)], axis=3)
    apart = np.pad(opaque, ((0, 0), (0, 0), (0, gap), (0, 0)))
    return np.concatenate(list(apart), axis=1)[:, :-gap]


def png(picture: np.ndarray) -> bytes:
    """(H, W, 3 or 4) uint8 as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _framed(panel: Panel, side: int, border: int, gap: int) -> np.ndarray:
    """Frames of one panel, enlarged, each with the border that says what it is, and half a gap around."""
    length, height, width, _ = panel.frames.shape
    scale = max(1, side // max(height, width))
    picture = panel.frames.repeat(scale, 1).repeat(scale, 2)
    inset = border + gap // 2
    framed = np.empty((length, height * scale + 2 * inset, width * scale + 2 * inset, 3), np.uint8)
    framed[:] = FILM
    for i in range(length):
        colour = REFERENCE if panel.drawn is None else DRAWN if panel.drawn[i] else VISIBLE
        framed[i, gap // 2 : -(gap // 2), gap // 2 : -(gap // 2)] = colour
    framed[:, inset:-inset, inset:-inset] = picture
    return framed
