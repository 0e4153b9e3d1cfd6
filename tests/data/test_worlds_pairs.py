"""Pairs of possible and impossible videos. Claims:

- the two videos of a pair are equal up to the event, decoded from their files too, and plainly differ after it;
- behind a bar the sprite is hidden completely when it happens, and nothing differs until the evidence;
- before and after, the sprite is seen; nothing else befalls it at the event;
- every concept does what its name says, and nothing else; the possible video is a plain simulation;
- twins of `vanish` and `appear` are one quadruplet: before the event, and from it on, the possible videos together are
  the impossible ones together;
- a pair depends on the settings and its number alone, and moments are spread over the whole span, alike for all;
- the table names every file; a finished set is reused, an interrupted one completed, other folders are refused;
- settings that cannot be meant are named in a sentence.
"""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import data.worlds_pairs as worlds_pairs
from data.errors import DataError
from data.reader import open_video
from data.worlds import MOTIONS, WorldConfig, generate, render
from data.worlds_events import CONCEPTS, CONDITIONS, kinds
from data.worlds_pairs import COLUMNS, Pair, PairsConfig, generate_pairs, make_pair
from data.worlds_scene import EXTENT

CONFIG = PairsConfig()
KINDS = kinds(list(CONCEPTS), list(CONDITIONS))
Check = Callable[[Pair, np.ndarray, np.ndarray], None]


@pytest.fixture(scope="module")
def pairs() -> dict[tuple[str, str], list[Pair]]:
    more = {"pass": 15}  # and one that falls through the floor
    return {(a, b): [make_pair(CONFIG, a, b, number) for number in (0, 1, 2, 3, more.get(a, 4))] for a, b in KINDS}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[PairsConfig, Path]:
    config = PairsConfig(out=str(tmp_path_factory.mktemp("pairs")), pairs=2, size=32)
    return config, generate_pairs(config, progress=False)


def difference(pair: Pair) -> np.ndarray:
    """Greatest difference of the two videos in every pixel (T, H, W), in grey levels."""
    return np.abs(pair.possible_video.astype(int) - pair.impossible_video).max(-1)


def test_all_concepts_that_make_sense_are_there() -> None:
    assert len(KINDS) == 14 and {a for a, b in KINDS if b == "sight"} == set(CONCEPTS)
    assert {a for a, b in KINDS if b == "behind"} == set(CONCEPTS) - {"pass", "hang"}


@pytest.mark.parametrize("kind", KINDS)
def test_equal_up_to_the_event_and_different_after_it(pairs: dict, kind: tuple[str, str]) -> None:
    for pair in pairs[kind]:
        gap = difference(pair)
        assert not gap[: pair.evidence].any() and gap[pair.evidence].any()
        assert ((gap[pair.evidence :] > 40).mean((1, 2)) > 0.01).any(), "a person would see it"
        assert pair.evidence == pair.event if kind[1] == "sight" else pair.evidence > pair.event
        assert np.array_equal(pair.possible_video, render(pair.possible)), "a plain simulation"
        assert np.array_equal(pair.impossible_video[pair.event :], render(pair.other)[pair.event :])


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_behind_a_bar_and_in_sight_without(pairs: dict, kind: tuple[str, str]) -> None:
    for pair in pairs[kind]:
        shown = (pair.other if kind[0] == "appear" else pair.possible).visible[:, 0]
        before, after = shown[: pair.event], shown[pair.event :]
        if kind[1] == "sight":
            assert pair.possible.bar is None and min(before[-1], after[0]) > 0.6
            continue
        assert pair.possible.bar is not None and after[0] == 0
        assert before[-10:].max() >= 0.5 and after[:20].max() >= 0.5
        if len(pair.other.visible[0]) == len(pair.possible.visible[0]):
            assert pair.other.visible[pair.event, 0] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_distractors_background_and_bar_are_the_same(pairs: dict, kind: tuple[str, str]) -> None:
    for pair in pairs[kind]:
        ours, theirs = pair.possible, pair.other
        more = {"vanish": (1, 0), "appear": (0, 1)}.get(kind[0], (1, 1))
        assert (ours.config, ours.index, ours.bar) == (theirs.config, theirs.index, theirs.bar)
        assert np.array_equal(ours.positions[:, more[0] :], theirs.positions[:, more[1] :])
        assert np.array_equal(ours.colours[more[0] :], theirs.colours[more[1] :])
        whole = theirs if kind[0] == "appear" else ours
        reach = whole.radii * np.take(EXTENT, whole.shapes)
        for episode in (whole, theirs) if more == (1, 1) else (whole,):
            start = pair.event if episode is theirs and more == (1, 1) else 0
            gaps = np.linalg.norm(episode.positions[start:, 1:] - episode.positions[start:, :1], axis=-1)
            assert (gaps > reach[0] + reach[1:]).all(), "the main sprite meets nobody"


