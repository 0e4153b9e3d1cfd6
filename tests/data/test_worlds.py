"""Procedural worlds. Claims:

- a clip depends on the settings and its index alone; the number of workers changes no byte of what is written;
- motion, shape and colour of the main sprite are balanced and independent, in the whole set and in every split;
- the motion class cannot be read from one frame's or the mean position, but follows from the path;
- the recorded positions and visible shares are those of the pixels;
- a bar hides an object completely for a while, in as many scenes as asked for;
- free objects move uniformly, falling ones on the exact parabola, collisions are recorded and conserve momentum;
- with `bounce` the main sprite stays inside however long the clip, keeps its pace, and turns where a collision says so;
- without `detail` the background stands still, with it every frame differs, and the physics stays the same; of a set
  on disk, its clean clips are those of the same set without it, and the files hold them;
- the tables and the mp4 files hold what was simulated and drawn;
- a finished set is reused, an interrupted one is completed, and a folder of anything else is refused in a sentence.
"""

import csv
import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

import data.worlds as worlds
from data.errors import DataError
from data.reader import open_video
from data.worlds import COLOUR_NAMES, MOTIONS, SHAPES, Episode, WorldConfig, generate, load_truth, render, simulate
from data.worlds_scene import EXTENT, FALL, WALL

AREAS = (np.pi, 2 * EXTENT[1] ** 2, 0.75 * np.sqrt(3) * EXTENT[2] ** 2)  # of radius 1


def episodes(count: int, **settings: object) -> list[Episode]:
    config = WorldConfig(**settings)  # type: ignore[arg-type]
    return [simulate(config, index) for index in range(count)]


def trace(episode: Episode, k: int) -> np.ndarray:
    """How much object k changes every pixel (T, H, W): the picture with it against the picture without it, 0..1."""
    kept = [j for j in range(len(episode.shapes)) if j != k]
    rest = {name: getattr(episode, name)[kept] for name in ("shapes", "colours", "radii")}
    rest |= {name: getattr(episode, name)[:, kept] for name in ("positions", "angles")}
    change = np.abs(render(episode).astype(int) - render(replace(episode, **rest))).sum(-1)
    return change / max(change.max(), 100)  # sprites differ from everything under them by more than 100


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_clip_depends_on_settings_and_index_alone() -> None:
    config = WorldConfig(detail=0.5, occluder_probability=1.0)
    for index in (3, 5):
        first, again = simulate(config, index), simulate(config, index)
        assert np.array_equal(first.positions, again.positions) and first.caption == again.caption
        assert np.array_equal(render(first), render(again))
        other = simulate(replace(config, seed=1), index)
        assert other.motion == first.motion and not np.array_equal(other.positions[0, 0], first.positions[0, 0])


def test_the_number_of_workers_changes_no_byte(tmp_path: Path) -> None:
    config = WorldConfig(clips=24, num_frames=4, size=32)
    one = generate(replace(config, out=str(tmp_path / "one"), workers=1), progress=False)
    two = generate(replace(config, out=str(tmp_path / "two"), workers=2), progress=False)
    assert len(tree(one)) == 24 + 6
    assert tree(one) == tree(two)


def test_motion_shape_and_colour_are_balanced_and_independent() -> None:
    table = np.zeros((len(MOTIONS), len(SHAPES), len(COLOUR_NAMES)), int)
    for e in episodes(288, objects_max=1, num_frames=2):
        table[e.motion, e.shapes[0], e.colours[0]] += 1
    assert (table == 2).all()


def test_splits_are_disjoint_and_hold_every_class_equally() -> None:
    splits = worlds.split_of(WorldConfig(clips=800, val_fraction=0.1, test_fraction=0.2))
    for split, share in enumerate((70, 10, 20)):
        assert (np.bincount(np.flatnonzero(splits == split) % len(MOTIONS), minlength=8) == share).all()
    assert np.bincount(worlds.split_of(WorldConfig(clips=4))).tolist() == [2, 1, 1], "never empty"


