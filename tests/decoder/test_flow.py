"""Claims:

1. The clock: at t = 0 the path is at x0 (noise), at t = 1 at x1 (data), and its derivative is velocity = x1 - x0.
2. Following the velocity of a guess for the time that is left, clamped, arrives at the guess; at the true x1 it is the
   path's velocity.
3. The loss is zero for a perfect guess at every t, equals |x1_hat - x1|^2 / max(1 - t, eps)^2 otherwise.
4. Times lie in (0, 1) and follow the distribution that the configuration names; an unknown name is refused.
"""

import math

import pytest
import torch

from decoder.flow import FlowConfig, flow_loss, point_on_path, sample_time, velocity_from_x1


def test_the_clock_runs_from_noise_to_data() -> None:
    x0, x1 = torch.randn(3, 5, 7), torch.randn(3, 5, 7)
    assert torch.equal(point_on_path(x0, x1, torch.zeros(3)).x_t, x0)
    assert torch.equal(point_on_path(x0, x1, torch.ones(3)).x_t, x1)
    _, derivative = torch.func.jvp(lambda t: point_on_path(x0, x1, t).x_t, (torch.full((3,), 0.3),), (torch.ones(3),))
    sample = point_on_path(x0, x1, torch.rand(3))
    torch.testing.assert_close(sample.velocity, x1 - x0)
    torch.testing.assert_close(derivative, sample.velocity)


def test_a_velocity_leads_to_its_guess() -> None:
    x0, x1 = torch.randn(6, 4), torch.randn(6, 4)
    t = torch.tensor([0.0, 0.2, 0.6, 0.94, 0.99, 1.0])
    path = point_on_path(x0, x1, t)
    guess = torch.randn_like(x1)
    left = (1 - t).clamp_min(0.05)[:, None]
    torch.testing.assert_close(path.x_t + left * velocity_from_x1(guess, path.x_t, t), guess)
    unclamped = t <= 0.95
    velocity = velocity_from_x1(x1, path.x_t, t)
    torch.testing.assert_close(velocity[unclamped], path.velocity[unclamped], atol=1e-5, rtol=1e-4)


def test_loss_is_zero_for_the_truth_and_weighs_errors_by_time() -> None:
    x1 = torch.randn(64, 3, 2)
    config = FlowConfig(time="uniform")
    assert flow_loss(lambda x, t: x1, x1, config).loss == 0
    off = flow_loss(lambda x, t: x1 + 0.5, x1, config)
    expected = (0.25 / (1 - off.path.t).clamp_min(config.eps).square()).mean()
    torch.testing.assert_close(off.loss, expected, rtol=1e-4, atol=1e-5)


def test_times_follow_the_named_distribution() -> None:
    logits = torch.logit(sample_time(20_000, FlowConfig(time_mean=-0.8, time_std=0.5)))
    assert math.isclose(logits.mean(), -0.8, abs_tol=0.02) and math.isclose(logits.std(), 0.5, abs_tol=0.02)
    uniform = sample_time(20_000, FlowConfig(time="uniform"))
    assert math.isclose(uniform.mean(), 0.5, abs_tol=0.01) and math.isclose(uniform.var(), 1 / 12, abs_tol=0.003)
    with pytest.raises(ValueError, match="logit_normal"):
        sample_time(1, FlowConfig(time="cosine"))
