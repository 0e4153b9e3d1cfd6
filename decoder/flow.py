"""The flow: a straight path from noise to data, and a network that guesses its end.

Notable:
- One clock everywhere: **x0 is noise, x1 is data, t runs 0 -> 1, velocity = x1 - x0** (a test pins it).
- The network predicts x1, the clean picture, and the loss is taken on velocities ("Back to Basics: Let Denoising
  Generative Models Denoise", Li and He, arXiv 2511.13720): a clean patch lies near a low-dimensional manifold that a
  narrow network can represent, noise and velocity do not.
- Torch only; works on any tensor whose first axis is the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

TIMES = ("logit_normal", "uniform")

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x_t (B, ...), t (B,)) -> guess of x1 (B, ...)."""


@dataclass
class FlowConfig:
    """How times are drawn and where the division by 1 - t stops growing."""

    time: str = "logit_normal"  # or "uniform"
    time_mean: float = -0.8  # mean and standard deviation of logit(t); a lower mean trains more on noisy inputs
    time_std: float = 0.8
    eps: float = 0.05  # velocities divide by max(1 - t, eps)


@dataclass(frozen=True)
class PathSample:
    """A point on the straight path between noise and data."""

    x0: Tensor  # noise  (B, ...)
    x1: Tensor  # data   (B, ...)
    t: Tensor  # (B,) in [0, 1]
    x_t: Tensor  # (1 - t) x0 + t x1

    @property
    def velocity(self) -> Tensor:
        """dx_t / dt, constant along the path."""
        return self.x1 - self.x0


@dataclass(frozen=True)
class FlowLoss:
    """A loss to minimise, and the guess it was computed from."""

    loss: Tensor  # scalar
    per_sample: Tensor  # (B,) detached, the same error before the mean over the batch
    x1_hat: Tensor  # (B, ...) float32
    path: PathSample


def expand_time(t: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1), to multiply something of the shape of ``like``."""
    return t.view(-1, *(1,) * (like.ndim - 1))


def point_on_path(x0: Tensor, x1: Tensor, t: Tensor) -> PathSample:
    """The point at time t of the straight path from noise x0 to data x1, one t per sample of the batch."""
    time = expand_time(t, x1)
    return PathSample(x0=x0, x1=x1, t=t, x_t=(1 - time) * x0 + time * x1)


def velocity_from_x1(x1_hat: Tensor, x_t: Tensor, t: Tensor, eps: float = 0.05) -> Tensor:
    """Velocity that leads from x_t at time t to x1_hat at time 1; 1 - t is clamped to eps from below."""
    return (x1_hat - x_t) / expand_time(1 - t, x_t).clamp_min(eps)


def sample_time(
    count: int, config: FlowConfig, generator: torch.Generator | None = None, device: torch.device | str | None = None
) -> Tensor:
    """(count,) times in (0, 1): uniform, or sigmoid of a normal (Esser et al., arXiv 2403.03206)."""
    if config.time == "uniform":
        return torch.rand(count, generator=generator, device=device)
    if config.time == "logit_normal":
        normal = torch.randn(count, generator=generator, device=device)
        return torch.sigmoid(config.time_mean + config.time_std * normal)
    raise ValueError(f"flow.time is {config.time!r}: use 'logit_normal' or 'uniform'")


def flow_loss(
    denoise: Denoise,
    x1: Tensor,
    config: FlowConfig,
    generator: torch.Generator | None = None,
    where: Tensor | None = None,
) -> FlowLoss:
    """Draw noise and times, let ``denoise`` guess x1, and return the mean squared error of the velocity.

    `where` (B, N) bool, for x1 (B, N, ...): only these tokens count; every sample must have as many.

    Both velocities come from the same clamped division (true x1 and guessed x1), so that the loss is zero exactly when
    the guess is right, also where 1 - t < eps: it equals |x1_hat - x1|^2 / max(1 - t, eps)^2.
    """
    x0 = torch.randn(x1.shape, generator=generator, device=x1.device, dtype=x1.dtype)
    path = point_on_path(x0, x1, sample_time(len(x1), config, generator, x1.device))
    x1_hat = denoise(path.x_t, path.t).float()
    guessed = velocity_from_x1(x1_hat, path.x_t, path.t, config.eps)
    true = velocity_from_x1(x1, path.x_t, path.t, config.eps)
    error = (guessed - true).square()
    if where is not None:
        error = error[where].view(len(x1), -1)
    return FlowLoss(error.mean(), error.detach().flatten(1).mean(1), x1_hat, path)
