"""Every number of a comparison under one name: the rows of metrics.csv, and what each cell of the report points to.

    figures(metrics)["pictures/tasks/forward/jepa/psnr"]    # Figure(name, value, low, high, n)

Notable:
- A name is the path through metrics.json, joined by "/". An entry of a list is named by what tells it apart, as in
  "rollout/rows/jepa/error/first=4", or by its place, from 0. `NAMES` says what the paths mean.
- low and high are the 95 % interval, n the clips (or pairs) that a value stands on. What is not known is left empty.
"""

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from decoder.estimates import decibels
from jepa.files import write_text

SKIPPED = ("config", "configs", "fps")  # settings, not figures: metrics.json and the report have them
KEYS = ("step", "steps", "context", "first", "detail")  # what tells the entries of a list apart
COUNTS = ("n", "clips", "pairs")

NAMES = {
    "representation/steps/TASK/ENCODER/step=STEP": "accuracy of a linear probe of the encoder after STEP steps of "
    "training, with /operations, /clips_seen, /macro_f1 and /labels; `pixels` are raw pixels here, and not arm B",
    "representation/labels/TASK/ENCODER/SHARE": "the same after all steps, from that share of the labels",
    "pictures/tasks/TASK/ARM/MEASURE": "psnr in dB, ssim, lpips: the mean over samples; best_: the best sample of each "
    "clip; mean_picture_: the average of the samples; by_frame/MEASURE/I: hidden frame number I, from 0",
    "pictures/contexts/context=K/rows/ARM/MEASURE": "the same, forward, with K tubelets visible",
    "distance/rows/ARM/fvd, kvd": "Fréchet and kernel video distance to true clips; arm `truth`: of other true clips",
    "rollout/rows/ARM/SCORE/first=FRAME": "over the clip length that begins at FRAME: error in pixels; found, colour, "
    "shape and count as shares of frames; missing and extra objects a frame; squared_error; psnr in dB",
    "physics/CLAIM/clips, of": "clips that show it in their predicted part, and among how many they were found",
    "physics/permanence/rows/ARM/SCORE": "hidden, returned, colour and shape as shares; time in frames; place in "
    "pixels; best_: the best sample of each clip",
    "physics/interaction/rows/ARM/SCORE": "found as a share; error in pixels a frame; angle in degrees; response, 1 as "
    "in truth and 0 for none; best_: the best sample of each clip",
    "physics/detector/KIND/SCORE": "the detector on true pictures: sprites, their number; found, colour and shape as "
    "shares; mean and p95 of the error in pixels; extra: sprites a frame that are not there",
    "surprise/rows/ARM/SCORE/CONCEPT/CONDITION": "share of pairs in which the impossible video surprises more; /ties: "
    "pairs of equal scores; random_I: untrained encoders",
    "surprise/real/rows/…": "the same for pairs of real videos",
    "cost/rows/ARM/…": "parameters; operations, of which a multiplication and an addition are two; seconds a clip",
    "cost/steps/ARM/steps=K/MEASURE": "quality and seconds a clip of one sample drawn in K steps",
    "films/films/I/ahead_db": "PSNR of A less that of B, in the clip of film I",
    "seconds/STAGE": "how long a stage took",
    "by_seed/SEED/…": "all of it, for each model seed; without: of the first seed",
    "detail/detail=D/…": "at that setting of the worlds’ unpredictable detail; without: of the first setting",
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
    """All numbers of metrics.json, and roll-outs in dB, by name and in the order of the file."""
    found: dict[str, Figure] = {}
    for key, node in metrics.items():
        if key not in SKIPPED:
            found |= {figure.name: figure for figure in _walk(node, key, None)}
    return found | {figure.name: figure for figure in map(_decibels, found.values()) if figure is not None}


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


def _decibels(error: Figure) -> Figure | None:
    """PSNR of a roll-out's squared error; None for other figures, and for the truth itself."""
    if "/squared_error/" not in error.name or not error.value:
        return None
    db = lambda value: None if value is None else float(decibels(np.array(value)))
    name = error.name.replace("/squared_error/", "/psnr/")
    return Figure(name, db(error.value), db(error.high), db(error.low), error.n)


def _known(value: Any) -> Any:
    return None if value is None or not math.isfinite(value) else value
