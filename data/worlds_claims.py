"""Scores drawn clips of the procedural worlds on physics: what was found in the pictures against what is true.

    coherence(tracks, scene).error                                      # (N, T) px, curves against the horizon
    permanence(tracks, scene, seen=4).returned                          # (N,), NaN where nothing was hidden
    interaction(tracks, scene, seen=4).error                            # (N,) px per frame, NaN where nothing was hit

Notable: every score is an array over clips with NaN where it does not apply, so the caller averages, takes the best of
several samples or draws bootstrap samples. A sprite counts as in sight where at least half of it shows (`SIGHT`).
Frames and velocities are those of the model's clips, lengths pixels of its pictures.
"""

from dataclasses import dataclass

import numpy as np

from .worlds_scene import REFERENCE, WALL
from .worlds_tracks import Scene, Tracks

SIGHT = 0.5  # share of a sprite that must show
MISSING = 0.5  # share of the picture: the error of a sprite that is not found, and the greatest of one that is
TURN = 0.5  # px per frame at 64: least change of velocity that makes a contact a hit


@dataclass(frozen=True)
class Coherence:
    """Per clip and frame (N, T). NaN where the main sprite, or every other, is out of sight in truth."""

    error: np.ndarray  # px, main sprite; half the picture where it is not found
    found: np.ndarray  # 0 or 1, main sprite
    colour: np.ndarray  # 0 or 1, main sprite found and of its colour
    shape: np.ndarray  # 0 or 1, main sprite found and of its shape
    others_error: np.ndarray  # px, mean over the other objects in sight
    others_found: np.ndarray  # share of them
    others_colour: np.ndarray  # share of them found and of their colour
    missing: np.ndarray  # number of objects in sight that are not found
    extra: np.ndarray  # number of sprites found that should not be there
    count: np.ndarray  # 0 or 1: nothing missing, nothing extra


@dataclass(frozen=True)
class Permanence:
    """Per clip (N,); NaN where the main sprite does not hide and return, as `hidings` tells."""

    hidden: np.ndarray  # share of the frames without a main sprite, of those in which all of it is hidden in truth
    returned: np.ndarray  # 0 or 1: found in a frame in which it is back in sight in truth
    time: np.ndarray  # frames by which half of it shows later than in truth; NaN if it never hid or came back
    place: np.ndarray  # px, error where it is first found after the true return; NaN if never
    colour: np.ndarray  # 0 or 1: back, and of its colour, where most of it shows
    shape: np.ndarray  # 0 or 1: back, and of its shape, where most of it shows


@dataclass(frozen=True)
class Hits:
    """Contacts that change a velocity (R rows); velocities are finite differences of true positions, px per frame."""

    clip: np.ndarray  # (R,) int
    frame: np.ndarray  # (R,) int, first frame at or after the contact
    object: np.ndarray  # (R,) int
    before: np.ndarray  # (R, 2)
    after: np.ndarray  # (R, 2)


@dataclass(frozen=True)
class Interaction:
    """Means over the hits of each clip (N,); NaN where there is no hit, and where no object is found but for
    `error` and `found`.

    Who loses an object is charged as who leaves it standing still, and nobody is charged more: an error is at most the
    true speed. Losing an object after a contact so never makes `error` smaller; `found` tells how often it happened,
    `angle` and `response` what is drawn where it did not.
    """

    hits: np.ndarray  # number of hits, never NaN
    found: np.ndarray  # share of them after which the object is found, so that its velocity is known
    error: np.ndarray  # px per frame, difference of the velocities; the true speed where not found, and at most
    angle: np.ndarray  # degrees between the two, 0..180
    response: np.ndarray  # change of velocity along the true one: 1 as in truth, 0 as if nothing had been hit


def coherence(tracks: Tracks, scene: Scene) -> Coherence:
    """Are the objects where they should be, all of them and no others, in every frame?"""
    sight = scene.visible >= SIGHT
    found = ~np.isnan(tracks.positions[..., 0])
    error = np.linalg.norm(tracks.positions - scene.positions, axis=-1)
    error = np.where(found, np.minimum(error, MISSING * scene.size), MISSING * scene.size)
    colour = found & (tracks.colours == scene.colours[:, None])
    shape = found & (tracks.shapes == scene.shapes[:, None])
    missing = (sight & ~found).sum(-1)
    seen, others = sight[..., 0], sight[..., 1:]
    return Coherence(
        error=np.where(seen, error[..., 0], np.nan),
        found=np.where(seen, found[..., 0], np.nan),
        colour=np.where(seen, colour[..., 0], np.nan),
        shape=np.where(seen, shape[..., 0], np.nan),
        others_error=_mean(error[..., 1:], others),
        others_found=_mean(found[..., 1:], others),
        others_colour=_mean(colour[..., 1:], others),
        missing=missing,
        extra=tracks.extra,
        count=((missing == 0) & (tracks.extra == 0)).astype(float),
    )


