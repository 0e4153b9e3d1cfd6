"""configs/launch: how a run is started elsewhere. Claims, as far as one machine without a GPU can show them (slow):

- torchrun starts two processes that end with the weights of two that Lightning starts itself.
- the script for SLURM, with stand-ins for `srun` and `scontrol` that set the variables SLURM sets, trains on two tasks;
  warned of the time limit (SIGUSR1) it saves and asks to be requeued; requeued, the same command line goes on and ends
  with the same weights.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from tiny_run import command, weights

HOUSE = Path(__file__).parents[2]
STEPS = 200
# Two tasks on one node. A signal to the job step reaches all of them; the worst exit code is that of srun.
SRUN = f"""#!{sys.executable}
import os, signal, subprocess, sys
words = [word for word in sys.argv[1:] if not word.startswith("--cpus")]
tasks = []
for rank in "01":
    mine = {{"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": "0", "SLURM_NTASKS": "2"}}
    tasks.append(subprocess.Popen(words, env=os.environ | mine))
signal.signal(signal.SIGUSR1, lambda number, _: [task.send_signal(number) for task in tasks])
sys.exit(max(task.wait() for task in tasks))
"""


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Variables for a child, with stand-ins of SLURM's commands first on its path."""
    mine = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "PYTEST_"))}
    return mine | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HOUSE), "PATH": f"{folder}:{mine['PATH']}"} | more


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def words(worlds: Path, out: Path, *more: str) -> list[str]:
    """What follows `jepa pretrain`."""
    return command(worlds, out, *more, steps=STEPS, val_every=20)[4:]


def same(one: Path, other: Path) -> bool:
    mine, theirs = weights(one), weights(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.fixture(scope="module")
def expected(worlds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes that Lightning starts itself, and nobody stops."""
    out = tmp_path_factory.mktemp("expected") / "run"
    two = command(worlds, out, "trainer.devices=2", "trainer.strategy=ddp", steps=STEPS, val_every=20)
    subprocess.run(two, env=environment(out), check=True, stdout=subprocess.DEVNULL, timeout=900)
    return out


@pytest.mark.slow
def test_torchrun(worlds: Path, tmp_path: Path, expected: Path) -> None:
    run = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    run += ["--rdzv-endpoint=localhost:0", "-m", "jepa.cli", "pretrain", *words(worlds, tmp_path / "run")]
    run += ["trainer.devices=2", "trainer.num_nodes=1", "trainer.strategy=ddp"]
    subprocess.run(run, cwd=HOUSE, env=environment(tmp_path), check=True, stdout=subprocess.DEVNULL, timeout=900)
    assert same(tmp_path / "run", expected)


@pytest.mark.slow
def test_slurm(worlds: Path, tmp_path: Path, expected: Path) -> None:
    program(tmp_path / "srun", SRUN)
    program(tmp_path / "scontrol", f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    program(tmp_path / "jepa", f'#!/bin/sh\nexec {sys.executable} -m jepa.cli "$@"\n')
    job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "jepa", "SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "2"}
    job |= {"SLURM_NTASKS": "2", "SLURM_NODELIST": "localhost", "MASTER_ADDR": "127.0.0.1"}
    script = ["bash", str(HOUSE / "configs" / "launch" / "pretrain.sbatch"), *words(worlds, tmp_path / "run")]

    last = tmp_path / "run" / "last.ckpt"
    first = subprocess.Popen(script, cwd=HOUSE, env=environment(tmp_path, **job), start_new_session=True)
    until = time.monotonic() + 300
    while not last.is_file():
        assert first.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    (srun,) = psutil.Process(first.pid).children()
    srun.send_signal(signal.SIGUSR1)
    assert first.wait(300) == 0
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    assert torch.load(last, weights_only=True)["global_step"] < STEPS

    again = environment(tmp_path, **job, SLURM_RESTART_COUNT="1")
    subprocess.run(script, cwd=HOUSE, env=again, check=True, timeout=900)
    assert same(tmp_path / "run", expected)
    assert (tmp_path / "asked").read_text() == "requeue 4711\n", "it was done"
