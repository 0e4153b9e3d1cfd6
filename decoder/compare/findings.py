"""What a comparison found, in five sentences, each chosen by rule from the numbers that stand beside it.

Notable:
- The rule is that of `judge`, which says just as plainly that the JEPA lost or that nothing is decided.
- What A is compared with B in, it is compared with B+ in too: B has the operations of A's decoder, B+ those of A's
  pretraining as well.
"""

from collections.abc import Callable, Mapping

from decoder.compare.figures import Figure
from decoder.compare.judge import SPLIT, Judge, Outcome, Verdict, judged, listed, tell
from decoder.compare.labels import (
    ARMS,
    CONDITIONS,
    ENCODERS,
    IN_PIXELS,
    minus,
    one,
    operations,
    pick,
    share,
    three,
    two,
    whole,
)

ALIKE = 0.02  # share by which two arms may differ and still count as equally large
DRAWN = ("pictures", "distance")  # stages whose figures mean little without the size of the pictures
GONE = 0.05  # share of frames with an object, below which it is lost


Rivals = Mapping[str, Mapping[str, Outcome]]  # {letter of a rival: {what was compared: how A stands}}
Keys = Mapping[str, tuple[str, bool]]  # {what is compared: (the figure's name with ARM in it, whether lower is better)}


def verdicts(judge: Judge) -> list[Verdict]:
    """The five: features, pictures, coherence, permanence and interaction, surprise."""
    return [_features(judge), _pictures(judge), _coherence(judge), _physics(judge), _surprise(judge)]


def _features(judge: Judge) -> Verdict:
    tasks = {"the motion": "motion", "the shape": "appearance"}
    at = lambda task, encoder: final(judge.figures, task, encoder)
    rivals = {noun: judge.versus(at(task, "jepa"), at(task, "masked_pixels")) for noun, task in tasks.items()}
    untrained = {noun: judge.versus(at(task, "jepa"), at(task, "random")) for noun, task in tasks.items()}
    clauses = [
        tell(rivals, {
            1: "A’s frozen features name {} better than C’s",
            -1: "C’s frozen features name {} better than A’s",
            0: "whether A’s or C’s frozen features name {} better is undecided",
            SPLIT: "the seeds disagree on whether A’s or C’s frozen features name {} better",
            None: "A’s and C’s features were not compared by {}",
        }),
        tell(untrained, {
            1: "an untrained encoder’s know less of {} than A’s",
            -1: "an untrained encoder’s know more of {} than A’s",
            0: "A’s are not certainly better than an untrained encoder’s for {}",
            SPLIT: "the seeds disagree on whether A’s are better than an untrained encoder’s for {}",
        }),
    ]  # fmt: skip
    measures = [
        judge.measure(noun.capitalize(), ENCODERS, lambda encoder, task=task: at(task, encoder), share)  # type: ignore[misc]
        for noun, task in tasks.items()
    ]
    return judged("What features know", {"C": rivals}, clauses, measures)


def final(figures: Mapping[str, Figure], task: str, encoder: str) -> str:
    """The name of an encoder's accuracy with all labels at the end of its training."""
    name, along = f"representation/labels/{task}/{encoder}/1", f"representation/steps/{task}/{encoder}/"
    if name in figures:
        return name
    steps = [key for key in figures if key.startswith(along) and "/" not in key.removeprefix(along)]
    return steps[-1] if steps else name


def _against(judge: Judge, keys: Keys) -> Rivals:
    """How A stands against B, and against B+ where anything was measured of it."""
    found: dict[str, dict[str, Outcome]] = {}
    for arm, label in pick("pixels", "pixels_plus").items():
        outcomes = {noun: _versus(judge, name, "jepa", arm, lower) for noun, (name, lower) in keys.items()}
        if arm == "pixels" or any(outcome is not None for outcome in outcomes.values()):
            found[label.letter] = outcomes
    return found


def _versus(judge: Judge, name: str, arm: str, other: str, lower: bool = False) -> Outcome:
    return judge.versus(name.replace("ARM", arm), name.replace("ARM", other), lower)


