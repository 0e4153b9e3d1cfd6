"""Claims:

1. The verdict is five sentences that follow the numbers: they turn when the numbers turn, and what is not certain, or
   was not measured, is called that.
2. A difference that was measured clip by clip decides, whatever the two intervals do, in either direction of its name.
3. Several seeds must agree: where they decide differently, sentence and mark say that the seeds disagree.
4. B+ is judged as B is, and the mark names both where they differ.
5. Pooled figures are those of the formula, in NAMES, for clips and seeds together.
6. Whether A's lead grows with the detail is told from the ends of the dial, and a lag is called a lag, where an
   interval says so; with one seed, that it is of one training. What only one end has is not told of.
"""

import copy
import math
from typing import Any

import pytest
from comparison import est, judge, metrics, paired, probed, seeded, surprised, swept
from scipy import stats

from decoder.compare.figures import figures
from decoder.compare.findings import verdicts
from decoder.compare.headlines import dial
from decoder.compare.judge import SPLIT, Verdict
from decoder.compare.judge import paired as paired_name
from decoder.compare.labels import one, signed

PSNR = "pictures/tasks/forward/{}/psnr"


@pytest.mark.parametrize("found", [metrics(), paired(metrics()), seeded(metrics(), metrics())])
def test_five_sentences_follow_the_numbers(found: dict[str, Any]) -> None:
    won = verdicts(judge(found))
    assert [verdict.mark for verdict in won] == ["A ahead"] * 5 and {verdict.kind for verdict in won} == {"ahead"}
    assert all(verdict.sentence.count(".") == 1 and verdict.sentence.endswith(".") for verdict in won)
    assert [v.sentence for v in won] == [
        "A’s frozen features name the motion and the shape better than C’s; an untrained encoder’s know less of the "
        "motion and the shape than A’s.",
        "A’s pictures are closer to the truth than those of B and B+ by PSNR, LPIPS and Fréchet distance; by PSNR A is "
        "ahead of D; by PSNR and LPIPS the nearest visible frame, repeated, is further from the truth than A, B and "
        "B+.",
        "In the last of 3 clip lengths of predictions fed back, A keeps the object’s place, the object’s colour and "
        "the number of objects better than B and B+; a picture that stands still is further off than A, B and B+.",
        "A is better than B and B+ at bringing a hidden object back, the colour of what comes back and the velocity "
        "after a collision.",
        "In sight and behind a bar impossible videos surprise A, B and B+ more often than chance allows; in sight and "
        "behind a bar A is right more often than B and B+; in sight and behind a bar A is right more often than "
        "copying and untrained encoders.",
    ]  # fmt: skip
    psnr = won[1].measures[0]
    assert [n.text for n in psnr.numbers][:2] == ["22.3 [22.2, 22.4]", "18.3 [18.2, 18.4]"]
    assert psnr.n == 64 and "8 frames of 32 × 32 pixels" in psnr.title
    lost = verdicts(judge(swapped(metrics())))
    assert [verdict.mark for verdict in lost] == ["C ahead"] + ["B and B+ ahead"] * 4
    words = [
        "C’s frozen features name the motion and the shape better than A’s",
        "A’s pictures are further from the truth than those of B and B+ by PSNR, LPIPS and Fréchet distance",
        "A keeps the object’s place, the object’s colour and the number of objects worse than B and B+",
        "A is worse than B and B+ at",
        "behind a bar A is right less often than B and B+",
    ]
    for verdict, wanted in zip(lost, words, strict=True):
        assert wanted in verdict.sentence


