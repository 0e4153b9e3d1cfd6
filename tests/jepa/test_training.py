"""Training, through Lightning. Claims:

- the moving average steps once per optimizer step under accumulation, after the optimizer and not before it, and
  ends where it must as computed by hand; learning rate and decay are those of the step.
- four micro-batches accumulated are one batch of four times the size.
- the best checkpoint is the one of the best probe, not of the lowest loss.
- 60 steps on worlds lower the loss without collapse.
- the share of time spent waiting for data is measured.
- a frozen teacher stays frozen; `init_from` takes the weights, and refuses another architecture.
- bad settings of the trainer are one sentence; so is compiling without a compiler.
"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_config
from tiny_training import OPTIM, TUBES, Clips, Recorder, built, equal, settings, train

from jepa import JEPA, CheckpointError, ConfigError, MaskCollator
from jepa.config import load_config
from jepa.module import JEPAModule
from jepa.optim import rates
from jepa.train import PretrainConfig, build_jepa, pretrain
from jepa.training import (
    DataWait,
    auto_precision,
    build_trainer,
    read_history,
    scale,
)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warnings.showwarning", lambda *_, **__: None)


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
