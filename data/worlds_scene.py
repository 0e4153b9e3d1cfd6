"""The words of the procedural worlds: what a scene may hold, how difficult it is, and what is known about it.

Notable: every length and speed in `WorldConfig` is given for a 64-pixel picture and scales with `size`; every length
and speed in an `Episode` is in pixels of its own picture and in pixels per frame. x points right and y points down,
so gravity is positive and a clockwise orbit has growing angles. Pixel (row 0, column 0) covers [0, 1) x [0, 1).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .errors import DataError

MOTIONS = ("still", "left", "right", "up", "down", "fall", "orbit_cw", "orbit_ccw")
FALL = MOTIONS.index("fall")
SHAPES = ("circle", "square", "triangle")
COLOURS = {  # sRGB; strong hues that stay apart after halving and after 4:2:0 chroma
    "red": (221, 60, 68),
    "orange": (245, 140, 38),
    "yellow": (246, 205, 62),
    "green": (52, 160, 96),
    "blue": (52, 108, 214),
    "purple": (142, 78, 190),
}
COLOUR_NAMES = tuple(COLOURS)
WALL = -1  # stands for a wall where a collision names its second party
REFERENCE = 64  # the picture size that lengths of `WorldConfig` are given for

# In units of an object's radius; EXTENT is the circumradius. Areas stay comparable, so that size does not tell shape.
EXTENT = (1.0, 1.2, 1.35)
INRADIUS = (1.0, EXTENT[1] / np.sqrt(2), EXTENT[2] / 2)


def _ring(first: float, corners: int) -> np.ndarray:
    at = first + np.arange(corners) * 2 * np.pi / corners
    return np.stack([np.cos(at), np.sin(at)], -1).astype(np.float32)


# Of the two polygons (a circle has none): unit normals of the edges, and corners, both (number, 2).
NORMALS = (None, _ring(0, 4), _ring(np.pi / 2, 3))
CORNERS = (None, EXTENT[1] * _ring(np.pi / 4, 4), EXTENT[2] * _ring(-np.pi / 2, 3))


@dataclass
class WorldConfig:
    """Settings of a set of procedural clips. Lengths in pixels of a 64-pixel picture, speeds in those per frame."""

    out: str = "runs/worlds"
    clips: int = 2000
    seed: int = 0
    num_frames: int = 16
    size: int = 64  # height and width of the picture
    fps: int = 8
    objects_max: int = 4  # one main sprite and up to objects_max - 1 distractors
    main_radius: list[float] = field(default_factory=lambda: [9.0, 13.0])
    distractor_radius: list[float] = field(default_factory=lambda: [3.0, 5.0])
    speed: list[float] = field(default_factory=lambda: [1.5, 3.0])  # main sprite in every class that moves steadily
    distractor_speed: list[float] = field(default_factory=lambda: [0.2, 1.0])
    orbit_radius: list[float] = field(default_factory=lambda: [7.0, 11.0])
    gravity: float = 0.6  # px per frame squared, in scenes of class `fall`
    elasticity: float = 0.85  # speed kept in a head-on bounce
    bounce: float = 0.0  # share of left, right, up, down that start anywhere and are thrown back by the walls, 0..1
    occluder_probability: float = 0.3  # scenes with a bar that hides an object completely for a while
    texture: float = 0.5  # strength of the smooth background texture, 0..1
    detail: float = 0.0  # unpredictable detail: flicker and fresh noise in every frame, 0 none .. 1 strong
    crf: int = 14  # H.264 quality, 0 lossless .. 51 worst
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    workers: int = 0  # processes; 0 means one per core


class Bar(NamedTuple):
    """An occluder across the whole picture: covers `low <= x < high` (axis 0) or `low <= y < high` (axis 1)."""

    axis: int
    low: int
    high: int


@dataclass(frozen=True)
class Episode:
    """One simulated scene of K objects over T frames; object 0 is the main sprite and is drawn on top."""

    config: WorldConfig
    index: int
    motion: int  # into MOTIONS
    gravity: float  # px per frame squared, 0 for none
    shapes: np.ndarray  # (K,) int, into SHAPES
    colours: np.ndarray  # (K,) int, into COLOUR_NAMES
    radii: np.ndarray  # (K,) px; the farthest point of an object lies EXTENT[shape] * radius from its centre
    positions: np.ndarray  # (T, K, 2) px, centres of mass as x, y
    velocities: np.ndarray  # (T, K, 2) px per frame
    angles: np.ndarray  # (T, K) radians, growing clockwise on the screen
    visible: np.ndarray  # (T, K) share of the object that is in the picture and covered by nothing, 0..1
    collisions: np.ndarray  # (C, 3) int rows (frame, a, b) with a < b, or b = WALL; first contact in (frame - 1, frame]
    bar: Bar | None
    caption: str


def check(config: WorldConfig) -> None:
    """Raises DataError, naming the key, where a setting is out of its range or the settings contradict each other."""
    least = {"clips": 1, "seed": 0, "num_frames": 2, "size": 16, "fps": 1, "objects_max": 1, "crf": 0, "workers": 0}
    for key, low in least.items():
        if getattr(config, key) < low:
            raise DataError(f"worlds: {key}={getattr(config, key)} is too small; give at least {low}.")
    if config.size % 2:
        raise DataError(f"worlds: size={config.size} is odd; H.264 with 4:2:0 colour needs an even size.")
    if config.objects_max > 8:
        raise DataError(f"worlds: objects_max={config.objects_max} does not fit in the picture; give at most 8.")
    if config.crf > 51:
        raise DataError(f"worlds: crf={config.crf} is out of range; give 0 (lossless) to 51.")
    for key in ("occluder_probability", "texture", "detail", "elasticity", "bounce", "val_fraction", "test_fraction"):
        if not 0 <= getattr(config, key) <= 1:
            raise DataError(f"worlds: {key}={getattr(config, key)} is out of range; give a number from 0 to 1.")
    held_out = sum(max(round(f * config.clips), int(f > 0)) for f in (config.val_fraction, config.test_fraction))
    if held_out >= config.clips:
        raise DataError(f"worlds: val_fraction and test_fraction leave nothing of {config.clips} clips to train on.")
    if config.gravity <= 0:
        raise DataError(f"worlds: gravity={config.gravity} would let nothing fall; give a positive number.")
    highest = {"main_radius": 20, "distractor_radius": 10, "speed": REFERENCE / (config.num_frames - 1),
               "distractor_speed": 8, "orbit_radius": 24}  # fmt: skip
    if config.bounce == 1:
        highest["speed"] = REFERENCE / 4.0  # nothing leaves the picture, however long the clip
    for key, high in highest.items():
        pair = list(getattr(config, key))
        if len(pair) != 2 or not 0 <= pair[0] <= pair[1]:
            raise DataError(f"worlds: {key}={pair} must be two numbers [lowest, highest], not negative.")
        if pair[1] > high:
            reason = f" over {config.num_frames} frames" if key == "speed" else ""
            raise DataError(f"worlds: {key}={pair} leaves the picture{reason}; its highest value may be {high:.2f}.")
    for key, low in {"main_radius": 2, "distractor_radius": 1, "orbit_radius": 1}.items():
        if getattr(config, key)[0] < low:
            raise DataError(f"worlds: {key}={list(getattr(config, key))} is too small to see; start at {low} or more.")


_VERBS = ("stays still", "moves left", "moves right", "moves up", "moves down", "falls and bounces",
          "circles clockwise", "circles anticlockwise")  # fmt: skip


def size_word(radius: float) -> str:
    """Word for a radius given at the reference size."""
    return "small" if radius < 7 else "medium" if radius < 11 else "large"


def describe(
    motion: int, shapes: np.ndarray, colours: np.ndarray, radii: np.ndarray, velocities: np.ndarray,
    collisions: np.ndarray, bar: Bar | None, hidden: int,
) -> str:  # fmt: skip
    names = [f"{size_word(r)} {COLOUR_NAMES[c]} {SHAPES[s]}" for r, c, s in zip(radii, colours, shapes, strict=True)]
    parts = [f"a {names[0]} {_VERBS[motion]}"]
    for k in range(1, len(names)):
        moving = np.hypot(*velocities[:, k].T).mean() > 0.15
        hit = bool((collisions[:, 1:] == k).any())
        verb = "rests" if not moving else "bounces" if hit else "falls" if motion == FALL else "drifts"
        parts.append(f"a {names[k]} {verb}")
    if bar is not None:
        parts.append(f"a bar hides the {names[hidden]} for a while")
    return "; ".join(parts)
