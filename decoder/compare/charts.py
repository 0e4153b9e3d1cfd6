"""The plots of a comparison's report, each a `Chart`. Pure: figures in, SVG out.

    curves(figures, ARMS, "rollout/rows/ARM/error/first=*")     # a line for each arm, * along x

Notable: arms that predict are drawn solid, controls dashed; bands and bars are 95 % intervals. A plot without figures
is left out.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from decoder.charts import Interval, Line, interval_chart, line_chart
from decoder.compare.figures import Figure
from decoder.compare.findings import final
from decoder.compare.headlines import headlines
from decoder.compare.labels import ARMS, CONDITIONS, ENCODERS, IN_PIXELS, PROBES, SETS, UNITS, Label, share

Figures = Mapping[str, Figure]
BAR, BAND = "Bar: 95\u00a0% interval.", "Band: 95\u00a0% interval."
PICTURES = {"psnr": ("PSNR, dB", "Higher is closer."), "lpips": ("LPIPS", "Lower is closer."),
            "ssim": ("SSIM", "Higher is closer.")}  # fmt: skip
ROLLOUTS = {
    "error": (
        "Error of place, px",
        "How far the main object is from its place; half the picture where it is not found.",
    ),
    "found": ("Found", "Share of frames in which the main object is found."),
    "colour": ("Right colour", "Share of frames in which it is found and has its colour."),
    "error_beyond": ("Place beyond chance, px", "How much less it errs on its own scene than on other clips’."),
    "colour_beyond": ("Right colour beyond chance", "The share less that on other clips’ scenes."),
    "shape": ("Right shape", "Share of frames in which it is found and has its shape."),
    "count": ("Right number of objects", "Share of frames with nothing missing and nothing extra."),
    "psnr": ("PSNR, dB", "Closeness of pixels: after long roll-outs it says little."),
}
SHARES = ("found", "colour", "colour_beyond", "shape", "count")


@dataclass(frozen=True)
class Chart:
    """What a plot shows, what to look for, and the plot."""

    title: str
    meaning: str
    svg: Markup


def curves(
    figures: Figures, arms: Mapping[str, Label], pattern: str, x: Callable[[float], float] = lambda x: x
) -> list[Line]:
    """A line for each arm that has figures of that name, ARM in it being the arm and * the number that x is made of."""
    lines = []
    for arm, label in arms.items():
        begin, _, end = pattern.replace("ARM", arm).partition("*")
        wanted = re.compile(rf"{re.escape(begin)}([\d.e+-]+){re.escape(end)}")
        hits = [(wanted.fullmatch(name), figure) for name, figure in figures.items() if name.startswith(begin)]
        lines += _line(label, [(x(float(hit[1])), figure) for hit, figure in hits if hit])
    return lines


def _line(label: Label, points: list[tuple[float, Figure]]) -> list[Line]:
    """One line, or none where nothing is known."""
    known = [(x, f.value, f.low, f.high) for x, f in sorted(points, key=lambda point: point[0]) if f.value is not None]
    if not known:
        return []
    nan = float("nan")
    band = [(nan if low is None else low, nan if high is None else high) for _, _, low, high in known]
    certain = any(low is not None for _, _, low, _ in known)
    return [Line([(x, y) for x, y, _, _ in known], label.colour, label.title, band if certain else (), label.control)]


def dots(figures: Figures, arms: Mapping[str, Label], pattern: str) -> list[Interval]:
    """A row for each arm whose figure is known."""
    rows = []
    for arm, label in arms.items():
        f = figures.get(pattern.replace("ARM", arm))
        if f is not None and f.value is not None:
            low, high = (f.value if bound is None else bound for bound in (f.low, f.high))
            rows.append(Interval(label.title, f.value, low, high, label.colour))
    return rows


def _ticks(lines: Sequence[Line], word: str = "{:g}") -> list[tuple[float, str]]:
    """A tick at every point of the first line."""
    return [(x, word.format(x)) for x, _ in lines[0].points]


def features(figures: Figures) -> list[Chart]:
    """Accuracy against operations and against the share of labels."""
    charts = []
    for task, title in PROBES.items():
        lines, unit = along(figures, task)
        if lines:
            svg = line_chart(lines, f"operations of pretraining, {unit}", "accuracy", percent=True)
            charts.append(Chart(title, f"Accuracy of a linear probe along pretraining. {BAND}", svg))
    for task in PROBES:
        lines = curves(figures, ENCODERS, f"representation/labels/{task}/ARM/*", lambda share: 100 * share)
        if lines and len(lines[0].points) > 1:
            ticks = _ticks(lines, "{:g}\u00a0%")
            svg = line_chart(lines, "share of the labels", "accuracy", percent=True, ticks=ticks, log=True)
            charts.append(
                Chart(f"{task.capitalize()}, by labels", "The same probe, at the end, from fewer labels.", svg)
            )
    return charts


def along(figures: Figures, task: str) -> tuple[list[Line], str]:
    """A and C over the operations of their pretraining, levels that need none, and the unit of operations."""
    points: dict[str, list[tuple[float, Figure]]] = {"jepa": [], "masked_pixels": []}
    for arm, found in points.items():
        steps = re.compile(rf"(representation/steps/{task}/{arm}/step=\d+)/operations")
        hits = [(steps.fullmatch(name), figure) for name, figure in figures.items()]
        found += [(figure.value or 0.0, figures[hit[1]]) for hit, figure in hits if hit]
    most = max((x for found in points.values() for x, _ in found), default=0.0)
    if not most:
        return [], ""
    factor, unit = next((pair for pair in UNITS if most >= 3 * pair[0]), UNITS[-1])
    lines = []
    for arm, found in points.items():
        lines += _line(ENCODERS[arm], [(x / factor, figure) for x, figure in found])
    levels = {final(figures, task, arm): ENCODERS[arm] for arm in ("random", "pixels")}
    levels[f"representation/chance/{task}"] = Label("", "most frequent class", "faint", "", True)
    for name, label in levels.items():
        if name in figures:
            lines += [replace(li, band=()) for li in _line(label, [(x, figures[name]) for x in (0.0, most / factor)])]
    return lines, unit


def pictures(figures: Figures, tubelet_size: int) -> list[Chart]:
    """Forward: all hidden frames, frame by frame, by context, by sampling steps."""
    charts = []
    for key, (title, way) in PICTURES.items():
        rows = dots(figures, ARMS, f"pictures/tasks/forward/ARM/{key}")
        if rows:
            charts.append(Chart(title, f"{way} {BAR}", interval_chart(rows, title)))
    for key in ("psnr", "lpips"):
        title, way = PICTURES[key]
        lines = curves(figures, ARMS, f"pictures/tasks/forward/ARM/by_frame/{key}/*", lambda place: place + 1)
        if lines and len(lines[0].points) > 1:
            svg = line_chart(lines, "frames ahead", title)
            charts.append(Chart(f"{title}, frame by frame", "The further ahead, the harder.", svg))
    lines = curves(figures, ARMS, "pictures/contexts/context=*/rows/ARM/psnr", lambda seen: seen * tubelet_size)
    if lines:
        charts.append(
            Chart("By how much is seen", BAND, line_chart(lines, "frames seen", "PSNR, dB", ticks=_ticks(lines)))
        )
    for key in ("psnr", "lpips"):
        title, way = PICTURES[key]
        lines = curves(figures, ARMS, f"cost/steps/ARM/steps=*/{key}")
        if lines:
            svg = line_chart(lines, "sampling steps", title, ticks=_ticks(lines), log=True)
            charts.append(Chart(f"{title}, by sampling steps", f"One sample of each clip. {way} {BAND}", svg))
    return charts


def distances(figures: Figures) -> list[Chart]:
    """Fréchet and kernel."""
    charts = []
    for key, title in (("fvd", "Fréchet video distance"), ("kvd", "Kernel video distance")):
        rows = dots(figures, SETS, f"distance/rows/ARM/{key}")
        if rows:
            charts.append(Chart(title, f"Lower is closer. {BAR}", interval_chart(rows, title)))
    for key, title in (("fvd", "Fréchet, by horizon"), ("kvd", "Kernel, by horizon")):
        lines = curves(figures, SETS, f"distance/horizons/first=*/rows/ARM/{key}")
        if lines:
            svg = line_chart(lines, "frame at which a clip begins", "distance", ticks=_ticks(lines))
            charts.append(Chart(title, f"Of predictions fed back. Lower is closer. {BAND}", svg))
    return charts


def rollouts(figures: Figures) -> list[Chart]:
    """Every score over the clip lengths."""
    charts = []
    length = figures["rollout/clip_frames"].value or 1 if "rollout/clip_frames" in figures else 1
    for key, (title, meaning) in ROLLOUTS.items():
        lines = curves(figures, ARMS, f"rollout/rows/ARM/{key}/first=*", lambda first: first // length + 1)
        if lines:
            charts.append(Chart(title, meaning, line_chart(lines, "clip length", title, percent=key in SHARES)))
    return charts


def physics(figures: Figures) -> list[Chart]:
    """Of permanence and of interaction."""
    charts = []
    for key, more in (("returned", ""), ("returned_beyond", ", beyond chance")):
        rows = dots(figures, ARMS, f"physics/permanence/rows/ARM/{key}")
        if rows:
            svg = interval_chart(rows, f"come back{more}", percent=True)
            charts.append(Chart(f"Hidden objects that come back{more}", f"Mean over samples. {BAR}", svg))
    rows = dots(figures, ARMS, "physics/interaction/rows/ARM/response")
    if rows:
        svg = interval_chart(rows, "response")
        charts.append(Chart("Response to a collision", f"1 as in truth, 0 as if nothing had been hit. {BAR}", svg))
    return charts


def surprise(figures: Figures, score: str) -> list[Chart]:
    """Pairs in sight, and behind a bar."""
    untrained = sorted({name.split("/")[2] for name in figures if name.startswith("surprise/rows/random_")})
    arms = (
        ARMS | IN_PIXELS | {arm: Label("", f"untrained {arm.removeprefix('random_')}", "random") for arm in untrained}
    )
    charts = []
    for where, title in CONDITIONS.items():
        rows = dots(figures, arms, f"surprise/rows/ARM/{score}/all/{where}")
        if rows:
            svg = interval_chart(rows, "relative accuracy", reference=(0.5, "chance"), percent=True)
            charts.append(Chart(f"Pairs {title}, score “{score}”", f"Share of pairs judged rightly. {BAR}", svg))
    return charts


def leads(figures: Figures, score: str) -> list[Chart]:
    """A less its rivals, clip by clip, over the dial."""
    charts = []
    for headline in headlines(figures, score):
        lines = curves(figures, headline.pairs, f"detail/detail=*/{headline.at('ARM')}")
        if lines:
            svg = line_chart(
                lines, "unpredictable detail", headline.axis, percent=headline.form is share, ticks=_ticks(lines),
                references=[(0.0, "equal")],
            )  # fmt: skip
            side = "Below" if headline.lower else "Above"
            charts.append(Chart(f"A’s lead: {headline.noun}", f"{side} 0 A is better. {BAND}", svg))
    return charts


def details(figures: Figures, score: str) -> list[Chart]:
    """The headline figures over the dial."""
    charts = []
    for headline in headlines(figures, score):
        lines = curves(figures, headline.arms, f"detail/detail=*/{headline.at('ARM')}")
        if lines:
            percent, ticks = headline.form is share, _ticks(lines)
            svg = line_chart(lines, "unpredictable detail", headline.axis, percent=percent, ticks=ticks)
            charts.append(Chart(headline.title, BAND, svg))
    return charts
