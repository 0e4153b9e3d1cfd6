"""Tables of figures: what stands in a cell, a row and a column, before anything is drawn.

Notable: a cell knows the names of its figures in metrics.csv, so that nothing stands on the page that is not there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from decoder.compare.figures import Figure
from decoder.compare.judge import brackets
from decoder.compare.labels import ENCODER_PAIRS, PAIRS, Format, Label, signed

Figures = Mapping[str, Figure]
DASH = "–"


@dataclass(frozen=True)
class Cell:
    """A value, its interval and count beneath it, the names of its figures, and for heat how far it is from chance."""

    text: str
    interval: str = ""
    name: str = ""
    n: int | None = None
    heat: float | None = None  # -1..1
    certain: bool = False  # whether the interval leaves chance out


@dataclass(frozen=True)
class Row:
    """A line of a table: a label with the colour of its dot (none: no dot), and its cells. `block` opens a group."""

    label: str
    cells: list[Cell]
    colour: str = ""
    block: str = ""

    @property
    def counts(self) -> set[int]:
        return {cell.n for cell in self.cells if cell.n is not None}


@dataclass(frozen=True)
class Table:
    """`n` is what every cell stands on; None where rows differ, and say so, or cells do (`by_row` tells which).
    `note` is what else holds for every cell: which frames, how large."""

    title: str
    first: str
    columns: list[str]
    rows: list[Row]
    note: str = ""

    @property
    def n(self) -> int | None:
        counts = {n for row in self.rows for n in row.counts}
        return counts.pop() if len(counts) == 1 else None

    @property
    def by_row(self) -> bool:
        return self.n is None and all(len(row.counts) == 1 for row in self.rows)


def cell(figures: Figures, name: str, form: Format) -> Cell:
    """The figure `name`; a dash where it is not known."""
    figure = figures.get(name)
    if figure is None or figure.value is None:
        return Cell(DASH)
    return Cell(form(figure.value), brackets(figure, form), name, figure.n)


def grid(
    figures: Figures,
    title: str,
    arms: Mapping[str, Label],
    columns: Mapping[str, tuple[str, Format]],
    name: Callable[[str, str], str],
    note: str = "",
) -> Table:
    """Arms and differences of arms down, {heading: (key, format)} across, the figure name(arm, key) in each cell; what
    is all dashes is left out."""
    rows = [
        Row(
            label.title,
            [cell(figures, name(arm, key), told(arm, form)) for key, form in columns.values()],
            label.colour,
        )
        for arm, label in arms.items()
    ]
    rows = [row for row in rows if any(c.text != DASH for c in row.cells)]
    kept = [place for place in range(len(columns)) if any(row.cells[place].text != DASH for row in rows)]
    heads = list(columns)
    cut = [Row(row.label, [row.cells[place] for place in kept], row.colour, row.block) for row in rows]
    return Table(title, "", [heads[place] for place in kept], cut, note)


def told(arm: str, form: Format) -> Format:
    """A difference of two arms shows its sign."""
    return signed(form) if arm in PAIRS or arm in ENCODER_PAIRS else form


def onto(table: Table, columns: Sequence[str]) -> list[Row]:
    """Rows with exactly these columns, dashes where the table has none."""
    place = {head: i for i, head in enumerate(table.columns)}
    return [
        Row(row.label, [row.cells[place[head]] if head in place else Cell(DASH) for head in columns], row.colour)
        for row in table.rows
    ]


def block(title: str, rows: Sequence[Row]) -> list[Row]:
    """Rows of which the first opens a group."""
    return [Row(row.label, row.cells, row.colour, title if not i else "") for i, row in enumerate(rows)]
