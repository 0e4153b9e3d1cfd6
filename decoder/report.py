"""What the demo found, as one self-contained HTML page. Pure: numbers and pictures in, text out; nothing is run.

Notable: the page needs no network. Videos, pictures and plots are inside it; what it says of them is chosen by
`findings`.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from decoder.charts import Interval, Line, Points, interval_chart, line_chart
from decoder.findings import REPRESENTATIONS, difference, duration, findings, headline, percent

ROWS = {  # rows of `decode_metrics`: name, colour, meaning
    "target": ("decode(target)", "target", "the latents of the clip itself: the best the decoder can do"),
    "predicted": ("decode(predicted)", "jepa", "what the JEPA predicts, each sample on its own"),
    "predicted_mean": ("mean of samples", "jepa", "the average of several drawn samples"),
    "copy": ("copy", "copy", "no model: the nearest visible frame, repeated"),
    "mean": ("decode(mean)", "mean", "the mean latent of all clips: knows nothing of this one"),
}
TASKS = {
    "forward": "the first half is seen, the second predicted",
    "backward": "the second half is seen, the first predicted",
    "animate": "only the first moment is seen",
    "loop": "only the first and the last moment are seen",
    "connect": "the beginning and the end are seen, the middle predicted",
    "infill": "the border is seen, the middle of the picture predicted",
}


@dataclass(frozen=True)
class Film:
    """One clip of the page: `video` is an mp4 of all columns side by side."""

    task: str
    caption: str
    video: bytes
    frames: int


@dataclass(frozen=True)
class Command:
    """A line for the shell and what it does."""

    title: str
    line: str


@dataclass(frozen=True)
class Page:
    """Everything on the page.

    metrics         the contents of metrics.json.
    curves          logged curves of the runs "pretrain" and "decoder": name -> [(step, value), ...].
    films           clips, all of one length and with the same `columns` (titles; a line break before a remark).
    fps             of the films' files.
    strip           PNG of the film number `strip_of`, frame by frame, a row for each of `columns`.
    samples         training clips: (caption, PNG).
    """

    metrics: dict[str, Any]
    curves: dict[str, dict[str, list[tuple[int, float]]]]
    films: list[Film]
    columns: list[str]
    fps: float
    strip: bytes
    strip_of: int
    samples: list[tuple[str, bytes]]
    reproduce: list[Command]
    go_on: list[Command]


def write_html(page: Page) -> str:
    """The page as HTML."""
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            page=page,
            columns=[tuple(column.partition("\n")[::2]) for column in page.columns],
            m=page.metrics,
            headline=headline(page.metrics),
            findings=findings(page.metrics),
            health=health_curves(page.curves["pretrain"], page.metrics),
            drawing=decoder_curves(page.curves["decoder"]),
            probes=probe_charts(page.metrics),
            pictures=picture_charts(page.metrics["decode"]),
            names=REPRESENTATIONS,
            rows=ROWS,
            tasks=TASKS,
        )
    )


def templates() -> Environment:
    """The templates of all reports, which escape what they are given and know its formats."""
    here = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    here.trim_blocks = here.lstrip_blocks = True
    words = {"percent": percent, "duration": duration, "difference": difference, "count": lambda n: f"{n:,}"}
    here.filters |= {**words, "data": _data_uri}
    return here


# ---------------------------------------------------------------------- plots: (title, what it says, SVG)


def health_curves(curves: dict[str, list[tuple[int, float]]], m: dict[str, Any]) -> list[tuple[str, str, Markup]]:
    """Plots of pretraining; a curve that was not logged leaves its plot out."""
    chance = [(m["probe"]["motion"]["chance"], "chance")]
    width = m["pretrain"]["embed_dim"]
    wanted: list[tuple[str, str, dict[str, str], str, dict[str, Any]]] = [
        ("Loss", "Error of predicted latents. By itself it says nothing of health: the target moves.",
         {"train/prediction": ""}, "mean absolute error", {"smooth": True}),
        ("Effective rank", f"How many of {width} directions the latents use. A fall to a few is collapse.",
         {"val/rank": ""}, "directions", {"references": [(0.05 * width, "alarm")]}),
        ("Skill", "Share of a baseline's error that the predictor removes, forward task. Below zero: worse than it.",
         {"val/skill_vs_copy": "against copy", "val/skill_vs_mean": "against mean"}, "skill",
         {"references": [(0.0, "no skill")]}),
        ("Online probe", "Motion named by a quick linear probe on held-out clips: chooses the best checkpoint.",
         {"val/probe": ""}, "accuracy", {"percent": True, "references": chance}),
        ("Spread", "Standard deviation of latents over tokens. Zero is collapse to a point.",
         {"val/std": ""}, "standard deviation", {}),
        ("Momentum", "How slowly the target encoder follows: 1 stands still.",
         {"schedule/momentum": ""}, "momentum", {}),
    ]  # fmt: skip
    return _charts(curves, wanted)


def decoder_curves(curves: dict[str, list[tuple[int, float]]]) -> list[tuple[str, str, Markup]]:
    """Plots of the decoder's training."""
    psnr = {f"val/{row}_psnr": ROWS[row][0] for row in ("target", "predicted", "mean")}
    return _charts(curves, [
        ("Decoder loss", "Error of the drawn velocity, over targets and predictions alike.",
         {"train/loss": ""}, "squared error", {"smooth": True}),
        ("Pictures while training", "PSNR over hidden pixels of validation clips, forward task.",
         psnr, "PSNR, dB", {}),
    ])  # fmt: skip


