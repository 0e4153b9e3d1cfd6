"""Every number of a comparison under one name: the rows of metrics.csv, and what each cell of the report points to.

    figures(metrics)["pictures/tasks/forward/jepa/psnr"]    # Figure(name, value, low, high, n)

Notable:
- A name is the path through metrics.json, joined by "/". An entry of a list is named by what tells it apart, as in
  "rollout/rows/jepa/error/first=4", or by its place, from 0. `NAMES` says what the paths mean.
- low and high are the 95 % interval, n the clips (or pairs) that a value stands on. What is not known is left empty.
- Of several model seeds, a figure is the mean, and unknown where one of them has none. Its interval holds both reasons
  to doubt it, added in quadrature: what the clips leave open (the mean of the seeds' intervals) and what the seeds do
  (Student's t over them).
- A row FIRST-SECOND is the difference of two arms on the same clips, and `detail/change` how it changes along the dial.
"""

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy import stats

from jepa.files import write_text

SKIPPED = ("config", "configs", "fps")  # settings, not figures: metrics.json and the report have them
KEYS = ("step", "steps", "context", "first", "detail")  # what tells the entries of a list apart
COUNTS = ("n", "clips", "pairs")
SEEDED = re.compile(r"(.*?)by_seed/([^/]+)/(.+)")  # what stands before, the seed, what stands behind
PAIRED = re.compile(r"/[a-z]\w*-[a-z]\w*/")  # the difference of two arms
SHARES = re.compile(
    r"(^|/)(representation|surprise)/|/(best_)?(found|(colour|returned)(_chance)?|shape|count|hidden)(/|$)"
)  # of something: none lies outside 0..1

NAMES = {
    "representation/steps/TASK/ENCODER/step=STEP": "accuracy of a linear probe of the encoder after STEP steps of "
    "training, with /operations, /clips_seen, /macro_f1 and /labels; `pixels` are raw pixels here, and not arm B",
    "representation/labels/TASK/ENCODER/SHARE": "the same after all steps, from that share of the labels",
    "pictures/tasks/TASK/ARM/MEASURE": "psnr in dB, ssim, lpips: the mean over samples; best_: the best sample of each "
    "clip; mean_picture_: the average of the samples; clean_psnr: PSNR against the same clip drawn without its "
    "unpredictable detail; expected_clean_psnr: the same of the picture that ever more samples would average to; "
    "by_frame/MEASURE/I: hidden frame number I, from 0",
    "pictures/detail": "the worlds’ setting of unpredictable detail",
    "…/FIRST-SECOND/…": "in place of an arm: FIRST less SECOND on the same clips or pairs, resampled together; of "
    "accuracies and shares, the difference of two shares",
    "pictures/contexts/context=K/rows/ARM/MEASURE": "the same, forward, with K tubelets visible",
    "distance/rows/ARM/fvd, kvd": "Fréchet and kernel video distance to true clips; arm `truth`: of other true clips; "
    "n_truth: the true clips",
    "distance/horizons/first=FRAME/rows/ARM/fvd, kvd": "the same of predictions fed back, from FRAME on",
    "rollout/rows/ARM/SCORE/first=FRAME": "over the clip length that begins at FRAME: error in pixels; found, colour, "
    "shape and count as shares of frames; missing and extra objects a frame; psnr in dB; best_: the best sample of "
    "each clip",
    "rollout/…/SCORE_chance, physics/…/SCORE_chance": "the same score on the scenes of other clips; SCORE_beyond: how "
    "much better it is on the clip’s own, so that more is always better",
    "physics/CLAIM/clips, of": "clips that show it in their predicted part, and among how many they were found",
    "physics/permanence/rows/ARM/SCORE": "hidden, returned, colour and shape as shares; time in frames; place in "
    "pixels; best_: the best sample of each clip",
    "physics/interaction/rows/ARM/SCORE": "found as a share; error in pixels a frame; angle in degrees; response, 1 as "
    "in truth and 0 for none; best_: the best sample of each clip",
    "physics/detector/KIND/SCORE": "the detector on true pictures: sprites, their number; found, colour and shape as "
    "shares; mean and p95 of the error in pixels; extra: sprites a frame that are not there",
    "surprise/rows/ARM/SCORE/CONCEPT/CONDITION": "share of pairs in which the impossible video surprises more; /ties: "
    "pairs of equal scores; random_I: untrained encoders; ARM_pixels: by what an arm draws, "
    "where ARM is by its latents",
    "surprise/real/rows/…": "the same for pairs of real videos",
    "cost/rows/ARM/…": "parameters; operations, of which a multiplication and an addition are two; seconds a clip; "
    "peak_bytes: memory that drawing a batch adds, of tensors alone without a GPU; training and pretraining: "
    "lr, the rate that was used, and diverged, how many trainings at twice that and more had been given up",
    "cost/steps/ARM/steps=K/MEASURE": "quality and seconds a clip of one sample drawn in K steps",
    "films/films/I/ahead_db": "PSNR of A less that of B, in the clip of film I",
    "seconds/STAGE": "how long a stage took",
    "by_seed/SEED/…": "all of it, for each model seed. Without: the mean over seeds of what has an interval in every "
    "seed; the interval adds, in quadrature, half the width of the clips’ interval (its mean over seeds) and that of "
    "the 95\u00a0% t interval of the mean over seeds; n is the smallest; empty where only some seeds have it. Counts, "
    "times and all else: of the first seed",
    "detail/detail=D/…": "at that setting of the worlds’ unpredictable detail; without: of the first setting, but for "
    "seconds/total, which is of all",
    "detail/change/…/FIRST-SECOND/…": "the difference at the largest setting less that at the smallest, the two "
    "intervals added in quadrature",
}


