"""Claims:

1. On the flow of a point mass (the straight line) Euler and Heun are exact with any number of steps.
2. On the flow of a Gaussian, whose ODE has a closed solution, Euler converges with order 1 and Heun with order 2.
3. The last step lands on the guess itself, however many steps: nothing is clamped, nothing is NaN.
4. One seed, one noise: equal seeds give equal noise in any batch, different seeds differ.
5. Guidance of scale 1 is the conditional model, of scale 0 the unconditional one; bad arguments are refused in a
sentence.
"""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from decoder.sampler import guided, sample, seeded_noise

MEAN, STD = 1.5, 0.3


def gaussian_denoiser(x: Tensor, t: Tensor) -> Tensor:
    """E[x1 | x_t] for data N(MEAN, STD^2)."""
    time = t.view(-1, 1)
    return MEAN + STD**2 * time / (STD**2 * time**2 + (1 - time) ** 2) * (x - time * MEAN)


@pytest.mark.parametrize("method", ["euler", "heun"])
@pytest.mark.parametrize("steps", [1, 3, 50])
def test_a_straight_line_is_exact(method: str, steps: int) -> None:
    data = torch.randn(2, 6, dtype=torch.float64)
    result = sample(lambda x, t: data, torch.randn(2, 6, dtype=torch.float64), steps, method)
    torch.testing.assert_close(result, data, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence_on_an_analytic_flow(method: str, order: int) -> None:
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, -1)
    exact = MEAN + STD * noise
    errors = [(sample(gaussian_denoiser, noise, n, method) - exact).abs().max().item() for n in (80, 160, 320)]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


def test_the_last_step_lands_on_the_guess() -> None:
    guess = torch.randn(1, 4)
    for steps in (1, 7, 1000):
        last = 1 - 1.5 / steps
        result = sample(lambda x, t, last=last: torch.where(t[:, None] > last, guess, -x), torch.randn(1, 4), steps)
        torch.testing.assert_close(result, guess)


def test_one_seed_one_noise() -> None:
    alone, batch = seeded_noise((5, 3), [7]), seeded_noise((5, 3), [1, 7, 7])
    assert torch.equal(alone[0], batch[1]) and torch.equal(batch[1], batch[2])
    assert not torch.equal(batch[0], batch[1])


def test_guidance_and_refusals() -> None:
    with_condition, without = (lambda x, t: x + 1), (lambda x, t: x - 1)
    x, t = torch.zeros(1, 2), torch.zeros(1)
    for scale, expected in ((1.0, 1.0), (0.0, -1.0), (2.0, 3.0)):
        assert torch.equal(guided(with_condition, without, scale)(x, t), torch.full((1, 2), expected))
    with pytest.raises(ValueError, match="euler, heun"):
        sample(with_condition, x, 4, "rk4")
    with pytest.raises(ValueError, match="at least one"):
        sample(with_condition, x, 0)
