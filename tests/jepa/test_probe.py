"""Probes. Claims:

- each probe finds what is there to be found and nothing where nothing is; the interval is Wilson's.
- pooling is over space alone, so that what changes in time can be told; the attentive probe finds a single token.
- few labels, one row of a class, and test labels never seen in training are no obstacle.
- the online probe is fitted on one half and scored on the other, and says nothing where there is nothing to say.
- `jepa probe` treats trained, random and pixel features alike, keeps rows and labels together, computes features once
  and only those that are asked, reads them from disk as they are needed, leaves no half of them where it failed, and
  refuses videos that cannot be read instead of putting another's features in their place.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_config

from data.errors import DataError
from data.writer import write_video
from jepa import JEPA, ConfigError
from jepa.config import load_config
from jepa.probe import PROBES, Features, _moments, online_probe, pixel_tokens, run_probe, subset
from jepa.probe_run import ProbeConfig, probe


def features(count: int, y: np.ndarray, strength: float, seed: int = 0) -> Features:
    """(count, 3, 4, 8) noise in which the class moves one channel, at one moment and everywhere in space."""
    tokens = np.random.default_rng(seed).normal(size=(count, 3, 4, 8))
    tokens[np.arange(count), 1, :, y] += strength
    return Features(tokens.astype(np.float16))


@pytest.mark.parametrize("kind", PROBES)
def test_a_probe_finds_what_is_there_and_nothing_else(kind: str) -> None:
    y, y_test = np.arange(240) % 4, np.arange(200) % 4
    found = run_probe(kind, features(240, y, 4.0), y, features(200, y_test, 4.0, seed=1), y_test)
    assert found.accuracy > 0.9 and found.clips == 200 and found.macro_f1 > 0.9
    blind = run_probe(kind, features(240, y, 0.0), y, features(200, y_test, 0.0, seed=1), y_test)
    assert blind.ci95[0] < 0.25 < blind.ci95[1] and blind.accuracy < 0.4


def test_the_online_probe_is_fair() -> None:
    labels = torch.arange(40) // 2 % 2  # 0 0 1 1 0 0 1 1: both halves hold both classes
    features = torch.randn(40, 6)
    assert online_probe(features + 20 * labels[:, None], labels) == 1.0
    assert online_probe(features, labels - 2) is None, "no labels"
    assert online_probe(features[:6], labels[:6]) is None, "too few"
    mixed = torch.where(torch.arange(40) < 20, labels, -1)
    spoiled = features + 20 * labels[:, None] + torch.where(mixed < 0, 1e6, 0)[:, None]
    assert online_probe(spoiled, mixed) == 1.0, "clips without a label do not count"


def test_the_interval_is_wilsons() -> None:
    y, y_test = np.arange(40) % 2, np.arange(40) % 2
    y_test[:10] = 1 - y_test[:10]  # ten of forty are wrong however good the features
    found = run_probe("knn", features(40, y, 50.0), y, features(40, np.arange(40) % 2, 50.0, seed=1), y_test)
    p, n, z = 0.75, 40, 1.959964
    centre, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert found.accuracy == p
    assert found.ci95 == pytest.approx(((centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)), abs=1e-5)


def test_pooling_keeps_time_and_the_pixel_baseline_too() -> None:
    tokens = np.arange(2 * 3 * 4 * 5, dtype=np.float16).reshape(2, 3, 4, 5)
    np.testing.assert_allclose(Features(tokens).pooled, tokens.mean(2).reshape(2, 15))
    assert Features(tokens)[np.array([1])].tokens.shape == (1, 3, 4, 5)
    video = torch.zeros(1, 3, 8, 32, 32)
    video[:, 1, 2:4, :4, :4] = 1
    pixels = pixel_tokens(video, (4, 2, 2))
    assert pixels.shape == (1, 4, 1, 192) and pixels[0, 1, 0].nonzero().flatten().tolist() == [64] and pixels.sum() == 1


def test_moments_of_parts_are_those_of_the_whole() -> None:
    x = (3 + torch.randn(300, 5, 4)).half()
    mean, std = _moments(x)
    assert torch.allclose(mean, x.float().mean((0, 1)), atol=1e-5)
    assert torch.allclose(std, x.float().std((0, 1)) + 1e-5, atol=1e-5)


def test_subset_keeps_every_class() -> None:
    y = np.array([0] * 50 + [1] * 20 + [2])
    rows = subset(y, 0.1)
    assert [int((y[rows] == c).sum()) for c in range(3)] == [5, 2, 1] and (np.diff(rows) > 0).all()
    assert np.array_equal(subset(y, 1.0), np.arange(71))


@pytest.mark.parametrize("kind", PROBES)
def test_few_labels_are_no_obstacle(kind: str) -> None:
    cases = (np.array([0, 1]), np.array([0, 0, 1]), np.arange(16) % 8, np.array([0] * 9 + [1]))
    for y in cases[:1] if kind == "attentive" else cases:
        y_test = np.array([0, 1, 9])  # 9 was never seen: it cannot be right, and nothing falls over it
        found = run_probe(kind, features(len(y), y, 30.0), y, features(3, np.array([0, 1, 2]), 30.0, seed=1), y_test)
        assert found.accuracy <= 2 / 3


@pytest.fixture(scope="module")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of one brightness each, and tables that say which: 10 dark and 10 light to learn from, 10 to test."""
    root = tmp_path_factory.mktemp("bright")
    for split, count in (("train", 20), ("test", 10)):
        rows = ["path,label,wrong"]
        for i in range(count):
            name = f"{split}{i}.mp4"
            write_video(root / name, np.full((4, 16, 16, 3), 40 + 150 * (i % 2) + i, np.uint8), fps=4)
            rows.append(f"{name},{('dark', 'light')[i % 2]},same")
        (root / f"{split}.csv").write_text("\n".join(rows) + "\n")
    torch.manual_seed(0)
    JEPA(tiny_config()).save_pretrained(root / "jepa")
    return root