def test_the_class_is_in_the_path_and_not_in_one_place() -> None:
    paths = np.array([e.positions[:, 0] for e in episodes(640, objects_max=1, occluder_probability=0.0)])
    labels = np.arange(len(paths)) % len(MOTIONS)
    knn = KNeighborsClassifier(15)
    for place in (paths[:, 0], paths[:, 8], paths[:, -1], paths.mean(1)):
        assert cross_val_score(knn, place, labels, cv=3).mean() < 0.45
    assert cross_val_score(knn, np.diff(paths, axis=1).reshape(len(paths), -1), labels, cv=3).mean() > 0.97


def test_the_main_sprite_follows_its_programme_through_all_collisions() -> None:
    headings = {"still": (0, 0), "left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
    for e in episodes(64):
        name, path, velocity = MOTIONS[e.motion], e.positions[:, 0], e.velocities[:, 0]
        assert ((path > 0) & (path < e.config.size)).all(), "stays in view"
        if name in headings:
            assert np.allclose(np.diff(path, axis=0), velocity[0])
            assert np.array_equal(np.sign(velocity[0]), headings[name])
        if name in ("left", "right", "up", "down"):
            assert 1.5 <= np.abs(velocity[0]).sum() <= 3.0
        if name.startswith("orbit"):
            turn = velocity[:-1, 0] * velocity[1:, 1] - velocity[:-1, 1] * velocity[1:, 0]
            assert (np.sign(turn) == (1 if name == "orbit_cw" else -1)).all()  # y points down
            assert np.allclose(np.hypot(*velocity.T), np.hypot(*velocity[0]))


def test_pixels_lie_where_the_truth_says() -> None:
    checked, at = 0, np.arange(64) + 0.5
    for e in episodes(24, occluder_probability=0.0):
        reach = e.radii * np.take(EXTENT, e.shapes)
        gaps = np.linalg.norm(e.positions[:, :, None] - e.positions[:, None], axis=-1) - reach - reach[:, None]
        for k in range(len(e.shapes)):
            alone = (np.delete(gaps[:, k], k, axis=1) > 0).all(1)
            shown = trace(e, k)
            for t in np.flatnonzero(alone & (e.visible[:, k] == 1)):
                weight = np.minimum(2 * shown[t], 1)  # so that contrast does not count
                weight /= weight.sum()
                centre = np.array([weight.sum(0) @ at, weight.sum(1) @ at])
                assert np.abs(centre - e.positions[t, k]).max() < 0.3
                checked += 1
    assert checked > 300


def test_visible_shares_are_those_of_the_pixels() -> None:
    partly = 0
    for e in episodes(40, occluder_probability=1.0, objects_max=2):
        area = AREAS[e.shapes[0]] * e.radii[0] ** 2
        share = (trace(e, 0) > 0.5).sum((1, 2)) / area
        assert np.abs(share - e.visible[:, 0]).max() < 0.1
        partly += int(((e.visible[:, 0] > 0) & (e.visible[:, 0] < 1)).sum())
    assert partly > 100


def test_bars_hide_an_object_completely_for_a_while() -> None:
    vanished = 0
    for e in episodes(40, occluder_probability=1.0):
        hidden = e.visible == 0
        vanished += bool(e.bar and (hidden.any(0) & (e.visible > 0.5).any(0)).any())
        assert ("a bar hides the" in e.caption) == (e.bar is not None)
        for k in np.flatnonzero(hidden.any(0)):
            assert trace(e, k)[hidden[:, k]].max() < 0.2  # at most the soft edge of a neighbouring pixel
    assert vanished > 0.85 * 40
    assert not any(e.bar for e in episodes(48, occluder_probability=0.0))
    share = np.mean([e.bar is not None for e in episodes(320, num_frames=8)])
    assert 0.22 < share < 0.38  # asked for: 0.3


def test_an_object_that_touches_nothing_moves_uniformly() -> None:
    free = 0
    for e in episodes(64):
        for k in range(1, len(e.shapes)):
            if e.gravity or (e.collisions[:, 1:] == k).any():
                continue
            free += 1
            steps = np.arange(len(e.positions))[:, None]
            assert np.allclose(e.positions[:, k], e.positions[0, k] + steps * e.velocities[0, k], atol=1e-6)
    assert free > 10


def test_falling_is_the_exact_parabola_until_the_first_contact_and_then_a_bounce() -> None:
    for e in episodes(96, occluder_probability=0.0):
        if e.motion != FALL:
            assert e.gravity == 0
            continue
        contacts = e.collisions[(e.collisions[:, 1:] == 0).any(1), 0]
        t = np.arange(contacts.min())  # frames before the contact
        expected = e.positions[0, 0] + t[:, None] * e.velocities[0, 0] + 0.5 * t[:, None] ** 2 * [0, e.gravity]
        assert len(t) >= 2 and np.allclose(e.positions[t, 0], expected, atol=1e-6)
        assert np.allclose(e.velocities[t, 0, 1], t * e.gravity, atol=1e-6)
        if len(e.shapes) == 1:
            floor = e.collisions[0]
            assert tuple(floor[1:]) == (0, WALL)
            assert (e.velocities[floor[0] :, 0, 1] < 0).any(), "bounces up"
            assert e.positions[:, 0, 1].max() < e.config.size


def test_collisions_are_recorded_and_conserve_momentum() -> None:
    met = 0
    for e in episodes(240, distractor_speed=[1.0, 2.0], occluder_probability=0.0):
        assert (e.collisions[:, 0] >= 1).all() and (e.collisions[:, 0] < 16).all()
        assert ((e.collisions[:, 2] == WALL) | (e.collisions[:, 1] < e.collisions[:, 2])).all()
        for frame, a, b in e.collisions:
            earlier = e.collisions[e.collisions[:, 0] <= frame]
            touched = np.isin(earlier[:, 1:], (a, b)).any(1).sum()
            if a == 0 or b == WALL or e.gravity or touched > 1:
                continue  # only two free objects that have met nobody else
            mass = e.radii[[a, b], None] ** 2
            before, after = (e.velocities[f][[a, b]] for f in (frame - 1, frame))
            assert np.allclose((mass * before).sum(0), (mass * after).sum(0), atol=1e-6)
            assert not np.allclose(before, after)
            met += 1
    assert met >= 8


def test_bouncing_sprites_stay_inside_and_turn_where_a_collision_is_recorded() -> None:
    for episode in episodes(40, bounce=1.0, num_frames=96, objects_max=1, occluder_probability=0.0, speed=[2.0, 4.0]):
        motion = MOTIONS[episode.motion]
        if motion in ("fall", "still") or motion.startswith("orbit"):
            continue
        x, v = episode.positions[:, 0], episode.velocities[:, 0]
        reach = EXTENT[episode.shapes[0]] * episode.radii[0]
        assert x.min() > reach - 1e-6 and x.max() < 64 - reach + 1e-6
        assert np.allclose(np.linalg.norm(v, axis=1), np.linalg.norm(v[0]))
        turns = set((np.flatnonzero((v[1:] * v[:-1]).sum(1) < 0) + 1).tolist())
        assert turns == {frame for frame, a, b in episode.collisions.tolist() if (a, b) == (0, WALL)} and turns
        straight = [t for t in range(1, 96) if t not in turns]
        assert np.allclose((x[1:] - x[:-1])[[t - 1 for t in straight]], v[straight], atol=1e-6)


def test_lengths_and_speeds_scale_with_the_picture() -> None:
    for small, large in zip(episodes(8, size=64), episodes(8, size=128), strict=True):
        assert np.allclose(2 * small.radii, large.radii)
        if not small.gravity:
            assert np.allclose(2 * small.positions[:, 0], large.positions[:, 0])
    assert render(episodes(1, size=32, num_frames=8)[0]).shape == (8, 32, 32, 3)


def test_detail_is_fresh_in_every_frame_and_leaves_the_physics_alone() -> None:
    for index in range(8):
        calm, noisy = (simulate(WorldConfig(detail=d, occluder_probability=0), index) for d in (0.0, 1.0))
        assert np.array_equal(calm.positions, noisy.positions)
        gap = np.abs(np.mgrid[:64, :64][None, None] - calm.positions[:, :, ::-1, None, None]).max(2)  # (T, K, H, W)
        empty = (gap > 1.5 * calm.radii[:, None, None] + 2).all((0, 1))  # never near an object
        assert empty.any()
        still = render(calm)[:, empty].astype(int)
        assert (still == still[0]).all()
        restless = render(noisy)[:, empty].astype(int)
        assert np.abs(np.diff(restless, axis=0)).mean() > 10


def test_clean_clips_are_those_of_the_set_without_detail(tmp_path: Path) -> None:
    noisy = WorldConfig(out=str(tmp_path / "noisy"), clips=12, detail=0.5, occluder_probability=0.5, workers=1)
    calm = replace(noisy, detail=0.0, out=str(tmp_path / "calm"))
    assert worlds.load_world(generate(noisy, progress=False)) == replace(noisy, out=WorldConfig().out, workers=0)
    generate(calm, progress=False)
    apart = lambda a, b: np.abs(a.astype(float) - b).mean()
    for index, found in zip((7, 3), worlds.clean_clips(noisy.out, [7, 3]), strict=True):
        assert np.array_equal(found, render(simulate(calm, index)))
        files = [open_video(Path(c.out) / f"videos/{index:06d}.mp4").frames(np.arange(16)) for c in (calm, noisy)]
        assert apart(files[0], found) < 3 < 10 < apart(files[1], found)
    file = Path(noisy.out) / "world.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))  # as if the same settings gave other scenes
    with pytest.raises(DataError, match="written by another version"):
        list(worlds.clean_clips(noisy.out, [3]))
    with pytest.raises(DataError, match=r"world\.json does not exist"):
        worlds.load_world(tmp_path)
    for text in ("{", "[]", '{"config": {"colour": 1}}'):
        (tmp_path / "world.json").write_text(text)
        with pytest.raises(DataError, match=r"world\.json cannot be read"):
            list(worlds.clean_clips(tmp_path, [0]))


def test_texture_zero_is_smooth() -> None:
    def roughness(texture: float) -> float:
        picture = render(simulate(WorldConfig(texture=texture, objects_max=1, occluder_probability=0), 0))[0, :6, :6]
        return float(np.abs(np.diff(picture.astype(int), 2, axis=1)).mean())

    assert roughness(0.0) < roughness(1.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[WorldConfig, Path]:
    config = WorldConfig(out=str(tmp_path_factory.mktemp("worlds") / "set"), clips=40, workers=1)
    return config, generate(config, progress=False)


def test_truth_is_what_was_simulated(made: tuple[WorldConfig, Path]) -> None:
    config, out = made
    truth = load_truth(out)
    assert truth["positions"].shape == (40, 16, 4, 2) and truth["visible"].shape == (40, 16, 4)
    for index in range(config.clips):
        e, count = simulate(config, index), truth["num_objects"][index]
        assert count == len(e.shapes) and truth["motions"][index] == e.motion
        for key in ("positions", "velocities", "angles", "visible"):
            assert np.allclose(truth[key][index, :, :count], getattr(e, key), atol=1e-4)
            assert np.isnan(truth[key][index, :, count:]).all()
        assert (
            np.array_equal(truth["shapes"][index, :count], e.shapes) and (truth["colours"][index, count:] == -1).all()
        )
        mine = truth["collisions"][truth["collisions"][:, 0] == index, 1:]
        assert np.array_equal(mine, e.collisions)
        assert np.isnan(truth["bars"][index]).all() == (e.bar is None)


def test_tables_list_every_clip_once(made: tuple[WorldConfig, Path]) -> None:
    config, out = made
    tables = {}
    for name in ("clips", "train", "val", "test"):
        with (out / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0])[:2] == ["path", "label"]
        tables[name] = {row["path"]: row for row in rows}
    parts = [tables[name] for name in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(tables["clips"]) == config.clips
    assert {**parts[0], **parts[1], **parts[2]} == tables["clips"]
    for index, (path, row) in enumerate(tables["clips"].items()):
        e = simulate(config, index)
        assert (out / path).is_file()
        assert (row["label"], row["shape"], row["caption"]) == (MOTIONS[e.motion], SHAPES[e.shapes[0]], e.caption)
    held = json.loads((out / "world.json").read_text())
    assert held["config"]["clips"] == 40 and held["names"]["motions"] == list(MOTIONS)


def test_the_videos_show_what_was_drawn(made: tuple[WorldConfig, Path]) -> None:
    reader = pytest.importorskip("data.reader")
    config, out = made
    for index in (1, 5, 14):
        video = reader.open_video(out / "videos" / f"{index:06d}.mp4")
        assert (len(video), video.fps, video.height) == (16, 8, 64)
        seen = video.frames(np.arange(16)).astype(int)
        assert np.abs(seen - render(simulate(config, index))).mean() < 3.5  # of 255; most of it is 4:2:0 chroma


def test_a_finished_set_is_reused_and_other_settings_are_refused(made: tuple[WorldConfig, Path]) -> None:
    config, out = made
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    assert generate(replace(config, workers=3), progress=False) == out
    assert generate(OmegaConf.structured(config), progress=False) == out
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
    with pytest.raises(DataError, match=r"other settings \(detail, seed\); delete it or choose another `out`"):
        generate(replace(config, seed=3, detail=0.1), progress=False)


def test_an_interrupted_set_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = WorldConfig(out=str(tmp_path / "cut"), clips=12, num_frames=4, size=32, workers=1)
    whole = generate(replace(config, out=str(tmp_path / "whole")), progress=False)
    write, written = worlds.write_video, []

    def interrupted(path: Path, *rest: object) -> None:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *rest)

    monkeypatch.setattr(worlds, "write_video", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(config, progress=False)
    assert not (tmp_path / "cut" / "world.json").exists()
    with pytest.raises(DataError, match="other settings"):
        generate(replace(config, seed=1), progress=False)
    monkeypatch.setattr(worlds, "write_video", lambda path, *rest: written.append(path) or write(path, *rest))
    cut = generate(config, progress=False)
    assert len(written) == len(set(written)) == 12, "nothing is written twice"
    assert tree(cut) == tree(whole)


def test_a_full_disk_names_the_file_and_leaves_no_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: .*world\.part\.json'"):
        generate(WorldConfig(out=str(tmp_path), clips=8), progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_a_folder_of_other_videos_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "holiday.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="choose another `out`"):
        generate(WorldConfig(out=str(tmp_path), clips=8), progress=False)
    assert [p.name for p in tmp_path.rglob("*")] == ["videos", "holiday.mp4"]


def test_truth_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"truth\.npz does not exist"):
        load_truth(tmp_path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"clips": 0}, "clips=0"),
        ({"size": 63}, "size=63 is odd"),
        ({"objects_max": 0}, "objects_max=0"),
        ({"detail": 1.5}, r"detail=1\.5"),
        ({"speed": [3.0, 1.0]}, "speed=.*lowest, highest"),
        ({"num_frames": 64}, "speed=.*over 64 frames.*1.02"),
        ({"main_radius": [9.0]}, "main_radius"),
        ({"gravity": 0.0}, "gravity"),
        ({"val_fraction": 0.6, "test_fraction": 0.5}, "val_fraction"),
        ({"clips": 2}, "nothing of 2 clips"),
        ({"crf": 60}, "crf=60"),
    ],
)
def test_impossible_settings_are_named(tmp_path: Path, settings: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        generate(WorldConfig(out=str(tmp_path / "none"), **settings), progress=False)  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()
