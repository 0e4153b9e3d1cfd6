"""A comparison in brief, as Markdown for a README, an issue or a paper's notes: metrics in, text out.

Notable: nothing is judged or worded here. Sentences and cells are those of the page, the headline figures and no more.
"""

from collections.abc import Mapping
from typing import Any

from decoder.compare import headline_tables
from decoder.compare.figures import Figure
from decoder.compare.findings import fairness, resolution, surprise_score, verdicts
from decoder.compare.grid import Cell, Table
from decoder.compare.headlines import dial
from decoder.compare.judge import Judge, listed
from decoder.findings import duration

BAR = r"\|"  # one that ends no cell


def brief(metrics: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    """The verdicts and the headline tables of a comparison; `figures` are those of metrics."""
    seeds, score = list(metrics["by_seed"]), surprise_score(figures)
    settings = [row["detail"] for row in metrics.get("detail", [])]
    judge = Judge(figures, seeds)
    found = verdicts(judge)
    moved = dial(judge, settings, score)
    shown = [
        headline_tables.overview(figures, score),
        headline_tables.features(figures),
        headline_tables.leads(figures, seeds, settings, score),
    ]
    parts = [
        f"# JEPA against pixels: {metrics['setting']}",
        _how(metrics, resolution(figures, "pictures")),
        "\n".join(f"- **{v.subject}: {v.mark}.** {v.sentence}" for v in (*found, *([moved] if moved else []))),
        fairness(judge),
        *(markdown(table) for table in shown if table is not None and table.rows),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown(table: Table) -> str:
    """A table in GitHub's Markdown; a group of rows opens with its title in bold."""
    lines = [[table.title, *table.columns], ["---"] * (1 + len(table.columns))]
    for row in table.rows:
        if row.block:
            lines.append([f"**{row.block}**", *[""] * len(row.cells)])
        lines.append([row.label, *map(_text, row.cells)])
    return "\n".join(f"| {' | '.join(text.replace('|', BAR) for text in line)} |" for line in lines)


def _text(cell: Cell) -> str:
    return f"{cell.text} {cell.interval}".strip()


def _how(metrics: Mapping[str, Any], clips: str) -> str:
    """What the figures come from."""
    seeds = listed([str(seed) for seed in metrics["seeds"]])
    commits = dict.fromkeys([metrics["commit"], *metrics.get("measured", {}).values()])
    words = [
        f"`jepa compare` at commit {listed([commit for commit in commits if commit] or ['unknown'])}",
        f"model seed{'s' * (len(metrics['seeds']) > 1)} {seeds}",
        clips,
        f"{duration(metrics['seconds']['total'])} on {metrics['environment']['device']}",
    ]
    return f"{', '.join(word for word in words if word)}. In brackets: 95\u00a0% intervals."