def swapped(found: dict[str, Any]) -> dict[str, Any]:
    """What A scored given to its opponents, B+ included, and the other way round."""
    pairs = [(rows, "pixels") for rows in (*found["pictures"]["tasks"].values(), found["distance"]["rows"],
             found["rollout"]["rows"], found["physics"]["permanence"]["rows"], found["physics"]["interaction"]["rows"],
             found["surprise"]["rows"])]  # fmt: skip
    pairs += [(found["representation"]["labels"][task], "masked_pixels") for task in ("motion", "appearance")]
    for rows, opponent in pairs:
        rows["jepa"], rows[opponent] = rows[opponent], rows["jepa"]
        if opponent == "pixels":
            rows["pixels_plus"] = copy.deepcopy(rows["pixels"])
    return found


@pytest.mark.parametrize(
    ("number", "changes", "mark", "words"),
    [
        (0, {"representation__labels__motion__masked_pixels__1": probed(0.45)}, "A ahead in part",
         "whether A’s or C’s frozen features name the motion better is undecided"),
        (0, {"representation__labels__motion__random__1": probed(0.47)}, "A ahead",
         "A’s are not certainly better than an untrained encoder’s for the motion"),
        (1, {"pictures__tasks__forward__jepa__psnr": est(18.4)}, "A ahead of B in part, mixed against B+",
         "than those of B and B+ by LPIPS and Fréchet distance; A’s pictures are further from the truth than those of "
         "B+ by PSNR; by PSNR nothing is decided against B;"),
        (1, {"pictures__tasks__forward__jepa__psnr": est(12.0)}, "Mixed", "by PSNR A is behind D"),
        (1, {"pictures__tasks__forward__copy__psnr": est(20.0)}, "A ahead",
         "by PSNR the nearest visible frame, repeated, is further from the truth than A, closer to the truth than B "
         "and B+; by LPIPS the nearest visible frame, repeated, is further from the truth than A, B and B+"),
        (2, {"rollout__rows__jepa__found": [{"first": 16, "last": 23, **est(0.01, 0.01, 32)}]}, "A ahead",
         "by then the object is gone from the pictures of A"),
        (3, {"physics__interaction__rows__jepa": {"found": est(0.9), "error": est(None)}}, "A ahead in part",
         "A could not be compared with B at the velocity after a collision."),
        (4, {"surprise__rows__pixels": surprised(0.78)}, "A undecided against B, ahead of B+",
         "behind a bar A is right more often than B+; in sight and behind a bar nothing is decided between A and B"),
        (4, {"surprise__rows__pixels__event__all__behind": surprised(0.95)["mean"]["all"]["all"]},
         "A mixed against B, ahead of B+",
         "in sight A is right more often than B; in sight and behind a bar A is right more often than B+; behind a bar "
         "A is right less often than B;"),
        (4, {"surprise__rows__random_1": surprised(0.79)}, "A ahead",
         "nothing is decided between A and untrained encoders"),
        (4, {"surprise__rows__jepa": surprised(0.51)}, "A undecided against B, behind B+",
         "behind a bar chance is not excluded for A"),
    ],
)  # fmt: skip
def test_what_is_not_certain_is_said(number: int, changes: dict[str, Any], mark: str, words: str) -> None:
    found = verdicts(judge(metrics(**changes)))
    assert found[number].mark == mark and words in found[number].sentence, found[number].sentence
    assert [v.mark for i, v in enumerate(found) if i != number] == ["A ahead"] * 4


def test_paired_differences_decide() -> None:
    """Intervals of A and B overlap by far, and their difference, clip by clip, is certain."""
    close = {"pictures__tasks__forward__jepa__psnr": est(18.4)}
    overlap = metrics(**close)
    assert judge(overlap).versus(PSNR.format("jepa"), PSNR.format("pixels")) == 0
    found = paired(metrics(**close))
    assert judge(found).versus(PSNR.format("jepa"), PSNR.format("pixels")) == 1
    assert judge(found).versus(PSNR.format("pixels"), PSNR.format("jepa")) == -1
    assert judge(found).versus(PSNR.format("jepa"), PSNR.format("pixels"), lower=True) == -1
    sentence = verdicts(judge(found))[1].sentence
    assert "A’s pictures are closer to the truth than those of B by PSNR, LPIPS and Fréchet distance" in sentence
    # and the other way round: two intervals apart, of which the clips do not say who is better
    rows = paired(metrics())
    rows["pictures"]["tasks"]["forward"]["jepa-pixels"]["psnr"] = est(0.05)
    assert judge(rows).versus(PSNR.format("jepa"), PSNR.format("pixels")) == 0
    rows["pictures"]["tasks"]["forward"]["jepa-pixels"]["psnr"] = est(None)
    assert judge(rows).versus(PSNR.format("jepa"), PSNR.format("pixels")) is None
    assert paired_name("a/jepa/psnr", "a/pixels/psnr") == "a/jepa-pixels/psnr"
    assert paired_name("a/jepa/psnr", "b/pixels/psnr") == paired_name("a/jepa", "a/pixels/psnr") == ""


