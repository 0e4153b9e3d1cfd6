"""Plots for the report page, as inline SVG.

Notable: a plot is drawn once and follows the page, light or dark. Every colour given to matplotlib stands for a CSS
variable of the page (`COLOURS`), and text stays text, in the page's own font. Legends are HTML, so that they wrap.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

Points = Sequence[tuple[float, float]]

# Names of CSS variables -> placeholders, which no plot would choose by itself.
_NAMES = (
    *("ink", "faint", "rule", "jepa", "random", "pixels", "target", "mean", "copy"),
    *("pixels_plus", "futures", "masked_pixels", "extrapolate"),
)
COLOURS = {name: f"#0103{number:02x}" for number, name in enumerate(_NAMES, 1)}
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a $ in a name is a $
    "font.size": 11.5,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["rule"],
    "axes.labelcolor": COLOURS["faint"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["faint"],
    "ytick.color": COLOURS["faint"],
    "lines.linewidth": 2.0,
}
_REFERENCE: Any = {"color": COLOURS["faint"], "linestyle": (0, (4, 3)), "linewidth": 1.2}
_PERCENT = PercentFormatter(1.0, decimals=0, symbol="\u00a0%")


@dataclass(frozen=True)
class Line:
    """A curve: points (x, y), the name of a colour, and what the legend calls it (nothing: no entry).

    `band` holds an interval (low, high) for each point, NaN where there is none.
    """

    points: Points
    colour: str = "jepa"
    name: str = ""
    band: Points = ()
    dashed: bool = False


@dataclass(frozen=True)
class Interval:
    """A dot with its interval, on a row of its own."""

    name: str
    value: float
    low: float
    high: float
    colour: str = "jepa"


def line_chart(
    lines: Sequence[Line],
    xlabel: str,
    ylabel: str,
    *,
    references: Sequence[tuple[float, str]] = (),
    percent: bool = False,
    dots: bool = False,
    smooth: bool = False,
    ticks: Sequence[tuple[float, str]] = (),
    log: bool = False,
) -> Markup:
    """Curves over a common x axis. `references` are dashed levels with a name; `smooth` draws a running mean over the
    faint raw curve; `ticks` are the places and words along x; `log` is for x."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.0, 3.1), layout="constrained")
        axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
        for line in lines:
            x, y = np.array(line.points, float).reshape(-1, 2).T
            if smooth and len(y) >= 40:
                axes.plot(x, y, color=COLOURS[line.colour], linewidth=0.8, alpha=0.3)
                y = running_mean(y, len(y) // 20)
            marker = "o" if not line.dashed and (dots or len(x) < 30) else ""
            style: Any = (0, (5, 2)) if line.dashed else "-"
            axes.plot(x, y, color=COLOURS[line.colour], marker=marker, markersize=4, linestyle=style)
            if line.band:
                low, high = np.array(line.band, float).T
                axes.fill_between(x, low, high, color=COLOURS[line.colour], alpha=0.15, linewidth=0)
                axes.vlines(x, low, high, color=COLOURS[line.colour], alpha=0.5, linewidth=1)
        for level, _ in references:
            axes.axhline(level, **_REFERENCE)
        if log:
            axes.set_xscale("log")
        if ticks:
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticks([x for x, _ in ticks], [word for _, word in ticks])
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.margins(y=0.12)
        if percent:
            axes.yaxis.set_major_formatter(_PERCENT)
        entries = [(line.colour, line.name, line.dashed) for line in lines if line.name]
        entries += [("", name, True) for _, name in references]
        return _svg(figure, f"{ylabel} over {xlabel}") + _legend(entries)


def interval_chart(
    rows: Sequence[Interval], xlabel: str, *, reference: tuple[float, str] | None = None, percent: bool = False
) -> Markup:
    """One dot and its interval for each row, from top to bottom, and a dashed reference."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.0, 1.15 + 0.38 * len(rows)), layout="constrained")
        axes = figure.add_subplot(xlabel=xlabel)
        for place, row in enumerate(rows):
            colour = COLOURS[row.colour]
            axes.plot([row.low, row.high], [place, place], color=colour, linewidth=3, solid_capstyle="round")
            axes.plot(row.value, place, "o", color=colour, markersize=9)
        axes.set_yticks(range(len(rows)), [row.name for row in rows], color=COLOURS["ink"])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.1)
        if percent:
            axes.xaxis.set_major_formatter(_PERCENT)
        if reference is not None:
            axes.axvline(reference[0], **_REFERENCE)
        entries = [] if reference is None else [("", reference[1], True)]
        return _svg(figure, f"{xlabel}: " + ", ".join(row.name for row in rows)) + _legend(entries)


def running_mean(y: np.ndarray, width: int) -> np.ndarray:
    """Mean of the last `width` values (fewer at the beginning) at every place of y (n,)."""
    sums = np.concatenate([[0.0], np.cumsum(y)])
    last = np.arange(1, len(y) + 1)
    first = np.maximum(last - max(1, width), 0)
    return (sums[last] - sums[first]) / (last - first)


def _legend(entries: Sequence[tuple[str, str, bool]]) -> Markup:
    """Colours, what they stand for, and whether they are dashed; no colour stands for a reference."""
    spans = []
    for colour, name, dashed in entries:
        width, kind = (3, "solid") if not dashed else (3, "dashed") if colour else (2, "dashed")
        style = f"border-top: {width}px {kind} var(--{colour or 'faint'})"
        spans.append(Markup('<span><i style="{}"></i>{}</span> ').format(style, name))
    return Markup('<div class="legend">{}</div>').format(Markup("").join(spans)) if spans else Markup("")


def _svg(figure: Figure, label: str) -> Markup:
    """The figure as an <svg> element that scales with its container."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text)
    text = re.sub(r"font(?:-family)?: [^;\"]*'[^;\"]*;? ?", "", text)  # the family is the page's
    text = re.sub(r'<g id="[^"]*">', "<g>", text)  # every plot would bring the same ids
    for name, placeholder in COLOURS.items():
        text = text.replace(placeholder, f"var(--{name})")
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1))