def hidings(scene: Scene, seen: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames (N,), (N,) in which the main sprite is first hidden completely, and then first back in sight; -1 if never.

    Counted from the last of the `seen` frames, for sprites that were in sight before. Both are -1 where either is.
    """
    visible, at = scene.visible[..., 0], np.arange(scene.visible.shape[1])
    hidden = (visible == 0) & (at >= seen - 1)
    first = np.where(hidden.any(1), hidden.argmax(1), len(at))
    back = (visible >= SIGHT) & (at > first[:, None])
    known = (visible[:, :seen] >= SIGHT).any(1) & back.any(1)
    return np.where(known, first, -1), np.where(known, back.argmax(1), -1)


def permanence(tracks: Tracks, scene: Scene, seen: int) -> Permanence:
    """Does a main sprite that was hidden come back, when and where it should, as what it was?"""
    hide, back = hidings(scene, seen)
    result = Permanence(*(np.full(len(hide), np.nan) for _ in range(6)))
    for n in np.flatnonzero(hide >= 0):
        visible, at = scene.visible[n, :, 0], np.arange(scene.visible.shape[1])
        found = ~np.isnan(tracks.positions[n, :, 0, 0])
        gone = (visible == 0) & (at >= seen) & (at < back[n])
        if gone.any():
            result.hidden[n] = 1 - tracks.ghost[n, gone].mean()
        again = np.flatnonzero(found & (visible >= SIGHT) & (at >= back[n]))
        result.returned[n] = float(again.size > 0)
        result.colour[n] = result.shape[n] = 0.0
        if not again.size:
            continue
        first, best = again[0], again[visible[again].argmax()]
        shares = np.where(tracks.ghost[n], 1.0, tracks.shares[n, :, 0])
        result.time[n] = _lateness(shares, visible, hide[n], back[n])
        result.place[n] = np.linalg.norm(tracks.positions[n, first, 0] - scene.positions[n, first, 0])
        result.colour[n] = float(tracks.colours[n, best, 0] == scene.colours[n, 0])
        result.shape[n] = float(tracks.shapes[n, best, 0] == scene.shapes[n, 0])
    return result


def hits(scene: Scene, seen: int) -> Hits:
    """Contacts after the `seen` frames that change the velocity of an object seen before and after.

    Velocities are taken over the two frames that end before the contact and the two that begin after it.
    """
    step, rows = TURN * scene.size / REFERENCE, []
    for clip, frame, *pair in scene.collisions:
        for k in (k for k in pair if k != WALL):
            if frame < max(seen, 3) or frame + 2 >= scene.positions.shape[1]:
                continue
            path, visible = scene.positions[clip, :, k], scene.visible[clip, :, k]
            before, after = (path[frame - 1] - path[frame - 3]) / 2, (path[frame + 2] - path[frame]) / 2
            if (visible[[frame - 3, frame - 1, frame, frame + 2]] >= SIGHT).all() and _far(after, before, step):
                rows.append((clip, frame, k, *before, *after))
    table = np.array(sorted(set(rows)), float).reshape(-1, 7)
    clip, frame, k = table[:, :3].astype(int).T
    return Hits(clip, frame, k, table[:, 3:5], table[:, 5:7])


def interaction(tracks: Tracks, scene: Scene, seen: int) -> Interaction:
    """Do objects go on as they should after they have hit a wall or each other?"""
    h = hits(scene, seen)
    velocity = (tracks.positions[h.clip, h.frame + 2, h.object] - tracks.positions[h.clip, h.frame, h.object]) / 2
    change = h.after - h.before
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = (velocity * h.after).sum(1) / np.linalg.norm(velocity, axis=1) / np.linalg.norm(h.after, axis=1)
    values = {
        "found": (~np.isnan(velocity[:, 0])).astype(float),
        "error": np.fmin(np.linalg.norm(velocity - h.after, axis=1), np.linalg.norm(h.after, axis=1)),
        "angle": np.degrees(np.arccos(np.clip(cosine, -1, 1))),
        "response": ((velocity - h.before) * change).sum(1) / (change**2).sum(1),
    }
    number = len(scene.shapes)
    counts = np.bincount(h.clip, minlength=number)
    return Interaction(counts, **{key: _per_clip(value, h.clip, number) for key, value in values.items()})


def _mean(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Mean over the last axis where `where`, NaN where nowhere."""
    number = where.sum(-1)
    return np.where(number, (values * where).sum(-1) / np.maximum(number, 1), np.nan)


def _per_clip(values: np.ndarray, clip: np.ndarray, number: int) -> np.ndarray:
    known = ~np.isnan(values)
    table = [np.bincount(clip[known], weight, number) for weight in (values[known], None)]
    return np.where(table[1] > 0, table[0] / np.maximum(table[1], 1), np.nan)


def _far(a: np.ndarray, b: np.ndarray, step: float) -> bool:
    return float(np.linalg.norm(a - b)) >= step


def _rises(shares: np.ndarray) -> np.ndarray:
    """When (frames, between two of them) shares (T,) rise to SIGHT."""
    low, high = shares[:-1], shares[1:]
    at = np.flatnonzero((low < SIGHT) & (high >= SIGHT))
    return at + (SIGHT - low[at]) / (high[at] - low[at])


def _lateness(shares: np.ndarray, visible: np.ndarray, hide: int, back: int) -> float:
    """Frames from the true return to that rise of shares (T,) after hiding which is nearest; NaN if there is none."""
    true, rises = _rises(visible), _rises(shares)
    true, rises = true[(true > back - 1) & (true <= back)], rises[rises > hide]
    return float(rises[np.abs(rises - true[0]).argmin()] - true[0]) if rises.size else float("nan")
