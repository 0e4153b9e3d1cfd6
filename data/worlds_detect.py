"""Finds the sprites of the procedural worlds in pictures, true or generated: where they are, their colour, their shape.

    found = detect(frames)                      # (F, H, W, 3), uint8 or float in 0..1
    found.position[found.frame == 3]            # (D, 2) x, y in pixels of the pictures

Notable: one detector for every picture, which knows how worlds are drawn (palette, pale background, slate bar, sizes)
and nothing of any clip. Only chroma is looked at: sprites have strong hues, while background, bar and noise are grey or
nearly so, and brightness is free to flicker. Large sprites are fitted as a whole outline, with what lies under the bar
or outside the picture left open, so that a half-hidden sprite is found at its centre and not at that of its visible
part. Small ones are where the centroid of their soft coverage is, and their shape cannot be told.
"""

from dataclasses import dataclass, fields

import numpy as np
from scipy import ndimage

from .worlds_outline import fit_outlines
from .worlds_scene import COLOURS, REFERENCE

_PALETTE = np.array(list(COLOURS.values()), np.float32)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# Two axes of colour without brightness (3, 2): red against green, and both against blue.
_CHROMA = np.array([(1, 1), (-1, 1), (0, -2)], np.float32) / np.sqrt(np.array([2, 6], np.float32))
FAINTEST = 0.3  # coverage below which a pixel counts as background
BETWEEN = 5.7  # px at 64: apparent radius that parts small sprites from large ones, half of which may be hidden
SLATE = (75.0, 140.0)  # brightness of the bar
CHUNK = 64  # frames at a time, to bound memory


@dataclass(frozen=True)
class Detections:
    """Sprites found in F pictures, D in all, sorted by frame and, within one, by area, largest first."""

    frame: np.ndarray  # (D,) int, into the pictures
    position: np.ndarray  # (D, 2) px of the picture as x, y; pixel (row 0, column 0) covers [0, 1) x [0, 1)
    colour: np.ndarray  # (D,) int, into COLOUR_NAMES
    shape: np.ndarray  # (D,) int, into SHAPES; -1 for sprites too small to tell
    radius: np.ndarray  # (D,) px, as in `Episode.radii`; of small ones that of the disc of the same area
    area: np.ndarray  # (D,) px, the visible part
    confidence: np.ndarray  # (D,) 0..1, how strong and pure the colour is

    def of(self, frame: int) -> "Detections":
        """What was found in one picture."""
        kept = slice(*np.searchsorted(self.frame, (frame, frame + 1)))
        return Detections(*(getattr(self, f.name)[kept] for f in fields(self)))


def detect(frames: np.ndarray) -> Detections:
    """Sprites in pictures (F, S, S, 3), uint8 or float in 0..1, of any size S; each picture is looked at alone."""
    frames = np.asarray(frames)
    if frames.ndim != 4 or not len(frames) or frames.shape[-1] != 3 or frames.shape[1] != frames.shape[2]:
        raise ValueError(f"frames must be (F, S, S, 3) with F > 0, not {frames.shape}")
    parts = [_detect(frames[start : start + CHUNK], start) for start in range(0, len(frames), CHUNK)]
    return Detections(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Detections)))


def _detect(frames: np.ndarray, first: int) -> Detections:
    rgb = frames.astype(np.float32) * (1 if frames.dtype == np.uint8 else 255)
    size = frames.shape[1]
    cover, hue, slate = _read_colours(rgb)
    bars = _bars(slate)
    labels, count = _components(cover, hue, bars)
    at = np.flatnonzero(labels)
    name, weight = labels.ravel()[at] - 1, cover.ravel()[at]
    frame, y, x = np.unravel_index(at, labels.shape)
    moments = [np.bincount(name, weight * value, count) for value in (1, weight, x + 0.5, y + 0.5)]
    mass = np.maximum(moments[0], 1e-9)
    strength = moments[1] / mass  # of a faded sprite, below 1
    area = mass / np.maximum(strength, 1e-9)  # a faded sprite is not a smaller one
    position, radius = np.stack(moments[2:], -1) / mass[:, None], np.sqrt(area / np.pi)
    frame_of, colour, shape = np.zeros(count, int), np.zeros(count, int), np.full(count, -1)
    frame_of[name], colour[name] = frame, hue.ravel()[at]
    large = np.flatnonzero(radius > BETWEEN * size / REFERENCE)
    if large.size:
        own, picture = labels[frame_of[large]], frame_of[large]
        same = hue[picture] == colour[large, None, None]
        whole = np.clip(cover[picture] / strength[large, None, None], 0, 1)
        unknown = same & (own > 0) & (own != large[:, None, None] + 1)  # another sprite of the same colour
        unknown |= _widened(bars[picture])
        fit = fit_outlines(whole * same, ~unknown, position[large], size)
        position[large], radius[large], shape[large] = fit.position, fit.radius, fit.shape
    order = np.lexsort((-area, frame_of))
    columns = (frame_of + first, position, colour, shape, radius, area, np.clip(strength, 0, 1))
    return Detections(*(column[order] for column in columns))


