"""Schedules and optimizer. Claims:

- the schedules of V-JEPA 1 (300 epochs of 300 steps, stretch 1.25) end where its own do: momentum 0.9996, learning rate
  7.5e-5, weight decay 0.366; they start and peak where it says.
- the schedule of V-JEPA 2 is a warm-up and then constant.
- every function is monotone between its named values and constant after its end.
- decay falls on matrices alone, and a decay schedule may start at, or pass through, zero.
"""

from itertools import pairwise

import pytest
import torch
from tiny import tiny_config

from jepa import JEPA, ConfigError
from jepa.optim import OptimConfig, adamw, apply_rates, rates
from jepa.schedules import cosine, linear, warmup_constant, warmup_cosine

STEPS = 90_000
VJEPA1 = OptimConfig(warmup_steps=12_000)


def test_vjepa1_table() -> None:
    first, peak, last = (rates(VJEPA1, step, STEPS) for step in (0, 12_000, STEPS - 1))
    assert first == pytest.approx((2e-4, 0.04, 0.998))
    assert peak.lr == pytest.approx(6.25e-4)
    assert last.momentum == pytest.approx(0.9996, abs=1e-6)
    assert last.lr == pytest.approx(7.5e-5, rel=0.01)
    assert last.weight_decay == pytest.approx(0.366, abs=5e-4)
    assert rates(VJEPA1, 6_000, STEPS).lr == pytest.approx((2e-4 + 6.25e-4) / 2)
    whole = OptimConfig(warmup_steps=12_000, stretch=1.0)
    assert rates(whole, STEPS, STEPS) == pytest.approx((1e-6, 0.4, 1.0))


def test_vjepa2_table() -> None:
    config = OptimConfig(5.25e-4, 1e-4, 0.0, 1000, 0.04, 0.04, 0.99925, 0.99925, schedule="constant")
    assert rates(config, 0, STEPS) == pytest.approx((1e-4, 0.04, 0.99925))
    for step in (1000, 40_000, STEPS - 1):
        assert rates(config, step, STEPS) == pytest.approx((5.25e-4, 0.04, 0.99925))
    with pytest.raises(ConfigError, match=r"optim\.schedule is 'cosin'.*did you mean 'cosine'"):
        rates(OptimConfig(schedule="cosin"), 0, 10)


def test_between_their_named_values_schedules_are_monotone() -> None:
    down = [cosine(s, 50, 1.0, 0.1) for s in range(61)]
    assert down[0] == 1.0 and down[25] == pytest.approx(0.55) and down[50:] == [pytest.approx(0.1)] * 11
    assert all(a >= b for a, b in pairwise(down))
    assert [linear(s, 4, 0.0, 1.0) for s in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
    both = [warmup_cosine(s, 50, 10, 0.0, 1.0, 0.0) for s in range(51)]
    assert both.index(max(both)) == 10 and both[5] == 0.5
    assert both[30] == pytest.approx(0.5) and both[50] == pytest.approx(0)
    assert [warmup_constant(s, 2, 0.0, 3.0) for s in range(4)] == [0, 1.5, 3, 3]
    assert warmup_cosine(0, 10, 0, 0.1, 1.0, 0.0) == 1.0, "no warm-up starts at the peak"


def test_decay_falls_on_matrices_alone() -> None:
    jepa = JEPA(tiny_config())
    optimizer = adamw(jepa, 1e-3, 0.1, [0.9, 0.95])
    named = {id(p): (name, p) for name, p in jepa.named_parameters() if p.requires_grad}
    held = [named.pop(id(p)) for group in optimizer.param_groups for p in group["params"]]
    assert len(held) > 20 and not named, "every trainable parameter once, the target encoder not at all"
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) == (parameter.ndim > 1)
    with pytest.raises(ConfigError, match=r"optim\.betas"):
        adamw(jepa, 1e-3, 0.1, [0.9])


def test_a_decay_schedule_may_start_at_zero() -> None:
    config = OptimConfig(weight_decay=0.0, final_weight_decay=0.4, stretch=1.0, warmup_steps=0)
    optimizer = adamw(torch.nn.Linear(3, 3), 1e-3, rates(config, 0, 10).weight_decay, config.betas)
    for step in (0, 5, 10):
        now = rates(config, step, 10)
        apply_rates(optimizer, now.lr, now.weight_decay)
        spared, decayed = (group["weight_decay"] for group in optimizer.param_groups)
        assert spared == 0 and decayed == pytest.approx(0.4 * step / 10)  # 0, half a cosine, the end
        assert all(group["lr"] == now.lr for group in optimizer.param_groups)