def _clauses(rivals: Rivals, phrases: Mapping[Outcome, str]) -> list[str]:
    """A clause for everything that came out alike, with the rivals and what was compared in place of {who} and {what}.

    What could be compared with no rival is said of the first alone.
    """
    first = next(iter(rivals.values()))
    clauses = []
    for outcome, phrase in phrases.items():
        groups: dict[str, list[str]] = {}  # {what was compared: the rivals against which it came out so}
        for letter, of in rivals.items():
            nouns = [noun for noun, found in of.items() if found == outcome]
            if outcome is None and of is not first:
                nouns = [noun for noun in nouns if first[noun] is not None]
            if nouns:
                groups.setdefault(listed(nouns), []).append(letter)
        clauses += [phrase.format(who=listed(letters), what=what) for what, letters in groups.items()]
    return clauses


def resolution(figures: Mapping[str, Figure], stage: str) -> str:
    """'8 frames of 32 × 32 pixels', what a stage's pictures are; '' where it does not say."""
    known = [figures.get(f"{stage}/{key}") for key in ("frames", "size/1", "size/0")]
    numbers = [whole(figure.value) for figure in known if figure is not None and figure.value is not None]
    return "{} frames of {} × {} pixels".format(*numbers) if len(numbers) == 3 else ""


def _pictures(judge: Judge) -> Verdict:
    psnr, lpips = "pictures/tasks/forward/ARM/psnr", "pictures/tasks/forward/ARM/lpips"
    fvd = "distance/rows/ARM/fvd"
    rivals = _against(judge, {"PSNR": (psnr, False), "LPIPS": (lpips, True), "Fréchet distance": (fvd, True)})
    clauses = [
        *_clauses(rivals, {
            1: "A’s pictures are closer to the truth than those of {who} by {what}",
            -1: "A’s pictures are further from the truth than those of {who} by {what}",
            0: "by {what} nothing is decided against {who}",
            SPLIT: "by {what} the seeds disagree on A against {who}",
            None: "A’s pictures were not compared with those of {who} by {what}",
        }),
        tell({"D": _versus(judge, psnr, "jepa", "futures")}, {
            1: "by PSNR A is ahead of {}",
            -1: "by PSNR A is behind {}",
            0: "by PSNR nothing is decided between A and {}",
            SPLIT: "by PSNR the seeds disagree on A and {}",
        }),
        *_copying(judge, {"PSNR": (psnr, False), "LPIPS": (lpips, True)}),
    ]  # fmt: skip
    arms = pick("jepa", "pixels", "pixels_plus", "futures", "copy", "target")
    drawn, compared = (f"; {text}" * bool(text) for text in (resolution(judge.figures, s) for s in DRAWN))
    measures = [
        judge.measure(f"PSNR, dB{drawn}", arms, lambda arm: psnr.replace("ARM", arm), one),
        judge.measure(f"LPIPS, lower is closer{drawn}", arms, lambda arm: lpips.replace("ARM", arm), three),
        judge.measure(
            f"Fréchet video distance, lower is closer{compared}", arms, lambda arm: fvd.replace("ARM", arm), whole
        ),
    ]
    return judged("Predicted pictures", rivals, clauses, measures)


def _copying(judge: Judge, keys: Keys) -> list[str]:
    """A picture that stands still against A, B and B+, by every measure that there is."""
    found: dict[str, dict[str, Outcome]] = {}
    for by, (name, lower) in keys.items():
        arms = pick("jepa", "pixels", "pixels_plus")
        found[by] = {label.letter: _versus(judge, name, arm, "copy", lower) for arm, label in arms.items()}
    if len({tuple(outcomes.values()) for outcomes in found.values()}) == 1:
        found = {listed(list(found)): next(iter(found.values()))}
    clauses = []
    for by, outcomes in found.items():
        standing = tell(outcomes, {
            1: "further from the truth than {}",
            -1: "closer to the truth than {}",
            0: "not to be told from {}",
            SPLIT: "judged differently by the seeds against {}",
        }, ", ")  # fmt: skip
        clauses.append(f"by {by} the nearest visible frame, repeated, is {standing}" if standing else "")
    return clauses


