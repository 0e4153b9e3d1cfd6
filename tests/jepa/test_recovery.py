"""Stopping, failing, and going on. Claims:

- a run that was stopped and resumed equals an uninterrupted one bit for bit, with SIGReg's random directions too.
- an interrupted or failing run leaves a last.ckpt that resumes; so does the last step, wherever validation falls. A
  signal to stop is obeyed when the step has ended that it falls into, and afterwards does what it did before.
- a step that is kept is one file, however often it is done, and kept when a signal falls into it.
- a full disk, or one that does not keep what it is given, leaves the checkpoint that was there.
- a run is not written over, nor resumed as another architecture.
- a step whose gradients are not finite changes nothing and is counted; so many in a row stop the run in one sentence
  that names the last good state, which resumes.
"""

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tiny import tiny_config
from tiny_training import OPTIM, Clips, Recorder, built, equal, train, worlds_data

from jepa import JEPA, CheckpointError, ConfigError
from jepa.config import load_config
from jepa.errors import DivergedError, Interrupted
from jepa.module import JEPAModule
from jepa.recovery import STOP
from jepa.train import PretrainConfig, pretrain
from jepa.training import read_history, skipped_steps


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warnings.showwarning", lambda *_, **__: None)


@pytest.mark.parametrize("micro", [1, 2])
def test_resumed_equals_uninterrupted_bit_for_bit(worlds: Path, tmp_path: Path, micro: int) -> None:
    model = {"regulariser": "sigreg", "regulariser_weight": 0.1}
    plan = {"val_every": 3, "accumulate_grad_batches": micro}
    whole, first, second = (built({"max_steps": 6}, **model) for _ in range(3))
    straight = train(tmp_path / "whole", worlds_data(worlds), whole, max_steps=6, **plan)
    cut = train(tmp_path / "cut", worlds_data(worlds), first, max_steps=3, **plan)
    assert cut.global_step == 3 and not equal(first.state_dict(), whole.state_dict())
    with torch.no_grad():
        second.jepa.predictor.mask_tokens[0].fill_(9)  # all of it must come from the checkpoint
    torch.manual_seed(99)
    resumed = train(tmp_path / "cut", worlds_data(worlds), second, resume=True, max_steps=6, **plan)
    assert resumed.global_step == straight.global_step == 6
    assert equal(second.state_dict(), whole.state_dict())
    one, other = resumed.optimizers[0].state_dict(), straight.optimizers[0].state_dict()
    assert one["param_groups"] == other["param_groups"]
    assert all(torch.equal(one["state"][i][k], v) for i, held in other["state"].items() for k, v in held.items())


