"""Draws an episode of the procedural worlds: soft backgrounds, anti-aliased sprites, an occluding bar, optional noise.

Notable: coverage of a pixel is its signed distance to the sprite's outline clipped to one pixel, computed for all
frames at once but only inside the sprite's bounding square. The background and the unpredictable detail have random
streams of their own, so two sets that differ in `texture` or `detail` alone show the very same physics.
"""

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .worlds_scene import COLOURS, EXTENT, INRADIUS, NORMALS, Bar, Episode

_PALETTE = np.array(list(COLOURS.values()), np.float32)
# Soft tints that no sprite colour comes near: sand, mist, sage, sky, lilac, rose.
_TINTS = np.array(
    [(236, 226, 206), (222, 228, 232), (212, 224, 210), (206, 222, 236), (222, 214, 234), (238, 216, 216)], np.float32
)
_SLATE = np.array((96, 106, 124), np.float32)
_WAVES = ((4, 22.0), (8, 11.0), (16, 5.0))  # cells across the picture, strength in grey levels at texture 1


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
    first, step = rng.integers(len(_TINTS)), rng.integers(1, len(_TINTS))
    begin, end = _TINTS[first], _TINTS[(first + step) % len(_TINTS)]
    ramp = _stretch(2, size)
    mix = 0.6 * (ramp @ rng.random((2, 2), np.float32) @ ramp.T)
    light = np.zeros((size, size), np.float32)
    for cells, strength in _WAVES:
        matrix = _stretch(cells, size)
        light += texture * strength * (matrix @ rng.standard_normal((cells, cells), np.float32) @ matrix.T)
    picture = begin[:, None, None] + mix * (end - begin)[:, None, None] + light  # (3, size, size)
    return np.clip(picture, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def _draw(frames: np.ndarray, episode: Episode, k: int) -> None:
    """Blends object k into frames (T, H, W, 3), touching only a square around it in every frame."""
    size = frames.shape[1]
    shape, radius = int(episode.shapes[k]), float(episode.radii[k])
    centre = episode.positions[:, k].astype(np.float32)  # (T, 2)
    side = min(2 * int(np.ceil(EXTENT[shape] * radius + 1)) + 1, size)
    corner = np.clip(np.round(centre - side / 2).astype(int), 0, size - side)  # (T, 2)
    grid = np.arange(side, dtype=np.float32) + 0.5
    offset = (corner - centre).astype(np.float32)
    x = offset[:, 0, None, None] + grid  # (T, 1, side)
    y = offset[:, 1, None, None] + grid[:, None]  # (T, side, 1)
    normals = NORMALS[shape]
    if normals is None:
        distance = np.sqrt(x * x + y * y) - np.float32(radius)
    else:
        angle = episode.angles[:, k].astype(np.float32)[:, None, None]
        cos, sin = np.cos(angle), np.sin(angle)
        distance = np.full((len(x), side, side), -np.inf, np.float32)
        for nx, ny in normals:  # the farthest of the edges' half-planes
            np.maximum(distance, x * (nx * cos - ny * sin) + y * (nx * sin + ny * cos), out=distance)
        distance -= np.float32(INRADIUS[shape] * radius)
    cover = np.clip(np.float32(0.5) - distance, 0, 1)[:, None]  # (T, 1, side, side)
    light = 1 - np.float32(0.1 / radius) * y[:, None]  # brighter above, so that sprites look solid
    paint = np.minimum(_PALETTE[episode.colours[k]][:, None, None] * light, 255)  # (T, 3, side, 1)
    windows = sliding_window_view(frames, (side, side), axis=(1, 2), writeable=True)  # (T, H', W', 3, side, side)
    where = (np.arange(len(frames)), corner[:, 1], corner[:, 0])
    blend = windows[where].astype(np.float32, order="C")  # (T, 3, side, side)
    blend += cover * (paint - blend) + np.float32(0.5)
    windows[where] = blend.astype(np.uint8)


def _draw_bar(frames: np.ndarray, bar: Bar) -> None:
    """Paints the bar, whole rows or columns of pixels, over all frames."""
    lines = np.swapaxes(frames, 1, 2) if bar.axis == 0 else frames  # axis 1 is now the one that the bar has a width in
    shade = np.linspace(1.1, 0.9, bar.high - bar.low, dtype=np.float32)[:, None, None]
    lines[:, bar.low : bar.high] = (shade * _SLATE).astype(np.uint8)


def _disturb(frames: np.ndarray, rng: np.random.Generator, detail: float) -> np.ndarray:
    """Adds what nobody can predict: flicker of the whole frame, and fresh noise of one pixel and of four in size."""
    count, size = len(frames), frames.shape[1]
    noise = 22 * rng.standard_normal(frames.shape[:3], np.float32)
    cells = -(-size // 4)
    coarse = 22 * rng.standard_normal((count, cells, cells), np.float32)
    noise += coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :size, :size]
    noise += 14 * rng.standard_normal((count, 1, 1), np.float32)
    return np.clip(frames + detail * noise[..., None], 0, 255).astype(np.uint8)
