"""Health and regularisers. Claims:

- effective rank and spread of tokens with a known spectrum are what they must be, whatever the scale and the shape.
- the copy baseline copies the nearest visible moment of the same place, and another place only where there is none.
- errors, cosine and skill have their closed forms on latents where they can be computed by hand.
- the verdict says collapsed, partially collapsed, untrained, copying or healthy, in that order of seriousness.
- what is observed of a batch are raw latents and the errors of the forward task, without pictures of a single moment;
  the health of a JEPA is put together from them.
- SIGReg is about zero for normal tokens and larger for scaled, shifted, discrete or collapsed ones, and has its closed
  form for tokens that are all one; VICReg has its closed form and is zero for whitened tokens.
"""

import numpy as np
import pytest
import torch

from jepa import JEPA, Grid, Mask, task_mask
from jepa.diagnostics import (
    PredictionErrors,
    assess,
    copy_ids,
    effective_rank,
    feature_std,
    observe,
    prediction_errors,
    skill,
    verdict,
)
from jepa.regularisers import sigreg, vicreg


def tokens_with_spectrum(*values: float, width: int = 8, count: int = 64) -> torch.Tensor:
    """(count, width) centred tokens with these singular values."""
    x = torch.randn(count, len(values), dtype=torch.float64)
    left = torch.linalg.qr(x - x.mean(0))[0]
    right = torch.linalg.qr(torch.randn(width, len(values), dtype=torch.float64))[0]
    return (left * torch.tensor(values) @ right.T).float()


def test_effective_rank_of_known_spectra() -> None:
    assert effective_rank(tokens_with_spectrum(1, 1, 1, 1)) == pytest.approx(4, rel=1e-3)
    assert effective_rank(tokens_with_spectrum(5)) == pytest.approx(1, rel=1e-3)
    p = torch.tensor([4.0, 2.0, 2.0]) / 8
    expected = float(torch.exp(-(p * p.log()).sum()))
    x = tokens_with_spectrum(4, 2, 2)
    assert effective_rank(x) == pytest.approx(expected, rel=1e-3)
    assert effective_rank(1000 * x.reshape(4, 16, 8) + 3) == pytest.approx(expected, rel=1e-2), "centred, any scale"
    assert effective_rank(torch.ones(10, 8)) < 2, "a point"
    assert effective_rank(torch.randn(5000, 8), max_tokens=1000) == pytest.approx(8, rel=0.01)


def test_spread() -> None:
    assert feature_std(torch.ones(4, 5, 3)) == 0
    assert feature_std(torch.tensor([[[0.0, 0.0], [2.0, 4.0]]])) == pytest.approx(3 / 2**0.5)


def test_the_copy_baseline_takes_the_nearest_moment_of_the_same_place() -> None:
    grid = Grid(6, 1, 2)
    # Visible: place 0 at moments 0 and 4; place 1 at moment 0 only.
    mask = Mask(torch.tensor([[0, 1, 8]]), torch.tensor([[2, 3, 4, 5, 6, 7, 9, 10, 11]]))
    assert copy_ids(mask, grid).tolist() == [[0, 1, 0, 1, 8, 1, 1, 8, 1]]
    forward = task_mask("forward", Grid(4, 2, 2), 2)
    assert copy_ids(forward, Grid(4, 2, 2)).tolist() == [[4, 5, 6, 7, 4, 5, 6, 7]] * 2, "the last visible moment"
    unseen = Mask(torch.tensor([[0, 6]]), torch.tensor([[7]]))  # place 1 was never visible
    assert copy_ids(unseen, Grid(4, 1, 2)).tolist() == [[6]], "then another place at the nearest moment"


def test_errors_of_latents_by_hand() -> None:
    grid = Grid(2, 1, 2)
    mask = Mask(torch.tensor([[0, 1]]), torch.tensor([[2, 3]]))
    h = torch.tensor([[[0.0, 0], [2, 0], [1, 1], [2, 3]]])
    z = torch.tensor([[[1.0, 1], [2, 1]]])
    found = prediction_errors(z, h, mask, grid)
    assert found.predictor == pytest.approx(2 / 4)  # |2,1 - 2,3|
    assert found.copy == pytest.approx((1 + 1 + 0 + 3) / 4)
    assert found.mean == pytest.approx((0.25 + 0 + 0.75 + 2) / 4)  # the mean latent is (1.25, 1)
    assert found.cosine == pytest.approx((1 + 7 / (5 * 13) ** 0.5) / 2)
    assert (skill(0.5, 2.0), skill(2.0, 2.0), skill(3.0, 2.0)) == (0.75, 0.0, -0.5)
    assert skill(0.0, 0.0) == 1.0


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ((0.005, 60, 0.3, 0.5), "collapsed"),
        ((0.8, 1.5, 0.3, 0.5), "collapsed"),
        ((0.8, 5, 0.3, 0.5), "partially collapsed"),
        ((0.8, 60, 0.3, -0.1), "untrained"),
        ((0.8, 60, -0.1, 0.5), "copying"),
        ((0.8, 60, 0.3, 0.5), "healthy"),
    ],
)
def test_the_verdict(values: tuple[float, float, float, float], word: str) -> None:
    std, rank, vs_copy, vs_mean = values
    found, sentence = verdict(std, rank, 128, vs_copy, vs_mean)
    assert found == word and sentence.endswith(".")
    if word == "healthy":
        assert "60.0 of 128" in sentence and "30%" in sentence and "50%" in sentence


