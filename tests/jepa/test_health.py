"""The verdict on a run. Claims:

- every rule says its word, since when, and what to do, on curves where that is known; one bad validation is no alarm,
  nor are the warm-up, a few steps left out, and a fall of which more than half was made good. Pixels as targets cannot
  collapse, and no rule says so of them.
- five runs that were made sick on purpose (tests/jepa/sick_runs.py) have their verdict within the first third; ten
  healthy seeds have none at any moment.
- (slow) so do runs that are made anew here, by the same recipe: every sick one, and two seeds.
- a run says so when its verdict changes, and stops where nothing can come of going on, with `last.ckpt` kept, unless
  told not to; resumed, it remembers its curves.
"""

import json
from pathlib import Path

import pytest
import sick_runs
import torch
from sick_runs import HEALTHY, SICK, STEPS

from jepa import load_config
from jepa.errors import DivergedError
from jepa.health import Curves, judge
from jepa.train import PretrainConfig, pretrain


def curve(*values: float) -> list[tuple[int, float]]:
    """Values at steps 10, 20, ..."""
    return [(10 * i, value) for i, value in enumerate(values, 1)]


GOOD = {
    "val/std": curve(0.3, 0.3, 0.31, 0.3),
    "val/rank": curve(40, 41, 41, 40),
    "val/skill_vs_mean": curve(-2, 0, 0.1, 0.2),
}


@pytest.mark.parametrize(
    ("changed", "word", "since"),
    [
        ({}, "healthy", 0),
        ({"val/std": curve(0.3, 0.3, 0.3, 0.1)}, "healthy", 0),
        ({"val/std": curve(0.3, 0.3, 0.1, 0.1)}, "partially collapsed", 30),
        ({"val/std": curve(0.3, 0.1, 0.1, 0.16)}, "partially collapsed", 20),
        ({"val/std": curve(0.3, 0.1, 0.1, 0.3)}, "healthy", 0),
        ({"val/rank": curve(40, 41, 13, 12)}, "partially collapsed", 30),
        ({"val/rank": curve(87, 67, 53, 45, 41, 40, 39, 38)}, "healthy", 0),  # worlds_small, whose features know motion
        ({"val/std": curve(0.3, 0.3, 0.02, 0.02)}, "collapsed", 30),
        ({"val/std": curve(0.005, 0.005)}, "collapsed", 10),
        ({"val/rank": curve(1.5, 1.5, 1.5)}, "collapsed", 10),
        ({"val/skill_vs_mean": curve(0.1, -2, -2, -2)}, "healthy", 0),
        ({"val/skill_vs_mean": curve(0.1, -2, -2, -2, -2)}, "diverged", 20),
        ({"val/skill_vs_mean": curve(-5, -4, -3, 0)}, "healthy", 0),
        ({"val/skill_vs_mean": curve(-5, -4, -3, -2), "schedule/lr": curve(1, 2, 3, 2)}, "healthy", 0),
        ({"train/skipped": [(7, 1), (8, 2), (30, 3)]}, "healthy", 0),
        ({"train/skipped": [(7, 1), (8, 2), (9, 3)]}, "healthy", 0),
        ({"train/skipped": [(7, 1), (39, 2), (40, 3), (41, 4)]}, "diverged", 39),
        ({"train/variety": curve(0.0, 0.001, 0.002)}, "starved", 30),
        ({"train/variety": curve(0.0, 0.4, 0.5)}, "healthy", 0),
        ({"train/wait": curve(*[0.9] * 9)}, "healthy", 0),
        ({"train/wait": curve(*[0.1] * 9, *[0.9] * 10)}, "starved", 150),
        ({"train/hidden": curve(*[0.05] * 10)}, "starved", 100),
        ({"train/hidden": curve(*[0.05, 0.6] * 5)}, "healthy", 0),
        # The cause before its effects:
        ({"val/std": curve(0, 0, 0), "train/variety": curve(0, 0, 0)}, "starved", 30),
        ({"val/std": curve(0.3, 0.02, 0.02), "train/skipped": [(40, 1), (41, 2), (42, 3)]}, "diverged", 40),
    ],
)
def test_each_rule(changed: Curves, word: str, since: int) -> None:
    found = judge({**GOOD, **changed})
    assert (found.word, found.since) == (word, since), found
    assert found.sentence.endswith(".") and (
        word == "healthy" or any(key in found.sentence for key in ("Raise", "Lower", "Look"))
    )


