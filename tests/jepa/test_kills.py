"""Twenty kills. Claim:

- (slow) a run that is killed (SIGKILL, the process and its workers) twenty times at random moments, while it writes a
  checkpoint too, and resumed each time, ends with the weights of a run that nobody touched, bit for bit; whatever lies
  in its folder after a kill can be read, and nothing half written is left at the end.
"""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from tiny_run import command, weights

from jepa.weights import read_checkpoint

STEPS, KILLS = 1500, 20


@pytest.mark.slow
def test_twenty_kills_change_nothing(worlds: Path, tmp_path: Path) -> None:
    draw, quiet = random.Random(0), {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    whole, out = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(worlds, whole, steps=STEPS), check=True, stdout=subprocess.DEVNULL)
    kills, writing, steps = 0, 0, []
    while kills < KILLS:
        started = time.time()
        resume = ["--resume"] if (out / "last.ckpt").is_file() else []
        run = subprocess.Popen(command(worlds, out, *resume, steps=STEPS), start_new_session=True, **quiet)  # type: ignore[call-overload]
        while run.poll() is None and not (
            (out / "config.yaml").is_file() and (out / "config.yaml").stat().st_mtime > started
        ):
            time.sleep(0.01)  # until training begins
        until = time.monotonic() + draw.uniform(0, 1.5)
        on_write = draw.random() < 0.4  # wait for half a checkpoint
        while run.poll() is None and time.monotonic() < until + 2 * on_write:
            if on_write and any(out.glob(".*.ckpt.*")):
                writing += 1
                break
            time.sleep(0.0005 if on_write else 0.01)
        if run.poll() is not None:
            break
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        kills += 1
        for file in out.glob("*.ckpt"):
            found = read_checkpoint(file)
            assert found["kind"] == "jepa"
            steps.append(found["global_step"])
    assert kills == KILLS, f"the run ended after {kills} kills: give it more steps"
    assert writing >= 3 and len(set(steps)) > 5, (writing, steps)
    last = subprocess.run(
        command(worlds, out, "--resume", steps=STEPS), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert last.returncode == 0, last.stderr[-500:]
    one, other = weights(whole), weights(out)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert not list(out.glob(".*.ckpt.*"))