def test_what_is_observed_of_a_batch(jepa: JEPA, video: torch.Tensor) -> None:
    jepa.target_encoder.norm.weight.data.fill_(3)  # so that raw latents and normalised ones differ
    seen, mask = observe(jepa, video), task_mask("forward", jepa.grid(video), len(video))
    torch.testing.assert_close(seen.raw, jepa.target_encoder(video))
    expected = prediction_errors(jepa.predict(video, mask), jepa.encode(video), mask, jepa.grid(video))
    assert seen.errors is not None
    for name, value in vars(expected).items():
        torch.testing.assert_close(getattr(seen.errors, name), value)
    assert seen.tokens.shape == (3 * 24, 24), "24 tokens a clip, all of them"
    assert observe(jepa, video.repeat(1, 1, 4, 1, 1)).tokens.shape == (3 * 16, 24), "96 tokens, every sixth"
    assert observe(jepa, video[:, :, :2]).errors is None


def test_health_is_put_together() -> None:
    tokens = tokens_with_spectrum(5, 5, 5, 5, 5, 5, 5, 5)
    errors = PredictionErrors(*map(torch.tensor, (0.3, 0.4, 0.6, 0.9)))
    found = assess(tokens, errors)
    assert (found.rank, found.std) == pytest.approx((8, float(feature_std(tokens))), rel=1e-3)
    assert (found.error, found.cosine) == pytest.approx((0.3, 0.9))
    assert (found.skill_vs_copy, found.skill_vs_mean) == pytest.approx((0.25, 0.5), rel=1e-5)
    assert (found.verdict, found.sentence) == verdict(found.std, found.rank, 8, 0.25, 0.5)
    assert found.verdict == "healthy"


def test_sigreg_knows_a_normal_distribution() -> None:
    normal = torch.randn(2000, 16)
    found = {
        "normal": normal,
        "scaled": 2 * normal,
        "small": 0.3 * normal,
        "shifted": normal + 1,
        "signs": normal[:, :2].sign(),
        "a point": torch.zeros(2000, 16),
        "a line": normal[:, :1].expand(2000, 16),
    }
    values = {name: float(sigreg(x, num_slices=64)) for name, x in found.items()}
    assert values.pop("normal") < 1e-3
    assert min(values.values()) > 5e-3, values
    assert values["a point"] > 0.1 and values["a line"] > 0.05
    x = torch.zeros(64, 4, requires_grad=True)
    (sigreg(x + 0.1 * torch.randn(64, 4))).backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_sigreg_closed_form() -> None:
    """All tokens at c: the characteristic function is exp(isc), real part cos(sc) and imaginary part sin(sc)."""
    s = np.linspace(0, 3, 17)
    normal = np.exp(-(s**2) / 2)
    for c in (0.0, 0.7, -2.0):
        error = (np.cos(c * s) - normal) ** 2 + np.sin(c * s) ** 2
        expected = np.trapezoid(error * normal, s)
        assert float(sigreg(torch.full((5, 1), c))) == pytest.approx(expected, rel=1e-5)


def test_vicreg_closed_form() -> None:
    x = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]]) * 0.5
    # Variance 1/3 each (n - 1), covariance 1/3: hinge 1 - sqrt(1/3 + 1e-4), off-diagonal 2 * (1/3)^2 / 2.
    assert vicreg(x) == pytest.approx(1 - (1 / 3 + 1e-4) ** 0.5 + 1 / 9, rel=1e-4)
    white = tokens_with_spectrum(*[63**0.5] * 8)  # 64 centred tokens of unit variance, uncorrelated
    assert vicreg(white) == pytest.approx(0, abs=1e-4)
    assert vicreg(white.reshape(4, 16, 8) + 5) == pytest.approx(0, abs=1e-4), "the mean is free"
