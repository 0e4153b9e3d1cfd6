"""What a comparison found, in five sentences, each chosen by rule from the numbers that stand beside it.

Notable: the rule is that of `judge`, which says just as plainly that the JEPA lost or that nothing is decided.
"""

from collections.abc import Mapping

from decoder.compare.figures import Figure
from decoder.compare.judge import Judge, Verdict, judged, tell
from decoder.compare.labels import ARMS, ENCODERS, minus, one, operations, pick, share, three, two, whole

ALIKE = 0.02  # share by which two arms may differ and still count as equally large
GONE = 0.05  # share of frames with an object, below which it is lost


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
            0: "whether A’s or C’s frozen features name {} better is undecided, as the intervals overlap",
            None: "A’s and C’s features were not compared by {}",
        }),
        tell(untrained, {
            1: "an untrained encoder’s know less of {} than A’s",
            -1: "an untrained encoder’s know more of {} than A’s",
            0: "A’s are not certainly better than an untrained encoder’s for {}",
        }),
    ]  # fmt: skip
    measures = [
        judge.measure(noun.capitalize(), ENCODERS, lambda encoder, task=task: at(task, encoder), share)  # type: ignore[misc]
        for noun, task in tasks.items()
    ]
    return judged("What features know", list(rivals.values()), "C", clauses, measures)


def final(figures: Mapping[str, Figure], task: str, encoder: str) -> str:
    """The name of an encoder's accuracy with all labels at the end of its training."""
    name, along = f"representation/labels/{task}/{encoder}/1", f"representation/steps/{task}/{encoder}/"
    steps = [key for key in figures if key.startswith(along) and "/" not in key.removeprefix(along)]
    return name if name in figures or not steps else steps[-1]


def _pictures(judge: Judge) -> Verdict:
    at = lambda arm, key: f"distance/rows/{arm}/{key}" if key == "fvd" else f"pictures/tasks/forward/{arm}/{key}"
    keys = {"PSNR": ("psnr", False), "LPIPS": ("lpips", True), "Fréchet distance": ("fvd", True)}
    rivals = {noun: judge.versus(at("jepa", key), at("pixels", key), lower) for noun, (key, lower) in keys.items()}
    psnr = lambda arm, other: judge.versus(at(arm, "psnr"), at(other, "psnr"))
    clauses = [
        tell(rivals, {
            1: "A’s pictures are closer to the truth than B’s by {}",
            -1: "B’s pictures are closer to the truth than A’s by {}",
            0: "by {} it is undecided whose pictures are closer to the truth, A’s or B’s, as the intervals overlap",
            None: "not measured: {}",
        }),
        tell({"B+": psnr("jepa", "pixels_plus"), "D": psnr("jepa", "futures")}, {
            1: "by PSNR A is ahead of {}",
            -1: "by PSNR A is behind {}",
            0: "by PSNR nothing is decided between A and {}",
        }),
        tell({"A": psnr("jepa", "copy"), "B": psnr("pixels", "copy")}, {
            1: "the nearest visible frame, repeated, is further from the truth than {}",
            -1: "the nearest visible frame, repeated, is closer to it than {}",
            0: "the nearest visible frame, repeated, cannot be told from {}",
        }),
    ]  # fmt: skip
    arms = pick("jepa", "pixels", "pixels_plus", "futures", "copy", "target")
    measures = [
        judge.measure("PSNR, dB", arms, lambda arm: at(arm, "psnr"), one),
        judge.measure("LPIPS, lower is closer", arms, lambda arm: at(arm, "lpips"), three),
        judge.measure("Fréchet video distance, lower is closer", arms, lambda arm: at(arm, "fvd"), one),
    ]
    return judged("Predicted pictures", list(rivals.values()), "B", clauses, measures)


