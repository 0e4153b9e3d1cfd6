"""What the demo found, in words.

Notable: every sentence that judges is chosen by rule from the numbers of metrics.json, and says so just as plainly when
something did not work.
"""

from dataclasses import dataclass
from typing import Any

GOAL_TARGET = 25.0  # dB that decode(target) must reach
GOAL_GAP = 2.0  # dB that decode(predicted) must lie above decode(mean)
REPRESENTATIONS = {"jepa": "JEPA", "random": "untrained encoder", "pixels": "raw pixels"}


@dataclass(frozen=True)
class Finding:
    """Something the demo should show, whether it did, and the numbers."""

    holds: bool
    claim: str
    numbers: str


def beats(better: dict[str, Any], worse: dict[str, Any]) -> bool:
    """Whether one accuracy lies above another with 95 % intervals that do not overlap."""
    return bool(better["ci95"][0] > worse["ci95"][1])


def findings(m: dict[str, Any]) -> list[Finding]:
    """What the demo must show, one by one, judged by rule."""
    found = []
    for task, what in (("motion", "which motion a clip shows"), ("appearance", "which shape moves in it")):
        jepa, random = m["probe"][task]["jepa"], m["probe"][task]["random"]
        holds = beats(jepa, random)
        verb = "know better than untrained ones" if holds else "do not clearly know better than untrained ones"
        how = "" if holds else "; the intervals overlap" if jepa["ci95"][1] >= random["ci95"][0] else "; they know less"
        numbers = f"{_scored(jepa)} against {_scored(random)}, chance {percent(m['probe'][task]['chance'])}{how}"
        found.append(Finding(holds, f"Trained features {verb} {what}", numbers))
    skill, decode = m["skill"], m["decode"]
    holds = skill["vs_copy"] > 0 and skill["vs_mean"] > 0
    numbers = (
        f"{_less(skill['vs_copy'])} error than the last visible latent at the same place, "
        f"{_less(skill['vs_mean'])} than the mean latent"
    )
    claim = "Predicted latents beat" if holds else "Predicted latents do not beat"
    found.append(Finding(holds, f"{claim} both ways of not predicting", numbers))
    gap, copied = decode["predicted_minus_mean"], decode["predicted_minus_copy"]
    holds = gap["db"] >= GOAL_GAP
    short = "" if holds else f", and {GOAL_GAP:g} dB were asked for"
    numbers = (
        f"{difference(gap)} against decode(mean){short}; "
        f"{difference(copied)} against repeating the nearest visible frame"
    )
    claim = "are closer" if holds else "are only a little closer" if gap["ci95"][0] > 0 else "are no closer"
    found.append(Finding(holds, f"Decoded predictions {claim} to the truth than decode(mean)", numbers))
    holds = decode["target_psnr"] >= GOAL_TARGET
    claim = "draws what a latent says" if holds else "does not yet draw all that a latent says"
    numbers = f"decode(target) {decode['target_psnr']:.1f} dB; goal {GOAL_TARGET:g} dB"
    found.append(Finding(holds, f"The decoder {claim}", numbers))
    waits = m["data_wait_fraction"]
    claim = "Reading videos is not" if waits <= 0.1 else "Reading videos is"
    numbers = f"pretraining waited for data {percent(waits)} of its time"
    found.append(Finding(waits <= 0.1, f"{claim} the bottleneck", numbers))
    return found


