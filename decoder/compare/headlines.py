"""The figures that a reader compares across seeds and settings, and what the worlds' dial of detail does to them.

Notable:
- "A's lead grows" is a statement about two settings, the smallest and the largest. The intervals of the two differences
  are added in quadrature (`figures.change`), as if their clips were independent; they are of the same scenes, so that
  is too careful, if anything. Between the two, look at the curve.
- With one model seed nothing is known of what another training would have given: the sentence says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from decoder.compare.figures import Figure
from decoder.compare.findings import final, last_length
from decoder.compare.judge import Judge, Measure, Number, Verdict, interval, tell
from decoder.compare.labels import (
    CONDITIONS,
    ENCODERS,
    PAIRS,
    Format,
    Label,
    one,
    pick,
    share,
    signed,
    three,
    two,
    whole,
)

# What becomes of A, by how it stands at both ends of the dial: 1 certainly ahead, -1 certainly behind.
GROWS = {(1, 1): "lead grows", (-1, -1): "lag shrinks", (-1, 1): "lag turned"}
SHRINKS = {(-1, -1): "lag grows", (1, 1): "lead shrinks", (1, -1): "lead lost"}
GAINS, LOSES = "gains", "loses"  # where one end is undecided


@dataclass(frozen=True)
class Headline:
    """A measure: its title in tables, its noun in sentences, the name of an arm's figure, and the arms that have it."""

    title: str
    noun: str
    at: Callable[[str], str]
    form: Format
    lower: bool
    arms: dict[str, Label]

    @property
    def axis(self) -> str:
        """The title, short enough to stand beside a plot."""
        return self.title.partition(",")[0]

    @property
    def pairs(self) -> dict[str, Label]:
        """The differences of A and its rivals."""
        rivals = [f"jepa-{arm}" for arm in self.arms]
        return {pair: label for pair, label in PAIRS.items() if pair in rivals}


def headlines(figures: Mapping[str, Figure], score: str) -> list[Headline]:
    """Probes, pictures, distance, roll-outs, physics, surprise."""
    encoders = {name: ENCODERS[name] for name in ("jepa", "masked_pixels", "random")}
    probe = lambda task: lambda encoder: final(figures, task, encoder)
    arms, begin = pick("jepa", "pixels", "pixels_plus", "futures"), last_length(figures)
    clean = ("PSNR to the clean scene, dB, expected picture", "PSNR to the clean scene",
             "pictures/tasks/forward/{}/expected_clean_psnr", one, False)  # fmt: skip
    kinds: list[tuple[str, str, str, Format, bool]] = [
        ("PSNR, dB", "PSNR", "pictures/tasks/forward/{}/psnr", one, False),
        *([clean] if has_detail(figures) else []),
        ("LPIPS, lower is closer", "LPIPS", "pictures/tasks/forward/{}/lpips", three, True),
        ("Fréchet distance, lower is closer", "Fréchet distance", "distance/rows/{}/fvd", whole, True),
        ("Place after roll-outs beyond chance, px", "the place of the object at the end of roll-outs",
         f"rollout/rows/{{}}/error_beyond/{begin}", two, False),
        ("Object kept after roll-outs beyond chance", "the object and its colour at the end of roll-outs",
         f"rollout/rows/{{}}/colour_beyond/{begin}", share, False),
        ("Hidden objects back beyond chance", "hidden objects that come back",
         "physics/permanence/rows/{}/returned_beyond", share, False),
        ("Velocity after a hit beyond chance, px a frame", "the velocity after a collision",
         "physics/interaction/rows/{}/error_beyond", two, False),
        *((f"Surprise {title}, score “{score}”", f"surprise {title}", f"surprise/rows/{{}}/{score}/all/{key}", share,
           False) for key, title in CONDITIONS.items()),
    ]  # fmt: skip
    return [
        Headline("Motion, accuracy", "naming the motion", probe("motion"), share, False, encoders),
        Headline("Shape, accuracy", "naming the shape", probe("appearance"), share, False, encoders),
        *(Headline(title, noun, name.format, form, lower, arms) for title, noun, name, form, lower in kinds),
    ]


