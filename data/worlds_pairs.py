"""Pairs of a possible and an impossible video of the procedural worlds, to ask a model what surprises it.

    generate_pairs(PairsConfig(out="runs/pairs", pairs=200))

    runs/pairs/videos/vanish_sight_0000_possible.mp4 ...   read like any other video
    runs/pairs/pairs.csv    path, pair, possible, concept, condition, event, evidence, twin
    runs/pairs/world.json   settings; written last, so its presence means that all is there

Notable: the two videos of a pair are the same bytes of pixels up to the event, and behind a bar up to the evidence (the
first frame in which they differ): the impossible one is cut together from two renderings of one scene (see
`data.worlds_events`), and the encoder does not look ahead. Number, size and colour of objects, background, speed and
moment of the event are therefore matched by construction. The moment is drawn before the scene, evenly over `event`.
Pair n of `vanish` and pair n of `appear` are twins, cut from the same two renderings with exchanged roles (a quadruplet
of IntPhys, arXiv 1803.07616): their possible videos together hold what their impossible ones hold.
Scenes are drawn like those of `jepa worlds` with `bounce=1`, from indices that no training set reaches.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from omegaconf import OmegaConf
from tqdm import tqdm

from .errors import DataError
from .worlds import _found, _write
from .worlds_events import CONCEPTS, CONDITIONS, SEEN_FRAMES, kinds, motions_for, stage
from .worlds_render import render
from .worlds_scene import MOTIONS, Episode, WorldConfig, check
from .writer import write_video

__all__ = ["COLUMNS", "Pair", "PairsConfig", "generate_pairs", "make_pair"]

COLUMNS = ("path", "pair", "possible", "concept", "condition", "event", "evidence", "twin")
FORMAT = 2  # raise when the same settings start to give other pairs
TRIES = 2000  # scenes tried for one pair
PATIENCE = 100  # of them with one motion class, before the next is tried
FIRST = 10**9  # index of the first scene tried
PLAIN_LEVELS, PLAIN_SHARE = 40, 0.01  # a plain difference: so many grey levels in so large a share of the picture


@dataclass
class PairsConfig:
    """Settings of a set of pairs; the look of the scenes is as in `WorldConfig`, lengths for a picture of 64 pixels.

    pairs       of each concept in each condition.
    conditions  sight: the event happens while the sprite is seen; behind: while a bar hides it completely.
    event       the event lies between these shares of the video, evenly.
    """

    out: str = "runs/pairs"
    pairs: int = 200
    seed: int = 0
    concepts: list[str] = field(default_factory=lambda: list(CONCEPTS))
    conditions: list[str] = field(default_factory=lambda: list(CONDITIONS))
    event: list[float] = field(default_factory=lambda: [0.35, 0.75])
    num_frames: int = 32
    size: int = 64
    fps: int = 8
    objects_max: int = 2
    main_radius: list[float] = field(default_factory=lambda: [8.0, 11.0])
    distractor_radius: list[float] = field(default_factory=lambda: [3.0, 5.0])
    speed: list[float] = field(default_factory=lambda: [2.0, 2.9])
    distractor_speed: list[float] = field(default_factory=lambda: [0.2, 1.0])
    gravity: float = 0.6
    texture: float = 0.2
    detail: float = 0.0
    crf: int = 14


class Pair(NamedTuple):
    """One pair. `possible` and `other` are the two episodes it was cut from, the videos (T, H, W, 3) uint8 RGB."""

    name: str
    concept: str
    condition: str
    event: int  # first frame in which the impossible video follows `other`
    evidence: int  # first frame in which the two videos differ
    possible: Episode
    other: Episode
    possible_video: np.ndarray
    impossible_video: np.ndarray


def generate_pairs(config: PairsConfig, progress: bool = True) -> Path:
    """Writes the whole set below `config.out` and returns its pairs.csv; a finished set of the same settings is kept.

    Raises DataError if the settings are impossible, or the folder holds a set made with other settings or other files.
    """
    if OmegaConf.is_config(config):
        config = OmegaConf.to_object(config)  # type: ignore[assignment]
    _check(config)
    out = Path(config.out)
    settings = {key: value for key, value in json.loads(json.dumps(asdict(config))).items() if key != "out"}
    wanted = {"format": FORMAT, "config": settings}
    if _found(out, wanted):
        return out / "pairs.csv"
    (out / "videos").mkdir(parents=True, exist_ok=True)
    _write(out / "world.part.json", json.dumps(wanted, indent=2).encode())
    total = config.pairs * len(kinds(config.concepts, config.conditions))
    rows: list[tuple[object, ...]] = []
    for pair in tqdm(_all_pairs(config), desc="pairs", unit="pair", total=total, disable=not progress):
        for word, video in (("possible", pair.possible_video), ("impossible", pair.impossible_video)):
            path = out / "videos" / f"{pair.name}_{word}.mp4"
            if not path.exists():  # an interrupted run may have left it there, complete
                write_video(path, video, config.fps, config.crf)
            row = (f"videos/{path.name}", pair.name, word == "possible")
            rows.append((*row, pair.concept, pair.condition, pair.event, pair.evidence, _twin(config, pair)))
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([COLUMNS, *rows])
    _write(out / "pairs.csv", table.getvalue().encode())
    _write(out / "world.json", json.dumps(wanted, indent=2).encode())
    (out / "world.part.json").unlink()
    return out / "pairs.csv"


def make_pair(config: PairsConfig, concept: str, condition: str, number: int) -> Pair:
    """Pair `number` of a concept in a condition: a function of the settings and these three alone.

    Raises DataError where no scene of these settings can hold the event.
    """
    drawn_as = "vanish" if concept == "appear" else concept  # the same scenes
    kind = [(a, b) for a in CONCEPTS for b in CONDITIONS].index((drawn_as, condition))
    rng = np.random.default_rng([config.seed, kind, number, 4])
    first, last = _moments(config)
    event = int(rng.integers(first, last + 1))
    motions = motions_for(concept, condition)
    world = _world(config)
    for attempt in range(TRIES):
        motion = MOTIONS.index(motions[(number + attempt // PATIENCE) % len(motions)])
        at = FIRST + len(MOTIONS) * ((kind * 10**6 + number) * TRIES + attempt) + motion
        staged = stage(world, concept, condition, event, at)
        if staged is None:
            continue
        before, after = render(staged.possible), render(staged.other)
        impossible = np.concatenate([before[:event], after[event:]])
        evidence = _evidence(before, impossible)
        if evidence is None or not (evidence == event if condition == "sight" else evidence > event):
            continue
        name = f"{concept}_{condition}_{number:04d}"
        return Pair(name, concept, condition, event, evidence, *staged, before, impossible)
    raise DataError(
        f"pairs: no scene holds the event {concept!r} ({condition}) at frame {event}: let sprites be smaller"
        " (main_radius) or slower (speed), or take the concept out of `concepts`."
    )


def _all_pairs(config: PairsConfig) -> Iterator[Pair]:
    for concept, condition in kinds(config.concepts, config.conditions):
        for number in range(config.pairs):
            yield make_pair(config, concept, condition, number)


def _twin(config: PairsConfig, pair: Pair) -> str:
    """Name of the pair of the same two scenes with exchanged roles, or nothing where the set has none."""
    other = {"vanish": "appear", "appear": "vanish"}.get(pair.concept, "")
    return pair.name.replace(pair.concept, other) if other in config.concepts else ""


def _evidence(possible: np.ndarray, impossible: np.ndarray) -> int | None:
    """First frame in which two videos differ, or None where they do not soon differ plainly."""
    gap = np.abs(possible.astype(np.int16) - impossible).max(-1)  # (T, H, W)
    frames = np.flatnonzero(gap.any((1, 2)))
    if not frames.size:
        return None
    soon = gap[frames[0] : frames[0] + SEEN_FRAMES]
    plain = ((soon > PLAIN_LEVELS).mean((1, 2)) > PLAIN_SHARE).any()
    return int(frames[0]) if plain else None


def _moments(config: PairsConfig) -> tuple[int, int]:
    """First and last frame of which an event may happen."""
    first, last = (round(share * config.num_frames) for share in config.event)
    return first, last


def _world(config: PairsConfig) -> WorldConfig:
    """The world that the scenes are taken from: walls throw back, and no bars but those of the events."""
    shared = ("seed", "num_frames", "size", "fps", "objects_max", "main_radius", "distractor_radius", "speed",
              "distractor_speed", "gravity", "texture", "detail", "crf")  # fmt: skip
    return WorldConfig(bounce=1.0, occluder_probability=0.0, **{key: getattr(config, key) for key in shared})


def _check(config: PairsConfig) -> None:
    for key, known in (("concepts", CONCEPTS), ("conditions", CONDITIONS)):
        strange = [name for name in getattr(config, key) if name not in known]
        if strange or not getattr(config, key):
            what = repr(strange[0]) if strange else "empty"
            raise DataError(f"pairs: {key} is {what}; choose from {', '.join(known)}.")
    if not kinds(config.concepts, config.conditions):
        raise DataError(f"pairs: {', '.join(config.concepts)} cannot happen behind a bar; add sight to `conditions`.")
    if config.pairs < 1:
        raise DataError(f"pairs: pairs={config.pairs} is too small; give at least 1.")
    check(_world(config))
    span = list(config.event)
    if len(span) != 2 or not 0 < span[0] <= span[1] < 1:
        raise DataError(f"pairs: event={span} must be two shares of the video between 0 and 1, the lower first.")
    first, last = _moments(config)
    if first < 4 or last > config.num_frames - 5:
        raise DataError(
            f"pairs: event={span} of {config.num_frames} frames leaves fewer than 4 frames before or after it;"
            " give a longer num_frames or other shares."
        )