def _charts(
    curves: dict[str, list[tuple[int, float]]], wanted: list[tuple[str, str, dict[str, str], str, dict[str, Any]]]
) -> list[tuple[str, str, Markup]]:
    charts = []
    colours = {"val/skill_vs_mean": "mean", "val/target_psnr": "target", "val/mean_psnr": "mean"}
    for title, meaning, keys, ylabel, options in wanted:
        lines = [Line(_points(curves[k]), colours.get(k, "jepa"), name) for k, name in keys.items() if curves.get(k)]
        if lines:
            charts.append((title, meaning, line_chart(lines, "step", ylabel, **options)))
    return charts


def _points(curve: list[tuple[int, float]]) -> Points:
    return [(float(step), value) for step, value in curve]


def probe_charts(m: dict[str, Any]) -> dict[str, Markup]:
    """Accuracy and interval of each representation, for each task."""
    charts = {}
    for task in ("motion", "appearance"):
        found = m["probe"][task]
        rows = [_interval(name, found[r]["accuracy"], found[r]["ci95"], r) for r, name in REPRESENTATIONS.items()]
        charts[task] = interval_chart(rows, "accuracy", reference=(found["chance"], "chance"), percent=True)
    return charts


def picture_charts(decode: dict[str, Any]) -> list[tuple[str, str, Markup]]:
    """PSNR of each row with its interval, and frame by frame where there is more than one."""
    rows = [_interval(name, decode[f"{r}_psnr"], decode["ci95"][r], colour) for r, (name, colour, _) in ROWS.items()]
    meaning = "Dot: PSNR over all clips. Bar: 95\u00a0% interval."
    charts = [("Over all hidden frames", meaning, interval_chart(rows, "PSNR, dB"))]
    if len(decode["frames"]) > 1:
        lines = [
            Line([(f + 1, db) for f, db in zip(decode["frames"], decode["by_frame"][r], strict=True)], colour, name)
            for r, (name, colour, _) in ROWS.items()
            if r != "predicted_mean"
        ]
        further = line_chart(lines, "frame of the clip", "PSNR, dB", dots=True)
        charts.append(("The further ahead, the harder", "PSNR of each hidden frame.", further))
    return charts


def _interval(name: str, value: float, ci95: Sequence[float], colour: str) -> Interval:
    return Interval(name, value, ci95[0], ci95[1], colour)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
