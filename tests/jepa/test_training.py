"""Training, through Lightning. Claims:

- the moving average steps once per optimizer step under accumulation, after the optimizer and not before it, and
  ends where it must as computed by hand; learning rate and decay are those of the step.
- four micro-batches accumulated are one batch of four times the size.
- a run that was stopped and resumed equals an uninterrupted one bit for bit, with SIGReg's random directions too.
- an interrupted or failing run leaves a last.ckpt that resumes; so does the last step, wherever validation falls. A
  signal to stop is obeyed when the step has ended that it falls into, and afterwards does what it did before.
- the best checkpoint is the one of the best probe, not of the lowest loss.
- 60 steps on worlds lower the loss without collapse.
- the share of time spent waiting for data is measured.
- a full disk, or one that does not keep what it is given, leaves the checkpoint that was there.
- a run is not written over, nor resumed as another architecture.
- a frozen teacher stays frozen; `init_from` takes the weights, and refuses another architecture.
- a step whose gradients are not finite changes nothing and is counted; so many in a row stop the run in one sentence
  that names the last good state, which resumes.
- bad settings of the trainer are one sentence; so is compiling without a compiler.
"""

import copy
import errno
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tiny import tiny_config
from torch.utils.data import DataLoader

from data.module import ClipDataModule, DataConfig
from jepa import JEPA, CheckpointError, ConfigError, MaskCollator, MaskConfig
from jepa.config import load_config
from jepa.errors import DivergedError, Interrupted
from jepa.module import JEPAModule
from jepa.optim import OptimConfig, rates
from jepa.recovery import STOP
from jepa.train import PretrainConfig, build_jepa, pretrain
from jepa.training import (
    DataWait,
    TrainerConfig,
    auto_precision,
    build_trainer,
    fit,
    read_history,
    scale,
    skipped_steps,
)

TUBES = [MaskConfig(kind="tube", ratio=0.6), MaskConfig(kind="future")]
OPTIM = OptimConfig(lr=1e-2, start_lr=1e-3, warmup_steps=2, momentum=0.5, final_momentum=0.9, stretch=1.0)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warnings.showwarning", lambda *_, **__: None)


class Clips(pl.LightningDataModule):
    """Random clips with masks: batch number n is a function of n, from wherever the run stands."""

    def __init__(self, batch: int = 2, seconds: float = 0.0) -> None:
        super().__init__()
        self.batch, self.seconds = batch, seconds
        self.collate = MaskCollator(TUBES, 2, 8)

    def __getitem__(self, index: int) -> dict[str, Any]:
        time.sleep(self.seconds / self.batch)
        draw = torch.Generator().manual_seed(index)
        return {"video": torch.randn(3, 4, 16, 16, generator=draw), "label": index % 2, "seed": index}

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        first = trainer.global_step * trainer.accumulate_grad_batches * self.batch
        return DataLoader(self, self.batch, sampler=range(first, first + 10_000), collate_fn=self.collate)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self, 8, sampler=range(90_000, 90_016), collate_fn=self.collate)


def settings(**changes: Any) -> TrainerConfig:
    plain: dict[str, Any] = {"accelerator": "cpu", "precision": "32-true", "progress": False, "log_every": 1}
    return TrainerConfig(**(plain | {"max_steps": 4, "val_every": 2, "val_batches": 2} | changes))


def built(changes: dict[str, Any] | None = None, norm: str = "batch", **model: Any) -> JEPAModule:
    torch.manual_seed(5)
    config = settings(**(changes or {}))
    return JEPAModule(JEPA(tiny_config(target_norm=norm, **model)), OPTIM, config.max_steps)


def train(
    out: Path,
    data: pl.LightningDataModule,
    module: JEPAModule,
    resume: bool = False,
    callbacks: Any = (),
    **changes: Any,
) -> pl.Trainer:
    trainer = build_trainer(settings(**changes), out, "val/choose", list(callbacks))
    fit(trainer, module, data, resume, out, TrainerConfig())
    return trainer


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


