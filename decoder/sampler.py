"""From noise to data: Euler and Heun along the learned flow.

Notable:
- The network guesses x1, so a step from t to s is ``x + (s - t) / (1 - t) * (x1_hat - x)``: the last step lands on the
  guess itself. Nothing is divided by zero, because no step starts at t = 1, and nothing is clamped.
- Noise is drawn on the CPU from one integer seed per sample: the same seed gives the same picture on every device and
  in every batch.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from decoder.flow import Denoise

METHODS = ("euler", "heun")


def seeded_noise(shape: Sequence[int], seeds: Sequence[int], device: torch.device | str | None = None) -> Tensor:
    """(len(seeds), *shape) standard normal noise; row i depends on seeds[i] and shape alone."""
    rows = [torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return torch.stack(rows).to(device)


def guided(conditional: Denoise, unconditional: Denoise, scale: float) -> Denoise:
    """Classifier-free guidance (Ho and Salimans, arXiv 2207.12598); scale 1 is the conditional model alone.

    x1_hat and velocity are affine in each other at a given x_t and t, so guiding either is the same.
    """
    if scale == 1.0:
        return conditional

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        without = unconditional(x, t)
        return without + scale * (conditional(x, t) - without)

    return denoise


@torch.no_grad()
def sample(denoise: Denoise, x0: Tensor, steps: int, method: str = "euler") -> Tensor:
    """Carry noise x0 (B, ...) along the flow to data in ``steps`` equal steps of time.

    ``euler`` calls the network once a step; ``heun`` twice, except for the last step, which is Euler's because at t = 1
    the velocity of an x-prediction is 0/0. That one step costs O(step^2), so Heun stays second order.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}: use one of {', '.join(METHODS)}")
    if steps < 1:
        raise ValueError(f"steps is {steps}: at least one step is needed")
    times = torch.linspace(0, 1, steps + 1, dtype=torch.float64).tolist()
    x = x0
    for now, then in pairwise(times):
        slope = _velocity(denoise, x, now)
        ahead = x + (then - now) * slope
        if method == "heun" and then < 1:
            ahead = x + (then - now) * 0.5 * (slope + _velocity(denoise, ahead, then))
        x = ahead
    return x


def _velocity(denoise: Denoise, x: Tensor, time: float) -> Tensor:
    t = x.new_full((len(x),), time)
    return (denoise(x, t).to(x.dtype) - x) / (1 - time)
