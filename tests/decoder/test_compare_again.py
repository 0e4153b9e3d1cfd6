"""What a comparison does with a training that diverges. Claims:

1. Whichever arm it is, it is begun again from nothing at half its rate; what diverged is put aside, whole.
2. Killed in a later try, it goes on in that try, at that rate. Given again when it is done, it is not trained.
3. A third that diverges ends the job, and the error says why. Other errors are not tried again.
4. The rate that was used, and how often it took a new one, is told with the cost of an arm.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from decoder.compare import job
from decoder.compare.again import rate
from decoder.compare.plan import CompareConfig, trained
from decoder.stages import Ledger, Stage, run_stages
from jepa.config import load_config
from jepa.errors import DivergedError

HOUSE = Path(__file__).resolve().parents[2]
RATE = 4e-3  # of B in the tiny setting


class Training:
    """Stands for a training: diverges above `bearable`, is killed where asked, and notes how it was called."""

    def __init__(self, bearable: float) -> None:
        self.bearable, self.killed = bearable, False
        self.calls: list[tuple[float, bool]] = []

    def __call__(self, settings: Any) -> None:
        lr, out = settings.optim.lr, Path(settings.out)
        self.calls.append((lr, settings.resume))
        out.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create(asdict(settings)), out / "config.yaml")
        (out / "last.ckpt").write_text(f"{lr:g}")
        if lr > self.bearable:
            raise DivergedError("training has diverged")
        if self.killed:
            self.killed = False
            raise KeyboardInterrupt
        (out / "summary.json").write_text("{}")


def arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, training: Any) -> tuple[Stage, Path]:
    """The stage of a comparison that trains an arm, with another training in it."""
    monkeypatch.chdir(HOUSE)
    runs = {"jepa": "pretrain", "decoder": "train_decoder", "pixels_plus": "train_pixels"}
    monkeypatch.setattr(job, runs[name], training)
    config = load_config(CompareConfig, HOUSE / "configs/compare/worlds_tiny.yaml", [f"out={tmp_path}"])
    stage = next(stage for stage in job.plan(config, [trained(config, 0)]) if stage.name == f"{name}/0")
    return stage, stage.result.parent


@pytest.mark.parametrize("name", ["jepa", "decoder", "pixels_plus"])
def test_what_diverges_is_begun_again_at_half_its_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    training = Training(bearable=0.0)
    stage, out = arm(tmp_path, monkeypatch, name, training)
    lr = stage.config.optim.lr
    training.bearable = 0.6 * lr
    run_stages([stage], Ledger(tmp_path / "stages.json"))
    assert training.calls == [(lr, False), (lr / 2, False)] and stage.done
    aside = out.with_name(f"{name}.diverged1")
    assert (aside / "last.ckpt").read_text() == f"{lr:g}" and not (aside / "summary.json").exists()
    assert rate(out) == {"lr": lr / 2, "diverged": 1} and stage.config.optim.lr == lr
    run_stages([stage], Ledger(tmp_path / "stages.json"))
    assert len(training.calls) == 2


def test_a_later_try_goes_on_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(bearable=RATE / 2)
    stage, _ = arm(tmp_path, monkeypatch, "pixels_plus", training)
    training.killed = True
    with pytest.raises(KeyboardInterrupt):
        stage.run()
    stage.run()
    assert training.calls == [(RATE, False), (RATE / 2, False), (RATE / 2, True)] and stage.done


def test_what_diverges_three_times_ends_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(bearable=RATE / 8)
    stage, out = arm(tmp_path, monkeypatch, "pixels_plus", training)
    with pytest.raises(DivergedError, match="has diverged"):
        stage.run()
    assert [lr for lr, _ in training.calls] == [RATE, RATE / 2, RATE / 4] and not stage.done
    assert (out / "last.ckpt").exists(), "the last stays where it was"


def test_other_errors_are_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def broken(settings: Any) -> None:
        calls.append(settings)
        raise RuntimeError("no disk left")

    stage, _ = arm(tmp_path, monkeypatch, "decoder", broken)
    with pytest.raises(RuntimeError, match="no disk left"):
        stage.run()
    assert len(calls) == 1
