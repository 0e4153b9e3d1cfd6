"""How far a set of drawn clips lies from a set of real ones: Fréchet and kernel distance of their features.

    table = distance_table(truth, {"jepa": drawn, "pixels": others, "truth": other_truth})

Fréchet Video Distance: arXiv 1812.01717. Kernel distance: the unbiased squared maximum mean discrepancy with the kernel
(x.y / d + 1)^3 of arXiv 1801.01401.

Notable:
- The Fréchet distance of finite sets is biased upward, the more so the fewer clips: n stands beside every value, and
  only values of the same n may be compared. Pass other real clips as an arm: what they score is the floor at this n.
- No matrix square root. With centred features A and B, tr sqrt(Ca Cb) is the nuclear norm of A B^T: exact and stable
  where the covariances are singular, as they are whenever n <= 400.
- Intervals say what other clips would have given *at this n*, by the jackknife: clips are left out in turn. A bootstrap
  repeats clips, to which these distances answer with more bias and too much spread (twice the truth at n = 64).
- Clip i of an arm usually belongs to clip i of the truth. Where the numbers agree, the two are left out together, and
  the kernel distance does not compare them: what they share would count as closeness of the sets. The Fréchet distance
  has no such cure: an arm that continues the very clips it is compared with can fall below the floor. Take other real
  clips as the truth, and the real continuations as an arm, where that matters.
"""

import math
from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
from torch import Tensor

from decoder.estimates import pairs
from jepa.errors import ConfigError


class Distance(TypedDict):
    """A value, and its 95 % interval."""

    value: float
    ci95: list[float]


class Distances(TypedDict):
    """One arm against the truth. `n` and `n_truth` count clips."""

    fvd: Distance
    kvd: Distance
    n: int
    n_truth: int


def frechet(a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> float:
    """Squared 2-Wasserstein distance of the normal distributions fitted to features (n, d) and (m, d), in float64.

    Covariances are the unbiased ones (n - 1). Raises ConfigError for fewer than 2 clips, ValueError for features that
    are not finite or do not match.
    """
    a, b = _matched(a, b)
    return _frechet(a.mean(0), _root(a), b.mean(0), _root(b))


def kernel_distance(a: Tensor | np.ndarray, b: Tensor | np.ndarray, paired: bool = False) -> float:
    """Unbiased squared maximum mean discrepancy of features (n, d) and (m, d); around 0, or below, for equal sets.

    `paired`: rows i of both belong together and are not compared (Gretton et al., JMLR 13, 2012, equation 4); without,
    it is the Kernel Inception Distance's estimate, which is biased for such sets. Raises ConfigError for fewer than 2
    clips, ValueError for features that are not finite or do not match.
    """
    a, b = _matched(a, b)
    if paired and len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} clips cannot be pairs")
    return _discrepancy(*_kernels(a, b), np.ones(len(a)), np.ones(len(b)), paired)


def distance_table(
    truth: Tensor | np.ndarray, arms: Mapping[str, Tensor | np.ndarray], groups: int = 200
) -> dict[str, Any]:
    """{arm: `Distances`}: both distances of every arm from the truth; features are (n, d), one row for each clip.

    Clips are left out in turn, in at most `groups` groups; for fewer than 3 clips or groups the intervals are NaN.
    Where an arm has as many clips as the truth, they are taken as pairs. Errors as for `frechet`.

    Rows FIRST-SECOND, of the arms that `estimates.pairs` names and that have as many clips, are differences, each with
    its own "n"; their intervals leave the same clips out of the truth and of both.
    """
    table: dict[str, Any] = {}
    left_out: dict[str, list[np.ndarray]] = {}
    for name, features in arms.items():
        a, b = _matched(truth, features)
        value = np.array([frechet(a, b), kernel_distance(a, b, paired=len(a) == len(b))])
        left_out[name] = _left_out(a, b, groups)
        table[name] = _row(value, left_out[name]) | {"n": len(b), "n_truth": len(a)}
    for first, second in pairs(arms):
        a, b = table[first], table[second]
        if a["n"] == b["n"]:
            value = np.array([a[key]["value"] - b[key]["value"] for key in ("fvd", "kvd")])
            both = [x - y for x, y in zip(left_out[first], left_out[second], strict=True)]
            table[f"{first}-{second}"] = {key: found | {"n": a["n"]} for key, found in _row(value, both).items()}
    return table


