"""The rule by which a comparison is decided, and how it is put into words.

Notable:
- The rule is one and the same everywhere: something is better where the 95 % intervals do not overlap, and in every
  model seed there is. Everything else is called undecided, and what is missing, missing.
- A sentence groups what came out alike: `tell` has one clause for each outcome.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from decoder.compare.figures import Figure
from decoder.compare.labels import Format, Label

Outcome = int | None  # 1: the first is better, -1: the second, 0: undecided, None: not measured


@dataclass(frozen=True)
class Number:
    """A figure in words: whose it is, the text, the colour of its dot, and its name in metrics.csv."""

    who: str
    text: str
    colour: str
    name: str


@dataclass(frozen=True)
class Measure:
    """Numbers side by side, and how many clips or pairs they stand on."""

    title: str
    numbers: list[Number]
    n: int | None


@dataclass(frozen=True)
class Verdict:
    """One of the five: `kind` is ahead, behind, mixed, undecided or missing, and `mark` says it in two words."""

    subject: str
    kind: str
    mark: str
    sentence: str
    measures: list[Measure]


class Judge:
    """The figures of all seeds, and the rule that decides between two of them."""

    def __init__(self, figures: Mapping[str, Figure], seeds: Sequence[str] = ()) -> None:
        """`seeds` are those that have figures of their own, under by_seed."""
        self.figures = figures
        self.prefixes = [f"by_seed/{seed}/" for seed in seeds] or [""]

    def value(self, name: str) -> float | None:
        """A figure of the first seed, None where it is not known."""
        figure = self.figures.get(name)
        return None if figure is None else figure.value

    def versus(self, first: str, second: str | Sequence[str] | float, lower: bool = False) -> Outcome:
        """Whether the figure `first` is better than `second`: a figure, all of several figures, or a fixed value.

        Higher is better, unless `lower`.
        """
        found = {self._versus(prefix, first, second) for prefix in self.prefixes}
        if None in found:
            return None
        decided = found.pop() if len(found) == 1 else 0
        return -decided if lower and decided else decided

    def _versus(self, prefix: str, first: str, second: str | Sequence[str] | float) -> Outcome:
        if isinstance(second, float):
            others = [(second, second)]
        else:
            others = [self._bounds(prefix + name) for name in ([second] if isinstance(second, str) else second)]
        low, high = self._bounds(prefix + first)
        if not others or any(map(math.isnan, (low, *(low for low, _ in others)))):
            return None
        if all(low > top for _, top in others):
            return 1
        return -1 if all(high < bottom for bottom, _ in others) else 0

    def _bounds(self, name: str) -> tuple[float, float]:
        """The interval of a figure, NaN where it is not known; one without an interval could lie anywhere."""
        figure = self.figures.get(name)
        if figure is None or figure.value is None:
            return float("nan"), float("nan")
        if figure.low is None or figure.high is None:
            return -float("inf"), float("inf")
        return figure.low, figure.high

    def measure(self, title: str, arms: Mapping[str, Label], name: Callable[[str], str], form: Format) -> Measure:
        """The figures name(arm) that are known, of the first seed."""
        known = [(label, self.figures[name(arm)]) for arm, label in arms.items() if self.value(name(arm)) is not None]
        numbers = [Number(label.letter, interval(f, form), label.colour, f.name) for label, f in known]
        return Measure(title, numbers, known[0][1].n if known else None)


def judged(
    subject: str, outcomes: Sequence[Outcome], rival: str, clauses: Sequence[str], measures: list[Measure]
) -> Verdict:
    """A verdict whose mark sums up A against its rival over `outcomes`."""
    signs = {outcome for outcome in outcomes if outcome}
    partly = " in part" if 0 in outcomes or None in outcomes else ""
    if len(signs) == 2:
        kind, mark = "mixed", "Mixed"
    elif signs:
        kind, mark = ("ahead", f"A ahead{partly}") if signs == {1} else ("behind", f"{rival} ahead{partly}")
    else:
        kind, mark = ("undecided", "Undecided") if 0 in outcomes else ("missing", "Not measured")
    text = "; ".join(clause for clause in clauses if clause)
    return Verdict(subject, kind, mark, f"{text[:1].upper()}{text[1:]}.", [m for m in measures if m.numbers])


def tell(outcomes: Mapping[str, Outcome], phrases: Mapping[Outcome, str]) -> str:
    """One clause for each outcome that occurs and has a phrase, with the nouns that came out so in place of {}."""
    clauses = []
    for outcome in (1, -1, 0, None):
        nouns = [noun for noun, found in outcomes.items() if found == outcome]
        if nouns and outcome in phrases:
            clauses.append(phrases[outcome].format(listed(nouns)))
    return "; ".join(clauses)


def listed(words: Sequence[str]) -> str:
    """a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def interval(figure: Figure, form: Format) -> str:
    """'12.7 [12.6, 12.9]', or a dash."""
    if figure.value is None:
        return "–"
    return f"{form(figure.value)} {brackets(figure, form)}".strip()


def brackets(figure: Figure, form: Format) -> str:
    """'[12.6, 12.9]', or nothing; a sign of per cent is not repeated."""
    if figure.low is None or figure.high is None:
        return ""
    low, high = (form(bound).removesuffix("\u00a0%") for bound in (figure.low, figure.high))
    return f"[{low}, {high}]"
