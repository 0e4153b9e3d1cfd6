"""Simulates one scene of the procedural worlds: pymunk for everything that is free to move, closed forms for the rest.

Notable: outside class `fall` the main sprite follows its programme as a kinematic body, so no collision can turn one
motion class into another, while the small distractors bounce off it and off the walls. Under gravity everything is
dynamic. Time is counted in frames, `SUBSTEPS` solver steps each. pymunk moves bodies before it accelerates them,
which is a leapfrog if velocities are kept half a step ahead: free flight is then the exact parabola.
An episode depends on (config, index) alone: `np.random.default_rng([seed, index])` draws it.
"""

import math

import numpy as np
import pymunk

from data.worlds_scene import COLOUR_NAMES, EXTENT, INRADIUS, MOTIONS, NORMALS, REFERENCE, SHAPES, WALL
from data.worlds_scene import Bar, Episode, WorldConfig

SUBSTEPS = 4  # solver steps a frame: a fast object moves less than its own radius in one
REST_PROBABILITY = 0.3  # distractors that start at rest
FALL = MOTIONS.index("fall")


def simulate(config: WorldConfig, index: int) -> Episode:
    """Clip `index` of the set: motion, shape and colour of the main sprite cycle with the index, the rest is drawn.

    Every run of 8 clips holds every motion once, every run of 24 each motion with each shape, of 144 each colour too.
    """
    rng = np.random.default_rng([config.seed, index])
    scale = config.size / REFERENCE
    motion = index % len(MOTIONS)
    count = int(rng.integers(1, config.objects_max + 1))
    shapes = rng.integers(len(SHAPES), size=count)
    colours = rng.integers(len(COLOUR_NAMES), size=count)
    shapes[0] = index // len(MOTIONS) % len(SHAPES)
    colours[0] = index // (len(MOTIONS) * len(SHAPES)) % len(COLOUR_NAMES)
    radii = rng.uniform(*config.distractor_radius, size=count) * scale
    radii[0] = rng.uniform(*config.main_radius) * scale
    gravity = config.gravity * scale if motion == FALL else 0.0

    path, path_velocity = _programme(config, rng, motion, radii[0], EXTENT[shapes[0]] * radii[0])
    centres = _place(rng, path[0], radii * np.take(EXTENT, shapes), config.size)
    count = len(centres)
    shapes, colours, radii = shapes[:count], colours[:count], radii[:count]
    speeds = rng.uniform(*config.distractor_speed, size=count) * scale * (rng.random(count) >= REST_PROBABILITY)
    headings = rng.uniform(0, 2 * np.pi, size=count)
    velocities = speeds[:, None] * np.stack([np.cos(headings), np.sin(headings)], -1)
    velocities[0] = path_velocity[0]
    angles = rng.uniform(-0.3, 0.3, size=count)
    spins = rng.uniform(-0.15, 0.15, size=count) * (speeds > 0)
    spins[0] = 0.0

    space = _Space(config, gravity)
    for k in range(count):
        space.add(shapes[k], radii[k], centres[k], velocities[k], angles[k], spins[k], kinematic=k == 0 and not gravity)
    positions, speeds_out, turns, collisions = space.run(config.num_frames, None if gravity else path)
    if not gravity:
        positions[:, 0], speeds_out[:, 0] = path[::SUBSTEPS], path_velocity[::SUBSTEPS]

    bar, hidden = None, 0
    if rng.random() < config.occluder_probability:
        bar, hidden = _bar(rng, positions, radii * np.take(EXTENT, shapes), config.size)
    visible = _visible(shapes, radii, positions, turns, bar, config.size)
    caption = _caption(motion, shapes, colours, radii / scale, speeds_out / scale, collisions, bar, hidden)
    return Episode(config, index, motion, gravity, shapes, colours, radii, positions, speeds_out, turns, visible,
                   collisions, bar, caption)  # fmt: skip