def has_detail(figures: Mapping[str, Figure]) -> bool:
    """Whether there is unpredictable detail, so that the clean scene differs from the truth."""
    detail = figures.get("pictures/detail")
    return bool(detail and detail.value) or any(name.startswith("detail/") for name in figures)


def dial(judge: Judge, settings: Sequence[float], score: str) -> Verdict | None:
    """Whether A's lead grows with the worlds' unpredictable detail, by measure; None where it was not varied."""
    if len(settings) < 2:
        return None
    rivals: dict[str, dict[str, str]] = {}
    measures = []
    for headline in headlines(judge.figures, score):
        numbers = []
        for pair, label in headline.pairs.items():
            moved, change = _moved(judge.figures, headline, pair, settings)
            rivals.setdefault(label.letter.removeprefix("A − "), {})[headline.noun] = moved
            if change is not None:
                numbers.append(Number(label.letter, interval(change, signed(headline.form)), label.colour, change.name))
        if numbers:
            measures.append(Measure(headline.title, numbers, None))
    clauses = [_told(letter, outcomes) for letter, outcomes in rivals.items()]
    text = "; ".join(clause for clause in clauses if clause) or "the arms were not compared clip by clip"
    once = "" if len(judge.prefixes) > 1 else ", in one training at each"
    kind, mark = _mark({moved for outcomes in rivals.values() for moved in outcomes.values()})
    return Verdict("Does A’s lead grow with the detail?", kind, mark,
                   f"From detail {min(settings):g} to {max(settings):g}{once}, {text}.", measures)  # fmt: skip


def _moved(
    figures: Mapping[str, Figure], headline: Headline, pair: str, settings: Sequence[float]
) -> tuple[str, Figure | None]:
    """What became of A's lead over a rival, or of its lag behind it; and by how much."""
    name, better = headline.at(pair), -1 if headline.lower else 1
    change = figures.get(f"detail/change/{name}")
    if change is None or change.value is None or change.low is None or change.high is None:
        return "missing", None
    if change.low <= 0 <= change.high:
        return "uncertain", change
    first, last = (figures[f"detail/detail={place(settings):g}/{name}"] for place in (min, max))
    ends = better * _sign(first), better * _sign(last)
    return (GROWS.get(ends, GAINS) if better * change.value > 0 else SHRINKS.get(ends, LOSES)), change


def _sign(figure: Figure) -> int:
    """Of an interval that leaves out 0; 0 for others."""
    low, high = figure.low or 0.0, figure.high or 0.0
    return 1 if low > 0 else -1 if high < 0 else 0


def _told(letter: str, outcomes: Mapping[str, str]) -> str:
    return tell(outcomes, {
        "lead grows": f"A’s lead over {letter} grows in {{}}",
        "lag shrinks": f"A’s lag behind {letter} shrinks in {{}}",
        "lag turned": f"A’s lag behind {letter} becomes a lead in {{}}",
        "lead lost": f"A’s lead over {letter} becomes a lag in {{}}",
        "lead shrinks": f"A’s lead over {letter} shrinks in {{}}",
        "lag grows": f"A’s lag behind {letter} grows in {{}}",
        GAINS: f"on {letter} A gains in {{}}",
        LOSES: f"to {letter} A loses in {{}}",
        "uncertain": f"between A and {letter} there is no certain change in {{}}",
    })  # fmt: skip


def _mark(found: set[str]) -> tuple[str, str]:
    """Kind and mark of all measures together."""
    grows, shrinks = bool(found & {GAINS, *GROWS.values()}), bool(found & {LOSES, *SHRINKS.values()})
    partly = " in part" if "uncertain" in found else ""
    if grows and shrinks:
        return "mixed", "Mixed"
    if grows or shrinks:
        return ("ahead", f"For A{partly}") if grows else ("behind", f"Against A{partly}")
    return ("undecided", "No certain change") if "uncertain" in found else ("missing", "Not measured")
