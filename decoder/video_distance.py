"""How far a set of drawn clips lies from a set of real ones: Fréchet and kernel distance of their features.

    table = distance_table(truth, {"jepa": drawn, "pixels": others, "truth": other_truth})

Fréchet Video Distance: arXiv 1812.01717. Kernel distance: the unbiased squared maximum mean discrepancy with the kernel
(x.y / d + 1)^3 of arXiv 1801.01401.

Notable:
- The Fréchet distance of finite sets is biased upward, the more so the fewer clips: n stands beside every value, and
  only values of the same n may be compared. Pass other real clips as an arm: what they score is the floor at this n.
- No matrix square root. With centred features A and B, tr sqrt(Ca Cb) is the nuclear norm of A B^T: exact and stable
  where the covariances are singular, as they are whenever n <= 400.
- Intervals say what other clips would have given *at this n*. A resampled set repeats clips, which biases it once more,
  so the spread of the resamples is laid around the value, not around their own centre.
- Clip i of an arm belongs to clip i of the truth: where the numbers agree, they are resampled together, and every arm
  meets the same resamples.
"""

import math
from collections.abc import Mapping
from typing import TypedDict

import numpy as np
from torch import Tensor

from jepa.errors import ConfigError


class Estimate(TypedDict):
    """A value, and the interval that holds it in 95 of 100 sets of clips of this size."""

    value: float
    ci95: list[float]


class Distances(TypedDict):
    """One arm against the truth. `n` and `n_truth` count clips."""

    fvd: Estimate
    kvd: Estimate
    n: int
    n_truth: int


def frechet(a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> float:
    """Squared 2-Wasserstein distance of the normal distributions fitted to features (n, d) and (m, d), in float64.

    Covariances are the unbiased ones (n - 1). Raises ConfigError for fewer than 2 clips, ValueError for features that
    are not finite or do not match.
    """
    a, b = _matched(a, b)
    return _frechet(a.mean(0), _root(a), b.mean(0), _root(b))


def kernel_distance(a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy of features (n, d) and (m, d); around 0, or below, for equal sets.

    Raises ConfigError for fewer than 2 clips, ValueError for features that are not finite or do not match.
    """
    a, b = _matched(a, b)
    return _discrepancy(_kernel(a, a), _kernel(b, b), _kernel(a, b), np.ones(len(a)), np.ones(len(b)))


def distance_table(
    truth: Tensor | np.ndarray, arms: Mapping[str, Tensor | np.ndarray], bootstrap: int = 200
) -> dict[str, Distances]:
    """Both distances of every arm from the truth; features are (n, d), one row for each clip.

    `bootstrap` counts resamples over clips; with 0 the intervals are NaN. Errors as for `frechet`.
    """
    table: dict[str, Distances] = {}
    for name, features in arms.items():
        a, b = _matched(truth, features)
        fvd, kvd = _resampled(a, b, bootstrap)
        table[name] = {
            "fvd": _estimate(frechet(a, b), fvd),
            "kvd": _estimate(kernel_distance(a, b), kvd),
            "n": len(b),
            "n_truth": len(a),
        }
    return table


def _resampled(a: np.ndarray, b: np.ndarray, bootstrap: int) -> tuple[np.ndarray, np.ndarray]:
    """(bootstrap,) Fréchet and (bootstrap,) kernel distances of clips drawn with replacement."""
    kernels = _kernel(a, a), _kernel(b, b), _kernel(a, b)
    results = np.empty((2, bootstrap))
    draws = np.random.default_rng(0)
    for i in range(bootstrap):
        first = draws.integers(0, len(a), len(a))
        second = first if len(a) == len(b) else draws.integers(0, len(b), len(b))
        x, y = a[first], b[second]
        results[0, i] = _frechet(x.mean(0), _root(x), y.mean(0), _root(y))
        results[1, i] = _discrepancy(*kernels, _counts(first, len(a)), _counts(second, len(b)))
    return results[0], results[1]


def _frechet(mean_a: np.ndarray, root_a: np.ndarray, mean_b: np.ndarray, root_b: np.ndarray) -> float:
    overlap = np.linalg.norm(root_a @ root_b.T, "nuc")
    return float(((mean_a - mean_b) ** 2).sum() + (root_a**2).sum() + (root_b**2).sum() - 2 * overlap)


def _root(features: np.ndarray) -> np.ndarray:
    """R of at most d rows with R^T R the covariance."""
    count, width = features.shape
    centred = (features - features.mean(0)) / math.sqrt(count - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if count > width else centred


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _discrepancy(aa: np.ndarray, bb: np.ndarray, ab: np.ndarray, count_a: np.ndarray, count_b: np.ndarray) -> float:
    """From kernel matrices, with each clip as often as it was drawn. A clip is never compared with itself, drawn twice
    or not: that is what makes the estimate unbiased."""
    within = 0.0
    for kernel, count in ((aa, count_a), (bb, count_b)):
        pairs = count.sum() ** 2 - (count**2).sum()
        within += (count @ kernel @ count - (count**2 * kernel.diagonal()).sum()) / pairs
    return float(within - 2 * (count_a @ ab @ count_b) / (count_a.sum() * count_b.sum()))


def _counts(drawn: np.ndarray, clips: int) -> np.ndarray:
    return np.bincount(drawn, minlength=clips).astype(np.float64)


def _estimate(value: float, resamples: np.ndarray) -> Estimate:
    if not len(resamples):
        return {"value": value, "ci95": [math.nan, math.nan]}
    low, high = np.quantile(resamples - resamples.mean(), [0.025, 0.975])
    return {"value": value, "ci95": [float(value + low), float(value + high)]}


def _matched(a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = (
        x.detach().cpu().double().numpy() if isinstance(x, Tensor) else np.asarray(x, dtype=np.float64) for x in (a, b)
    )
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"features must be (n, d) and (m, d), not {first.shape} and {second.shape}")
    if min(len(first), len(second)) < 2:
        raise ConfigError("a distance between sets of clips needs at least 2 clips in each")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("some features are not finite")
    return first, second
