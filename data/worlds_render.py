"""Draws an episode of the procedural worlds: soft backgrounds, anti-aliased sprites, an occluding bar, optional noise.

Notable: coverage of a pixel is its signed distance to the sprite's outline clipped to one pixel, computed for all
frames at once but only inside the sprite's bounding square. The background and the unpredictable detail have random
streams of their own, so two sets that differ in `texture` or `detail` alone show the very same physics.
"""

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from data.worlds_scene import COLOURS, EXTENT, INRADIUS, NORMALS, Bar, Episode

_PALETTE = np.array(list(COLOURS.values()), np.float32)
# Soft tints that no sprite colour comes near: sand, mist, sage, sky, lilac, rose.
_TINTS = np.array(
    [(236, 226, 206), (222, 228, 232), (212, 224, 210), (206, 222, 236), (222, 214, 234), (238, 216, 216)], np.float32
)
_SLATE = np.array((74, 82, 98), np.float32)


def render(episode: Episode) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 RGB of an episode."""
    config = episode.config
    background = _background(np.random.default_rng([config.seed, episode.index, 1]), config.size, config.texture)
    frames = np.repeat(background[None], len(episode.positions), axis=0)
    for k in reversed(range(len(episode.shapes))):
        _draw(frames, episode, k)
    if episode.bar is not None:
        _draw_bar(frames, episode.bar)
    if config.detail > 0:
        frames = _disturb(frames, np.random.default_rng([config.seed, episode.index, 2]), config.detail)
    return frames


@cache
def _stretch(cells: int, size: int) -> np.ndarray:
    """Matrix (size, cells) that interpolates `cells` values smoothly to `size` pixels."""
    at = (np.arange(size) + 0.5) / size * (cells - 1)
    low = np.minimum(at.astype(int), cells - 2)
    share = at - low
    share = share * share * (3 - 2 * share)
    matrix = np.zeros((size, cells), np.float32)
    matrix[np.arange(size), low] = 1 - share
    matrix[np.arange(size), low + 1] = share
    return matrix


def _background(rng: np.random.Generator, size: int, texture: float) -> np.ndarray:
    """A picture (size, size, 3) uint8: a gradient between two tints under smooth waves of light of three sizes."""
    first, second = _TINTS[rng.choice(len(_TINTS), 2, replace=False)]
    corners = rng.random((2, 2)).astype(np.float32)
    ramp = _stretch(2, size)
    mix = (ramp @ corners @ ramp.T)[..., None]
    picture = first + 0.6 * mix * (second - first)
    for cells, strength in ((4, 26), (9, 16), (20, 9)):
        wave = rng.standard_normal((cells, cells)).astype(np.float32)
        matrix = _stretch(cells, size)
        picture += (texture * strength * (matrix @ wave @ matrix.T))[..., None]
    return np.clip(picture, 0, 255).astype(np.uint8)


def _draw(frames: np.ndarray, episode: Episode, k: int) -> None:
    """Blends object k into frames (T, H, W, 3), touching only a square around it in every frame."""
    size = frames.shape[1]
    shape, radius = episode.shapes[k], float(episode.radii[k])
    centre = episode.positions[:, k].astype(np.float32)  # (T, 2)
    side = min(2 * int(np.ceil(EXTENT[shape] * radius + 1)) + 1, size)
    corner = np.clip(np.round(centre - side / 2).astype(int), 0, size - side)  # (T, 2)
    grid = np.arange(side, dtype=np.float32) + 0.5
    x = (corner[:, 0] - centre[:, 0])[:, None, None] + grid  # (T, 1, side)
    y = (corner[:, 1] - centre[:, 1])[:, None, None] + grid[:, None]  # (T, side, 1)
    normals = NORMALS[shape]
    if normals is None:
        distance = np.sqrt(x * x + y * y) - radius
    else:
        angle = episode.angles[:, k].astype(np.float32)[:, None, None]
        cos, sin = np.cos(angle), np.sin(angle)
        distance = np.full((len(x), side, side), -np.inf, np.float32)
        for nx, ny in normals:  # the farthest of the edges' half-planes
            np.maximum(distance, x * (nx * cos - ny * sin) + y * (nx * sin + ny * cos), out=distance)
        distance -= INRADIUS[shape] * radius
    cover = np.clip(0.5 - distance, 0, 1)[..., None]  # (T, side, side, 1)
    light = 1.0 - 0.10 * (y / radius)[..., None]  # brighter above, so that sprites look solid
    windows = sliding_window_view(frames, (side, side), axis=(1, 2), writeable=True)  # (T, H', W', 3, side, side)
    t = np.arange(len(frames))
    under = windows[t, corner[:, 1], corner[:, 0]].transpose(0, 2, 3, 1)
    paint = np.minimum(_PALETTE[episode.colours[k]] * light, 255)
    blend = under + cover * (paint - under)
    windows[t, corner[:, 1], corner[:, 0]] = (blend + 0.5).astype(np.uint8).transpose(0, 3, 1, 2)


def _draw_bar(frames: np.ndarray, bar: Bar) -> None:
    """Paints the bar over all frames; its two edges fall between pixels and are blended."""
    size = frames.shape[1]
    at = np.arange(size, dtype=np.float32)
    cover = np.clip(np.minimum(at + 1, bar.high) - np.maximum(at, bar.low), 0, 1)[:, None]  # (size, 1)
    across = (at + 0.5 - bar.low) / (bar.high - bar.low)
    paint = (1.12 - 0.24 * across)[:, None] * _SLATE  # (size, 3)
    inside = np.flatnonzero(cover[:, 0])
    if not inside.size:
        return
    band = slice(inside[0], inside[-1] + 1)
    shape = (1, 1, -1) if bar.axis == 0 else (1, -1, 1)
    cover, paint = cover[band].reshape(*shape, 1), paint[band].reshape(*shape, 3)
    view = frames[:, :, band] if bar.axis == 0 else frames[:, band]
    view[...] = (view + cover * (paint - view) + 0.5).astype(np.uint8)


def _disturb(frames: np.ndarray, rng: np.random.Generator, detail: float) -> np.ndarray:
    """Adds what nobody can predict: flicker of the whole frame, and fresh noise of one pixel and of four in size."""
    count, size = len(frames), frames.shape[1]
    noise = 22 * rng.standard_normal(frames.shape[:3], np.float32)
    cells = -(-size // 4)
    coarse = 22 * rng.standard_normal((count, cells, cells), np.float32)
    noise += coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :size, :size]
    noise += 14 * rng.standard_normal((count, 1, 1), np.float32)
    return np.clip(frames + detail * noise[..., None], 0, 255).astype(np.uint8)