def test_pixels_do_not_collapse() -> None:
    flat = {**GOOD, "val/std": curve(0.5, 0.2, 0.001, 0.001), "val/rank": curve(20, 1, 1, 1)}
    assert judge(flat).word == "collapsed" and judge(flat, "pixels").word == "healthy"
    assert judge({**flat, "train/variety": curve(0, 0, 0)}, "pixels").word == "starved"


def test_nothing_logged_is_no_alarm() -> None:
    assert judge({}).word == "healthy"


def verdicts(curves: Curves) -> list[tuple[int, str]]:
    """(step, word) at every validation of a run, and at every step that it left out."""
    steps = [step for step, _ in [*curves["val/std"], *curves["train/skipped"]]]
    return [(step, judge({k: [p for p in v if p[0] <= step] for k, v in curves.items()}).word) for step in steps]


def check(name: str, curves: Curves) -> None:
    found = verdicts(curves)
    if name in HEALTHY:
        assert {word for _, word in found} == {"healthy"}, found
    else:
        first = next((step for step, word in found if word == SICK[name][0]), STEPS)
        assert first <= STEPS / 3, found


@pytest.mark.parametrize("name", [*SICK, *HEALTHY])
def test_recorded_runs_have_their_verdict(name: str) -> None:
    check(name, json.loads(sick_runs.STORED.read_text())[name])


@pytest.mark.slow
def test_runs_made_anew_have_their_verdict(tmp_path: Path) -> None:
    for name in (*SICK, "seed0", "seed1"):
        check(name, sick_runs.make(name, tmp_path))


def settings(worlds: Path, out: Path, *more: str) -> PretrainConfig:
    """A run whose latents are all alike after its first steps, for the norm of the encoder is decayed to nothing."""
    words = [
        f"out={out}",
        f"data.train={worlds / 'train.csv'}",
        f"data.val={worlds / 'train.csv'}",
        "data={num_frames: 8, size: [16, 16], batch_size: 4, workers: 0, cache: true}",
        "model.encoder={embed_dim: 24, depth: 1, num_heads: 2, patch_size: 8}",
        "model.predictor={embed_dim: 12, depth: 1, num_heads: 2}",
        "masks=[{kind: future}]",
        "optim={lr: 10.0, start_lr: 10.0, warmup_steps: 0, momentum: 0.0, final_momentum: 0.0}",
        "trainer={max_steps: 48, val_every: 4, val_batches: 2, log_every: 1, accelerator: cpu, progress: false}",
        *("trainer.gradient_clip=0", "trainer.precision=32-true"),
    ]
    return load_config(PretrainConfig, None, [*words, *more])


def test_a_hopeless_run_stops_and_says_why(worlds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    with pytest.raises(
        DivergedError, match=r"^(diverged|collapsed) since step \d+\. .*stop_sick=false goes on"
    ) as stop:
        pretrain(settings(worlds, out))
    kept = torch.load(out / "last.ckpt", weights_only=True)
    assert kept["global_step"] < 48
    word = str(stop.value).split()[0]
    assert f"health: {word} since step" in capsys.readouterr().out

    pretrain(settings(worlds, out, "resume=true", "stop_sick=false"))
    summary = json.loads((out / "summary.json").read_text())
    assert summary["verdict"]["word"] in ("diverged", "collapsed") and summary["steps"] == 48
    assert summary["verdict"]["since"] < kept["global_step"], "the curves of before are remembered"