def _coherence(judge: Judge) -> Verdict:
    begin = last_length(judge.figures)
    at = lambda key: f"rollout/rows/ARM/{key}/{begin}"
    place, colour = _beyond(judge, at, "error", lower=True), _beyond(judge, at, "colour")
    rivals = _against(judge, {"the object’s place": place, "the object’s colour": colour,
                              "the number of objects": (at("count"), False)})  # fmt: skip
    lengths = (judge.value("rollout/frames") or 0) / (judge.value("rollout/clip_frames") or 1)
    clauses = ["predictions fed back were not measured"]
    if begin:
        three_arms = pick("jepa", "pixels", "pixels_plus").items()
        still = {label.letter: _versus(judge, place[0], arm, "copy", place[1]) for arm, label in three_arms}
        lost = {x.letter: judge.versus(at("found").replace("ARM", arm), GONE) for arm, x in three_arms}
        first, *others = _clauses(rivals, {
            1: "A keeps {what} better than {who}",
            -1: "A keeps {what} worse than {who}",
            0: "whether A keeps {what} better than {who} is undecided",
            SPLIT: "the seeds disagree on whether A keeps {what} better than {who}",
            None: "A could not be compared with {who} by {what}",
        })  # fmt: skip
        clauses = [
            f"in the last of {lengths:.0f} clip lengths of predictions fed back, {first}",
            *others,
            tell(lost, {-1: "by then the object is gone from the pictures of {}"}),
            tell(still, {
                1: "a picture that stands still is further off than {}",
                -1: "a picture that stands still is less far off than {}",
                0: "a picture that stands still cannot be told from {} by the place",
                SPLIT: "the seeds disagree on whether a picture that stands still is further off than {}",
            }),
        ]  # fmt: skip
    arms = pick("jepa", "pixels", "pixels_plus", "futures", "copy", "truth")
    measures = [
        judge.measure("Error of the place, pixels", arms, lambda arm: at("error").replace("ARM", arm), two),
        judge.measure("How much less than by chance", arms, lambda arm: at("error_beyond").replace("ARM", arm), two),
        judge.measure(
            "Object found, of its colour, beyond chance",
            arms,
            lambda arm: at("colour_beyond").replace("ARM", arm),
            share,
        ),
        judge.measure(
            "Right number of objects, share of frames", arms, lambda arm: at("count").replace("ARM", arm), share
        ),
    ]
    return judged("Coherence over time", rivals, clauses, measures)


def _beyond(judge: Judge, at: Callable[[str], str], key: str, lower: bool = False) -> tuple[str, bool]:
    """The name of a score beyond chance, where it was measured, or else of the score; and whether lower is better.

    A picture full of sprites has one near every place.
    """
    beyond = at(f"{key}_beyond")
    return (at(key), lower) if judge.value(beyond.replace("ARM", "jepa")) is None else (beyond, False)


def last_length(figures: Mapping[str, Figure]) -> str:
    """'first=FRAME' of the last clip length of the roll-outs, '' where there are none."""
    begins = [name.rpartition("/")[2] for name in figures if name.startswith("rollout/rows/jepa/error/")]
    return max(begins, key=lambda begin: float(begin.removeprefix("first=")), default="")


def _physics(judge: Judge) -> Verdict:
    hidden, hit = (
        lambda key, claim=claim: f"physics/{claim}/rows/ARM/{key}" for claim in ("permanence", "interaction")
    )
    returned, error = _beyond(judge, hidden, "returned"), _beyond(judge, hit, "error", lower=True)
    rivals = _against(judge, {"bringing a hidden object back": returned,
                              "the colour of what comes back": _beyond(judge, hidden, "colour"),
                              "the velocity after a collision": error})  # fmt: skip
    clauses = _clauses(rivals, {
        1: "A is better than {who} at {what}",
        -1: "A is worse than {who} at {what}",
        0: "against {who} nothing is decided at {what}",
        SPLIT: "the seeds disagree on whether A is better than {who} at {what}",
        None: "A could not be compared with {who} at {what}",
    })  # fmt: skip
    arms = pick("jepa", "pixels", "pixels_plus", "futures", "copy", "truth")
    measures = [
        judge.measure(title, arms, lambda arm, name=name: name.replace("ARM", arm), form)  # type: ignore[misc]
        for title, name, form in (
            ("Hidden objects that come back", hidden("returned"), share),
            ("More than by chance", hidden("returned_beyond"), share),
            ("Velocity found after a collision", hit("found"), share),
            ("Its error, pixels a frame", hit("error"), two),
            ("How much less than by chance", hit("error_beyond"), two),
        )
    ]
    return judged("Permanence and interaction", rivals, clauses, measures)