class Recorder(pl.Callback):
    """Both encoders after every micro-batch."""

    def __init__(self) -> None:
        self.student: list[dict[str, torch.Tensor]] = []
        self.teacher: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        self.student.append(copy.deepcopy(module.jepa.context_encoder.state_dict()))
        self.teacher.append(copy.deepcopy(module.jepa.target_encoder.state_dict()))


def test_the_average_steps_once_per_optimizer_step_and_after_it(tmp_path: Path) -> None:
    module, record = built(), Recorder()
    expected = {key: value.double() for key, value in copy.deepcopy(module.jepa.target_encoder.state_dict()).items()}
    trainer = train(tmp_path, Clips(), module, callbacks=[record], accumulate_grad_batches=4)
    assert trainer.global_step == 4 and len(record.student) == 16
    for step in range(4):
        for micro in range(4):
            place = 4 * step + micro
            if micro < 3 and place > 0:
                assert equal(record.student[place], record.student[place - 1]), "nothing moves within a step"
                assert equal(record.teacher[place], record.teacher[place - 1])
        student, momentum = record.student[4 * step + 3], rates(OPTIM, step, 4).momentum
        expected = {key: momentum * value + (1 - momentum) * student[key] for key, value in expected.items()}
        for key, value in record.teacher[4 * step + 3].items():
            torch.testing.assert_close(value.double(), expected[key], atol=1e-7, rtol=1e-5)
    logged = read_history(tmp_path)
    assert [step for step, _ in logged["schedule/momentum"]] == [0, 1, 2, 3]
    for step, lr in logged["schedule/lr"]:
        assert lr == pytest.approx(rates(OPTIM, step, 4).lr)
    (optimizer,) = trainer.optimizers
    assert {group["lr"] for group in optimizer.param_groups} == {rates(OPTIM, 3, 4).lr}
    assert all(p.grad is None for p in module.jepa.target_encoder.parameters())


def test_four_micro_batches_are_one_batch(tmp_path: Path) -> None:
    # The same tubes in every batch, so that the mean of means is the mean; layer targets know no batch. After one step
    # without clipping, the first moment is the gradient times 1 - beta1; the weights would hide its scale.
    moments = []
    for batch, micro in ((8, 1), (2, 4)):
        clips = Clips(batch)
        clips.collate = OneMaskForAll()
        plan = {"max_steps": 1, "accumulate_grad_batches": micro, "gradient_clip": 0.0}
        trainer = train(tmp_path / str(batch), clips, built(norm="layer"), **plan)
        moments.append([state["exp_avg"] for state in trainer.optimizers[0].state_dict()["state"].values()])
    for one, four in zip(*moments, strict=True):
        torch.testing.assert_close(four, one, atol=1e-6 * float(one.abs().max()) + 1e-9, rtol=1e-3)


class OneMaskForAll(MaskCollator):
    """The same tubes for every batch, whatever its size."""

    def __init__(self) -> None:
        super().__init__(TUBES[:1], 2, 8)

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super().__call__(samples)
        fixed = super().__call__([samples[0] | {"seed": 1}])["masks"]
        batch["masks"] = [type(m)(*(ids.expand(len(samples), -1).contiguous() for ids in m)) for m in fixed]
        return batch


def worlds_data(worlds: Path, **changes: Any) -> ClipDataModule:
    plain: dict[str, Any] = {"num_frames": 8, "size": [32, 32], "scale": [0.5, 1.0], "batch_size": 4, "workers": 0}
    config = DataConfig(str(worlds / "train.csv"), str(worlds / "val.csv"), **(plain | changes))
    return ClipDataModule(config, MaskCollator(TUBES, 2, 8, per_step=1))


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
    settings = {"max_steps": 7, "val_every": 100, "accumulate_grad_batches": micro}
    whole, module, again = (built({"max_steps": 7}) for _ in range(3))
    train(tmp_path / "whole", Clips(), whole, **settings)
    with pytest.raises(
        Interrupted, match=rf"stopped by {number.name} after step 4, .*last\.ckpt: add --resume"
    ) as stop:
        train(tmp_path / "cut", Clips(), module, callbacks=[Ask()], **settings)
    assert stop.value.number == number and signal.getsignal(number) == before
    assert torch.load(tmp_path / "cut" / "last.ckpt", weights_only=True)["global_step"] == 4
    train(tmp_path / "cut", Clips(), again, resume=True, **settings)
    assert equal(again.state_dict(), whole.state_dict())


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


