"""Is a run healthy, and if not, since when? Rules over the curves that pretraining logs, and what to do.

| verdict             | where                                                                                          |
|---------------------|------------------------------------------------------------------------------------------------|
| starved             | pixels hardly vary over clips and frames; or more than half of the time is spent waiting for   |
|                     | clips; or masks hide so little that it can be filled in from beside                            |
| diverged            | gradients are not finite, step after step, to the end; or, after the warm-up and for a while,  |
|                     | the predictor makes twice the error of the mean latent, or more                                |
| collapsed           | spread of the latents below a tenth of its highest or .01; or their effective rank below 2     |
| partially collapsed | spread below half of its highest or rank below a third, and never again above that by half     |
| healthy             | none of these. How much a healthy model knows so far is said by `jepa.diagnostics.verdict`     |

Runs that were made sick on purpose meet them, and none of ten that were not: tests/jepa/sick_runs.py makes both, and
`jepa health` draws their curves beside those of your run. (None of those collapses altogether; clips without any
variety do.)

Where targets are pixels, nothing collapses: a target encoder that says less makes no task easier. Spread and rank fall
there in runs whose features are good.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from statistics import mean
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from jepa.diagnostics import LEAST_RANK, LEAST_STD
from jepa.errors import DivergedError

Point = tuple[int, float]  # (step, value)
Curves = Mapping[str, Sequence[Point]]
TRAIN = ("train/variety", "train/hidden", "train/wait", "schedule/lr")
VALIDATION = ("val/std", "val/rank", "val/skill_vs_mean")


@dataclass(frozen=True)
class Verdict:
    """A word of the table above, the step since which it holds, and a sentence that says what to do."""

    word: str
    since: int
    sentence: str


def judge(curves: Curves, targets: str = "latents") -> Verdict:
    """The verdict on logged curves, name -> [(step, value), ...], of a JEPA that predicts `targets`."""
    collapse = (_collapsed, _narrowed) if targets == "latents" else ()
    for rule in (_alike, _not_finite, _unstable, *collapse, _waiting, _easy):
        found = rule(curves)
        if found is not None:
            return found
    hold = "Spread and rank of the latents hold" if collapse else "Training is stable"
    return Verdict("healthy", 0, f"{hold}, and clips and masks leave something to learn.")


class Watch(Callback):
    """Judges a run after every validation, says so when the verdict changes, and with `stop` ends a hopeless run."""

    def __init__(self, stop: bool, targets: str = "latents") -> None:
        self.stop, self.targets = stop, targets
        self.curves: dict[str, list[Point]] = {key: [] for key in (*TRAIN, *VALIDATION)}
        self.verdict = judge({}, targets)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._note(trainer, TRAIN)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._note(trainer, VALIDATION)
        before, self.verdict = self.verdict, judge(self.curves, self.targets)
        word, since = self.verdict.word, self.verdict.since
        if word != before.word and trainer.is_global_zero:
            print(f"health: {word} since step {since}. {self.verdict.sentence}")
        # What these two stand on is the same on all processes, so all of them stop; what clips are like is not.
        hopeless = _unstable(self.curves) or (self.targets == "latents" and _collapsed(self.curves))
        if self.stop and hopeless:
            raise DivergedError(f"{word} since step {since}. {self.verdict.sentence} (stop_sick=false goes on)")

    def _note(self, trainer: pl.Trainer, keys: Sequence[str]) -> None:
        for key in keys:
            value, known = trainer.callback_metrics.get(key), self.curves[key]
            new = not known or known[-1][0] < trainer.global_step  # and not another micro-batch of the same step
            if new and value is not None and bool(value.isfinite()):
                self.curves[key].append((trainer.global_step, float(value)))

    def state_dict(self) -> dict[str, Any]:
        return {"curves": self.curves}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.curves = {key: [(step, value) for step, value in points] for key, points in state_dict["curves"].items()}
        self.verdict = judge(self.curves, self.targets)


# ---------------------------------------------------------------------- the rules


def _alike(curves: Curves) -> Verdict | None:
    sentence = "The clips are all alike: their pixels vary by {:.3f} (usual: .2 to 1). Look at what data.train holds."
    return _starved(curves.get("train/variety", ()), 3, lambda value: value < 0.02, sentence)


def _waiting(curves: Curves) -> Verdict | None:
    sentence = "Training waits for clips {:.0%} of its time. Raise data.workers, or use data.cache=true."
    return _starved(curves.get("train/wait", ()), 10, lambda value: value > 0.5, sentence)  # not where workers start


def _easy(curves: Curves) -> Verdict | None:
    sentence = "Masks hide {:.0%} of a clip, which can be filled in from beside. Raise masks.spatial_scale or ratio."
    return _starved(curves.get("train/hidden", ()), 10, lambda value: value < 0.15, sentence)


def _starved(points: Sequence[Point], count: int, bad: Callable[[float], bool], sentence: str) -> Verdict | None:
    """Where the means of `count` points in a row are bad."""
    ends = range(count, len(points) + 1)
    means = [(points[end - 1][0], mean(value for _, value in points[end - count : end])) for end in ends]
    stretch = _stretch(means, bad)
    return Verdict("starved", stretch[0][0], sentence.format(stretch[-1][1])) if stretch else None


def _not_finite(curves: Curves) -> Verdict | None:
    skipped = [step for step, _ in curves.get("train/skipped", ())]
    row = [step for place, step in enumerate(reversed(skipped)) if step == skipped[-1] - place]  # up to the last one
    last = max((points[-1][0] for points in curves.values() if points), default=0)
    sentence = "Gradients were not finite. Lower optim.lr, look at the data, or use trainer.precision=32-true."
    return Verdict("diverged", row[-1], sentence) if len(row) > 2 and row[0] >= last else None


def _unstable(curves: Curves) -> Verdict | None:
    rates = curves.get("schedule/lr", ())
    warm = max(rates, key=lambda point: point[1])[0] if rates else 0
    late = [point for point in curves.get("val/skill_vs_mean", ()) if point[0] > warm]
    bad = _stretch(late, lambda value: value < -1)
    sentence = "The predictor makes {:.1f} times the error of the mean latent. Lower optim.lr or warm up for longer."
    lasts = len(bad) > 2 and bad[-1][0] - bad[0][0] >= 30  # steps, for an untrained predictor begins there
    return Verdict("diverged", bad[0][0], sentence.format(1 - bad[-1][1])) if lasts else None


def _collapsed(curves: Curves) -> Verdict | None:
    spread, rank = curves.get("val/std", ()), curves.get("val/rank", ())
    return _earlier(
        _fallen("collapsed", "spread", spread, max(LEAST_STD, _highest(spread) / 10)),
        _fallen("collapsed", "effective rank", rank, LEAST_RANK),
    )


def _narrowed(curves: Curves) -> Verdict | None:
    spread, rank = curves.get("val/std", ()), curves.get("val/rank", ())
    return _earlier(
        _fallen("partially collapsed", "spread", spread, _highest(spread) / 2),
        _fallen("partially collapsed", "effective rank", rank, _highest(rank) / 3),  # healthy ones have come to .44
    )


def _earlier(*verdicts: Verdict | None) -> Verdict | None:
    return min((verdict for verdict in verdicts if verdict), key=lambda verdict: verdict.since, default=None)


def _fallen(word: str, name: str, points: Sequence[Point], least: float) -> Verdict | None:
    """Below `least` twice in a row, for one may be an accident, and never again above it by half since."""
    low = _stretch(points, lambda value: value < 1.5 * least)
    twice = [step for (step, value), (_, then) in pairwise(low) if max(value, then) < least]
    if not twice:
        return None
    fall = f"The {name} of the latents is {low[-1][1]:.3g}, and was {_highest(points):.3g}."
    return Verdict(word, twice[0], f"{fall} Raise optim.momentum or lower optim.lr, and start from before that.")


def _highest(points: Sequence[Point]) -> float:
    return max((value for _, value in points), default=0.0)


def _stretch(points: Sequence[Point], bad: Callable[[float], bool]) -> list[Point]:
    """The points at the end, without a break, for whose values `bad` holds."""
    return list(takewhile(lambda point: bad(point[1]), reversed(points)))[::-1]