def _programme(
    config: WorldConfig, rng: np.random.Generator, motion: int, radius: float, extent: float
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities (S, 2) of the main sprite at every solver step; for `fall` only the first row counts.

    The start is uniform over all places from which the path stays in view, so starts overlap as far as they can.
    """
    scale = config.size / REFERENCE
    last = config.num_frames - 1
    t = np.linspace(0, last, last * SUBSTEPS + 1)[:, None]
    speed = rng.uniform(*config.speed) * scale
    name = MOTIONS[motion]
    if name == "fall":
        # Low enough to bounce within the first three quarters of the clip.
        deepest = min(0.5 * config.gravity * scale * (0.75 * last) ** 2, config.size - 2 * extent)
        height = config.size - extent - rng.uniform(min(12 * scale, deepest), deepest)
        start = np.array([rng.uniform(extent, config.size - extent), height])
        return start[None], np.array([[rng.uniform(-0.5, 0.5) * scale, 0.0]])
    if name.startswith("orbit"):
        turn = rng.uniform(*config.orbit_radius) * scale
        rate = (1 if name == "orbit_cw" else -1) * speed / turn
        phase = rng.uniform(0, 2 * np.pi) + rate * t
        path = turn * np.concatenate([np.cos(phase), np.sin(phase)], 1)
        velocity = rate * turn * np.concatenate([-np.sin(phase), np.cos(phase)], 1)
    else:
        heading = {"still": (0, 0), "left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[name]
        velocity = np.broadcast_to(speed * np.array(heading, float), (len(t), 2))
        path = velocity * t
    low, high = path.min(0), path.max(0)
    margin = np.minimum(0.7 * radius, (config.size - (high - low)) / 2)  # a little may leave the picture
    return path + rng.uniform(margin - low, config.size - margin - high), velocity


def _place(rng: np.random.Generator, main: np.ndarray, extents: np.ndarray, size: int) -> np.ndarray:
    """Starts (K', 2) that do not touch, the main sprite first; distractors that find no room are left out (K' <= K)."""
    placed = [main]
    for extent in extents[1:]:
        for spot in rng.uniform(extent, size - extent, size=(50, 2)):
            if all(math.dist(spot, p) > extent + e + 1 for p, e in zip(placed, extents, strict=False)):
                placed.append(spot)
                break
        else:
            break
    return np.array(placed)


class _Space:
    """A pymunk space inside four thick walls that records the first contact of every pair in every frame."""

    def __init__(self, config: WorldConfig, gravity: float) -> None:
        self.space = pymunk.Space()
        self.space.gravity = (0, gravity)
        self.lead = 0.5 * gravity / SUBSTEPS  # velocities run half a step ahead of positions
        self.elasticity = math.sqrt(config.elasticity)  # pymunk multiplies the values of the two shapes
        self.bodies: list[pymunk.Body] = []
        self.frame = 0
        self.contacts: set[tuple[int, int, int]] = set()
        self.space.on_collision(None, None, begin=self._begin)
        size, thick = config.size, config.size / 2
        for a, b in (((-thick, -size), (-thick, 2 * size)), ((size + thick, -size), (size + thick, 2 * size)),
                     ((-size, -thick), (2 * size, -thick)), ((-size, size + thick), (2 * size, size + thick))):  # fmt: skip
            self._attach(pymunk.Segment(self.space.static_body, a, b, thick), WALL)

    def _begin(self, arbiter: pymunk.Arbiter, space: pymunk.Space, data: object) -> None:
        first, second = sorted(shape.collision_type - 1 for shape in arbiter.shapes)
        self.contacts.add((self.frame, second, WALL) if first == WALL else (self.frame, first, second))

    def _attach(self, shape: pymunk.Shape, number: int) -> None:
        shape.elasticity, shape.friction = self.elasticity, 0.3
        shape.collision_type = number + 1  # unsigned in pymunk, and a wall is -1
        self.space.add(shape)

    def add(
        self, shape: int, radius: float, at: np.ndarray, velocity: np.ndarray, angle: float, spin: float, kinematic: bool
    ) -> None:
        normals = NORMALS[shape]
        corners: list[tuple[float, float]] = []
        mass = radius * radius
        if normals is None:
            moment = pymunk.moment_for_circle(mass, 0, radius)
        else:
            turn = math.pi / len(normals)  # a corner lies half an edge away from a normal
            x, y = normals.T
            corners_x = EXTENT[shape] * radius * (x * math.cos(turn) - y * math.sin(turn))
            corners_y = EXTENT[shape] * radius * (x * math.sin(turn) + y * math.cos(turn))
            corners = list(zip(corners_x.tolist(), corners_y.tolist(), strict=True))
            moment = pymunk.moment_for_poly(mass, corners)
        body = pymunk.Body(mass, moment, pymunk.Body.KINEMATIC if kinematic else pymunk.Body.DYNAMIC)
        body.position = tuple(at.tolist())
        body.velocity = (float(velocity[0]), float(velocity[1]) + (0 if kinematic else self.lead))
        body.angle, body.angular_velocity = float(angle), float(spin)
        self.space.add(body)
        self._attach(pymunk.Poly(body, corners) if corners else pymunk.Circle(body, radius), len(self.bodies))
        self.bodies.append(body)

    def run(
        self, frames: int, path: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Positions (T, K, 2), velocities (T, K, 2), angles (T, K), collisions (C, 3); body 0 follows `path` if given."""
        rows = [self._state()]
        steps = None if path is None else (np.diff(path, axis=0) * SUBSTEPS).tolist()
        for self.frame in range(1, frames):
            for step in range((self.frame - 1) * SUBSTEPS, self.frame * SUBSTEPS):
                if steps is not None:
                    self.bodies[0].velocity = steps[step]
                self.space.step(1 / SUBSTEPS)
            rows.append(self._state())
        state = np.array(rows)
        return (state[..., 0:2], state[..., 2:4], state[..., 4],
                np.array(sorted(self.contacts), dtype=np.int64).reshape(-1, 3))  # fmt: skip

    def _state(self) -> list[tuple[float, ...]]:
        return [(*b.position, b.velocity[0], b.velocity[1] - self.lead, b.angle) for b in self.bodies]


def _bar(
    rng: np.random.Generator, positions: np.ndarray, extents: np.ndarray, size: int
) -> tuple[Bar | None, int]:
    """A bar that hides some object completely in at least one frame but neither it nor the main sprite for long.

    Its direction and width do not depend on the motion class. Returns it with the object it hides.
    """
    axes = rng.permutation(2)
    width = 2 * extents[0] * rng.uniform(1.1, 1.3)
    for axis in axes:
        path = positions[..., axis]  # (T, K)
        for _ in range(12):
            k, frame = rng.integers(len(extents)), rng.integers(1, len(path) - 1) if len(path) > 2 else 1
            slack = width / 2 - extents[k]
            centre = path[frame, k] + rng.uniform(-slack, slack)
            distance = np.abs(path - centre)
            hidden = distance[:, k] <= slack
            clear = distance > width / 2  # at least half to be seen
            if hidden.any() and clear[:, k].mean() >= 0.3 and clear[:, 0].mean() >= 0.4:
                return Bar(int(axis), float(centre - width / 2), float(centre + width / 2)), int(k)
    return None, 0


def _samples(shape: int) -> np.ndarray:
    """Points (P, 2) spread evenly over a shape of radius 1."""
    side = np.linspace(-EXTENT[shape], EXTENT[shape], 14)
    points = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    return points[inside(points, shape)]


def inside(points: np.ndarray, shape: int) -> np.ndarray:
    """Which points (..., 2), in the frame of a shape of radius 1, lie inside it: (...) bool."""
    normals = NORMALS[shape]
    if normals is None:
        return (points**2).sum(-1) <= 1
    return (points @ normals.T).max(-1) <= INRADIUS[shape]


_POINTS = tuple(_samples(shape) for shape in range(len(SHAPES)))


def _visible(
    shapes: np.ndarray, radii: np.ndarray, positions: np.ndarray, angles: np.ndarray, bar: Bar | None, size: int
) -> np.ndarray:
    """Share (T, K) of every object that is inside the picture, beside the bar and not under an object above it."""
    shares = np.empty(angles.shape)
    for k, shape in enumerate(shapes):
        points = positions[:, k, None] + _rotate(_POINTS[shape] * radii[k], angles[:, k, None])  # (T, P, 2)
        seen = ((points >= 0) & (points < size)).all(-1)
        if bar is not None:
            seen &= (points[..., bar.axis] < bar.low) | (points[..., bar.axis] >= bar.high)
        for above in range(k):  # drawn from last to first
            gap = np.hypot(*(positions[:, k] - positions[:, above]).T)
            if gap.min() < EXTENT[shape] * radii[k] + EXTENT[shapes[above]] * radii[above]:
                local = _rotate(points - positions[:, above, None], -angles[:, above, None]) / radii[above]
                seen &= ~inside(local, shapes[above])
        shares[:, k] = seen.mean(-1)
    return shares


def _rotate(points: np.ndarray, angle: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = points[..., 0], points[..., 1]
    return np.stack([x * cos - y * sin, x * sin + y * cos], -1)


_VERBS = ("stays still", "moves left", "moves right", "moves up", "moves down", "falls and bounces",
          "circles clockwise", "circles anticlockwise")  # fmt: skip


def size_word(radius: float) -> str:
    """Word for a radius given at the reference size."""
    return "small" if radius < 7 else "medium" if radius < 11 else "large"


def _caption(
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