def _coherence(judge: Judge) -> Verdict:
    begin = last_length(judge.figures)
    at = lambda arm, key: f"rollout/rows/{arm}/{key}/{begin}"
    keys = {"the place of the object": ("error", True), "its colour": ("colour", False),
            "the number of objects": ("count", False)}  # fmt: skip
    rivals = {noun: judge.versus(at("jepa", key), at("pixels", key), lower) for noun, (key, lower) in keys.items()}
    lengths = (judge.value("rollout/frames") or 0) / (judge.value("rollout/clip_frames") or 1)
    two_arms = pick("jepa", "pixels")
    clauses = ["predictions fed back were not measured"]
    if begin:
        still = {x.letter: judge.versus(at(arm, "error"), at("copy", "error"), True) for arm, x in two_arms.items()}
        lost = {x.letter: judge.versus(at(arm, "found"), GONE) for arm, x in two_arms.items()}
        compared = tell(rivals, {
            1: "A keeps {} better than B",
            -1: "B keeps {} better than A",
            0: "it is undecided whether A or B keeps {} better, as the intervals overlap",
            None: "{} could not be compared",
        })  # fmt: skip
        clauses = [
            f"in the last of {lengths:.0f} clip lengths of predictions fed back, {compared}",
            tell(lost, {-1: "by then the object is gone from the pictures of {}"}),
            tell(still, {
                1: "a picture that stands still is further off than {}",
                -1: "a picture that stands still is less far off than {}",
                0: "a picture that stands still cannot be told from {} by the place",
            }),
        ]  # fmt: skip
    arms = pick("jepa", "pixels", "pixels_plus", "futures", "copy", "truth")
    measures = [
        judge.measure("Error of the place, pixels", arms, lambda arm: at(arm, "error"), two),
        judge.measure("Right number of objects, share of frames", arms, lambda arm: at(arm, "count"), share),
    ]
    return judged("Coherence over time", list(rivals.values()), "B", clauses, measures)


def last_length(figures: Mapping[str, Figure]) -> str:
    """'first=FRAME' of the last clip length of the roll-outs, '' where there are none."""
    begins = [name.rpartition("/")[2] for name in figures if name.startswith("rollout/rows/jepa/error/")]
    return max(begins, key=lambda begin: float(begin.removeprefix("first=")), default="")


def _physics(judge: Judge) -> Verdict:
    at = lambda arm, claim, key: f"physics/{claim}/rows/{arm}/{key}"
    keys = {
        "bringing a hidden object back": ("permanence", "returned", False),
        "its colour afterwards": ("permanence", "colour", False),
        "the velocity after a collision": ("interaction", "error", True),
    }
    rivals = {
        noun: judge.versus(at("jepa", claim, key), at("pixels", claim, key), lower)
        for noun, (claim, key, lower) in keys.items()
    }
    clauses = [tell(rivals, {
        1: "A is better than B at {}",
        -1: "B is better than A at {}",
        0: "nothing is decided between A and B at {}, as the intervals overlap",
        None: "{} could not be compared",
    })]  # fmt: skip
    arms = pick("jepa", "pixels", "pixels_plus", "futures", "copy", "truth")
    measures = [
        judge.measure("Hidden objects that come back", arms, lambda arm: at(arm, "permanence", "returned"), share),
        judge.measure("Velocity found after a collision", arms, lambda arm: at(arm, "interaction", "found"), share),
        judge.measure("Its error, pixels a frame", arms, lambda arm: at(arm, "interaction", "error"), two),
    ]
    return judged("Permanence and interaction", list(rivals.values()), "B", clauses, measures)


def surprise_score(figures: Mapping[str, Figure]) -> str:
    """The score that the verdict is about: of the windows in which only what comes differs, where there are some."""
    figure = figures.get("surprise/rows/jepa/event/all/all")
    return "event" if figure is not None and figure.value is not None else "mean"


def _surprise(judge: Judge) -> Verdict:
    score = surprise_score(judge.figures)
    at = lambda arm: f"surprise/rows/{arm}/{score}/all/all"
    untrained = [arm for arm in (f"random_{i}" for i in range(100)) if judge.value(at(arm)) is not None]
    rival = judge.versus(at("jepa"), at("pixels"))
    controls = {"copying": judge.versus(at("jepa"), at("copy")),
                "untrained encoders": judge.versus(at("jepa"), [at(arm) for arm in untrained])}  # fmt: skip
    clauses = [
        tell({arm.letter: judge.versus(at(key), 0.5) for key, arm in pick("jepa", "pixels").items()}, {
            1: "impossible videos surprise {} more often than chance allows",
            -1: "possible videos surprise {} more than impossible ones",
            0: "for {} chance is not excluded",
            None: "the surprise of {} was not measured",
        }),
        tell({"": rival}, {
            1: "A is right more often than B",
            -1: "B is right more often than A",
            0: "between A and B nothing is decided, as the intervals overlap",
        }),
        tell(controls, {
            1: "A is right more often than {}",
            -1: "A is right less often than {}",
            0: "A is not certainly better than {}",
        }),
    ]  # fmt: skip
    arms = pick("jepa", "pixels", "pixels_plus", "futures", "masked_pixels", "copy")
    arms |= dict.fromkeys(untrained, ARMS["random"])
    title = f"Pairs judged rightly, score “{score}”, chance 50\u00a0%"
    return judged("Surprise", [rival], "B", clauses, [judge.measure(title, arms, at, share)])


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
