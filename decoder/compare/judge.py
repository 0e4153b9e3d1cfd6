"""The rule by which a comparison is decided, and how it is put into words.

Notable:
- The rule is one and the same everywhere: something is better where the 95 % interval of the difference, clip by clip,
  leaves out 0, and in every model seed there is. Where no difference was measured clip by clip, the two intervals must
  not overlap.
- Seeds that decide differently disagree. Undecided is what no seed decides, and what is missing is missing.
- A sentence groups what came out alike: `tell` has one clause for each outcome.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from decoder.compare.figures import Figure
from decoder.compare.labels import Format, Label

SPLIT = "split"
Outcome = int | str | None  # 1: the first is better, -1: the second, 0: undecided, SPLIT: by seed, None: not measured


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
    """One of the five: `kind` is ahead, behind, mixed, split, undecided or missing, and `mark` says it in few words."""

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
        """A figure (of several seeds, their mean), None where it is not known."""
        figure = self.figures.get(name)
        return None if figure is None else figure.value

    def versus(self, first: str, second: str | Sequence[str] | float, lower: bool = False) -> Outcome:
        """Whether the figure `first` is better than `second`: a figure, all of several figures, or a fixed value.

        Higher is better, unless `lower`.
        """
        found = {self._versus(prefix, first, second) for prefix in self.prefixes}
        if None in found:
            return None
        decided = found.pop() if len(found) == 1 else SPLIT
        return -decided if lower and isinstance(decided, int) else decided

    def _versus(self, prefix: str, first: str, second: str | Sequence[str] | float) -> int | None:
        """The outcome in one seed."""
        if isinstance(second, float):
            return _sign(*self._bounds(prefix + first), second, second)
        others = [second] if isinstance(second, str) else second
        found = {self._pair(prefix + first, prefix + other) for other in others}
        if not found or None in found:
            return None
        return found.pop() if len(found) == 1 else 0

    def _pair(self, first: str, second: str) -> int | None:
        """By the difference of the two, where it was measured, or else by their own intervals."""
        for name, sign in ((paired(first, second), 1), (paired(second, first), -1)):
            if name in self.figures:
                decided = _sign(*self._bounds(name), 0.0, 0.0)
                return None if decided is None else sign * decided
        return _sign(*self._bounds(first), *self._bounds(second))

    def _bounds(self, name: str) -> tuple[float, float]:
        """The interval of a figure, NaN where it is not known; one without an interval could lie anywhere."""
        figure = self.figures.get(name)
        if figure is None or figure.value is None:
            return float("nan"), float("nan")
        if figure.low is None or figure.high is None:
            return -float("inf"), float("inf")
        return figure.low, figure.high

    def measure(self, title: str, arms: Mapping[str, Label], name: Callable[[str], str], form: Format) -> Measure:
        """The figures name(arm) that are known."""
        known = [(label, self.figures[name(arm)]) for arm, label in arms.items() if self.value(name(arm)) is not None]
        numbers = [Number(label.letter, interval(f, form), label.colour, f.name) for label, f in known]
        return Measure(title, numbers, known[0][1].n if known else None)


def paired(first: str, second: str) -> str:
    """The name of the difference of two figures that differ in the arm alone: a/jepa/psnr, a/pixels/psnr ->
    a/jepa-pixels/psnr. '' for others."""
    pairs = list(zip(first.split("/"), second.split("/"), strict=False))
    if first.count("/") != second.count("/") or sum(a != b for a, b in pairs) != 1:
        return ""
    return "/".join(a if a == b else f"{a}-{b}" for a, b in pairs)


def _sign(low: float, high: float, bottom: float, top: float) -> int | None:
    """1 where the interval from `low` lies above that from `bottom`, -1 where below, 0 where they overlap."""
    if math.isnan(low) or math.isnan(bottom):
        return None
    return 1 if low > top else -1 if high < bottom else 0


def judged(
    subject: str, rivals: Mapping[str, Mapping[str, Outcome]], clauses: Sequence[str], measures: list[Measure]
) -> Verdict:
    """A verdict whose mark sums up A against each of its rivals, {letter: {what was compared: outcome}}."""
    found = {letter: _standing(list(outcomes.values())) for letter, outcomes in rivals.items()}
    (kind, partly), *_ = found.values()
    if len(set(found.values())) == 1:
        mark = MARKS[kind].format(listed(list(found))) + partly
    else:
        kinds = {kind for kind, _ in found.values()}
        kind = "mixed" if {"ahead", "behind"} <= kinds or "mixed" in kinds else kind if len(kinds) == 1 else "undecided"
        mark = "A " + ", ".join(AGAINST[one].format(letter) + part for letter, (one, part) in found.items())
    text = "; ".join(clause for clause in clauses if clause)
    return Verdict(subject, kind, mark, f"{text[:1].upper()}{text[1:]}.", [m for m in measures if m.numbers])


MARKS = {"ahead": "A ahead", "behind": "{} ahead", "mixed": "Mixed", "split": "Seeds disagree",
         "undecided": "Undecided", "missing": "Not measured"}  # fmt: skip
AGAINST = {"ahead": "ahead of {}", "behind": "behind {}", "mixed": "mixed against {}",
           "split": "varying by seed against {}", "undecided": "undecided against {}",
           "missing": "not measured against {}"}  # fmt: skip


def _standing(outcomes: Sequence[Outcome]) -> tuple[str, str]:
    """How A stands against one rival: a kind of verdict, and ' in part' where not everything says so."""
    signs = {outcome for outcome in outcomes if outcome in (1, -1)}
    if len(signs) == 2:
        return "mixed", ""
    if signs:
        return "ahead" if signs == {1} else "behind", "" if set(outcomes) == signs else " in part"
    return "split" if SPLIT in outcomes else "undecided" if 0 in outcomes else "missing", ""


def tell(outcomes: Mapping[str, Outcome], phrases: Mapping[Outcome, str], between: str = "; ") -> str:
    """One clause for each outcome that occurs and has a phrase, with the nouns that came out so in place of {}."""
    clauses = []
    for outcome, phrase in phrases.items():
        nouns = [noun for noun, found in outcomes.items() if found == outcome]
        if nouns:
            clauses.append(phrase.format(listed(nouns)))
    return between.join(clauses)


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