def words(root: Path, *more: str) -> ProbeConfig:
    data = "{num_frames: 4, size: [16, 16], batch_size: 8, workers: 0"
    plain = f"data={data}, train: {root / 'train.csv'}, val: {root / 'test.csv'}}}"
    base = [f"checkpoint={root / 'jepa'}", f"out={root / 'out'}", plain, "probes=[linear, knn]", "progress=false"]
    return load_config(ProbeConfig, None, [*base, *more])


def test_the_command_asks_all_representations_alike(bright: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = probe(words(bright, "label_fractions=[1.0, 0.5]"))
    assert set(found["label"]) == {"jepa", "random", "pixels"}
    assert found["label"]["pixels"]["linear"]["1"].accuracy == 1.0, "rows and labels belong together"
    assert all(result.clips == 10 for kinds in found["label"].values() for f in kinds.values() for result in f.values())
    printed = capsys.readouterr().out
    assert "pixels" in printed and "50%" in printed and "[" in printed
    stored = json.loads((bright / "out" / "probe.json").read_text())
    assert stored["label"]["pixels"]["knn"]["0.5"]["clips"] == 10
    cached = {path: path.stat().st_mtime_ns for path in (bright / "out" / "features").iterdir()}
    assert len(cached) == 2
    stored = [np.load(file, mmap_mode="r") for file in sorted((bright / "out" / "features").glob("*/jepa.npy"))]
    assert {array.shape for array in stored} == {(20, 2, 1, 24), (10, 2, 1, 24)}, "averaged over space: nobody attends"
    assert all(isinstance(array, np.memmap) and array.any(-1).all() for array in stored)
    assert probe(words(bright, "label_fractions=[1.0, 0.5]")) == found
    assert cached == {path: path.stat().st_mtime_ns for path in (bright / "out" / "features").iterdir()}


def test_a_video_that_cannot_be_read_is_not_replaced(bright: Path, tmp_path: Path) -> None:
    rows = (bright / "train.csv").read_text().splitlines()
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    table = [rows[0], *(f"{bright / row.split(',')[0]},{row.split(',', 1)[1]}" for row in rows[1:5])]
    for place in (1, 4):
        changed = [*table[:place], "broken.mp4,dark,same", *table[place:]]
        (tmp_path / "train.csv").write_text("\n".join(changed) + "\n")
        with pytest.raises(DataError, match=r"train\.csv lists videos that cannot be read"):
            probe(words(bright, f"data.train={tmp_path / 'train.csv'}", "data.root=/", f"out={tmp_path / 'out'}"))
        assert not [path for path in (tmp_path / "out" / "features").rglob("*") if path.is_file()]


def test_only_what_is_asked_is_computed(bright: Path, tmp_path: Path) -> None:
    found = probe(words(bright, f"out={tmp_path}", "representations=[pixels]", "probes=[knn]"))
    assert set(found["label"]) == {"pixels"} and found["label"]["pixels"]["knn"]["1"].accuracy == 1.0
    assert {path.name for path in (tmp_path / "features").glob("*/*")} == {"pixels.npy"}


def test_what_cannot_be_probed_is_refused_at_once(bright: Path) -> None:
    for word, error, match in (
        ("data.val=''", ConfigError, r"data\.val is empty"),
        ("probes=[linaer]", ConfigError, "probes is 'linaer'.*did you mean 'linear'"),
        ("label_fractions=[0.0]", ConfigError, "label_fractions is"),
        ("data.clips_per_video=2", ConfigError, r"data\.clips_per_video must be 1"),
        ("tasks=[{name: motion, column: motion}]", DataError, "has no column 'motion'"),
    ):
        with pytest.raises(error, match=match):
            probe(words(bright, word))