def surprise_score(figures: Mapping[str, Figure]) -> str:
    """The score that the verdict is about: of the windows in which only what comes differs, where there are some."""
    figure = figures.get("surprise/rows/jepa/event/all/all")
    return "event" if figure is not None and figure.value is not None else "mean"


def _surprise(judge: Judge) -> Verdict:
    score = surprise_score(judge.figures)
    at = lambda arm, where: f"surprise/rows/{arm}/{score}/all/{where}"
    wheres = [where for where in CONDITIONS if judge.value(at("jepa", where)) is not None] or ["all"]
    arms = pick("jepa", "pixels", "pixels_plus", "futures", "masked_pixels", "copy") | IN_PIXELS
    untrained = [arm for arm in (f"random_{i}" for i in range(100)) if judge.value(at(arm, "all")) is not None]

    def each(outcome: Callable[[str], Outcome]) -> dict[str, Outcome]:
        return {CONDITIONS.get(where, ""): outcome(where) for where in wheres}

    rivals = _against(judge, {CONDITIONS.get(where, ""): (at("ARM", where), False) for where in wheres})
    known = pick("jepa", *(arm for arm in ("pixels", "pixels_plus") if ARMS[arm].letter in rivals))
    chance = {label.letter: each(lambda where, arm=arm: judge.versus(at(arm, where), 0.5))  # type: ignore[misc]
              for arm, label in known.items()}  # fmt: skip
    controls = {
        "copying": each(lambda where: judge.versus(at("jepa", where), at("copy", where))),
        "untrained encoders": each(
            lambda where: judge.versus(at("jepa", where), [at(arm, where) for arm in untrained])
        ),
    }
    than: dict[Outcome, str] = {
        1: "{what} A is right more often than {who}",
        -1: "{what} A is right less often than {who}",
        0: "{what} nothing is decided between A and {who}",
        SPLIT: "{what} the seeds disagree on whether A is right more often than {who}",
    }
    clauses = [
        *_clauses(chance, {
            1: "{what} impossible videos surprise {who} more often than chance allows",
            -1: "{what} possible videos surprise {who} more than impossible ones",
            0: "{what} chance is not excluded for {who}",
            SPLIT: "{what} the seeds disagree on whether impossible videos surprise {who} more often than chance",
            None: "{what} the surprise of {who} was not measured",
        }),
        *_clauses(rivals, than),
        *_clauses(controls, than),
    ]  # fmt: skip
    arms |= dict.fromkeys(untrained, ARMS["random"])
    measures = [
        judge.measure(f"Pairs {title} judged rightly, score “{score}”, chance 50\u00a0%".replace("  ", " "), arms,
                      lambda arm, where=where: at(arm, where), share)  # type: ignore[misc]
        for where in wheres for title in [CONDITIONS.get(where, "")]
    ]  # fmt: skip
    return judged("Surprise", rivals, [clause.strip() for clause in clauses], measures)


def fairness(judge: Judge) -> str:
    """How equal the arms were, from what was counted."""
    at = lambda arm, key: judge.value(f"cost/rows/{arm}/{key}")
    size, other = at("jepa", "denoiser_parameters"), at("pixels", "denoiser_parameters")
    work, others = at("jepa", "training_operations"), at("pixels", "training_operations")
    if not size or not other or not work or not others:
        return "What the arms cost was not measured."
    gap = max(abs(size - other) / size, abs(work - others) / work)
    if gap == 0:
        equal = (
            f"A’s decoder and B are denoisers of {whole(size)} parameters each, trained with {operations(work)} each."
        )
    else:
        within = "within the" if gap <= ALIKE else "more than the"
        equal = (
            f"A’s decoder and B are denoisers of {whole(size)} and {whole(other)} parameters, trained with "
            f"{operations(work)} and {operations(others)}: a difference of {share(gap)}, {within} 2\u00a0% allowed."
        )
    extra, plus = at("jepa", "pretraining_operations"), at("pixels_plus", "training_operations")
    if not extra:
        return minus(equal)
    given = f"; B+ was given as many on top, {operations(plus)} in all" if plus else ""
    return minus(f"{equal} Pretraining the JEPA took {operations(extra)} more{given}.")
