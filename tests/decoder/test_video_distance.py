"""Distances of sets of clips. Claims:

- the Fréchet distance is torchmetrics', and the textbook's with a matrix square root, to 1e-3; for fewer clips than
  features too.
- closed forms: a set against itself, moved and stretched, turned.
- the kernel distance is torchmetrics' and a plain double loop's; its mean over equal sets is 0 at any n, and over pairs
  that resemble each other too.
- the table says n, repeats itself, and puts a worse arm behind a better one; its intervals hold what other sets of that
  size give, for pairs and for sets of their own, with fewer clips than features and with more.
- the difference of two arms that resemble each other is known better than either: the same clips are left out of both;
- too few clips, other widths and values that are not finite are errors.
"""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from decoder.video_distance import distance_table, frechet, kernel_distance
from jepa.errors import ConfigError


class Features(nn.Module):
    """torchmetrics takes a network; ours are features already."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def sets(n: int, m: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two sets with correlated features of very different sizes, as logits are."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width, width)) * np.exp(-np.arange(width) / width * 4)
    return rng.normal(size=(n, width)) @ mixing.T, rng.normal(size=(m, width)) @ mixing.T * 1.2 + 0.3


@pytest.mark.parametrize(("n", "m", "width"), [(300, 280, 100), (40, 50, 100), (64, 64, 400)])
def test_frechet_is_torchmetrics(n: int, m: int, width: int) -> None:
    a, b = sets(n, m, width)
    metric = FrechetInceptionDistance(Features(width)).set_dtype(torch.float64)
    metric.update(torch.from_numpy(a), real=True)
    metric.update(torch.from_numpy(b), real=False)
    assert frechet(a, b) == pytest.approx(float(metric.compute()), rel=1e-3)


@pytest.mark.parametrize("n", [300, 40])
def test_frechet_is_the_textbook(n: int) -> None:
    a, b = sets(n, n + 5, 60)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root).real
    assert frechet(a, b) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("n", [30, 200])
def test_frechet_in_closed_form(n: int) -> None:
    a, b = sets(n, n + 7, 50)
    spread = np.trace(np.cov(a, rowvar=False))
    assert frechet(a, a) == pytest.approx(0, abs=1e-9 * spread)
    assert frechet(a, 3 * a + 2) == pytest.approx(((2 * a.mean(0) + 2) ** 2).sum() + 4 * spread, rel=1e-9)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(50, 50)))[0]
    assert frechet(a @ turn, b @ turn) == pytest.approx(frechet(b, a), rel=1e-9)
    assert frechet(torch.from_numpy(a).bfloat16(), b) == pytest.approx(frechet(a, b), rel=0.05)


def test_the_kernel_distance_is_torchmetrics_and_a_double_loops() -> None:
    a, b = sets(30, 30, 12)
    metric = KernelInceptionDistance(Features(12), subsets=1, subset_size=30).set_dtype(torch.float64)
    metric.update(torch.from_numpy(a), real=True)
    metric.update(torch.from_numpy(b), real=False)
    assert kernel_distance(a, b) == pytest.approx(float(metric.compute()[0]), rel=1e-6)

    b = b[:20]
    kernel = lambda x, y: (float(x @ y) / 12 + 1) ** 3
    pairs = lambda x: np.mean([kernel(p, q) for i, p in enumerate(x) for j, q in enumerate(x) if i != j])
    across = np.mean([kernel(p, q) for p in a for q in b])
    assert kernel_distance(a, b) == pytest.approx(pairs(a) + pairs(b) - 2 * across, rel=1e-9)


def test_bias_at_small_n() -> None:
    rng = np.random.default_rng(2)
    draws = lambda n, distance: [distance(rng.normal(size=(n, 8)), rng.normal(size=(n, 8))) for _ in range(400)]
    alike = lambda a, b: kernel_distance(a, 0.8 * a + 0.6 * b, paired=True)  # each of one distribution, and pairs
    for n in (5, 40):
        for distance in (kernel_distance, alike):
            values = draws(n, distance)
            assert abs(np.mean(values)) < 4 * np.std(values) / 20
    unaware = draws(5, lambda a, b: kernel_distance(a, 0.8 * a + 0.6 * b))
    assert np.mean(unaware) < -4 * np.std(unaware) / 20
    assert np.mean(draws(10, frechet)) > 3 * np.mean(draws(40, frechet)) > 0.5


def test_the_table() -> None:
    a, b = sets(80, 80, 20)
    same = sets(80, 80, 20, seed=1)[0]
    arms = {"near": a + 0.5 * (b - a), "far": b + 1, "truth": same[:60]}
    table = distance_table(torch.from_numpy(a), arms)
    assert list(table) == list(arms) and [row["n"] for row in table.values()] == [80, 80, 60]
    for name, row in table.items():
        assert row["n_truth"] == 80
        assert row["fvd"]["value"] == frechet(a, arms[name])
        assert row["kvd"]["value"] == kernel_distance(a, arms[name], paired=name != "truth")
        for key in ("fvd", "kvd"):
            assert row[key]["ci95"][0] < row[key]["value"] < row[key]["ci95"][1]
    assert table["near"]["fvd"]["ci95"][1] < table["far"]["fvd"]["ci95"][0]
    assert table == distance_table(a, arms)
    assert distance_table(a, {"b": b}, groups=40)["b"]["fvd"]["ci95"] == pytest.approx(
        distance_table(a, {"b": b})["b"]["fvd"]["ci95"], rel=0.05
    )
    assert math.isnan(distance_table(a[:2], {"b": b})["b"]["fvd"]["ci95"][0])


def test_two_arms_are_compared_on_the_same_clips() -> None:
    a, b = sets(40, 40, 20)
    rng = np.random.default_rng(4)
    near = b + 0.05 * rng.normal(size=b.shape)
    rows = distance_table(a, {"jepa": b, "pixels": near, "copy": b[:30] + 1})
    assert rows.keys() == {"jepa", "pixels", "copy", "jepa-pixels"}, "of as many clips alone"
    for key in ("fvd", "kvd"):
        found, (low, high) = rows["jepa-pixels"][key], rows["jepa-pixels"][key]["ci95"]
        assert found["value"] == pytest.approx(rows["jepa"][key]["value"] - rows["pixels"][key]["value"])
        apart = rows["jepa"][key]["ci95"][1] - rows["jepa"][key]["ci95"][0]
        assert low < found["value"] < high and high - low < apart / 3 and found["n"] == 40


@pytest.mark.parametrize("width", [6, 40])
@pytest.mark.parametrize("paired", [True, False])
def test_intervals_hold_what_other_sets_of_this_size_give(paired: bool, width: int) -> None:
    rng = np.random.default_rng(3)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        a, b = rng.normal(size=(2, 24, width))
        return a, (a + 0.7 * b + 0.4 if paired else 1.3 * b[:20] + 0.4)

    measures = {"fvd": frechet, "kvd": lambda a, b: kernel_distance(a, b, paired)}
    others = {key: [measure(*draw()) for _ in range(300)] for key, measure in measures.items()}
    rows = [distance_table(a, {"arm": b})["arm"] for a, b in (draw() for _ in range(40))]
    for key, values in others.items():
        held = np.mean([row[key]["ci95"][0] <= np.mean(values) <= row[key]["ci95"][1] for row in rows])
        width_of_one = np.mean([np.diff(row[key]["ci95"])[0] for row in rows]) / (2 * 1.96 * np.std(values))
        assert held >= 0.85 and 0.8 < width_of_one < 1.6, (key, held, width_of_one)


def test_what_cannot_be_compared() -> None:
    a, b = sets(10, 10, 4)
    for distance in (frechet, kernel_distance):
        with pytest.raises(ConfigError, match="at least 2 clips"):
            distance(a, b[:1])
        with pytest.raises(ValueError, match=r"\(10, 4\) and \(10, 3\)"):
            distance(a, b[:, :3])
        with pytest.raises(ValueError, match="not finite"):
            distance(a, np.where(b > b.min(), b, np.nan))
    with pytest.raises(ValueError, match="10 and 9 clips cannot be pairs"):
        kernel_distance(a, b[:9], paired=True)