def headline(m: dict[str, Any]) -> str:
    """The result in two plain sentences."""
    gap, copied = m["decode"]["predicted_minus_mean"], m["decode"]["predicted_minus_copy"]
    if copied["ci95"][0] <= 0 <= copied["ci95"][1]:
        against = "no closer to it than the last visible frame repeated"
    else:
        where = "closer to" if copied["db"] > 0 else "further from"
        against = f"{abs(copied['db']):.1f} dB {where} it than the last visible frame repeated"
    if gap["ci95"][0] <= 0:
        seen = (
            "In this run, pictures decoded from predicted latents are no closer to the truth than a picture that knows "
            "nothing of the clip"
        )
    else:
        weak = "" if gap["db"] >= GOAL_GAP else "only "
        seen = (
            "Shown the first half of clips it never trained on, the model predicts the second half: decoded, its "
            f"predictions are {weak}{gap['db']:.1f} dB closer to the truth than a picture that knows nothing of it"
        )
    link = "and" if (gap["ci95"][0] > 0) == (copied["ci95"][0] > 0) else "but"
    return f"{seen}, {link} {against}. {_probe_sentence(m['probe'])}"


def _probe_sentence(probe: dict[str, Any]) -> str:
    known = {task: (probe[task]["jepa"], probe[task]["random"]) for task in ("motion", "appearance")}
    noun = {"motion": "the motion", "appearance": "the shape"}
    won = [task for task, pair in known.items() if beats(*pair)]
    numbers = {t: f"{percent(a['accuracy'])} of clips, against {percent(b['accuracy'])}" for t, (a, b) in known.items()}
    if len(won) == 2:
        return (
            f"Its frozen features name the motion in {numbers['motion']} untrained, and the shape in "
            f"{numbers['appearance']}."
        )
    if not won:
        return (
            "Its frozen features do not clearly know more than those of an untrained encoder: they name the motion in "
            f"{numbers['motion']}, and the shape in {numbers['appearance']}."
        )
    other = "appearance" if won == ["motion"] else "motion"
    return (
        f"Its frozen features name {noun[won[0]]} in {numbers[won[0]]} untrained; for {noun[other]} no advantage is "
        f"certain ({numbers[other]})."
    )


def summary(m: dict[str, Any]) -> str:
    """The figures that matter, as a few lines of text."""
    lines = []
    for task in ("motion", "appearance"):
        cells = []
        for name, word in REPRESENTATIONS.items():
            low, high = m["probe"][task][name]["ci95"]
            accuracy = percent(m["probe"][task][name]["accuracy"])
            cells.append(f"{word} {accuracy} [{100 * low:.1f}, {100 * high:.1f}]")
        lines.append(f"{task:<11} " + "   ".join(cells))
    decode = m["decode"]
    psnr = "   ".join(f"{row} {decode[f'{row}_psnr']:.1f}" for row in ("target", "predicted", "copy", "mean"))
    lines.append(f"PSNR, dB    {psnr}")
    lines.append(f"skill       against copy {m['skill']['vs_copy']:+.2f}   against mean {m['skill']['vs_mean']:+.2f}")
    lines.append(f"health      {m['health']['verdict']}: {m['health']['sentence']}")
    lines.append(f"time        {duration(m['seconds']['total'])}, waiting for data {percent(m['data_wait_fraction'])}")
    return "\n".join(lines)


def percent(share: float) -> str:
    """0.4823 -> '48.2 %', with a space that does not break."""
    return f"{100 * share:z.1f}\u00a0%"


def duration(seconds: float) -> str:
    """760 -> '12 min 40 s'."""
    if seconds < 60:
        return f"{seconds:.1f}\u00a0s" if seconds < 10 else f"{seconds:.0f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}\u00a0h {minutes}\u00a0min" if hours else f"{minutes}\u00a0min {rest}\u00a0s"


def _scored(result: dict[str, Any]) -> str:
    low, high = result["ci95"]
    return f"{percent(result['accuracy'])} [{100 * low:.1f}, {100 * high:.1f}]"


def difference(found: dict[str, Any]) -> str:
    """{"db": -1.08, "ci95": [-1.5, -0.7]} -> '−1.1 dB [−1.5, −0.7]'."""
    value, low, high = (f"{x:+.1f}".replace("-", "−") for x in (found["db"], *found["ci95"]))
    return f"{value}\u00a0dB [{low}, {high}]"


def _less(skill: float) -> str:
    return f"{percent(abs(skill))} {'less' if skill >= 0 else 'more'}"