def told(verdict: Verdict) -> tuple[str, str]:
    return verdict.mark, verdict.sentence


@pytest.mark.parametrize("pair", [lambda found: found, paired])
def test_seeds_that_disagree_are_not_called_undecided(pair: Any) -> None:
    plain = pair(metrics())
    lost = pair(swapped(metrics()))
    for found, mark, word in (
        (seeded(plain, plain), "A ahead", "better"),
        (seeded(plain, lost), "Seeds disagree", "the seeds disagree"),
    ):
        for verdict in verdicts(judge(found)):
            assert verdict.mark == mark and "undecided" not in verdict.sentence and "nothing is" not in verdict.sentence
            assert verdict.subject in ("Surprise", "Predicted pictures") or word in verdict.sentence.lower()
    mark, sentence = told(verdicts(judge(seeded(plain, lost)))[1])
    assert sentence.startswith("By PSNR, LPIPS and Fréchet distance the seeds disagree on A against B and B+; ")
    assert "disagree on whether A is right more often than B and B+" in verdicts(judge(seeded(plain, lost)))[4].sentence


def test_a_seed_that_decides_nothing_is_a_disagreement() -> None:
    sure = metrics()
    unsure = metrics(
        surprise__rows__pixels=surprised(0.78), physics__permanence__rows__pixels__colour_beyond=est(0.6, 0.2)
    )
    found = seeded(sure, unsure)
    name = "surprise/rows/{}/event/all/all"
    assert judge(found).versus(name.format("jepa"), name.format("pixels")) == SPLIT
    physics, surprise = verdicts(judge(found))[3:]
    assert told(surprise)[0] == "A varying by seed against B, ahead of B+"
    assert "in sight and behind a bar the seeds disagree on whether A is right more often than B;" in surprise.sentence
    assert told(physics)[0] == "A ahead of B in part, ahead of B+"
    assert "the seeds disagree on whether A is better than B at the colour of what comes back" in physics.sentence
    both = verdicts(judge(seeded(unsure, unsure)))[4]  # no seed decides
    assert "nothing is decided between A and B;" in both.sentence and "disagree" not in both.sentence
    del unsure["surprise"]["rows"]["pixels"]  # and one that lacks it
    assert told(verdicts(judge(seeded(sure, unsure)))[4])[0] == "A not measured against B, ahead of B+"


def test_b_plus_is_judged_like_b() -> None:
    better = {"psnr": est(25.0), "lpips": est(0.1, 0.005)}
    found = metrics()
    found["pictures"]["tasks"]["forward"]["pixels_plus"] |= better
    found["distance"]["rows"]["pixels_plus"]["fvd"] = {"value": 10.0, "ci95": [9.0, 11.0]}
    found["surprise"]["rows"]["pixels_plus"] = surprised(0.95)
    pictures, surprise = (verdicts(judge(found))[i] for i in (1, 4))
    assert (pictures.kind, pictures.mark) == ("mixed", "A ahead of B, behind B+")
    assert "closer to the truth than those of B by PSNR, LPIPS and Fréchet distance; A’s pictures are further from " \
        "the truth than those of B+ by PSNR, LPIPS and Fréchet distance;" in pictures.sentence  # fmt: skip
    assert surprise.mark == "A ahead of B, behind B+"
    assert (
        "bar A is right more often than B; in sight and behind a bar A is right less often than B+" in surprise.sentence
    )
    for rows in (found["pictures"]["tasks"]["forward"], found["distance"]["rows"], found["surprise"]["rows"]):
        del rows["pixels_plus"]
    alone = [verdicts(judge(found))[i] for i in (1, 4)]
    assert [verdict.mark for verdict in alone] == ["A ahead"] * 2 and not any("B+" in v.sentence for v in alone)


