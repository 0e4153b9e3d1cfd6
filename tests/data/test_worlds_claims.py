"""Scores of drawn clips on physics. Claims:

- true clips score as true: errors near zero, everything found and itself, nothing missing or extra;
- a sprite that is moved, recoloured, reshaped or removed is scored as just that, in the frames in which it is;
- a sprite keeps its name by colour and size where another comes nearer to its place;
- a copied last frame errs more and more, up to half the picture, and never brings back what is hidden in it;
- permanence tells a sprite that does not come back, comes late, at another place, as another, or never hid;
- interaction tells a sprite that goes straight on from one that is thrown back; an object that is lost counts as one
  that stands still, and losing it never makes the error of its velocity smaller;
- which clips qualify follows from the truth alone; no score depends on the order of the clips;
- the truth of simulated clips is the truth that a written set holds.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.worlds import Episode, WorldConfig, generate, load_truth, render, simulate
from data.worlds_claims import coherence, hidings, hits, interaction, permanence
from data.worlds_detect import Detections, detect
from data.worlds_tracks import Scene, Tracks, at_frames, follow, stack_truth
from data.worlds_validate import shrink

SEEN, SIZE = 4, 32
FRAMES = np.arange(0, 48, 2)  # of long clips, in which sprites hide, return and are thrown back
MOVES = (1, 2, 3, 4)  # left, right, up, down
Change = Callable[[Episode], Episode]


@cache
def episodes(bar: float = 1.0, objects: int = 1) -> tuple[Episode, ...]:
    config = WorldConfig(num_frames=48, bounce=1.0, seed=2, occluder_probability=bar, objects_max=objects,
                         speed=[1.5, 3.0])  # fmt: skip
    return tuple(simulate(config, 8 * row + motion) for row in range(8) for motion in MOVES)


def truth(clips: tuple[Episode, ...]) -> Scene:
    return at_frames(stack_truth(clips), FRAMES, SIZE)


def tracked(clips: tuple[Episode, ...], scene: Scene, change: Change = lambda e: e) -> Tracks:
    drawn = [change(e) for e in clips]
    drawn = [replace(e, positions=e.positions[FRAMES], angles=e.angles[FRAMES]) for e in drawn]
    return follow(detect(np.concatenate([shrink(render(e), SIZE) for e in drawn])), scene)


def moved(e: Episode, by: tuple[float, float], first: int = 0) -> Episode:
    """The main sprite is elsewhere from frame `first` on, in px of the 64-px picture."""
    positions = e.positions.copy()
    positions[first:, 0] += by
    return replace(e, positions=positions)


def gone(e: Episode) -> Episode:
    """The main sprite leaves for good once it is hidden."""
    hidden = np.flatnonzero(e.visible[:, 0] == 0)
    return moved(e, (-500, 0), hidden[0]) if hidden.size else e


def paint(key: str) -> Change:
    def change(e: Episode) -> Episode:
        values = getattr(e, key).copy()
        values[0] = (values[0] + 1) % 3
        return replace(e, **{key: values})

    return change


def mean(values: np.ndarray) -> float:
    return float(np.nanmean(values))


def test_true_clips_score_as_true() -> None:
    for size, frames in ((32, np.arange(1, 16, 2)), (64, np.arange(16))):
        clips = tuple(simulate(WorldConfig(seed=4), index) for index in range(24))
        scene = at_frames(stack_truth(clips), frames, size)
        c = coherence(follow(detect(np.concatenate([shrink(render(e)[frames], size) for e in clips])), scene), scene)
        assert c.error.shape == (24, len(frames))
        assert mean(c.error) < 0.3 and mean(c.found) == 1 and mean(c.colour) == 1 and mean(c.shape) > 0.99
        assert mean(c.others_found) > 0.95 and mean(c.others_colour) > 0.95, "one colour over another is not told apart"
        assert np.nanmedian(c.others_error) < 0.3 and mean(c.extra) < 0.02 and mean(c.count) > 0.9
    scene = truth(episodes())
    tracks = tracked(episodes(), scene)
    p, i = permanence(tracks, scene, SEEN), interaction(tracks, scene, SEEN)
    assert (~np.isnan(p.returned)).sum() >= 10 and (i.hits > 0).sum() >= 20
    assert mean(p.hidden) == 1 and mean(p.returned) == 1 and mean(p.colour) == 1 and mean(p.shape) > 0.95
    assert mean(np.abs(p.time)) < 0.3 and mean(p.place) < 0.5
    assert mean(i.found) == 1 and mean(i.error) < 0.1 and mean(i.angle) < 5 and abs(mean(i.response) - 1) < 0.05


def test_the_truth_of_a_track_is_scored_without_error() -> None:
    clips = episodes(objects=4)
    scene = truth(clips)
    shown = scene.visible > 0
    colours, shapes = (np.where(shown, values[:, None], -1) for values in (scene.colours, scene.shapes))
    tracks = Tracks(np.where(shown[..., None], scene.positions, np.nan), colours, shapes, scene.visible,
                    np.zeros(shown.shape[:2], int), np.zeros(shown.shape[:2], bool))  # fmt: skip
    c, p, i = coherence(tracks, scene), permanence(tracks, scene, SEEN), interaction(tracks, scene, SEEN)
    assert np.nanmax(c.error) == np.nanmax(c.others_error) == 0 == c.missing.max() == c.extra.max()
    for ones in (c.found, c.colour, c.shape, c.others_found, c.count, p.hidden, p.returned, p.colour, p.shape):
        assert np.nanmin(ones) == 1
    assert np.nanmax(np.abs(p.time)) == np.nanmax(p.place) == np.nanmax(i.error) == 0
    assert np.nanmax(i.angle) < 0.1 and np.allclose(i.response[i.hits > 0], 1)


def test_what_is_changed_is_scored_as_changed_and_nothing_else() -> None:
    clips = episodes(0.0)[:16]
    scene = truth(clips)
    right = coherence(tracked(clips, scene), scene)
    late = coherence(tracked(clips, scene, lambda e: moved(e, (6, -8), 24)), scene)
    assert np.allclose(late.error[:, :12], right.error[:, :12], atol=1e-3, equal_nan=True)
    inside = (scene.positions[:, 12:, 0, 0] < 22) & (scene.positions[:, 12:, 0, 1] > 10)  # where it stays in view
    assert inside.sum() > 50 and np.abs(late.error[:, 12:][inside] - 5).max() < 1, "moved by 5 of 32 pixels"
    colour = coherence(tracked(clips, scene, paint("colours")), scene)
    assert (
        mean(colour.colour) == 0 and mean(colour.found) == 1 and mean(colour.error) < 0.3 and mean(colour.shape) > 0.98
    )
    shape = coherence(tracked(clips, scene, paint("shapes")), scene)
    assert mean(shape.shape) < 0.05 and mean(shape.colour) == 1 and mean(shape.error) < 0.6
    none = coherence(tracked(clips, scene, lambda e: moved(e, (-500, 0))), scene)
    assert mean(none.found) == mean(none.colour) == mean(none.shape) == mean(none.count) == 0
    assert (none.error == SIZE / 2).all() and (none.missing == 1).all() and (none.extra == 0).all()


def test_a_sprite_too_many_is_extra() -> None:
    clips = tuple(simulate(WorldConfig(seed=4, objects_max=3, occluder_probability=0.0), index) for index in range(16))
    fewer = tuple(replace(e, shapes=e.shapes[:1], colours=e.colours[:1], radii=e.radii[:1], visible=e.visible[:, :1],
                          positions=e.positions[:, :1], angles=e.angles[:, :1]) for e in clips)  # fmt: skip
    frames = np.arange(0, 16, 2)
    scene, full = (at_frames(stack_truth(c), frames, SIZE) for c in (fewer, clips))
    found = detect(np.concatenate([shrink(render(e)[frames], SIZE) for e in clips]))
    extra = coherence(follow(found, scene), scene).extra
    shown = ((full.visible[..., 1:] > 0.95).sum(-1), (full.visible[..., 1:] > 0).sum(-1))
    assert extra.sum() > 50 and (extra >= shown[0] - 1).all() and (extra <= shown[1]).all()
    assert (extra == shown[0])[shown[0] == shown[1]].mean() > 0.95
    assert coherence(follow(found, full), full).extra.mean() < 0.02


def test_a_sprite_keeps_its_name_where_another_comes_nearer_to_its_place() -> None:
    where = np.array([[10.0, 16.0], [20.0, 16.0]])
    scene = Scene(SIZE, where[None, None], np.ones((1, 1, 2)), np.array([[0, 1]]), np.array([[4, 0]]),
                  np.array([[5.0, 2.0]]), np.zeros((0, 4), int))  # fmt: skip

    def named(colours: list[int], shapes: list[int]) -> list[float]:
        found = Detections(np.zeros(2, int), np.array([[12.0, 16.0], [18.0, 16.0]]), np.array(colours),
                           np.array(shapes), np.array([3.0, 3.0]), np.array([28.0, 28.0]), np.ones(2))  # fmt: skip
        return follow(found, scene).positions[0, 0, :, 0].tolist()

    assert named([4, 0], [0, -1]) == [12, 18]
    assert named([0, 4], [0, 0])[0] == 18, "by colour"
    assert named([4, 4], [-1, 0])[0] == 18, "by size"
    assert named([0, 4], [-1, 0]) == [18, 12], "by both"
    assert named([0, 0], [-1, -1])[1] == 18, "by place, where nothing else tells"


def test_a_copied_last_frame_errs_more_and_more() -> None:
    clips = episodes(0.0)
    scene = truth(clips)
    stills = [np.repeat(shrink(render(e)[FRAMES[SEEN - 1]][None], SIZE), len(FRAMES), 0) for e in clips]
    tracks = follow(detect(np.concatenate(stills)), scene)
    curve = np.nanmean(coherence(tracks, scene).error, 0)
    assert curve[SEEN - 1] < 0.3 and (np.diff(curve[SEEN - 1 : SEEN + 5]) > 0.5).all()
    i = interaction(tracks, scene, SEEN)
    speed = np.linalg.norm(hits(scene, SEEN).after, axis=1)
    assert abs(mean(i.error) - speed.mean()) < 0.3, "it stands still"
    assert mean(i.response) == pytest.approx(0.5, abs=0.1), "which is half the way back from going straight on"


def test_permanence_tells_what_did_not_come_back_as_it_was() -> None:
    clips = episodes()
    scene = truth(clips)
    chosen = hidings(scene, SEEN)[0] >= 0
    assert 10 <= chosen.sum() < len(clips)

    def scored(change: Change) -> Any:
        return permanence(tracked(clips, scene, change), scene, SEEN)

    lost = scored(gone)
    assert mean(lost.returned[chosen]) == mean(lost.colour) == mean(lost.shape) == 0
    assert np.isnan(lost.time).all() and np.isnan(lost.place).all() and mean(lost.hidden) == 1
    assert np.isnan(lost.returned[~chosen]).all()
    bare = scored(lambda e: replace(e, bar=None))
    assert mean(bare.hidden) == 0 and mean(bare.returned) == 1, "it never hid"
    recoloured, reshaped = scored(paint("colours")), scored(paint("shapes"))
    assert mean(recoloured.colour) == 0 and mean(recoloured.shape) > 0.9 and mean(recoloured.returned) == 1
    assert mean(reshaped.shape) < 0.1 and mean(reshaped.colour) == 1

    def later(e: Episode) -> Episode:  # two frames of the video, one of the model's, behind
        return replace(e, positions=np.concatenate([e.positions[:1].repeat(2, 0), e.positions[:-2]]))

    late, step = scored(later), np.linalg.norm(np.diff(scene.positions[:, :, 0], axis=1), axis=-1).mean()
    known = ~np.isnan(late.time)
    assert known.sum() > 0.8 * chosen.sum() and np.median(late.time[known]) == pytest.approx(1, abs=0.2)
    assert np.nanmedian(late.place) == pytest.approx(step, abs=0.6)


def test_interaction_tells_straight_on_from_thrown_back() -> None:
    clips = episodes(0.0)
    scene = truth(clips)
    h = hits(scene, SEEN)
    assert len(h.clip) >= 20 and (h.object == 0).all() and (h.frame >= SEEN).all()
    assert np.allclose(h.before, -h.after, atol=1.5), "walls throw back; a turn between two frames blurs it"
    before = np.linalg.norm(h.before, axis=1)
    tracks = tracked(clips, scene)
    positions = tracks.positions.copy()
    for clip, frame, k, velocity in zip(h.clip, h.frame, h.object, h.before, strict=True):
        at = scene.positions[clip, frame, k] + np.arange(3)[:, None] * velocity
        positions[clip, frame : frame + 3, k] = at
    i = interaction(replace(tracks, positions=positions), scene, SEEN)
    assert abs(mean(i.response)) < 0.1 and mean(i.angle) > 170
    speed = np.bincount(h.clip, np.linalg.norm(h.after, axis=1), len(clips)) / np.maximum(i.hits, 1)
    assert np.allclose(i.error[i.hits > 0], speed[i.hits > 0], rtol=0.02) and before.mean() > 1, "as bad as can be"
    assert (interaction(tracks, scene, SEEN).error[i.hits == 0].size > 0) == bool((i.hits == 0).any())
    lost = interaction(replace(tracks, positions=np.full_like(positions, np.nan)), scene, SEEN)
    assert mean(lost.found) == 0 and np.isnan(lost.angle).all() and np.array_equal(lost.hits, i.hits)
    assert np.allclose(lost.error[i.hits > 0], speed[i.hits > 0]), "as if it stood still"
    assert np.array_equal(np.isnan(lost.error), i.hits == 0)


def test_losing_an_object_never_makes_its_velocity_better() -> None:
    clips = episodes(0.0)
    scene, rng = truth(clips), np.random.default_rng(0)
    tracks = tracked(clips, scene)
    for noise in (0.0, 0.5, 4.0):  # px: from a drawing as good as true to one that is worse than standing still
        drawn = tracks.positions + noise * rng.standard_normal(tracks.positions.shape)
        whole = interaction(replace(tracks, positions=drawn), scene, SEEN)
        for share in (0.1, 0.5, 0.9):
            gone = rng.random(drawn.shape[:3]) < share
            some = interaction(replace(tracks, positions=np.where(gone[..., None], np.nan, drawn)), scene, SEEN)
            known = whole.hits > 0
            assert (some.error[known] >= whole.error[known]).all() and (some.found[known] <= whole.found[known]).all()
            assert mean(some.error) > mean(whole.error) and mean(some.found) < 1


def test_no_score_depends_on_the_order_of_the_clips() -> None:
    clips = episodes(objects=4)[:16]
    order = np.random.default_rng(0).permutation(len(clips))
    mixed = tuple(clips[n] for n in order)
    scene, other = truth(clips), truth(mixed)
    tracks, shuffled = tracked(clips, scene), tracked(mixed, other)
    for one, two in (
        (coherence(tracks, scene), coherence(shuffled, other)),
        (permanence(tracks, scene, SEEN), permanence(shuffled, other, SEEN)),
        (interaction(tracks, scene, SEEN), interaction(shuffled, other, SEEN)),
    ):
        for f in fields(one):
            assert np.allclose(getattr(one, f.name)[order], getattr(two, f.name), atol=1e-3, equal_nan=True), f.name


def test_simulated_truth_is_the_truth_of_a_written_set(tmp_path: Path) -> None:
    config = WorldConfig(clips=12, num_frames=8, workers=1, objects_max=3, out=str(tmp_path / "worlds"))
    written = load_truth(generate(config, progress=False))
    frames, clips = np.array([1, 3, 5, 7]), np.array([7, 2, 10])
    one = at_frames(written, frames, 32, clips)
    other = at_frames(stack_truth([simulate(config, int(n)) for n in clips]), frames, 32)
    most = other.visible.shape[2]
    assert one.positions.shape == (3, 4, 3, 2) and np.array_equal(one.collisions, other.collisions)
    assert np.allclose(one.positions[:, :, :most], other.positions, atol=1e-4, equal_nan=True)
    assert np.allclose(one.visible[:, :, :most], other.visible, atol=1e-5)
    assert np.allclose(one.positions[0, 1, 0], written["positions"][7, 3, 0] / 2)
    with pytest.raises(ValueError, match="not in clips of 8"):
        at_frames(written, frames + 1, 32)
