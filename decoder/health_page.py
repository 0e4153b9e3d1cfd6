"""`jepa health`: the verdict on a pretraining run, and its curves beside those of healthy and of sick ones.

    jepa health runs/pretrain            # prints the verdict, writes runs/pretrain/health.html

The other runs come with the package (jepa/shipped/runs.json, made by tests/jepa/sick_runs.py). They are small: what
compares is the shape of curves, not their height.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

import jepa
from decoder.charts import Line, Points, line_chart
from decoder.report import templates
from jepa.config import ConfigError, load_config
from jepa.files import write_text
from jepa.health import Curves, Verdict, judge
from jepa.train import PretrainConfig
from jepa.training import read_history

SICK = {  # name -> (colour, what was done to it)
    "ema": ("copy", "a teacher without memory: momentum 0"),
    "rate": ("pixels", "a learning rate a thousand times too high, gradients not clipped"),
    "masks": ("target", "masks that hide one token in sixty"),
    "blank": ("random", "one blank video for a dataset"),
    "nan": ("", "clips that are not a number, from step 60 on"),
}
CHARTS = [  # key, title, what it says, y label, relative to the first value?
    ("val/std", "Spread", "Standard deviation of latents over tokens, against the first one measured. Half of the "
     "highest is a partial collapse, a tenth is a collapse.", "spread, relative", True),
    ("val/rank", "Effective rank", "How many directions the latents use, against the first one measured.",
     "rank, relative", True),
    ("val/skill_vs_mean", "Skill", "Share of the mean latent's error that the predictor removes; cut at -2. Below -1 "
     "after the warm-up, it has diverged.", "skill", False),
    ("train/prediction", "Loss", "By itself it says nothing: it falls where everything collapses.", "absolute error",
     False),
    ("train/variety", "Variety of clips", "Standard deviation of pixels over clips and frames.", "deviation", False),
    ("train/hidden", "Hidden by masks", "Share of a clip's tokens to predict.", "share", False),
    ("train/wait", "Waiting for clips", "Share of the time, over the last hundred steps.", "share", False),
]  # fmt: skip


@dataclass
class HealthConfig:
    """Everything `jepa health` reads.

    run     folder of a pretraining, finished or not.
    out     where the page goes; empty: health.html in that folder.
    """

    run: str = "???"
    out: str = ""


def health(config: HealthConfig) -> Verdict:
    """The verdict on a run, printed; its curves beside those of others as a page."""
    run = Path(config.run)
    if not (run / "config.yaml").is_file():
        raise ConfigError(f"{run} is not the folder of a pretraining: it holds no config.yaml")
    settings = load_config(PretrainConfig, run / "config.yaml")
    curves = read_history(run)
    if not curves.get("val/rank"):
        raise ConfigError(f"{run} has not been validated yet: there is nothing to judge (trainer.val_every)")
    verdict = judge(curves, settings.model.targets)
    page = Path(config.out) if config.out else run / "health.html"
    write_text(page, write_page(run.name, curves, verdict, settings.trainer.max_steps))
    since = "" if verdict.word == "healthy" else f" since step {verdict.since}"
    print(f"{verdict.word}{since}. {verdict.sentence}")
    print(f"curves, beside those of healthy and sick runs: {page}")
    return verdict


def reference_runs() -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Curves of the runs that come with the package, by name: `seed0` to `seed9` are healthy."""
    stored = json.loads((Path(jepa.__file__).parent / "shipped" / "runs.json").read_text())
    return {
        run: {key: [(p[0], p[1]) for p in points] for key, points in curves.items()} for run, curves in stored.items()
    }


def write_page(name: str, curves: Curves, verdict: Verdict, max_steps: int) -> str:
    """One self-contained page, of the run `name` with these curves."""
    others = reference_runs()
    healthy = [run for run in others if run.startswith("seed")]
    length = others[healthy[0]]["val/std"][-1][0] + 1  # of all: one that stopped early was to last as long
    charts: list[tuple[str, str, Markup]] = []
    for key, title, meaning, ylabel, relative in CHARTS:
        if not curves.get(key):
            continue
        drawn = {run: _drawn(found.get(key, ()), length, relative) for run, found in others.items()}
        lines = [_band([drawn[run] for run in healthy])]
        lines += [
            Line(drawn[run], colour, run, dashed=True) for run, (colour, _) in SICK.items() if colour and drawn[run]
        ]
        lines.append(Line(_drawn(curves[key], max_steps, relative), "jepa", "this run"))
        charts.append((title, meaning, line_chart(lines, "percent of the run", ylabel)))
    rows = [(run, SICK[run], judge(others[run])) for run in SICK]
    return (
        templates()
        .get_template("health.html.j2")
        .render(name=name, verdict=verdict, charts=charts, rows=rows, healthy=len(healthy), steps=length)
    )


def _drawn(points: Any, steps: int, relative: bool) -> Points:
    """(percent of the run, value), relative to the first value or cut to what a chart can show."""
    scale = points[0][1] if relative and points and points[0][1] else 1.0
    return [(100 * step / steps, max(-2.0, min(2.0, value / scale))) for step, value in points]


def _band(runs: list[Points]) -> Line:
    """The median of runs with the same steps, and the range of all of them."""
    values = np.array([[value for _, value in run] for run in runs])
    x = [step for step, _ in runs[0]]
    middle = [(step, float(value)) for step, value in zip(x, np.median(values, 0), strict=True)]
    band = [(float(low), float(high)) for low, high in zip(values.min(0), values.max(0), strict=True)]
    return Line(middle, "mean", f"{len(runs)} healthy runs", band)
