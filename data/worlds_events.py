"""Impossible events for the procedural worlds: one scene, and what it would have to be for the event to have happened.

    stage(world, "vanish", "behind", event, at) -> Staged(possible, other)

The impossible video shows `possible` before the event and `other` from the event on. Both are episodes of their own
right, so that the cut is the only thing in it that cannot be:

| concept  | the main sprite, from the event on                        | in sight | behind a bar |
|----------|-----------------------------------------------------------|----------|--------------|
| vanish   | is gone                                                   | yes      | yes          |
| appear   | is there, having been nowhere before                      | yes      | yes          |
| teleport | goes on from a place beside its path                      | yes      | yes          |
| colour   | has another colour                                        | yes      | yes          |
| shape    | has another shape                                         | yes      | yes          |
| reverse  | goes back the way it came, with nothing in its way        | yes      | yes          |
| pass     | goes on through the wall or floor that throws it back     | yes      | no           |
| hang     | stops in its fall, or its rise after a bounce, in the air | yes      | no           |

Notable: behind a bar the last two leave no evidence of their own: what has gone through a wall or hangs in the air
behind a bar does not come out, and that is `vanish`. What comes out from behind a bar has not been hidden there all
the while: in these worlds a sprite that moves has always moved. `appear` is `vanish` with the two episodes exchanged:
who merely finds a picture with more in it more surprising is right on the one as often as wrong on the other.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .worlds_physics import simulate
from .worlds_scene import COLOUR_NAMES, CORNERS, EXTENT, MOTIONS, REFERENCE, SHAPES, WALL, Bar, Episode, WorldConfig
from .worlds_sight import visible_share

CONCEPTS = ("vanish", "appear", "teleport", "colour", "shape", "reverse", "pass", "hang")
CONDITIONS = ("sight", "behind")
ONLY_IN_SIGHT = ("pass", "hang")
STRAIGHT = ("left", "right", "up", "down")
CALM = ("still", *STRAIGHT, "orbit_cw", "orbit_ccw")
CLEAR_FRAMES = 4  # frames on both sides of an event in which nothing else may happen to the main sprite
SEEN_FRAMES = 10  # within so many frames before a bar hides it and after, the sprite must be seen
SEEN_SHARE = 0.5  # by at least so much of itself


class Staged(NamedTuple):
    """Two episodes of one scene: the impossible video goes over from the first to the second at the event.

    Captions and collisions of both are those of the scene as it was simulated.
    """

    possible: Episode
    other: Episode


def kinds(concepts: list[str], conditions: list[str]) -> list[tuple[str, str]]:
    """(concept, condition) of everything that makes sense, in a fixed order."""
    every = [(concept, condition) for concept in CONCEPTS for condition in CONDITIONS]
    wanted = [(a, b) for a, b in every if a in concepts and b in conditions]
    return [(a, b) for a, b in wanted if b == "sight" or a not in ONLY_IN_SIGHT]


def motions_for(concept: str, condition: str) -> tuple[str, ...]:
    """The motion classes in which an event can happen: to hide behind a bar, a sprite has to move straight."""
    if concept == "hang":
        return ("fall",)
    if concept == "pass":
        return ("fall", *STRAIGHT)
    return STRAIGHT if condition == "behind" or concept == "reverse" else CALM


Event = Callable[[np.random.Generator, Episode, int], Episode | None]


def stage(world: WorldConfig, concept: str, condition: str, event: int, at: int) -> Staged | None:
    """Scene `at` of `world` with `concept` happening at frame `event`, or None where it cannot happen there and then.

    `world` must have no bars of its own; the scene is `simulate(world, at)`, and depends on the arguments alone.
    """
    rng = np.random.default_rng([world.seed, at, 3])
    scene: Episode | None = simulate(world, at)
    if scene is not None and condition == "behind":
        scene = _behind_bar(rng, scene, event)
    if scene is None or not _undisturbed(scene, 0):
        return None
    happens: dict[str, Event] = {"vanish": _without, "appear": _without, "teleport": _teleport, "colour": _recolour,
                                 "shape": _reshape, "reverse": _reverse, "pass": _pass, "hang": _hang}  # fmt: skip
    other = happens[concept](rng, scene, event)
    if other is None or (len(other.shapes) == len(scene.shapes) and not _undisturbed(other, event)):
        return None
    return Staged(other, scene) if concept == "appear" else Staged(scene, other)


# ---------------------------------------------------------------------- what may happen to the main sprite


def _without(rng: np.random.Generator, scene: Episode, event: int) -> Episode:
    """The scene without its main sprite, which touched nothing in it."""
    return replace(
        scene,
        **{key: getattr(scene, key)[1:] for key in ("shapes", "colours", "radii")},
        **{key: getattr(scene, key)[:, 1:] for key in ("positions", "velocities", "angles", "visible")},
    )


def _teleport(rng: np.random.Generator, scene: Episode, event: int) -> Episode | None:
    """At another place across its path (any way for one that stands or circles), by 12 to 30 of 64 pixels."""
    heading = MOTIONS[scene.motion]
    axis = {"left": 1, "right": 1, "up": 0, "down": 0}.get(heading, int(rng.integers(2)))
    scale = scene.config.size / REFERENCE
    shift = rng.uniform(12, 30) * scale * rng.choice((-1, 1))
    positions = scene.positions.copy()
    positions[event:, 0, axis] += shift
    reach = EXTENT[scene.shapes[0]] * scene.radii[0]
    moved = positions[event:, 0, axis]
    if moved.min() < reach or moved.max() > scene.config.size - reach:
        return None
    return _moved(scene, positions, scene.velocities, scene.angles)


def _recolour(rng: np.random.Generator, scene: Episode, event: int) -> Episode:
    return replace(scene, colours=_other_first(rng, scene.colours, len(COLOUR_NAMES)))


def _reshape(rng: np.random.Generator, scene: Episode, event: int) -> Episode:
    other = replace(scene, shapes=_other_first(rng, scene.shapes, len(SHAPES)))
    return _moved(other, scene.positions, scene.velocities, scene.angles)


def _other_first(rng: np.random.Generator, values: np.ndarray, count: int) -> np.ndarray:
    """A copy of `values` whose first entry is another one of `count`."""
    changed = values.copy()
    changed[0] = (values[0] + rng.integers(1, count)) % count
    return changed


def _reverse(rng: np.random.Generator, scene: Episode, event: int) -> Episode | None:
    """Back along its path, turned round halfway to the frame of the event; the walls throw it back as ever."""
    if not _steady(scene, event):
        return None
    reach = EXTENT[scene.shapes[0]] * scene.radii[0]
    width = scene.config.size - 2 * reach
    turn, pace = scene.positions[event - 1, 0], -scene.velocities[event - 1, 0]
    after = np.arange(len(scene.positions) - event)[:, None]
    unfolded = (turn - reach + pace * after) % (2 * width)  # at walls a path folds: a triangle wave
    beyond = unfolded > width
    positions, velocities = scene.positions.copy(), scene.velocities.copy()
    positions[event:, 0] = reach + np.where(beyond, 2 * width - unfolded, unfolded)
    velocities[event:, 0] = np.where(beyond, -pace, pace)
    return _moved(scene, positions, velocities, scene.angles)


def _pass(rng: np.random.Generator, scene: Episode, event: int) -> Episode | None:
    """On as it was before the wall or floor threw it back in the frame of the event."""
    at_wall = [frame for frame, a, b in scene.collisions if a == 0 and b == WALL]
    if event not in at_wall or any(event - CLEAR_FRAMES <= frame < event for frame in at_wall):
        return None
    before, after = scene.velocities[event - 1, 0], scene.velocities[event, 0]
    axis = 1 if scene.gravity else int(np.abs(before).argmax())
    if before[axis] * after[axis] >= 0 or np.abs(before[axis]) < scene.config.size / REFERENCE:
        return None  # a touch at the side of a fall
    t = np.arange(1, len(scene.positions) - event + 1)[:, None]
    pull = np.array([0.0, scene.gravity])
    positions, velocities, angles = scene.positions.copy(), scene.velocities.copy(), scene.angles.copy()
    positions[event:, 0] = positions[event - 1, 0] + before * t + 0.5 * pull * t * t
    velocities[event:, 0] = before + pull * t
    angles[event:, 0] = angles[event - 1, 0] + (angles[event - 1, 0] - angles[event - 2, 0]) * t[:, 0]
    return _moved(scene, positions, velocities, angles)


def _hang(rng: np.random.Generator, scene: Episode, event: int) -> Episode | None:
    """Where it was in the frame before the event: well above the floor, in a fall or in the rise after a bounce."""
    scale = scene.config.size / REFERENCE
    around = slice(event - 2, event + 2)
    touches = [frame for frame, a, b in scene.collisions if a == 0 and event - 2 <= frame < event + 2]
    bottom = scene.positions[around, 0, 1] + EXTENT[scene.shapes[0]] * scene.radii[0]
    if touches or np.abs(scene.velocities[around, 0, 1]).min() < scale or bottom.max() > scene.config.size - 4 * scale:
        return None
    positions, velocities, angles = scene.positions.copy(), scene.velocities.copy(), scene.angles.copy()
    positions[event:, 0], angles[event:, 0], velocities[event:, 0] = positions[event - 1, 0], angles[event - 1, 0], 0
    return _moved(scene, positions, velocities, angles)


def _moved(scene: Episode, positions: np.ndarray, velocities: np.ndarray, angles: np.ndarray) -> Episode:
    visible = visible_share(scene.shapes, scene.radii, positions, angles, scene.bar, scene.config.size)
    return replace(scene, positions=positions, velocities=velocities, angles=angles, visible=visible)


# ---------------------------------------------------------------------- where it may happen


def _undisturbed(scene: Episode, start: int) -> bool:
    """Whether the main sprite keeps off every other from frame `start` on: else they would have met, or had met."""
    reach = scene.radii * np.take(EXTENT, scene.shapes)
    gaps = np.linalg.norm(scene.positions[start:, 1:] - scene.positions[start:, :1], axis=-1)
    touched = any(frame >= start and a == 0 and b != WALL for frame, a, b in scene.collisions)
    return not touched and bool((gaps > reach[0] + reach[1:]).all())


def _steady(scene: Episode, event: int) -> bool:
    """Whether the main sprite keeps its velocity around the event."""
    around = scene.velocities[max(event - CLEAR_FRAMES, 0) : event + CLEAR_FRAMES, 0]
    return bool(np.allclose(around, around[0]))


def _behind_bar(rng: np.random.Generator, scene: Episode, event: int) -> Episode | None:
    """The scene with a bar that hides the main sprite in the frame of the event, and it is seen soon before and after.

    The bar lies across a straight path that is not thrown back behind it, and is 1.05 to 1.25 times as broad as the
    sprite: models remember some frames, and what is hidden for longer than that nobody could know.
    """
    axis = 0 if MOTIONS[scene.motion] in ("left", "right") else 1
    low, high = _span(int(scene.shapes[0]), float(scene.angles[event, 0]), axis) * scene.radii[0]
    spare = (high - low) * rng.uniform(0.05, 0.25)
    begin = scene.positions[event, 0, axis] + low - rng.random() * spare
    bar = Bar(axis, int(np.floor(begin)), int(np.ceil(begin + high - low + spare)))
    if bar.low < 0 or bar.high > scene.config.size:
        return None
    visible = visible_share(scene.shapes, scene.radii, scene.positions, scene.angles, bar, scene.config.size)
    seen = np.flatnonzero(visible[:, 0] >= SEEN_SHARE)
    before, after = seen[seen < event], seen[seen > event]
    if not before.size or not after.size:
        return None
    passage = scene.velocities[before[-1] : after[0] + 1, 0]
    if after[0] - before[-1] > 2 * SEEN_FRAMES or not np.allclose(passage, passage[0]):
        return None
    return replace(scene, bar=bar, visible=visible)


def _span(shape: int, angle: float, axis: int) -> np.ndarray:
    """Lowest and highest x (axis 0) or y of a shape of radius 1 turned by `angle`."""
    corners = CORNERS[shape]
    if corners is None:
        return np.array([-1.0, 1.0])
    cos, sin = np.cos(angle), np.sin(angle)
    along = corners @ (np.array([cos, -sin]) if axis == 0 else np.array([sin, cos]))
    return np.array([along.min(), along.max()])
