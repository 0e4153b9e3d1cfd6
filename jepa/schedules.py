"""Learning rate, weight decay and momentum as pure functions of the step: a schedule is a table one can test."""

import math


def linear(step: int, total: int, start: float, end: float) -> float:
    """From `start` at step 0 to `end` at step `total`, constant afterwards."""
    return start + (end - start) * min(step / max(total, 1), 1.0)


def cosine(step: int, total: int, start: float, end: float) -> float:
    """Half a cosine from `start` at step 0 to `end` at step `total`, constant afterwards."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(step / max(total, 1), 1.0)))


def warmup_cosine(step: int, total: int, warmup: int, start: float, peak: float, end: float) -> float:
    """Linear from `start` to `peak` over `warmup` steps, then half a cosine to `end` at `total`."""
    if step < warmup:
        return linear(step, warmup, start, peak)
    return cosine(step - warmup, total - warmup, peak, end)


def warmup_constant(step: int, warmup: int, start: float, peak: float) -> float:
    """Linear from `start` to `peak` over `warmup` steps, then constant (V-JEPA 2)."""
    return linear(step, warmup, start, peak)


def warmup_linear(step: int, total: int, warmup: int, start: float, peak: float, end: float) -> float:
    """Linear from `start` to `peak` over `warmup` steps, then linear to `end` at `total` (V-JEPA 2's cool-down)."""
    if step < warmup:
        return linear(step, warmup, start, peak)
    return linear(step - warmup, total - warmup, peak, end)
