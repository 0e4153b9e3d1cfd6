"""The tables of a comparison's headline figures, for the page and for what is pasted elsewhere. Pure: figures in."""

from collections.abc import Mapping, Sequence

from decoder.compare.findings import final, resolution
from decoder.compare.grid import DASH, Cell, Figures, Row, Table, block, cell, grid, told
from decoder.compare.headlines import Headline, headlines
from decoder.compare.labels import ARMS, ENCODER_PAIRS, ENCODERS, PAIRS, Format, share


def overview(figures: Figures, score: str) -> Table:
    """Every headline figure of what is drawn and of surprise: arms, controls and A less its rivals down."""
    found = {headline.title: headline for headline in headlines(figures, score) if "pixels" in headline.arms}
    columns = {title: (title, headline.form) for title, headline in found.items()}
    at = lambda arm, title: found[title].at(arm)
    return grid(figures, "Task forward", ARMS | PAIRS, columns, at, resolution(figures, "pictures"))


def features(figures: Figures) -> Table:
    """Accuracy of both probes with all labels, at the end of training."""
    columns: dict[str, tuple[str, Format]] = {"motion": ("motion", share), "shape": ("appearance", share)}
    at = lambda encoder, task: final(figures, task, encoder)
    return grid(figures, "Linear probe, all labels", ENCODERS | ENCODER_PAIRS, columns, at)


def seeds(figures: Figures, names: Sequence[str], score: str) -> Table | None:
    """The headline figures, their mean over the model seeds and a column for each; None where there is one."""
    if len(names) < 2:
        return None
    columns = _mean_and(names)
    return Table("Mean and seeds", "", list(columns), _headlines(figures, columns, score))


def details(figures: Figures, values: Sequence[float], score: str) -> Table | None:
    """The headline figures at each setting of the worlds' detail; None where it was not varied."""
    if not values:
        return None
    columns = {f"detail {value:g}": f"detail/detail={value:g}/" for value in values}
    note = resolution(figures, "pictures")
    return Table("The headline figures by detail", "", list(columns), _headlines(figures, columns, score), note)


def leads(figures: Figures, names: Sequence[str], values: Sequence[float], score: str) -> Table | None:
    """A less its rivals, clip by clip, in every headline figure: at each setting of the detail, where it was varied, or
    in each model seed; None where there is one of both."""
    if len(values) > 1:
        columns = {f"detail {value:g}": f"detail/detail={value:g}/" for value in values} | {"change": "detail/change/"}
    elif len(names) > 1:
        columns = _mean_and(names)
    else:
        return None
    rows = [
        Row(f"{headline.title}: {label.letter}", _across(figures, columns, headline, pair), label.colour)
        for headline in headlines(figures, score)
        for pair, label in headline.pairs.items()
    ]
    rows = [row for row in rows if _known(row)]
    return Table("A’s lead, clip by clip", "", list(columns), rows, resolution(figures, "pictures"))


def _headlines(figures: Figures, columns: Mapping[str, str], score: str) -> list[Row]:
    """A group of rows for each headline: its arms, and A less its rivals. `columns` are {heading: prefix of names}."""
    rows = []
    for headline in headlines(figures, score):
        arms = headline.arms | headline.pairs
        group = [
            Row(label.title, _across(figures, columns, headline, arm), label.colour) for arm, label in arms.items()
        ]
        rows += block(headline.title, [row for row in group if _known(row)])
    return rows


def _across(figures: Figures, columns: Mapping[str, str], headline: Headline, arm: str) -> list[Cell]:
    return [cell(figures, prefix + headline.at(arm), told(arm, headline.form)) for prefix in columns.values()]


def _known(row: Row) -> bool:
    return any(c.text != DASH for c in row.cells)


def _mean_and(names: Sequence[str]) -> dict[str, str]:
    return {"mean": ""} | {f"seed {seed}": f"by_seed/{seed}/" for seed in names}