def test_the_best_checkpoint_is_that_of_the_best_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.3, 0.8, 0.5])
    monkeypatch.setattr("jepa.module.online_probe", lambda *_: next(scores))
    train(tmp_path, Clips(), built({"max_steps": 6}), max_steps=6)
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["global_step"] == 4
    assert [round(value, 3) for _, value in read_history(tmp_path)["val/probe"]] == [0.3, 0.8, 0.5]


def test_without_validation_a_run_still_ends_well(tmp_path: Path) -> None:
    class NoValidation(Clips):
        def val_dataloader(self) -> list[Any]:  # type: ignore[override]
            return []

    trainer = train(tmp_path, NoValidation(), built())
    assert trainer.global_step == 4 and (tmp_path / "last.ckpt").is_file() and not (tmp_path / "best.ckpt").exists()


def test_sixty_steps_on_worlds_lower_the_loss_without_collapse(worlds: Path, tmp_path: Path) -> None:
    words = [
        f"out={tmp_path / 'run'}",
        f"data.train={worlds / 'train.csv'}",
        f"data.val={worlds / 'val.csv'}",
        "data={num_frames: 8, size: [32, 32], scale: [1.0, 1.0], batch_size: 16, workers: 0}",
        "model.encoder={embed_dim: 48, depth: 2, num_heads: 2, patch_size: 8, position: rope+sincos}",
        "model.predictor={embed_dim: 24, depth: 1, num_heads: 2}",
        "model.target_norm=batch",
        "masks=[{kind: tube, ratio: 0.6}, {kind: future}]",
        "masks_per_step=1",
        "optim={lr: 2e-3, start_lr: 2e-4, warmup_steps: 10, momentum: 0.95, final_momentum: 1.0, stretch: 1.0}",
        "trainer={max_steps: 60, val_every: 60, log_every: 1, progress: false, accelerator: cpu, precision: 32-true}",
    ]
    best = pretrain(load_config(PretrainConfig, None, words))
    curve = [value for _, value in read_history(tmp_path / "run")["train/prediction"]]
    early, late = sum(curve[:10]) / 10, sum(curve[-10:]) / 10
    assert len(curve) == 60 and late < 0.97 * early
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == 60 and summary["clips_seen"] == 960
    assert summary["health"]["verdict"] not in ("collapsed", "partially collapsed")
    assert summary["health"]["std"] > 0.1 and summary["health"]["rank"] > 5
    assert 0 < summary["data_wait_fraction"] < 1 and best.name == "best.ckpt"
    assert JEPA.load(best).config.encoder.embed_dim == 48
    again = load_config(PretrainConfig, tmp_path / "run" / "config.yaml", ["resume=true"])
    assert again.model.encoder.embed_dim == 48, "the run's own settings load again"
    assert pretrain(again) == best
    resumed = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert resumed["health"] == summary["health"], "a complete run that is resumed knows how it ended"


def test_waiting_for_data_is_measured(tmp_path: Path) -> None:
    fractions = []
    for seconds in (0.0, 0.3):
        wait = DataWait()
        train(tmp_path / str(seconds), Clips(seconds=seconds), built(), callbacks=[wait], max_steps=4, val_every=4)
        fractions.append(wait.fraction)
        assert wait.total >= wait.waited >= 3 * seconds
    assert fractions[0] < fractions[1] and fractions[1] > 0.5 and DataWait().fraction == 0


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


