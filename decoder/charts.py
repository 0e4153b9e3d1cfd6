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
from matplotlib.ticker import MaxNLocator, PercentFormatter

Points = Sequence[tuple[float, float]]

# Names of CSS variables -> placeholders, which no plot would choose by itself.
_NAMES = ("ink", "faint", "rule", "jepa", "random", "pixels", "target", "mean", "copy")
COLOURS = {name: f"#0103{number:02x}" for number, name in enumerate(_NAMES, 1)}
_STYLE: Any = {
    "svg.fonttype": "none",
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
    """A curve: points (x, y), the name of a colour, and what the legend calls it (nothing: no entry)."""

    points: Points
    colour: str = "jepa"
    name: str = ""


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
) -> Markup:
    """Curves over a common x axis. `references` are dashed levels with a name; `smooth` draws a running mean over the
    faint raw curve."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.0, 3.1), layout="constrained")
        axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
        for line in lines:
            x, y = np.array(line.points, float).reshape(-1, 2).T
            if smooth and len(y) >= 40:
                axes.plot(x, y, color=COLOURS[line.colour], linewidth=0.8, alpha=0.3)
                y = running_mean(y, len(y) // 20)
            marker = "o" if dots or len(x) < 30 else ""
            axes.plot(x, y, color=COLOURS[line.colour], marker=marker, markersize=4)
        for level, _ in references:
            axes.axhline(level, **_REFERENCE)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.margins(y=0.12)
        if percent:
            axes.yaxis.set_major_formatter(_PERCENT)
        entries = [(line.colour, line.name) for line in lines if line.name] + [("", name) for _, name in references]
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
        entries = [] if reference is None else [("", reference[1])]
        return _svg(figure, f"{xlabel}: " + ", ".join(row.name for row in rows)) + _legend(entries)


def running_mean(y: np.ndarray, width: int) -> np.ndarray:
    """Mean of the last `width` values (fewer at the beginning) at every place of y (n,)."""
    sums = np.concatenate([[0.0], np.cumsum(y)])
    last = np.arange(1, len(y) + 1)
    first = np.maximum(last - max(1, width), 0)
    return (sums[last] - sums[first]) / (last - first)


def _legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """Colours and what they stand for; no colour stands for a dashed reference."""
    spans = []
    for colour, name in entries:
        style = f"border-top: 3px solid var(--{colour})" if colour else "border-top: 2px dashed var(--faint)"
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
