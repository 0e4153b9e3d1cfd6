"""Which sprite found is which object: the truth of clips of the procedural worlds beside what a detector sees in them.

    scene = at_frames(load_truth("runs/worlds"), frames=np.arange(1, 16, 2), size=32)       # N clips of T frames
    tracks = follow(detect(clips.reshape(-1, 32, 32, 3)), scene)

Notable: the truth helps to tell which of the sprites found is which, never to find them. Sprites that are none of the
objects are counted, and so is a main sprite that shows while the truth hides it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from .worlds_detect import Detections
from .worlds_scene import EXTENT, REFERENCE, Episode

REACH = 0.5  # share of the picture: the most that matching bridges
STRANGE = 0.25  # share of the picture: what a wrong colour, or a wrong class of size, adds to a distance in matching
AREAS = np.array([np.pi, 2 * EXTENT[1] ** 2, 0.75 * np.sqrt(3) * EXTENT[2] ** 2])  # of shapes of radius 1


@dataclass(frozen=True)
class Scene:
    """Truth of N clips at T frames of a model and in pixels of its pictures; K objects, the main one first."""

    size: int
    positions: np.ndarray  # (N, T, K, 2) px as x, y, NaN where there is no object
    visible: np.ndarray  # (N, T, K) 0..1, 0 where there is no object
    shapes: np.ndarray  # (N, K) int, -1 where none
    colours: np.ndarray  # (N, K) int, -1 where none
    radii: np.ndarray  # (N, K) px
    collisions: (
        np.ndarray
    )  # (C, 4) int rows clip, first of the T frames at or after the contact, a, b (WALL for a wall)


@dataclass(frozen=True)
class Tracks:
    """What was found of every object of a Scene."""

    positions: np.ndarray  # (N, T, K, 2) px, NaN where not found
    colours: np.ndarray  # (N, T, K) int, -1 where not found
    shapes: np.ndarray  # (N, T, K) int, -1 where not found or too small to tell
    shares: np.ndarray  # (N, T, K) visible area as a share of the true object's whole area, 0 where not found
    extra: np.ndarray  # (N, T) int, sprites found that are none of the objects
    ghost: np.ndarray  # (N, T) bool, a main sprite shows although the truth hides all of it


def stack_truth(episodes: Sequence[Episode]) -> dict[str, np.ndarray]:
    """Truth of simulated clips of equal length as in `load_truth`, as far as `at_frames` needs it."""
    most = max(len(e.shapes) for e in episodes)

    def padded(key: str, axis: int, fill: float) -> np.ndarray:
        rows = []
        for e in episodes:
            values = getattr(e, key)
            widths = [(0, most - len(e.shapes) if a == axis else 0) for a in range(values.ndim)]
            rows.append(np.pad(values, widths, constant_values=fill))
        return np.stack(rows)

    hits = [(n, *row) for n, e in enumerate(episodes) for row in e.collisions.tolist()]
    return {
        "positions": padded("positions", 1, np.nan), "visible": padded("visible", 1, np.nan),
        "shapes": padded("shapes", 0, -1), "colours": padded("colours", 0, -1), "radii": padded("radii", 0, np.nan),
        "collisions": np.array(hits, np.int64).reshape(-1, 4),
    }  # fmt: skip


def at_frames(
    truth: dict[str, np.ndarray], frames: np.ndarray, size: int, clips: np.ndarray | None = None,
    from_size: int = REFERENCE,
) -> Scene:  # fmt: skip
    """The truth (see `load_truth`) of `clips` (N,) at `frames`, (T,) or (N, T) growing, for pictures of side `size`.

    `from_size` is the side of the pictures that the truth was written for (`WorldConfig.size`).
    """
    rows = np.arange(len(truth["shapes"])) if clips is None else np.asarray(clips)
    frames = np.broadcast_to(frames, (len(rows), np.shape(frames)[-1]))
    if frames.min() < 0 or frames.max() >= truth["positions"].shape[1]:
        raise ValueError(f"frames {frames.min()}..{frames.max()} are not in clips of {truth['positions'].shape[1]}")
    scale = size / from_size
    pick = rows[:, None], frames
    hits = []
    for clip, row in enumerate(rows):
        for _, frame, a, b in truth["collisions"][truth["collisions"][:, 0] == row]:
            if frames[clip, 0] < frame <= frames[clip, -1]:
                hits.append((clip, int(np.searchsorted(frames[clip], frame)), a, b))
    return Scene(size, truth["positions"][pick] * scale, np.nan_to_num(truth["visible"][pick]), truth["shapes"][rows],
                 truth["colours"][rows], truth["radii"][rows] * scale,
                 np.array(hits, np.int64).reshape(-1, 4))  # fmt: skip


def follow(found: Detections, scene: Scene) -> Tracks:
    """Which sprite found is which object, picture by picture: `found` in N * T pictures, clip after clip.

    Each picture is assigned as a whole (Hungarian method), by distance; a wrong colour, or a small sprite for the main
    one and the reverse, counts as a quarter of the picture more, and nothing is bridged that comes to half of it.
    """
    clips, frames, objects = scene.visible.shape
    tracks = Tracks(
        np.full((clips, frames, objects, 2), np.nan), np.full((clips, frames, objects), -1),
        np.full((clips, frames, objects), -1), np.zeros((clips, frames, objects)),
        np.zeros((clips, frames), int), np.zeros((clips, frames), bool),
    )  # fmt: skip
    ends = np.searchsorted(found.frame, np.arange(clips * frames + 1))
    main = np.arange(objects) == 0
    for n, t in np.ndindex(clips, frames):
        d = np.arange(ends[n * frames + t], ends[n * frames + t + 1])
        k = np.flatnonzero(scene.visible[n, t] > 0)
        if not d.size:
            continue
        large = found.shape[d] >= 0
        away = np.linalg.norm(scene.positions[n, t, k, None] - found.position[d], axis=-1) / scene.size  # (K', D')
        away += STRANGE * (scene.colours[n, k, None] != found.colour[d]) + STRANGE * (main[k, None] != large)
        row, column = linear_sum_assignment(np.minimum(away, REACH))
        kept = away[row, column] < REACH
        k, mine = k[row[kept]], d[column[kept]]
        tracks.positions[n, t, k], tracks.colours[n, t, k] = found.position[mine], found.colour[mine]
        tracks.shapes[n, t, k] = found.shape[mine]
        tracks.shares[n, t, k] = found.area[mine] / (AREAS[scene.shapes[n, k]] * scene.radii[n, k] ** 2)
        left = ~np.isin(d, mine)
        tracks.extra[n, t] = left.sum()
        tracks.ghost[n, t] = scene.visible[n, t, 0] == 0 and bool(
            (left & large & (found.colour[d] == scene.colours[n, 0])).any()
        )
    return tracks
