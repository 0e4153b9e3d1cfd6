"""Being asked to stop. Claims, on runs of the command line with worker processes:

- (slow) a signal to stop (Ctrl-C, SIGTERM as schedulers send it, SIGUSR1 as SLURM's early warning), to the main process
  or to all, ends a run after the step it falls into: one sentence, exit code 128 + its number, and no process stays.
  Resumed, it ends with the weights of a run that nobody touched, bit for bit.
- a job that SLURM or torchrun starts again, with its old command line, goes on.
- (slow) of two processes (DDP), both stop after the same step if one is asked to.
- an exception within an optimizer step keeps nothing of it.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import pytorch_lightning as pl
import torch
from tiny_run import command, weights

from jepa.errors import ConfigError
from jepa.recovery import LastCheckpoint
from jepa.resuming import check_run, mark_job

HOUSE, STEPS = Path(__file__).parents[2], 300


def begun(worlds: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """A run that has written a checkpoint."""
    last = out / "last.ckpt"
    before = last.stat().st_mtime_ns if last.is_file() else 0
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "PYTEST_"))}
    run = subprocess.Popen(
        command(worlds, out, *more, steps=STEPS, val_every=30),
        cwd=HOUSE,
        env=environment | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 120
    while not last.is_file() or last.stat().st_mtime_ns == before:
        assert run.poll() is None and time.monotonic() < until, run.communicate()[1]
        time.sleep(0.01)
    return run


@pytest.mark.slow
def test_a_run_that_is_stopped_again_and_again_goes_on(worlds: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    subprocess.run(command(worlds, whole, steps=STEPS, val_every=30), cwd=HOUSE, check=True, stdout=subprocess.DEVNULL)
    steps, resume = [0], []
    for name, everyone in (("SIGINT", True), ("SIGTERM", True), ("SIGUSR1", False)):
        run = begun(worlds, out, *resume)
        family = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
        assert len(family) > 1, "no worker, nothing shown"
        number, resume = getattr(signal, name), ["--resume"]
        (os.killpg if everyone else os.kill)(run.pid, number)
        said = run.communicate(timeout=180)[1]
        assert run.returncode == 128 + number, said
        steps.append(torch.load(out / "last.ckpt", weights_only=True)["global_step"])
        sentence = f"jepa: stopped by {name} after step {steps[-1]}, kept in {out}/last.ckpt: add --resume to go on"
        assert said.splitlines()[-1] == sentence and "Traceback" not in said
        assert not [process for process in family if process.is_running() and process.status() != "zombie"]
    assert sorted(set(steps)) == steps and steps[-1] < STEPS

    subprocess.run(
        command(worlds, out, "--resume", steps=STEPS, val_every=30), cwd=HOUSE, check=True, stdout=subprocess.DEVNULL
    )
    one, other = weights(whole), weights(out)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_what_a_launcher_starts_again_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_run(tmp_path, False) is False, "a new run"
    (tmp_path / "last.ckpt").touch()
    assert check_run(tmp_path, True) is True
    with pytest.raises(ConfigError, match="already holds a run"):
        check_run(tmp_path, False)
    for count, job in (("SLURM_RESTART_COUNT", "SLURM_JOB_ID"), ("TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_RUN_ID")):
        with monkeypatch.context() as started:
            started.setenv(job, "4711")
            mark_job(tmp_path)
            with pytest.raises(ConfigError, match="already holds a run"):
                check_run(tmp_path, False)
            started.setenv(count, "2")
            assert check_run(tmp_path, False) is True
            assert check_run(tmp_path / "other", False) is False, "stopped before its first checkpoint"
            started.setenv(job, "4712")
            with pytest.raises(ConfigError, match="already holds a run"):
                check_run(tmp_path, False)


@pytest.mark.slow
def test_two_processes_stop_together(worlds: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = begun(worlds, out, "trainer.devices=2", "trainer.strategy=ddp")
    os.kill(run.pid, signal.SIGTERM)
    said = run.communicate(timeout=180)[1]
    assert run.returncode == 128 + signal.SIGTERM, said
    step = torch.load(out / "last.ckpt", weights_only=True)["global_step"]
    assert said.count(f"stopped by SIGTERM after step {step}") == 2, "each says so"


def test_an_exception_within_a_step_keeps_nothing_of_it(tmp_path: Path) -> None:
    saved: list[int] = []

    class Trainer:
        global_step, max_steps, world_size, accumulate_grad_batches = 3, 10, 1, 1

        def save_checkpoint(self, path: Path) -> None:
            saved.append(self.global_step)

    trainer, keeper = Trainer(), LastCheckpoint(tmp_path / "last.ckpt", every=100)
    module = pl.LightningModule()
    keeper.on_train_start(trainer, module)  # type: ignore[arg-type]
    trainer.global_step = 4
    keeper.on_before_optimizer_step(trainer, module)
    keeper.on_exception(trainer, module, ValueError())  # type: ignore[arg-type]
    assert saved == []
    keeper.on_train_batch_end(trainer, module, None, None, batch_idx=3)  # type: ignore[arg-type]
    keeper.on_exception(trainer, module, ValueError())  # type: ignore[arg-type]
    assert saved == [4]
    trainer.global_step, trainer.world_size = 5, 2
    keeper.on_exception(trainer, module, ValueError())  # type: ignore[arg-type]
    assert saved == [4], "one process of two would wait for the other"
