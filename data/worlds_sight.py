"""What can be seen in a scene of the procedural worlds: where an occluding bar goes, and how much of an object shows.

Notable: the bar is placed after the physics, across the path of some object, and touches nothing. Visible shares are
counted over about 100 points inside each object and 60 on its outline; the latter weigh next to nothing, so that only
an object of which nothing shows has the share 0.
"""

import numpy as np

from .worlds_scene import CORNERS, EXTENT, INRADIUS, NORMALS, SHAPES, Bar

BROAD_PROBABILITY = 0.7  # bars broad enough for the main sprite; the others fit distractors
TRIES = 48  # bars tried for each direction and kind of width


def _spans(shape: int, radius: float, centres: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Lowest and highest x and y (2 ends, 2 axes, T) of an object at centres (T, 2) turned by angles (T,)."""
    outline = CORNERS[shape]
    if outline is None:
        return np.stack([centres - radius, centres + radius]).swapaxes(1, 2)
    x, y = _rotate(outline[:, 0], outline[:, 1], angles[:, None])  # (T, corners)
    corners = centres.T[..., None] + radius * np.stack([x, y])
    return np.stack([corners.min(-1), corners.max(-1)])


def place_bar(
    rng: np.random.Generator,
    shapes: np.ndarray,
    radii: np.ndarray,
    positions: np.ndarray,
    angles: np.ndarray,
    size: int,
) -> tuple[Bar | None, int]:
    """A bar that hides some object completely in at least one frame, and neither it nor the main sprite for long.

    Direction and width (broad enough for the main sprite, or for distractors only) are drawn without regard to the
    motion class; only where no such bar exists are others tried. Returns the bar and the object that it hides.
    """
    spans = [_spans(shapes[k], radii[k], positions[:, k], angles[:, k]) for k in range(len(shapes))]
    ends = np.stack(spans)  # (K, 2 ends, 2 axes, T)
    axes, broad_first = rng.permutation(2), rng.random() < BROAD_PROBABILITY
    for axis, broad in ((a, b) for a in axes for b in (broad_first, not broad_first)):
        low, high = ends[:, 0, axis], ends[:, 1, axis]  # (K, T)
        k = rng.integers(0 if broad else min(1, len(ends) - 1), len(ends), size=TRIES)
        frame = rng.integers(low.shape[1], size=TRIES)
        own = high[k, frame] - low[k, frame]
        width = (high - low)[0 if broad else k, frame] * rng.uniform(1.05, 1.25, size=TRIES)
        begin = low[k, frame] - rng.random(TRIES) * (width - own)
        begin, end = np.floor(begin), np.ceil(begin + width)  # whole pixels
        good = (width >= own) & (begin >= 0) & (end <= size)
        for j, least in ((k, 0.3), (np.zeros_like(k), 0.4)):  # share of frames in which an object is mostly beside it
            covered = np.minimum(high[j], end[:, None]) - np.maximum(low[j], begin[:, None])  # (tries, T)
            good &= (covered < 0.6 * (high[j] - low[j])).mean(1) >= least
        if good.any():
            i = int(good.argmax())
            return Bar(int(axis), int(begin[i]), int(end[i])), int(k[i])
    return None, 0


def _inside(x: np.ndarray, y: np.ndarray, shape: int) -> np.ndarray:
    """Which points, in the frame of a shape of radius 1, lie inside it."""
    normals = NORMALS[shape]
    if normals is None:
        return x * x + y * y <= 1
    return np.logical_and.reduce([nx * x + ny * y <= INRADIUS[shape] for nx, ny in normals])


def _samples(shape: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and weight (P,) of points spread evenly over a shape of radius 1 and along its outline."""
    side = np.linspace(-EXTENT[shape], EXTENT[shape], (12, 14, 16)[shape])
    x, y = (c.ravel() for c in np.meshgrid(side, side))
    kept = _inside(x, y, shape)
    corners = CORNERS[shape]
    if corners is None:
        turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        rim = np.stack([np.cos(turn), np.sin(turn)], -1)
    else:
        along = np.linspace(0, 1, 60 // len(corners), endpoint=False)[:, None, None]
        rim = ((1 - along) * corners + along * np.roll(corners, 1, axis=0)).reshape(-1, 2)
    weight = np.concatenate([np.ones(kept.sum()), np.full(len(rim), 0.01)])
    return np.concatenate([x[kept], rim[:, 0]]), np.concatenate([y[kept], rim[:, 1]]), weight / weight.sum()


_POINTS = tuple(_samples(shape) for shape in range(len(SHAPES)))


def visible_share(
    shapes: np.ndarray, radii: np.ndarray, positions: np.ndarray, angles: np.ndarray, bar: Bar | None, size: int
) -> np.ndarray:
    """Share (T, K) of every object that is inside the picture, beside the bar and not under an object above it."""
    shares = np.ones(angles.shape)
    extents = radii * np.take(EXTENT, shapes)
    for k, shape in enumerate(shapes):
        centre = positions[:, k]
        above = [(j, np.hypot(*(centre - positions[:, j]).T) < extents[k] + extents[j]) for j in range(k)]
        doubt = ((centre < extents[k]) | (centre > size - extents[k])).any(-1)
        if bar is not None:
            doubt |= (centre[:, bar.axis] > bar.low - extents[k]) & (centre[:, bar.axis] < bar.high + extents[k])
        for _, close in above:
            doubt |= close
        frames = np.flatnonzero(doubt)  # elsewhere nothing can hide it
        if not frames.size:
            continue
        x, y, weight = _POINTS[shape]
        x, y = _rotate(x, y, angles[frames, k, None])
        x, y = centre[frames, 0, None] + radii[k] * x, centre[frames, 1, None] + radii[k] * y  # (F, P)
        seen = (x >= 0) & (x < size) & (y >= 0) & (y < size)
        if bar is not None:
            across = y if bar.axis else x
            seen &= (across < bar.low) | (across >= bar.high)
        for j, close in above:  # drawn from last to first
            if close.any():
                dx, dy = x - positions[frames, j, 0, None], y - positions[frames, j, 1, None]
                u, v = _rotate(dx / radii[j], dy / radii[j], -angles[frames, j, None])
                seen &= ~_inside(u, v, shapes[j])
        shares[frames, k] = np.round(seen @ weight, 6)
    return shares


def _rotate(x: np.ndarray, y: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cos, sin = np.cos(angle), np.sin(angle)
    return x * cos - y * sin, x * sin + y * cos
