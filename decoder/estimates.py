"""A mean over clips with its 95 % interval: how every number of the comparison is reported."""

from collections.abc import Callable
from typing import TypedDict

import numpy as np

RESAMPLES = 1000


class Estimate(TypedDict):
    """A value, the interval that 95 of 100 resamples over clips fall into, and how many clips it stands on."""

    value: float | None
    ci95: list[float] | None
    n: int


def estimate(values: np.ndarray, scale: Callable[[np.ndarray], np.ndarray] | None = None, seed: int = 0) -> Estimate:
    """Mean of values (clips,), those that are NaN left out; `scale` is applied to the mean (`decibels`, say).

    No clip: value and interval are None.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return {"value": None, "ci95": None, "n": 0}
    draws = np.random.default_rng(seed).integers(0, len(known), (RESAMPLES, len(known)))
    means = np.concatenate([[known.mean()], known[draws].mean(1)])
    means = scale(means) if scale is not None else means
    low, high = np.quantile(means[1:], [0.025, 0.975])
    return {"value": float(means[0]), "ci95": [float(low), float(high)], "n": len(known)}


def gap(a: np.ndarray, b: np.ndarray, scale: Callable[[np.ndarray], np.ndarray], seed: int = 0) -> Estimate:
    """scale(mean of a) - scale(mean of b) of values (clips,) of the same clips, resampled in pairs: a hard clip is hard
    for both."""
    draws = np.random.default_rng(seed).integers(0, len(a), (RESAMPLES, len(a)))
    resampled = scale(a[draws].mean(1)) - scale(b[draws].mean(1))
    low, high = np.quantile(resampled, [0.025, 0.975])
    value = float(scale(a.mean(keepdims=True))[0] - scale(b.mean(keepdims=True))[0])
    return {"value": value, "ci95": [float(low), float(high)], "n": len(a)}


def decibels(squared_error: np.ndarray) -> np.ndarray:
    """PSNR of pixels in [0, 1]; 100 dB stands for identical."""
    return -10 * np.log10(np.maximum(squared_error, 1e-10))