class Stop(pl.Callback):
    """Raises after some optimizer steps."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.step, self.error = step, error

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a bug")])
def test_an_interrupted_run_leaves_a_checkpoint_that_resumes(tmp_path: Path, error: BaseException) -> None:
    whole, module, again = (built({"max_steps": 5}) for _ in range(3))
    train(tmp_path / "whole", Clips(), whole, max_steps=5, val_every=100)
    with pytest.raises(type(error)):
        train(tmp_path / "cut", Clips(), module, callbacks=[Stop(3, error)], max_steps=5, val_every=100)
    assert torch.load(tmp_path / "cut" / "last.ckpt", weights_only=True)["global_step"] == 3
    train(tmp_path / "cut", Clips(), again, resume=True, max_steps=5, val_every=100)
    assert equal(again.state_dict(), whole.state_dict())


@pytest.mark.parametrize("number", STOP)
@pytest.mark.parametrize("micro", [1, 3])
def test_a_signal_is_obeyed_when_its_step_has_ended(tmp_path: Path, micro: int, number: signal.Signals) -> None:
    class Ask(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 3 * micro + micro // 2:  # within step 4
                os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    settings = {"max_steps": 7, "val_every": 100, "accumulate_grad_batches": micro, "keep_every": 4}
    whole, module, again = (built({"max_steps": 7}) for _ in range(3))
    train(tmp_path / "whole", Clips(), whole, **settings)
    with pytest.raises(
        Interrupted, match=rf"stopped by {number.name} after step 4, .*last\.ckpt: add --resume"
    ) as stop:
        train(tmp_path / "cut", Clips(), module, callbacks=[Ask()], **settings)
    assert stop.value.number == number and signal.getsignal(number) == before
    assert (tmp_path / "cut" / "step=4.ckpt").is_file(), "what was to be kept of that step is"
    assert torch.load(tmp_path / "cut" / "last.ckpt", weights_only=True)["global_step"] == 4
    train(tmp_path / "cut", Clips(), again, resume=True, **settings)
    assert equal(again.state_dict(), whole.state_dict())


def test_a_kept_step_that_is_done_twice_is_one_file(tmp_path: Path) -> None:
    settings = {"max_steps": 5, "val_every": 100, "keep_every": 2}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Clips(), built({"max_steps": 5}), callbacks=[Stop(3, KeyboardInterrupt())], **settings)
    early = (tmp_path / "last.ckpt").read_bytes()
    train(tmp_path, Clips(), built({"max_steps": 5}), resume=True, **settings)
    first = torch.load(tmp_path / "step=4.ckpt", weights_only=True)["state_dict"]
    (tmp_path / "last.ckpt").write_bytes(early)  # as if the run had been killed after step 4
    train(tmp_path, Clips(), built({"max_steps": 5}), resume=True, **settings)
    assert sorted(path.name for path in tmp_path.glob("step*")) == ["step=2.ckpt", "step=4.ckpt"]
    assert equal(torch.load(tmp_path / "step=4.ckpt", weights_only=True)["state_dict"], first)


def test_what_falls_between_micro_batches_keeps_nothing_of_them(tmp_path: Path) -> None:
    class Fall(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 10:
                raise ValueError("a bug")

    settings = {"max_steps": 7, "val_every": 2, "accumulate_grad_batches": 3}
    whole, module, again = (built({"max_steps": 7}) for _ in range(3))
    train(tmp_path / "whole", Clips(), whole, **settings)
    with pytest.raises(ValueError, match="a bug"):
        train(tmp_path / "cut", Clips(), module, callbacks=[Fall()], **settings)
    assert torch.load(tmp_path / "cut" / "last.ckpt", weights_only=True)["global_step"] == 2
    train(tmp_path / "cut", Clips(), again, resume=True, **settings)
    assert equal(again.state_dict(), whole.state_dict())


def test_a_run_that_fails_before_it_is_restored_leaves_its_checkpoint_alone(tmp_path: Path) -> None:
    train(tmp_path, Clips(), built())
    before = (tmp_path / "last.ckpt").read_bytes()

    class Broken(Clips):
        def setup(self, stage: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Broken(), built(), resume=True, max_steps=9)
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_the_last_step_is_kept_wherever_validation_falls(tmp_path: Path) -> None:
    module = built({"max_steps": 5})
    train(tmp_path, Clips(), module, max_steps=5, val_every=3)
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert last["global_step"] == 5 and equal(last["state_dict"], module.state_dict())
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["global_step"] == 3
    assert JEPA.load(tmp_path / "last.ckpt").config == module.jepa.config


def test_a_full_disk_leaves_the_checkpoint_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, Clips(), built())
    before = {name: (tmp_path / name).read_bytes() for name in ("last.ckpt", "best.ckpt")}

    def full(descriptor: int) -> None:
        os.ftruncate(descriptor, 1000)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match=r"No space left on device.*last\.ckpt"):
            train(tmp_path, Clips(), built({"max_steps": 8}), resume=True, max_steps=8)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    monkeypatch.setattr("os.fsync", lambda descriptor: os.pwrite(descriptor, b"x" * 64, 5000))  # a disk that lies
    with pytest.raises(OSError, match=r"not what is read back.*last\.ckpt"):
        train(tmp_path, Clips(), built({"max_steps": 8}), resume=True, max_steps=8)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_run_is_not_written_over(tmp_path: Path) -> None:
    config = PretrainConfig(out=str(tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"resume=true, but there is no .*last\.ckpt"):
        pretrain(load_config(PretrainConfig, None, [f"out={config.out}", "resume=true"]))
    (tmp_path / "run").mkdir()
    for name in ("last.ckpt", "config.yaml"):
        (tmp_path / "run" / name).write_text("precious")
    with pytest.raises(ConfigError, match=r"already holds a run: add resume=true .* or give another out="):
        pretrain(config)
    assert (tmp_path / "run" / "config.yaml").read_text() == "precious"


def test_a_run_is_not_resumed_from_another_architecture_or_a_broken_file(tmp_path: Path) -> None:
    train(tmp_path, Clips(), built())
    config = tiny_config(target_norm="batch")
    config.encoder.depth = 3
    other = JEPAModule(JEPA(config), OPTIM, 4)
    with pytest.raises(CheckpointError, match=r"last\.ckpt holds another architecture: missing .*blocks\.2"):
        train(tmp_path, Clips(), other, resume=True)
    last = tmp_path / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"last\.ckpt is not a checkpoint that can be read"):
        train(tmp_path, Clips(), built(), resume=True)


class Poison(pl.Callback):
    """Gradients that are not finite, in these steps."""

    def __init__(self, *steps: int, value: float = float("nan")) -> None:
        self.steps, self.value = steps, value

    def on_after_backward(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.global_step in self.steps:
            module.jepa.predictor.predictor_proj.weight.grad[0, 0] = self.value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_nothing(value: float, tmp_path: Path) -> None:
    module, record = built(norm="layer"), Recorder()
    trainer = train(
        tmp_path, Clips(), module, callbacks=[Poison(1, 2, value=value), record], max_steps=5, max_skipped=3
    )
    moved = [not equal(record.student[step], record.student[step - 1]) for step in range(1, 5)]
    assert moved == [False, False, True, True] and trainer.global_step == 5 and skipped_steps(trainer) == 2
    assert all(value.isfinite().all() for value in module.state_dict().values())
    (optimizer,) = trainer.optimizers
    assert {int(state["step"]) for state in optimizer.state.values()} == {3}
    assert read_history(tmp_path)["train/skipped"] == [(1, 1), (2, 2)]


def test_a_run_that_diverges_stops_in_a_good_state(tmp_path: Path) -> None:
    module, record = built({"max_steps": 9}, norm="layer"), Recorder()
    settings = {"max_steps": 9, "val_every": 9, "max_skipped": 3}
    with pytest.raises(DivergedError, match=r"3 steps in a row, up to step 6: .*last\.ckpt is the last good") as error:
        train(tmp_path, Clips(), module, callbacks=[Poison(2, 4, 5, 6), record], **settings)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert equal({key: value for key, value in stored.items() if key in module.state_dict()}, module.state_dict())
    assert all(value.isfinite().all() for value in stored.values())
    trainer = train(tmp_path, Clips(), built({"max_steps": 9}, norm="layer"), resume=True, **settings)
    assert trainer.global_step == 9 and skipped_steps(trainer) == 4
