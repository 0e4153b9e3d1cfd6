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

from .worlds_scene import (
    COLOUR_NAMES,
    CORNERS,
    EXTENT,
    FALL,
    MOTIONS,
    REFERENCE,
    SHAPES,
    WALL,
    Episode,
    WorldConfig,
    describe,
)
from .worlds_sight import place_bar, visible_share

SUBSTEPS = 4  # solver steps a frame: a fast object moves less than its own radius in one
REST_PROBABILITY = 0.3  # distractors that start at rest


def simulate(config: WorldConfig, index: int) -> Episode:
    """Clip `index` of the set: motion, shape and colour of the main sprite cycle with the index, the rest is drawn.

    Every run of 8 clips holds every motion once, every run of 24 each motion with each shape, of 144 each colour too.
    """
    rng = np.random.default_rng([config.seed, index])
    scale = config.size / REFERENCE
    motion = index % len(MOTIONS)
    gravity = config.gravity * scale if motion == FALL else 0.0
    wants_bar = rng.random() < config.occluder_probability
    # Where the main sprite stands still, a bar can only hide a distractor: there must be one, and it must move.
    fewest = min(2 if wants_bar else 1, config.objects_max)
    count = int(rng.integers(fewest, config.objects_max + 1))
    shapes = rng.integers(len(SHAPES), size=count)
    colours = rng.integers(len(COLOUR_NAMES), size=count)
    shapes[0] = (index // len(MOTIONS) + motion) % len(SHAPES)
    colours[0] = (index // (len(MOTIONS) * len(SHAPES)) + index) % len(COLOUR_NAMES)
    radii = rng.uniform(*_pair(config.distractor_radius), size=count) * scale
    radii[0] = rng.uniform(*_pair(config.main_radius)) * scale

    path, path_velocity = _programme(config, rng, motion, radii[0], EXTENT[shapes[0]] * radii[0])
    centres = _place(rng, path[0], radii * np.take(EXTENT, shapes), config.size)
    count = len(centres)
    shapes, colours, radii = shapes[:count], colours[:count], radii[:count]
    pace = rng.uniform(*_pair(config.distractor_speed), size=count) * scale
    moves = rng.random(count) >= REST_PROBABILITY
    if wants_bar:
        moves[1:2], pace[1:2] = True, config.distractor_speed[1] * scale
    heading = rng.uniform(0, 2 * np.pi, size=count)
    start = (pace * moves)[:, None] * np.stack([np.cos(heading), np.sin(heading)], -1)
    start[0] = path_velocity[0]
    tilts = rng.uniform(-0.3, 0.3, size=count)
    spins = rng.uniform(-0.15, 0.15, size=count) * moves
    spins[0] = 0.0

    space = _Space(config, gravity)
    for k in range(count):
        kind = pymunk.Body.KINEMATIC if k == 0 and not gravity else pymunk.Body.DYNAMIC
        space.add(kind, int(shapes[k]), float(radii[k]), (*centres[k], *start[k], tilts[k], spins[k]))
    positions, velocities, angles, collisions = space.run(config.num_frames, None if gravity else path)
    if not gravity:
        positions[:, 0], velocities[:, 0] = path[::SUBSTEPS], path_velocity[::SUBSTEPS]
        if config.bounce and not MOTIONS[motion].startswith("orbit"):
            rows = sorted([*map(tuple, collisions.tolist()), *_bounces(velocities[:, 0])])
            collisions = np.array(rows, dtype=np.int64).reshape(-1, 3)

    bar, hidden = None, 0
    if wants_bar:
        bar, hidden = place_bar(rng, shapes, radii, positions, angles, config.size)
    visible = visible_share(shapes, radii, positions, angles, bar, config.size)
    caption = describe(motion, shapes, colours, radii / scale, velocities / scale, collisions, bar, hidden)
    return Episode(config, index, motion, gravity, shapes, colours, radii, positions, velocities, angles, visible,
                   collisions, bar, caption)  # fmt: skip


def _pair(values: list[float]) -> tuple[float, float]:
    return values[0], values[1]


def _programme(
    config: WorldConfig, rng: np.random.Generator, motion: int, radius: float, extent: float
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities (S, 2) of the main sprite at every solver step; for `fall` only the first row counts.

    The start is uniform over all places from which the path stays in view, so starts overlap as far as they can. With
    `bounce` some start anywhere and are thrown back; their class is that of the first moment.
    """
    scale = config.size / REFERENCE
    last = config.num_frames - 1
    t = np.linspace(0, last, last * SUBSTEPS + 1)[:, None]
    speed = rng.uniform(*_pair(config.speed)) * scale
    name = MOTIONS[motion]
    if name == "fall":
        # Low enough to bounce within the first three quarters of the clip.
        deepest = min(0.5 * config.gravity * scale * (0.75 * last) ** 2, config.size - 2 * extent)
        height = config.size - extent - rng.uniform(min(12 * scale, deepest), deepest)
        start = np.array([rng.uniform(extent, config.size - extent), height])
        return start[None], np.array([[rng.uniform(-0.5, 0.5) * scale, 0.0]])
    if name.startswith("orbit"):
        turn = rng.uniform(*_pair(config.orbit_radius)) * scale
        rate = (1 if name == "orbit_cw" else -1) * speed / turn
        phase = rng.uniform(0, 2 * np.pi) + rate * t
        path = turn * np.concatenate([np.cos(phase), np.sin(phase)], 1)
        velocity = rate * turn * np.concatenate([-np.sin(phase), np.cos(phase)], 1)
    else:
        heading = {"still": (0, 0), "left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[name]
        velocity = np.broadcast_to(speed * np.array(heading, float), (len(t), 2))
        path = velocity * t
        if config.bounce and rng.random() < config.bounce:
            return _thrown_back(rng, path, velocity, extent, config.size)
    low, high = path.min(0), path.max(0)
    margin = np.minimum(0.7 * radius, (config.size - (high - low)) / 2)  # a little may leave the picture
    return path + rng.uniform(margin - low, config.size - margin - high), velocity


def _thrown_back(
    rng: np.random.Generator, path: np.ndarray, velocity: np.ndarray, extent: float, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """A straight path (S, 2) from anywhere in the picture, folded at the walls, and its velocities."""
    width = max(size - 2 * extent, 1.0)
    along = path + rng.uniform(0, width, size=2)  # unfolded distance from the low wall
    turn = along % (2 * width)
    back = turn > width
    return extent + np.where(back, 2 * width - turn, turn), np.where(back, -velocity, velocity)


def _bounces(velocities: np.ndarray) -> list[tuple[int, int, int]]:
    """Collision rows (frame, 0, WALL) of a main sprite (T, 2) on a programme: where its velocity turns round."""
    turned = (velocities[1:] * velocities[:-1]).sum(1) < 0
    return [(int(frame), 0, WALL) for frame in np.flatnonzero(turned) + 1]


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
        for at in (-thick, size + thick):
            for a, b in (((at, -size), (at, 2 * size)), ((-size, at), (2 * size, at))):
                self._attach(pymunk.Segment(self.space.static_body, a, b, thick), WALL)

    def _begin(self, arbiter: pymunk.Arbiter, space: pymunk.Space, data: object) -> None:
        first, second = sorted(shape.collision_type - 1 for shape in arbiter.shapes)
        self.contacts.add((self.frame, second, WALL) if first == WALL else (self.frame, first, second))

    def _attach(self, shape: pymunk.Shape, number: int) -> None:
        shape.elasticity, shape.friction = self.elasticity, 0.3
        shape.collision_type = number + 1  # unsigned in pymunk, and a wall is -1
        self.space.add(shape)

    def add(self, kind: int, shape: int, radius: float, state: tuple[float, ...]) -> None:
        """Adds a body; `state` is x, y, their velocities, angle and spin."""
        x, y, vx, vy, angle, spin = map(float, state)
        outline = CORNERS[shape]
        corners = [] if outline is None else [(cx, cy) for cx, cy in (radius * outline).tolist()]
        mass = radius * radius
        moment = pymunk.moment_for_poly(mass, corners) if corners else pymunk.moment_for_circle(mass, 0, radius)
        body = pymunk.Body(mass, moment, kind)
        body.position, body.angle = (x, y), angle
        body.velocity, body.angular_velocity = (vx, vy + self.lead), spin
        self.space.add(body)
        self._attach(pymunk.Poly(body, corners) if corners else pymunk.Circle(body, radius), len(self.bodies))
        self.bodies.append(body)

    def run(self, frames: int, path: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Positions and velocities (T, K, 2), angles (T, K), collisions (C, 3); body 0 follows `path` where given."""
        rows = [self._state()]
        moves = None if path is None else (np.diff(path, axis=0) * SUBSTEPS).tolist()
        for self.frame in range(1, frames):
            for step in range((self.frame - 1) * SUBSTEPS, self.frame * SUBSTEPS):
                if moves is not None and (step == 0 or moves[step] != moves[step - 1]):
                    self.bodies[0].velocity = moves[step]
                self.space.step(1 / SUBSTEPS)
            rows.append(self._state())
        state = np.array(rows)
        collisions = np.array(sorted(self.contacts), dtype=np.int64).reshape(-1, 3)
        return state[..., 0:2], state[..., 2:4], state[..., 4], collisions

    def _state(self) -> list[tuple[float, ...]]:
        return [(*b.position, b.velocity[0], b.velocity[1] - self.lead, b.angle) for b in self.bodies]