def test_pooled_over_seeds() -> None:
    values = (22.3, 22.9, 21.8)
    name = "pictures__tasks__forward__jepa__psnr"
    found = figures(seeded(*(paired(metrics(**{name: est(value, n=60 + i)})) for i, value in enumerate(values))))
    pooled, mean = found[PSNR.format("jepa")], sum(values) / 3
    apart = stats.t.interval(0.95, 2, mean, stats.sem(values))[1] - mean
    assert pooled.value == pytest.approx(mean) and pooled.n == 60
    assert pooled.high == pytest.approx(mean + math.hypot(0.1, apart))
    assert pooled.low == pytest.approx(mean - math.hypot(0.1, apart))
    gap = found[PSNR.format("jepa-pixels")]
    assert gap.value == pytest.approx(mean - 18.3) and gap.high == pytest.approx(gap.value + math.hypot(0.001, apart))
    alike = found["surprise/rows/jepa/event/all/all"]  # what all seeds say alike stays as it was
    assert (alike.value, alike.low, alike.high) == (pytest.approx(0.8), pytest.approx(0.75), pytest.approx(0.85))
    shares = figures(seeded(*(metrics(surprise__rows__jepa=surprised(value)) for value in (0.6, 0.95))))
    assert shares["surprise/rows/jepa/event/all/all"].high == 1  # a share
    partial = seeded(metrics(), metrics(**{name: est(None)}))
    assert figures(partial)[PSNR.format("jepa")].value is None  # the first seed's is no mean
    assert figures(partial)["by_seed/0/" + PSNR.format("jepa")].value == 22.3
    assert figures(partial)["seconds/total"].value == 4211.5


def test_what_is_read_off_pictures_is_judged_beyond_chance() -> None:
    found = paired(metrics())
    rows = found["rollout"]["rows"], found["physics"]["permanence"]["rows"], found["physics"]["interaction"]["rows"]
    for entry in (*rows[0]["jepa-pixels"]["error_beyond"], *rows[0]["jepa-pixels"]["colour_beyond"]):
        entry.update(est(0.0, 0.1))
    rows[1]["jepa-pixels"]["returned_beyond"] = rows[2]["jepa-pixels"]["error_beyond"] = est(0.0, 0.1)
    told = verdicts(judge(found))
    assert "whether A keeps the object’s place and the object’s colour better than B is undecided" in told[2].sentence
    words = "against B nothing is decided at bringing a hidden object back and the velocity after a collision"
    assert words in told[3].sentence
    for row in (row for part in rows for row in part.values()):  # as it was measured before
        for key in [key for key in row if key.endswith(("_beyond", "_chance"))]:
            del row[key]
    told = verdicts(judge(found))
    assert "A keeps the object’s place, the object’s colour and" in told[2].sentence
    assert "A is better than B and B+ at bringing a hidden object back, the colour of what" in told[3].sentence


def lead(first: float, last: float, seeds: int = 1) -> Verdict:
    """A dial along which A's PSNR less B's goes from `first` to `last`; everything else stands still."""
    ends = []
    for value in (first, last):
        found = paired(metrics())
        found["pictures"]["tasks"]["forward"]["jepa-pixels"]["psnr"] = est(value, 0.3)
        ends.append(found if seeds == 1 else seeded(*[found] * seeds))
    swap = swept((1.0, ends[1]), (0.5, paired(metrics())), (0.0, ends[0]))  # in any order
    verdict = dial(judge(swap), [1.0, 0.5, 0.0], "event")
    once = ", in one training at each" if seeds == 1 else ""
    assert verdict is not None and verdict.sentence.startswith(f"From detail 0 to 1{once}, ")
    return verdict


