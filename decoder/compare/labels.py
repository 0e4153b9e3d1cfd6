"""What everything in a comparison is called on its report: arms, controls, encoders, scores, and numbers in words."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from decoder.findings import percent

Format = Callable[[float], str]


@dataclass(frozen=True)
class Label:
    """`letter` in sentences, `name` beside it, `colour` a CSS variable; controls go by their name, drawn dashed."""

    letter: str
    name: str
    colour: str
    meaning: str = ""
    control: bool = False

    @property
    def title(self) -> str:
        """What tables and plots call it."""
        return self.name if self.control or not self.letter else f"{self.letter}\u2002{self.name}"


ARMS = {
    "jepa": Label(
        "A", "JEPA, decoded", "jepa",
        "A JEPA, trained without ever drawing a pixel, predicts the latents of what is hidden. A diffusion decoder "
        "draws them: it sees neither the visible pixels nor the answer."),
    "futures": Label(
        "D", "JEPA, sampled", "futures",
        "As A, but instead of one prediction, samples of the latents that may come, drawn by a further flow. The same "
        "decoder."),
    "pixels": Label(
        "B", "pixels", "pixels",
        "The same denoiser as A’s decoder, shown the visible pixels instead of latents: generates pixels directly."),
    "pixels_plus": Label(
        "B+", "pixels, trained longer", "pixels_plus",
        "As B, with the operations that pretraining the JEPA took on top."),
    "masked_pixels": Label(
        "C", "masked pixels", "masked_pixels",
        "The JEPA’s own network and masks, trained to predict pixels instead of latents: the opponent in what features "
        "know. It has no decoder and draws nothing."),
    "copy": Label("copy", "copy", "copy", "No model: the nearest visible frame, repeated.", True),
    "extrapolate": Label(
        "extrapolate", "extrapolate", "extrapolate",
        "No model: the change between the last two visible frames, carried on pixel by pixel.", True),
    "mean": Label(
        "mean", "decode(mean)", "mean",
        "A’s decoder on the average latent of all clips: it knows nothing of this one.", True),
    "target": Label(
        "target", "decode(target)", "target",
        "A’s decoder on the latents of the true clip. It has seen the answer: the best that A could do, and no "
        "prediction.", True),
    "random": Label("untrained", "untrained encoder", "random", "A’s network before any training.", True),
    "truth": Label(
        "truth", "truth", "ink", "The clip itself; in tables of physics, what the detector makes of it.", True),
}  # fmt: skip
ENCODERS = {  # of the linear probes, where `pixels` are not arm B but no model at all
    "jepa": Label("A", "JEPA", "jepa"),
    "masked_pixels": Label("C", "masked pixels", "masked_pixels"),
    "random": ARMS["random"],
    "pixels": Label(
        "raw pixels",
        "raw pixels",
        "ink",
        "The pixels themselves, 8 × 8 a moment: unlike features, which are averaged, they keep where things are.",
        True,
    ),
}
SETS = {"truth": Label("", "other true clips", "ink")} | {k: v for k, v in ARMS.items() if k != "truth"}  # of distances
PAIRS = {  # differences of two arms, clip by clip
    f"{first}-{second}": Label(f"{a} − {b}", "clip by clip", colour)
    for first, a, second, b, colour in (
        ("jepa", "A", "pixels", "B", "pixels"),
        ("jepa", "A", "pixels_plus", "B+", "pixels_plus"),
        ("jepa", "A", "masked_pixels", "C", "masked_pixels"),
    )
}
ENCODER_PAIRS = {  # the same of the linear probes
    "jepa-masked_pixels": PAIRS["jepa-masked_pixels"],
    "jepa-random": Label("A − untrained", "clip by clip", "random"),
    "jepa-pixels": Label("A − raw pixels", "clip by clip", "ink"),
}
UNITS = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))
IN_LATENTS = ("jepa", "futures", "random")  # arms whose surprise is an error of latents
IN_PIXELS = {  # the same arms, judged by what they draw
    "jepa_pixels": Label("A, drawn", "surprised by its pictures", "jepa"),
    "futures_pixels": Label("D, drawn", "surprised by its pictures", "futures"),
}
CONDITIONS = {"sight": "in sight", "behind": "behind a bar"}  # where the impossible happens
PROBES = {"motion": "Motion: which way does it move?", "appearance": "Appearance: which shape is it?"}


def two(value: float) -> str:
    """-1.234 -> '−1.23'."""
    return minus(f"{value:z.2f}")


def one(value: float) -> str:
    """-1.234 -> '−1.2'."""
    return minus(f"{value:z.1f}")


def three(value: float) -> str:
    """0.12345 -> '0.123'."""
    return minus(f"{value:z.3f}")


def whole(value: float) -> str:
    """1234567 -> '1,234,567'."""
    return minus(f"{value:z,.0f}")


def significant(value: float) -> str:
    """Three significant digits, without an exponent: 1234.5 -> '1,234', 0.01234 -> '0.0123'."""
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return minus(f"{value:,.{min(digits, 9)}f}")


def signed(form: Format) -> Format:
    """1.2 -> '+1.2', for differences."""
    return lambda value: f"+{form(value)}" if value > 0 else form(value)


def share(value: float) -> str:
    """0.4823 -> '48.2 %'."""
    return minus(percent(value))


def scaled(factor: float) -> Format:
    """Three significant digits of value / factor, for a column whose heading names the unit."""
    return lambda value: significant(value / factor)


def operations(value: float) -> str:
    """2.42e11 -> '242 GFLOP'."""
    for factor, unit in UNITS:
        if value >= factor:
            return f"{significant(value / factor)}\u00a0{unit}"
    return f"{significant(value)}\u00a0FLOP"


def minus(text: str) -> str:
    """With the sign that type has for it."""
    return text.replace("-", "−")


def pick(*arms: str) -> dict[str, Label]:
    """The labels of some arms, in that order."""
    return {arm: ARMS[arm] for arm in arms}
