"""Fits circles, squares and triangles to the soft coverage of large sprites, as far as it is known.

Notable: a damped Gauss-Newton descent on centre, radius and angle, for all sprites, shapes and first angles at once.
The drawn coverage of a pixel is its signed distance to the outline, clipped to an edge of a certain softness; the
descent starts with soft edges, which reach far, and ends with those of the pictures. Sizes that a main sprite cannot
have cost a little, which decides where most of it is hidden.
"""

from typing import NamedTuple

import numpy as np

from .worlds_scene import INRADIUS, NORMALS, REFERENCE

RADIUS, SPREAD = 11.0, 2.0  # px at 64: what main sprites are like
DOUBT = 1.0  # weighs all pixels against the expected radius; their errors have common causes
ROUGH, FINE = (4.0, 3.0, 2.0), (1.6, 1.6, 1.6, 1.6)  # px, width of the edge in each step of the descent
DAMPING = 0.05  # small beside the pixels of an edge, so that sizes which only SPREAD can tell are reached too
STARTS = ((0.0,), (0.0, np.pi / 6, np.pi / 3), (0.0, 2 * np.pi / 9, 4 * np.pi / 9))  # angles, one symmetry apart


class Outlines(NamedTuple):
    """The best outline of each of D sprites."""

    position: np.ndarray  # (D, 2) px as x, y
    radius: np.ndarray  # (D,) px
    angle: np.ndarray  # (D,) radians, up to the symmetry of the shape
    shape: np.ndarray  # (D,) int, into SHAPES
    error: np.ndarray  # (D, 3) mean squared error of coverage for each shape


def fit_outlines(cover: np.ndarray, known: np.ndarray, start: np.ndarray, size: int) -> Outlines:
    """Outlines of sprites whose coverage (D, S, S) is given where `known` (D, S, S), near `start` (D, 2) px."""
    scale = size / REFERENCE
    reach = int(np.ceil(1.7 * RADIUS * scale)) + 2
    corner = np.round(start).astype(int) - reach  # (D, 2)
    side = np.arange(2 * reach + 1)
    x, y = corner[:, :1] + side, corner[:, 1:] + side  # (D, side)
    inside = ((x >= 0) & (x < size))[:, None, :] & ((y >= 0) & (y < size))[:, :, None]
    pick = (np.arange(len(start))[:, None, None], np.clip(y, 0, size - 1)[:, :, None], np.clip(x, 0, size - 1)[:, None])
    target, weight = cover[pick].astype(np.float32), (known[pick] & inside).astype(np.float32)
    best = [_descend(target, weight, start - corner, shape, scale) for shape in range(len(NORMALS))]
    error = np.stack([b[1] for b in best], 1)
    shape = error.argmin(1)
    state = np.stack([b[0] for b in best], 1)[np.arange(len(start)), shape]  # (D, 4)
    return Outlines(state[:, :2] + corner, state[:, 2], state[:, 3], shape, error)


def _descend(
    target: np.ndarray, weight: np.ndarray, start: np.ndarray, shape: int, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Centre, radius, angle (D, 4) and the error (D,) of one shape, from the best of its first angles."""
    count, angles = len(target), STARTS[shape]
    target, weight = target.reshape(count, -1), weight.reshape(count, -1)
    side = np.arange(round(target.shape[1] ** 0.5), dtype=np.float32) + 0.5
    grid = np.stack(np.meshgrid(side, side)).reshape(2, -1)
    state = np.zeros((count, len(angles), 4), np.float32)
    state[..., :2], state[..., 2], state[..., 3] = start[:, None], RADIUS * scale, angles
    each = np.arange(count)
    several = np.repeat(each, len(angles))
    rough = state.reshape(-1, 4)
    for softness in ROUGH:
        rough, error = _step(rough, target[several], weight[several], grid, shape, softness, scale)
    best = error.reshape(count, -1).argmin(1)
    state = rough.reshape(count, -1, 4)[each, best]
    for softness in FINE:
        state, error = _step(state, target, weight, grid, shape, softness, scale)
    return state, error / np.maximum(weight.sum(1), 1)


def _step(
    state: np.ndarray, target: np.ndarray, weight: np.ndarray, grid: np.ndarray, shape: int, softness: float,
    scale: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The next state (D, 4), and the error (D,) of the present one."""
    cover, slope = _draw(state, grid[0], grid[1], shape, softness)
    residual = (target - cover) * weight
    slope *= weight[:, None]
    stiff = np.float32((DOUBT / (SPREAD * scale)) ** 2)
    excess = state[:, 2] - np.float32(RADIUS * scale)
    normal = slope @ slope.swapaxes(1, 2)  # (D, 4, 4)
    push = (slope @ residual[..., None])[..., 0]
    normal[:, 2, 2] += stiff
    push[:, 2] -= stiff * excess
    normal += np.diag([DAMPING, DAMPING, DAMPING, DAMPING * (RADIUS * scale) ** 2]).astype(np.float32)
    step = np.linalg.solve(normal, push[..., None])[..., 0]
    limit = np.array([3 * scale, 3 * scale, 2 * scale, 0.3], np.float32)
    return state + np.clip(step, -limit, limit), (residual**2).sum(1) + stiff * excess**2


def _draw(
    state: np.ndarray, x: np.ndarray, y: np.ndarray, shape: int, softness: float
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage (D, P) of pixels at x, y (P,) by outlines with state (D, 4), and its slope (D, 4, P) in the state."""
    dx, dy = x - state[:, :1], y - state[:, 1:2]  # (D, P)
    normals = NORMALS[shape]
    if normals is None:
        distance = np.hypot(dx, dy) + 1e-6
        nx, ny, turn = dx / distance, dy / distance, 0.0
        distance = distance - state[:, 2:3]
    else:
        cos, sin = np.cos(state[:, 3, None]), np.sin(state[:, 3, None])
        distance, nx, ny = np.full_like(dx, -np.inf), np.zeros_like(dx), np.zeros_like(dx)
        for u, v in normals:  # the farthest of the edges' half-planes
            ux, uy = u * cos - v * sin, u * sin + v * cos
            along = ux * dx + uy * dy
            farther = along > distance
            np.copyto(distance, along, where=farther)
            np.copyto(nx, ux, where=farther)
            np.copyto(ny, uy, where=farther)
        distance -= np.float32(INRADIUS[shape]) * state[:, 2:3]
        turn = nx * dy - ny * dx  # how the distance grows with the angle: along the edge's tangent
    cover = np.clip(0.5 - distance / np.float32(softness), 0, 1)
    edge = ((cover > 0) & (cover < 1)) * np.float32(1 / softness)
    slope = np.stack([edge * nx, edge * ny, edge * np.float32(INRADIUS[shape]), -edge * turn], 1)
    return cover, slope