def _row(value: np.ndarray, left_out: list[np.ndarray]) -> dict[str, Any]:
    """{"fvd", "kvd"} from both values (2,) and what they are without each group, set by set."""
    error = 1.96 * np.sqrt(sum((_variance(values) for values in left_out), np.zeros(2)))
    low, high = value - error, value + error
    return {
        key: {"value": float(value[i]), "ci95": [float(low[i]), float(high[i])]} for i, key in enumerate(("fvd", "kvd"))
    }


def _variance(values: np.ndarray) -> np.ndarray:
    """(2,) by the jackknife (Efron and Stein, 1981), from the values (groups, 2) without each group."""
    return (len(values) - 1) * values.var(axis=0)


def _left_out(a: np.ndarray, b: np.ndarray, groups: int) -> list[np.ndarray]:
    """(groups, 2) the Fréchet and the kernel distance without each group of clips: of pairs, or of either set."""
    if min(groups, len(a), len(b)) < 3:
        return [np.full((1, 2), np.nan)]
    kernels, paired = _kernels(a, b), len(a) == len(b)

    def without(left_a: np.ndarray, left_b: np.ndarray) -> tuple[float, float]:
        keep_a, keep_b = np.ones(len(a)), np.ones(len(b))
        keep_a[left_a] = keep_b[left_b] = 0
        x, y = a[keep_a > 0], b[keep_b > 0]
        fvd = _frechet(x.mean(0), _root(x), y.mean(0), _root(y))
        return fvd, _discrepancy(*kernels, keep_a, keep_b, paired)

    none = np.empty(0, dtype=int)
    turns_a, turns_b = (np.array_split(np.arange(len(x)), min(groups, len(x))) for x in (a, b))
    if paired:
        return [np.array([without(turn, turn) for turn in turns_a])]
    return [np.array([without(turn, none) for turn in turns_a]), np.array([without(none, turn) for turn in turns_b])]


def _frechet(mean_a: np.ndarray, root_a: np.ndarray, mean_b: np.ndarray, root_b: np.ndarray) -> float:
    overlap = np.linalg.norm(root_a @ root_b.T, "nuc")
    return float(((mean_a - mean_b) ** 2).sum() + (root_a**2).sum() + (root_b**2).sum() - 2 * overlap)


def _root(features: np.ndarray) -> np.ndarray:
    """R of at most d rows with R^T R the covariance."""
    count, width = features.shape
    centred = (features - features.mean(0)) / math.sqrt(count - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if count > width else centred


def _kernels(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, n), (m, m) and (n, m): of a with itself, of b with itself, and across."""
    kernel = lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3
    return kernel(a, a), kernel(b, b), kernel(a, b)


def _discrepancy(
    aa: np.ndarray, bb: np.ndarray, ab: np.ndarray, keep_a: np.ndarray, keep_b: np.ndarray, paired: bool
) -> float:
    """From kernel matrices, of the clips whose `keep` is 1. No clip is compared with itself, which is what makes the
    estimate unbiased, nor a pair with its other half."""

    def mean(kernel: np.ndarray, rows: np.ndarray, columns: np.ndarray, all_pairs: bool) -> float:
        total, count = rows @ kernel @ columns, rows.sum() * columns.sum()
        if not all_pairs:
            total, count = total - (rows * columns) @ kernel.diagonal(), count - rows @ columns
        return float(total / count)

    return mean(aa, keep_a, keep_a, False) + mean(bb, keep_b, keep_b, False) - 2 * mean(ab, keep_a, keep_b, not paired)


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
