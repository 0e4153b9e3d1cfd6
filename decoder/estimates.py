"""A mean over clips with its 95 % interval: how every number of the comparison is reported.

    rows = table({"jepa": {"psnr": errors}, "pixels": {"psnr": others}})    # {"jepa", "pixels", "jepa-pixels"}

Notable: arms meet the same clips, so two of them are compared clip by clip. A row FIRST-SECOND is the difference of two
others, with an interval of its own: a hard clip is hard for both, and says nothing about which is better.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypedDict

import numpy as np

RESAMPLES = 1000
CONTROLS = (("pixels", "copy"), ("pixels_plus", "copy"))  # compared beside A (`jepa`) and every other arm
Scale = Callable[[np.ndarray], np.ndarray]


class Estimate(TypedDict):
    """A value, the interval that 95 of 100 resamples over clips fall into, and how many clips it stands on."""

    value: float | None
    ci95: list[float] | None
    n: int


def estimate(values: np.ndarray, scale: Scale | None = None, seed: int = 0) -> Estimate:
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


def gap(a: np.ndarray, b: np.ndarray, scale: Scale | None = None, seed: int = 0) -> Estimate:
    """Mean of a less mean of b, of values (clips,) of the same clips, both scaled as in `estimate` and resampled in
    pairs. Clips count of which both have a value."""
    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    if not len(a):
        return {"value": None, "ci95": None, "n": 0}
    draws = np.random.default_rng(seed).integers(0, len(a), (RESAMPLES, len(a)))
    first, second = (np.concatenate([[x.mean()], x[draws].mean(1)]) for x in (a, b))
    differences = first - second if scale is None else scale(first) - scale(second)
    low, high = np.quantile(differences[1:], [0.025, 0.975])
    return {"value": float(differences[0]), "ci95": [float(low), float(high)], "n": len(a)}


def pairs(arms: Iterable[str]) -> list[tuple[str, str]]:
    """Which of these are compared: A with every other, and the pixel arms with copying."""
    known = list(arms)
    others = [("jepa", arm) for arm in known if arm != "jepa"] if "jepa" in known else []
    return others + [pair for pair in CONTROLS if set(pair) <= set(known)]


def paired(values: Mapping[str, np.ndarray], scale: Scale | None = None) -> dict[str, Estimate]:
    """{"FIRST-SECOND": `gap`} for `pairs` of arms, from {arm: values (clips,)} of the same clips."""
    return {f"{a}-{b}": gap(values[a], values[b], scale) for a, b in pairs(values)}


def table(values: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, Estimate]]:
    """Rows of {arm: {measure: values (clips,)}}: of every arm, and `paired` ones where both arms have the measure.

    A measure whose name ends in psnr holds squared errors, and is reported in dB.
    """
    scale = lambda measure: decibels if measure.endswith("psnr") else None
    rows = {arm: {key: estimate(found, scale(key)) for key, found in row.items()} for arm, row in values.items()}
    for measure in dict.fromkeys(key for row in values.values() for key in row):
        known = {arm: row[measure] for arm, row in values.items() if measure in row}
        for name, found in paired(known, scale(measure)).items():
            rows.setdefault(name, {})[measure] = found
    return rows


def decibels(squared_error: np.ndarray) -> np.ndarray:
    """PSNR of pixels in [0, 1]; 100 dB stands for identical."""
    return -10 * np.log10(np.maximum(squared_error, 1e-10))