@dataclass(frozen=True)
class Figure:
    """A number, its 95 % interval and the count that it stands on; None is unknown."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None


def figures(metrics: dict[str, Any]) -> dict[str, Figure]:
    """All numbers of metrics.json by name, and what follows from them: means over seeds, and changes along the dial."""
    found: dict[str, Figure] = {}
    for key, node in metrics.items():
        if key not in SKIPPED:
            found |= {figure.name: figure for figure in _walk(node, key, None)}
    found |= {figure.name: figure for figure in _pooled(found)}
    settings = [row["detail"] for row in metrics.get("detail", [])]
    return found | {figure.name: figure for figure in _changes(found, settings)}


def write_csv(path: Path, found: dict[str, Figure]) -> None:
    """name,value,low,high,n: a row for each figure; unknown fields are empty."""
    lines = io.StringIO()
    table = csv.writer(lines, lineterminator="\n")
    table.writerow(("name", "value", "low", "high", "n"))
    for figure in found.values():
        table.writerow(["" if field is None else field for field in astuple(figure)])
    write_text(path, lines.getvalue())


def _walk(node: Any, name: str, n: int | None) -> Iterator[Figure]:
    """Figures of a part of metrics.json, depth first; `n` is what an outer dict counted."""
    if isinstance(node, dict):
        main = next((key for key in ("value", "accuracy") if key in node and "ci95" in node), "")
        if main:
            low, high = node["ci95"] or (None, None)
            count = next((node[key] for key in COUNTS if key in node), n)
            yield Figure(name, _known(node[main]), _known(low), _known(high), count)
        told = (main, "ci95", *COUNTS, *KEYS, "last") if main else ()
        for key, child in node.items():
            if key not in (*told, *SKIPPED):
                yield from _walk(child, f"{name}/{key}", node.get("n"))
    elif isinstance(node, list):
        for place, child in enumerate(node):
            key = next((key for key in KEYS if isinstance(child, dict) and key in child), "")
            yield from _walk(child, f"{name}/{key}={child[key]:g}" if key else f"{name}/{place}", None)
    elif node is None or (isinstance(node, (int, float)) and not isinstance(node, bool)):
        yield Figure(name, _known(node))


def _pooled(found: Mapping[str, Figure]) -> Iterator[Figure]:
    """The mean over seeds of every figure that has an interval; unknown unless it has one in each of them."""
    by_seed: dict[tuple[str, str], dict[str, Figure]] = {}  # {(before, behind): {seed: figure}}
    seeds: dict[str, set[str]] = {}
    for name, figure in found.items():
        if match := SEEDED.fullmatch(name):
            before, seed, behind = match.groups()
            by_seed.setdefault((before, behind), {})[seed] = figure
            seeds.setdefault(before, set()).add(seed)
    for (before, behind), of in by_seed.items():
        known = [figure for figure in of.values() if figure.low is not None]
        if known and len(seeds[before]) > 1:
            name = before + behind
            yield pool(name, known) if len(known) == len(seeds[before]) else Figure(name, None)


def pool(name: str, seeds: Sequence[Figure]) -> Figure:
    """The mean over seeds, with an interval for clips and seeds together."""
    values, lows, highs = ([getattr(figure, key) for figure in seeds] for key in ("value", "low", "high"))
    mean, count = fmean(values), len(values)
    apart = _student(count) * stdev(values) / math.sqrt(count)  # half the 95 % interval of the mean over seeds
    low, high = mean - math.hypot(mean - fmean(lows), apart), mean + math.hypot(fmean(highs) - mean, apart)
    if SHARES.search(name) and not PAIRED.search(name):
        low, high = max(0.0, low), min(1.0, high)
    return Figure(name, mean, low, high, min((f.n for f in seeds if f.n is not None), default=None))


@cache
def _student(count: int) -> float:
    """The quantile of t that 2.5 % of means of `count` values exceed, in standard errors."""
    return float(stats.t.ppf(0.975, count - 1))


def _changes(found: Mapping[str, Figure], dial: Sequence[float]) -> Iterator[Figure]:
    """How every difference of two arms changes from the smallest setting of the detail to the largest."""
    if len(dial) < 2:
        return
    first, last = (f"detail/detail={place(dial):g}/" for place in (min, max))
    for name, a in found.items():
        b = found.get(last + name.removeprefix(first))
        if not name.startswith(first) or "/by_seed/" in name or not PAIRED.search(name) or b is None:
            continue
        if None not in (a.value, a.low, a.high, b.value, b.low, b.high):
            yield change(f"detail/change/{name.removeprefix(first)}", a, b)


def change(name: str, a: Any, b: Any) -> Figure:
    """b less a, of figures that are independent of each other."""
    value = b.value - a.value
    low, high = math.hypot(b.value - b.low, a.high - a.value), math.hypot(b.high - b.value, a.value - a.low)
    return Figure(name, value, value - low, value + high, min(a.n, b.n) if a.n and b.n else None)


def _known(value: Any) -> Any:
    return None if value is None or not math.isfinite(value) else value
