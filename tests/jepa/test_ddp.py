"""Two processes, as `jepa pretrain` starts them (DDP, gloo on the CPU). Claims:

- two processes train as one that accumulates two micro-batches does: the stream hands both the same clips in the same
  groups, so that masks, which are drawn for a group, are the same too, of whatever kind and however they are truncated.
  Weights of both encoders and of the predictor agree, also where a step leaves out a mask token. One process alone on
  half of the clips ends elsewhere.
- (slow) so it is with sharded weights (FSDP) and with compiled blocks, over fewer steps; what one of them saved goes
  on in another, for the checkpoint is the same single file.
- what is logged as train/loss is the loss of the first process; spread, rank and error of the validation are those of
  the clips of all processes.

Not claimed: equality with one large batch, for which other masks are drawn (that four micro-batches are one batch
where the masks are the same is shown in test_training.py), nor with targets or regularisers that know a batch.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa import JEPA, load_config
from jepa.module import JEPAModule
from jepa.train import PretrainConfig, pretrain
from jepa.training import read_history

HOUSE = Path(__file__).parents[2]
TWO = ["trainer.devices=2", "trainer.val_batches=2"]
STEPS = 50


def words(worlds: Path, out: Path, *more: str, steps: int = STEPS) -> list[str]:
    """The settings of a run, in fp32, of two clips for each micro-batch."""
    return [
        f"out={out}",
        f"data.train={worlds / 'train.csv'}",
        f"data.val={worlds / 'train.csv'}",
        "data={num_frames: 8, size: [32, 32], batch_size: 2, workers: 0}",
        "model.encoder={embed_dim: 24, depth: 2, num_heads: 2, patch_size: 8}",
        "model.predictor={embed_dim: 12, depth: 1, num_heads: 2, num_mask_tokens: 2}",
        "masks=[{kind: future}, {kind: block, num_blocks: 2, spatial_scale: 0.3}]",
        "masks_per_step=1",
        "optim={lr: 3e-4, start_lr: 3e-4, warmup_steps: 1, momentum: 0.5}",
        f"trainer={{max_steps: {steps}, val_every: {steps}, log_every: 1, progress: false}}",
        *("trainer.accelerator=cpu", "trainer.precision=32-true"),
        *more,
    ]


def run(words: list[str]) -> None:
    """The command line in a process of its own, which starts the others."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "PYTEST_"))}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", "jepa.cli", "pretrain", *words]
    done = subprocess.run(command, cwd=HOUSE, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr


def weights(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "last.ckpt", weights_only=True)["state_dict"]


def difference(one: Path, other: Path) -> float:
    """The largest between weights of the same name."""
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    return max(float((mine[key] - theirs[key]).abs().max()) for key in mine)


def test_two_processes_are_one_that_accumulates(worlds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two, one, half = tmp_path / "two", tmp_path / "one", tmp_path / "half"
    run(words(worlds, two, *TWO, "trainer.strategy=ddp"))

    losses: list[float] = []
    step = JEPAModule.training_step

    def recorded(self: JEPAModule, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        loss = step(self, batch, batch_idx)
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(JEPAModule, "training_step", recorded)
    micro = ["trainer.accumulate_grad_batches=2", "trainer.val_batches=4"]
    pretrain(load_config(PretrainConfig, None, words(worlds, one, *micro)))
    assert len(losses) == 2 * STEPS

    assert difference(one, two) < 1e-5
    logged = read_history(two)
    assert [value for _, value in logged["train/loss"]] == pytest.approx(losses[::2], rel=1e-5)
    assert losses[::2] != pytest.approx(losses[1::2], rel=1e-3), "the processes meet different clips"
    alone = read_history(one)
    for key in ("val/std", "val/rank", "val/error"):
        assert logged[key][-1][1] == pytest.approx(alone[key][-1][1], rel=1e-4)
    clips = [json.loads((out / "summary.json").read_text())["clips_seen"] for out in (one, two)]
    assert clips == [2 * 2 * STEPS] * 2

    pretrain(load_config(PretrainConfig, None, words(worlds, half, "trainer.val_batches=4")))
    assert difference(half, two) > 1e-4, "else the agreement above would mean nothing"


@pytest.mark.slow
def test_sharded_and_compiled_are_the_same_run(worlds: Path, tmp_path: Path) -> None:
    short, ddp = {"steps": 6}, [*TWO, "trainer.strategy=ddp"]
    fsdp, compiled = [*TWO, "trainer.strategy=fsdp"], [*ddp, "trainer.compile=true"]
    again = [*ddp, "trainer.activation_checkpointing=true"]
    for name, options in {"ddp": ddp, "fsdp": fsdp, "compiled": compiled, "again": again}.items():
        run(words(worlds, tmp_path / name, *options, **short))
        assert difference(tmp_path / name, tmp_path / "ddp") < 1e-5, name
        assert read_history(tmp_path / name)["train/loss"] == [
            (step, pytest.approx(loss, rel=1e-4)) for step, loss in read_history(tmp_path / "ddp")["train/loss"]
        ]
    JEPA.load(tmp_path / "fsdp" / "last.ckpt")
    # On from step 6 to 9, each as the other: with the same state of the optimizer, too.
    longer = {"steps": 9}
    run([*words(worlds, tmp_path / "fsdp", *ddp, **longer), "trainer.val_every=6", "resume=true"])
    run([*words(worlds, tmp_path / "ddp", *fsdp, **longer), "trainer.val_every=6", "resume=true"])
    assert difference(tmp_path / "fsdp", tmp_path / "ddp") < 1e-5
    assert weights(tmp_path / "ddp").keys() == weights(tmp_path / "compiled").keys()