def _vanish(pair: Pair, path: np.ndarray, other: np.ndarray) -> None:
    assert len(pair.possible.shapes) == len(pair.other.shapes) + 1


def _appear(pair: Pair, path: np.ndarray, other: np.ndarray) -> None:
    assert len(pair.possible.shapes) == len(pair.other.shapes) - 1


def _teleport(pair: Pair, path: np.ndarray, other: np.ndarray) -> None:
    jump = other[pair.event :] - path[pair.event :]
    assert np.allclose(jump, jump[0]) and 12 <= np.abs(jump[0]).sum() <= 30 and np.abs(jump[0]).min() == 0
    speed = pair.possible.velocities[0, 0]
    if MOTIONS[pair.possible.motion] in ("left", "right", "up", "down"):
        assert jump[0] @ speed == 0, "across its way, so that walls still throw it back where they are"


def _colour(pair: Pair, path: np.ndarray, other: np.ndarray) -> None:
    assert np.array_equal(path, other) and pair.possible.colours[0] != pair.other.colours[0]
    assert pair.possible.shapes[0] == pair.other.shapes[0]


def _shape(pair: Pair, path: np.ndarray, other: np.ndarray) -> None:
    assert np.array_equal(path, other) and pair.possible.shapes[0] != pair.other.shapes[0]
    assert pair.possible.colours[0] == pair.other.colours[0]


def _reverse(pair: Pair, path: np.ndarray, other: np.ndarray) -> None:
    at, reach = pair.event, EXTENT[pair.possible.shapes[0]] * pair.possible.radii[0]
    assert np.allclose(other[at : at + 4], path[at - 4 : at][::-1]), "back the way it came"
    steps = np.diff(path[at - 4 : at + 4], axis=0)
    assert np.allclose(steps, steps[0]), "nothing was in its way"
    assert other.min() > reach - 1e-6 and other.max() < 64 - reach + 1e-6
    pace = np.linalg.norm(pair.other.velocities[:, 0], axis=1)
    assert np.allclose(pace, pace[0])


def _pass(pair: Pair, path: np.ndarray, other: np.ndarray) -> None:
    at = pair.event
    pull = np.array([0.0, pair.possible.gravity])
    assert np.allclose(np.diff(other[at - 2 :], 2, axis=0), pull, atol=1e-6), "as if there were no wall"
    axis = int(np.abs(other[-1] - other[at]).argmax())
    assert ((path[at + 2, axis] - path[at, axis]) * (other[at + 2, axis] - other[at, axis])) < 0
    if len(other) - at > 12:
        assert not 0 < other[-1, axis] < 64, "and out of the picture"


def _hang(pair: Pair, path: np.ndarray, other: np.ndarray) -> None:
    at, reach = pair.event, EXTENT[pair.possible.shapes[0]] * pair.possible.radii[0]
    assert pair.possible.gravity > 0 and np.allclose(other[at:], path[at - 1])
    assert np.abs(np.diff(path[at - 2 : at + 1, 1])).min() > 0.7, "it was on its way"
    assert other[at, 1] + reach < 60, "above the floor"


CHECKS: dict[str, Check] = {"vanish": _vanish, "appear": _appear, "teleport": _teleport, "colour": _colour,
                            "shape": _shape, "reverse": _reverse, "pass": _pass, "hang": _hang}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_concept_does_what_its_name_says(pairs: dict, kind: tuple[str, str]) -> None:
    for pair in pairs[kind]:
        if kind[0] not in ("vanish", "appear"):
            path, other = pair.possible.positions[:, 0], pair.other.positions[:, 0]
            assert np.array_equal(path[: pair.event], other[: pair.event])
            assert (kind[0] == "shape") == (pair.possible.shapes[0] != pair.other.shapes[0])
            assert (kind[0] == "colour") == (pair.possible.colours[0] != pair.other.colours[0])
        else:
            path = other = np.empty(0)
        CHECKS[kind[0]](pair, path, other)


def test_vanish_and_appear_are_twins(pairs: dict) -> None:
    for condition in CONDITIONS:
        for gone, come in zip(pairs["vanish", condition], pairs["appear", condition], strict=True):
            assert gone.event == come.event and gone.evidence == come.evidence
            at = gone.event
            for first, second in (
                (gone.possible_video, come.impossible_video),
                (come.possible_video, gone.impossible_video),
            ):
                assert np.array_equal(first[at:], second[at:]) and not np.array_equal(first[:at], second[:at])


def test_some_pass_through_walls_and_some_through_the_floor(pairs: dict) -> None:
    assert {pair.possible.gravity > 0 for pair in pairs["pass", "sight"]} == {True, False}


