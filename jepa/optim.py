"""AdamW with V-JEPA's parameter groups, and what the schedules say at every optimizer step."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from timm.optim import param_groups_weight_decay
from torch import nn

from jepa.config import ConfigError, choose
from jepa.schedules import cosine, linear, warmup_constant, warmup_cosine, warmup_linear


@dataclass
class OptimConfig:
    """Schedules over `trainer.max_steps`, one value per optimizer step.

    schedule    cosine: warm-up then half a cosine (V-JEPA 1); constant: warm-up then `lr` (V-JEPA 2); linear: warm-up,
                then a straight line to `final_lr` (V-JEPA 2's cool-down).
    stretch     the schedules are laid out for stretch * max_steps and cut at max_steps (V-JEPA 1 used 1.25).
    momentum    of the target encoder, linear from `momentum` to `final_momentum`.
    """

    lr: float = 6.25e-4
    start_lr: float = 2e-4
    final_lr: float = 1e-6
    warmup_steps: int = 1000
    weight_decay: float = 0.04
    final_weight_decay: float = 0.4
    momentum: float = 0.998
    final_momentum: float = 1.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    schedule: str = "cosine"
    stretch: float = 1.25


class Rates(NamedTuple):
    """What one optimizer step uses."""

    lr: float
    weight_decay: float
    momentum: float


def rates(config: OptimConfig, step: int, max_steps: int) -> Rates:
    """Values of the schedules at `step`, counted in optimizer steps from 0."""
    choose("optim.schedule", config.schedule, ("cosine", "constant", "linear"))
    total = round(config.stretch * max_steps)
    if config.schedule == "constant":
        lr = warmup_constant(step, config.warmup_steps, config.start_lr, config.lr)
    elif config.schedule == "linear":
        lr = warmup_linear(step, total, config.warmup_steps, config.start_lr, config.lr, config.final_lr)
    else:
        lr = warmup_cosine(step, total, config.warmup_steps, config.start_lr, config.lr, config.final_lr)
    return Rates(
        lr,
        cosine(step, total, config.weight_decay, config.final_weight_decay),
        linear(step, total, config.momentum, config.final_momentum),
    )


def adamw(model: nn.Module, lr: float, weight_decay: float, betas: list[float]) -> torch.optim.AdamW:
    """AdamW without decay on biases and 1-D tensors.

    Not fused: Lightning cannot clip gradients under a fused optimizer.
    """
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ConfigError(f"optim.betas is {list(betas)}: give two numbers from 0 to below 1")
    for key, value in (("lr", lr), ("weight_decay", weight_decay)):
        if value < 0:
            raise ConfigError(f"optim gives a {key} of {value} at the start: give none below 0")
    spared, decayed = param_groups_weight_decay(model, 1.0)  # it does not split where the decay is zero
    groups = [spared | {"decays": False}, decayed | {"decays": True, "weight_decay": weight_decay}]
    return torch.optim.AdamW(groups, lr=lr, betas=(betas[0], betas[1]))


def apply_rates(optimizer: torch.optim.Optimizer, lr: float, weight_decay: float) -> None:
    """Write a step's learning rate and weight decay into an optimizer of `adamw`; the spared group stays without."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        group["weight_decay"] = weight_decay if group["decays"] else 0.0  # a schedule may pass through zero