def _read_colours(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per pixel (F, S, S): coverage 0..1 by the sprite colour of the nearest hue, that colour, and if it is slate."""
    chroma = rgb @ _CHROMA  # (F, S, S, 2)
    luma = rgb @ _LUMA
    grey = np.hypot(*np.moveaxis(chroma, -1, 0))
    pale = np.where((luma > 150) & (grey < 45), 1.0, np.nan)[..., None]
    with np.errstate(all="ignore"):
        background = np.nan_to_num(_median(chroma * pale))  # (F, 2)
    chroma = chroma - background[:, None, None]
    paints = (_PALETTE @ _CHROMA) - background[:, None]  # (F, 6, 2)
    length = np.linalg.norm(paints, axis=-1, keepdims=True)
    along = (chroma.reshape(len(rgb), -1, 2) @ (paints / length).swapaxes(1, 2)).reshape(*luma.shape, -1)
    hue = along.argmax(-1)
    strength = np.take_along_axis(along / length[:, None, None, :, 0], hue[..., None], -1)[..., 0]
    slate = (luma > SLATE[0]) & (luma < SLATE[1]) & (grey < 40)
    return np.clip(strength, 0, 1), hue, slate


def _median(values: np.ndarray) -> np.ndarray:
    """Median (F, 2) over the pixels (F, S, S, 2) that are not NaN."""
    flat = np.sort(values.reshape(len(values), -1, 2), axis=1)  # NaN go last
    known = (~np.isnan(flat[..., 0])).sum(1)
    return flat[np.arange(len(flat)), np.maximum(known - 1, 0) // 2]


def _bars(slate: np.ndarray) -> np.ndarray:
    """Pixels (F, S, S) under the bar: whole rows or columns most of which is slate."""
    rows, columns = np.asarray(slate.mean(2) > 0.7), np.asarray(slate.mean(1) > 0.7)
    return rows[:, :, None] | columns[:, None, :]


def _widened(bars: np.ndarray) -> np.ndarray:
    """Pixels (D, S, S) under the bar or so near to it that they may be mixed with it."""
    side = 2 * round(bars.shape[-1] / 32) + 1
    return ndimage.maximum_filter(bars, (1, side, side))


def _components(cover: np.ndarray, hue: np.ndarray, bars: np.ndarray) -> tuple[np.ndarray, int]:
    """Labels (F, S, S), 0 for none, of connected pixels of one colour, joined across the bar, and their number.

    Edges where two sprites meet can take the hue of a third; such lines are too thin to be a sprite and are dropped.
    """
    mask = (hue[:, None] == np.arange(len(_PALETTE))[:, None, None]) & (cover > FAINTEST)[:, None]  # (F, 6, S, S)
    mask &= ~bars[:, None]
    joined = mask.copy()
    for f in np.flatnonzero(bars.any((1, 2))):
        _bridge(joined[f], bars[f])
    near = np.zeros((3, 3, 3, 3), bool)
    near[1, 1] = True  # within one picture and one colour
    labels, count = ndimage.label(joined, near)
    labels = np.where(mask, labels, 0).max(1)  # a pixel has one colour
    side = max(2, round(labels.shape[-1] / 21))  # px that fit inside the smallest sprite
    windows = np.lib.stride_tricks.sliding_window_view(labels, (side, side), axis=(1, 2))
    solid = (windows == windows[..., :1, :1]).all((-1, -2))
    keep = np.zeros(count + 1, bool)
    keep[windows[solid][:, 0, 0]] = True
    keep[0] = False
    rename = np.where(keep, keep.cumsum(), 0)
    return rename[labels], int(keep.sum())


def _bridge(mask: np.ndarray, bar: np.ndarray) -> None:
    """Fills what lies under the bar of one picture in mask (6, S, S) where the same colour touches it on both sides."""
    for turned in (False, True):
        lines, view = np.asarray(bar.all(0 if turned else 1)), mask.swapaxes(1, 2) if turned else mask
        covered = np.flatnonzero(lines)
        if not covered.size or lines.all():
            continue
        low, high = covered[0] - 1, covered[-1] + 1
        if low >= 0 and high < len(lines):
            view[:, low + 1 : high] |= (view[:, low] & view[:, high])[:, None]