@pytest.mark.parametrize(("first", "last", "mark", "words"), [
    (1.0, 2.0, "For A in part", "A’s lead over B grows in PSNR;"),
    (-2.0, 2.0, "For A in part", "A’s lag behind B becomes a lead in PSNR;"),
    (2.0, -2.0, "Against A in part", "A’s lead over B becomes a lag in PSNR;"),
    (-2.0, -1.0, "For A in part", "A’s lag behind B shrinks in PSNR;"),
    (2.0, 1.0, "Against A in part", "A’s lead over B shrinks in PSNR;"),
    (-1.0, -2.0, "Against A in part", "A’s lag behind B grows in PSNR;"),
    (0.1, 2.0, "For A in part", "on B A gains in PSNR;"),
    (-2.0, 0.1, "For A in part", "on B A gains in PSNR;"),
    (2.0, -0.1, "Against A in part", "to B A loses in PSNR;"),
    (0.1, -2.0, "Against A in part", "to B A loses in PSNR;"),
    (1.0, 1.4, "No certain change", "between A and B there is no certain change in PSNR,"),
])  # fmt: skip
def test_the_dial_tells_leads_from_lags(first: float, last: float, mark: str, words: str) -> None:
    verdict = lead(first, last)
    assert verdict.mark == mark and words in verdict.sentence, verdict.sentence
    assert "A and B+ there is no certain change in PSNR, PSNR to the clean scene, LPIPS" in verdict.sentence
    number = next(measure for measure in verdict.measures if measure.title == "PSNR, dB").numbers[0]
    assert number.name == "detail/change/pictures/tasks/forward/jepa-pixels/psnr"
    half = math.hypot(0.3, 0.3)  # the ends are independent
    change = last - first
    form = signed(one)
    assert number.text == f"{form(change)} [{form(change - half)}, {form(change + half)}]"


def test_what_one_end_lacks_is_left_out() -> None:
    whole, older = paired(metrics()), paired(metrics())
    for row in older["pictures"]["tasks"]["forward"].values():
        row.pop("expected_clean_psnr", None)
    for ends, told in (((whole, whole), True), ((older, whole), False), ((older, older), False)):
        verdict = dial(judge(swept((0.0, ends[0]), (1.0, ends[1]))), [0.0, 1.0], "event")
        assert verdict is not None and ("PSNR to the clean scene" in verdict.sentence) is told


def test_seeds_along_the_dial() -> None:
    assert lead(-2.0, -1.0, seeds=2).sentence == lead(-2.0, -1.0).sentence.replace(", in one training at each", "")


def test_lower_is_better_along_the_dial_too() -> None:
    ends = [paired(metrics(), pixels=value) for value in (-0.2, -0.4)]
    verdict = dial(judge(swept((0.0, ends[0]), (1.0, ends[1]))), [0.0, 1.0], "event")
    assert verdict is not None and verdict.mark == "Mixed"
    assert "A’s lead over B grows in LPIPS and Fréchet distance;" in verdict.sentence
    assert "A’s lag behind B grows in PSNR, PSNR to the clean scene, the place of the object" in verdict.sentence
    assert "hidden objects that come back, the velocity after a collision, surprise in sight and" in verdict.sentence
    unpaired = dial(judge(swept((0.0, metrics()), (1.0, metrics()))), [0.0, 1.0], "event")
    words = "From detail 0 to 1, in one training at each, the arms were not compared clip by clip."
    assert unpaired is not None and unpaired.sentence == words
    assert dial(judge(metrics()), [], "event") is None