def test_a_frozen_teacher_stays_frozen(tmp_path: Path) -> None:
    torch.manual_seed(8)
    teacher = JEPA(tiny_config())
    teacher.save_pretrained(tmp_path / "teacher")
    config = PretrainConfig(model=tiny_config(), teacher=str(tmp_path / "teacher"))
    student = build_jepa(config)
    assert equal(student.target_encoder.state_dict(), teacher.target_encoder.state_dict())
    assert not equal(student.context_encoder.state_dict(), teacher.context_encoder.state_dict())
    module = JEPAModule(student, OPTIM, 4, frozen_teacher=True)
    train(tmp_path / "run", Clips(), module)
    assert equal(module.jepa.target_encoder.state_dict(), teacher.target_encoder.state_dict())
    config.model = tiny_config("sincos")
    with pytest.raises(ConfigError, match=r"teacher: its encoder is .*'rope'.* and model\.encoder is .*'sincos'"):
        build_jepa(config)


def test_init_from_takes_the_weights_and_nothing_else(tmp_path: Path) -> None:
    torch.manual_seed(8)
    found = JEPA(tiny_config())
    found.save_pretrained(tmp_path)
    jepa = build_jepa(PretrainConfig(model=tiny_config(context_loss=0.5), init_from=str(tmp_path)))
    assert equal(jepa.state_dict(), found.state_dict()) and jepa.config.context_loss == 0.5
    other = tiny_config()
    other.predictor.num_heads = 1  # no shape shows it
    with pytest.raises(ConfigError, match="init_from: its predictor is"):
        build_jepa(PretrainConfig(model=other, init_from=str(tmp_path)))
    with pytest.raises(CheckpointError, match=r"missing target_norm\.running_mean"):
        build_jepa(PretrainConfig(model=tiny_config(target_norm="batch"), init_from=str(tmp_path)))


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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_steps": 0}, r"trainer\.max_steps is 0"),
        ({"val_every": 0}, r"trainer\.val_every is 0"),
        ({"accumulate_grad_batches": -1}, r"trainer\.accumulate_grad_batches is -1"),
        ({"accelerator": "abacus"}, "trainer: .*abacus"),
        ({"precision": "17"}, "trainer: .*17"),
        ({"strategy": "luck"}, "trainer: .*luck"),
        ({"devices": "none"}, "trainer: "),
    ],
)
def test_bad_settings_of_the_trainer_are_one_sentence(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        build_trainer(settings(**changes), tmp_path, "val/choose")
    assert "\n" not in str(error.value)


def test_what_cannot_be_drawn_stops_before_a_worker_is_started(tmp_path: Path) -> None:
    base = [f"out={tmp_path}", "data.train=x", "data.num_frames=8", "data.size=[32, 32]", "model.encoder.patch_size=8"]
    for word, words in (
        ("data.num_frames=7", "frames 7 is not a multiple of tubelet_size 2"),
        ("data.size=[30, 32]", "height 30 is not a multiple of patch_size 8"),
        ("data.size=[30]", "height 30 is not a multiple"),
        ("masks=[{kind: tubes}]", "masks.kind is 'tubes'"),
        ("data.num_frames=2", "future mask needs at least two tubelets"),
        ("model.predictor.num_mask_tokens=2", "num_mask_tokens is 2: give 1, or one for each of 3 masks"),
        ("model.predictor.num_mask_tokens=3", r"masks\[0\] .*which is a block mask: point it at a future mask"),
        ("model.encoder.num_heads=5", "num_heads 5"),
    ):
        with pytest.raises(ConfigError, match=words):
            pretrain(load_config(PretrainConfig, None, [*base, word]))
    assert not list(tmp_path.iterdir())


def test_precision_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for amx, avx, expected in ((False, False, "32-true"), (True, False, "bf16-mixed"), (False, True, "bf16-mixed")):
        monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda amx=amx: amx)
        monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda avx=avx: avx)
        assert auto_precision("cpu") == expected


def test_compiling_without_a_compiler_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(ConfigError, match="needs a C\\+\\+ compiler"):
        scale(built(), settings(compile=True))