def test_a_pair_depends_on_settings_and_number_alone() -> None:
    first = make_pair(CONFIG, "teleport", "behind", 3)
    again = make_pair(replace(CONFIG, pairs=7, out="elsewhere", concepts=["teleport"]), "teleport", "behind", 3)
    assert np.array_equal(first.impossible_video, again.impossible_video) and first.event == again.event
    other = make_pair(replace(CONFIG, seed=1), "teleport", "behind", 3)
    assert not np.array_equal(first.possible_video, other.possible_video)


def test_moments_are_spread_over_the_span(pairs: dict) -> None:
    events = [pair.event for same in pairs.values() for pair in same]
    assert min(events) >= 11 and max(events) <= 24 and len(set(events)) >= 10
    assert all(len({pair.event for pair in same}) >= 3 for same in pairs.values())


def test_the_files_hold_what_was_made(made: tuple[PairsConfig, Path]) -> None:
    config, table = made
    with table.open() as lines:
        rows = list(csv.DictReader(lines))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 2 * 2 * 14
    assert sorted(row["path"] for row in rows) == sorted(f"videos/{p.name}" for p in table.parent.glob("videos/*"))
    for one, two in zip(rows[::2], rows[1::2], strict=True):
        assert (one["possible"], two["possible"]) == ("True", "False")
        assert [one[key] for key in COLUMNS[3:]] == [two[key] for key in COLUMNS[3:]] and one["pair"] == two["pair"]
        swapped = {"vanish": "appear", "appear": "vanish"}.get(one["concept"])
        assert one["twin"] == (one["pair"].replace(one["concept"], swapped) if swapped else "")
        videos = [open_video(table.parent / row["path"]).frames(np.arange(32)).astype(int) for row in (one, two)]
        gap = np.abs(videos[0] - videos[1])
        assert not gap[: int(one["evidence"])].any(), "the encoder does not look ahead"
        assert gap[int(one["evidence"]) :].max() > 40
        number = int(one["pair"][-4:])
        drawn = make_pair(config, one["concept"], one["condition"], number).impossible_video
        assert np.abs(videos[1] - drawn).mean() < 5


def test_a_finished_set_is_reused_and_others_refused(made: tuple[PairsConfig, Path], tmp_path: Path) -> None:
    config, table = made
    before = {p: p.stat().st_mtime_ns for p in table.parent.rglob("*")}
    assert generate_pairs(config, progress=False) == table
    assert {p: p.stat().st_mtime_ns for p in table.parent.rglob("*")} == before
    with pytest.raises(DataError, match=r"other settings \(seed\)"):
        generate_pairs(replace(config, seed=5), progress=False)
    with pytest.raises(DataError, match="delete it or choose another `out`"):
        generate(WorldConfig(out=config.out, clips=8), progress=False)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "holiday.mp4").touch()
    with pytest.raises(DataError, match="choose another `out`"):
        generate_pairs(replace(config, out=str(tmp_path)), progress=False)


def test_an_interrupted_set_is_completed(
    made: tuple[PairsConfig, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, table = made
    write, written = worlds_pairs.write_video, []

    def interrupted(path: Path, *rest: object) -> None:
        if len(written) == 9:
            written.append(path)
            raise KeyboardInterrupt
        written.append(path)
        write(path, *rest)

    monkeypatch.setattr(worlds_pairs, "write_video", interrupted)
    again = replace(config, out=str(tmp_path / "cut"))
    with pytest.raises(KeyboardInterrupt):
        generate_pairs(again, progress=False)
    assert not (tmp_path / "cut" / "pairs.csv").exists()
    cut = generate_pairs(again, progress=False)
    assert len(written) == 1 + len(set(written)) == 1 + 2 * 2 * 14, "only the interrupted one was begun twice"
    for name in ("pairs.csv", *(f"videos/{p.name}" for p in table.parent.glob("videos/*"))):
        assert (cut.parent / name).read_bytes() == (table.parent / name).read_bytes()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pairs": 0}, "pairs=0"),
        ({"concepts": ["melt"]}, "concepts is 'melt'; choose from vanish"),
        ({"concepts": []}, "concepts is empty"),
        ({"conditions": ["below"]}, "'below'; choose from sight, behind"),
        ({"concepts": ["hang"], "conditions": ["behind"]}, "hang cannot happen behind a bar"),
        ({"event": [0.9, 0.2]}, "the lower first"),
        ({"event": [0.5, 0.95]}, "fewer than 4 frames"),
        ({"size": 63}, "size=63 is odd"),
        ({"main_radius": [19.0, 20.0], "concepts": ["teleport"]}, "no scene holds the event 'teleport'"),
    ],
)
def test_impossible_settings_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], words: str
) -> None:
    monkeypatch.setattr(worlds_pairs, "TRIES", 100)
    config = PairsConfig(out=str(tmp_path / "none"), pairs=1)
    with pytest.raises(DataError, match=words):
        generate_pairs(replace(config, **settings), progress=False)  # type: ignore[arg-type]
    assert not (tmp_path / "none" / "pairs.csv").exists()
