"""Random numbers that are a pure function of integers, so that no choice depends on workers, order or a resumed run."""

from __future__ import annotations

import numpy as np

__all__ = ["mix", "unit"]


def mix(*parts: int | np.ndarray) -> np.ndarray:
    """Hash integers (or integer arrays, broadcast together) to uint64: the finaliser of splitmix64, chained."""
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):  # wrapping round at 2**64 is the point
        for part in parts:
            value = state + np.asarray(part).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
            value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = value ^ (value >> np.uint64(31))
    return np.asarray(state)


def unit(*parts: int | np.ndarray) -> np.ndarray:
    """Like `mix`, as float64 in [0, 1)."""
    return (mix(*parts) >> np.uint64(11)).astype(np.float64) * 2.0**-53
