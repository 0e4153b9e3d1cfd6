"""What happens to a run outside of it. Claims:

- with a fifth of its videos taken from decoder test suites, training finishes, and skipped.csv lists just those files
  that `check_folder` cannot read, with the reason; a new run starts a new list, a resumed one goes on with it.
- (slow) a worker process that is killed, as by the kernel when memory runs out, and a folder that vanishes: exit code
  2, one sentence that says what to do, no traceback, no process left, and a checkpoint to go on from.
"""

import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from data.check import check_folder
from jepa import load_config
from jepa.train import PretrainConfig, pretrain
from jepa.weights import read_checkpoint

TINY = [
    "model.encoder={embed_dim: 24, depth: 1, num_heads: 2, patch_size: 8}",
    "model.predictor={embed_dim: 12, depth: 1, num_heads: 2}",
    "masks=[{kind: tube, ratio: 0.5}]",
]
CPU = "accelerator: cpu, precision: 32-true, threads: 1, progress: false"


def listed(out: Path) -> dict[str, str]:
    with (out / "skipped.csv").open(newline="") as stream:
        rows = [(Path(row["path"]).name, row["reason"]) for row in csv.DictReader(stream)]
    assert len(dict(rows)) == len(rows), "each file once"
    return dict(rows)


@pytest.fixture(scope="module")
def mixed(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 good videos and 30 difficult ones, as links: first those without a frame, then by size."""
    folder = tmp_path_factory.mktemp("mixed")
    entries = json.loads((shared / "hostile" / "manifest.json").read_text())
    entries.sort(key=lambda entry: (entry.get("n", 0) > 0, entry["bytes"]))
    good = sorted((shared / "toy_shapes").rglob("*.mp4"))[:120]
    for i, source in enumerate([*good, *(shared / "hostile" / entry["path"] for entry in entries[:30])]):
        (folder / f"{i:03d}-{source.name}").symlink_to(source)
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fifth_of_the_files_is_bad(mixed: Path, tmp_path: Path, workers: int) -> None:
    bad = {Path(report.path).name for report in check_folder(mixed, num_frames=4, progress=False) if not report.ok}
    assert len(bad) > 10
    settings = f"workers: {workers}, short: pad, max_bad_fraction: 0.2"
    run = lambda out, steps, *more: pretrain(
        load_config(
            PretrainConfig,
            None,
            [
                f"out={out}",
                f"data={{train: {mixed}, val_fraction: 0, num_frames: 4, size: [16, 16], batch_size: 25, {settings}}}",
                *TINY,
                f"trainer={{max_steps: {steps}, val_every: 3, {CPU}}}",
                *more,
            ],
        )
    )
    out = tmp_path / "run"
    out.mkdir()
    (out / "skipped.csv").write_text("path,reason\nold.mp4,of a run that saved nothing\n")
    run(out, 3)
    half = listed(out)
    assert half.keys() < bad
    run(out, 6, "resume=true")  # an epoch
    assert listed(out).keys() == bad and half.items() <= listed(out).items()
    assert all(name in reason for name, reason in listed(out).items())


def killed(run: subprocess.Popen[str], videos: Path) -> None:
    decoders = [child for worker in psutil.Process(run.pid).children() for child in worker.children()]
    assert len(decoders) == 1
    decoders[0].parent().kill()  # type: ignore[union-attr]


def removed(run: subprocess.Popen[str], videos: Path) -> None:
    shutil.rmtree(videos)


@pytest.mark.slow  # two runs of the command
@pytest.mark.parametrize(
    ("happen", "says"),
    [(killed, ["a process that reads videos died", "data.workers"]), (removed, ["does not exist"])],
    ids=["killed", "removed"],
)
def test_what_ends_a_run(
    happen: Callable[[subprocess.Popen[str], Path], None], says: list[str], worlds: Path, tmp_path: Path
) -> None:
    videos, out = tmp_path / "videos", tmp_path / "run"
    shutil.copytree(worlds / "videos", videos)
    words = [
        f"out={out}",
        f"data={{train: {videos}, val_fraction: 0, num_frames: 4, size: [16, 16], batch_size: 4, workers: 1}}",
        *TINY,
        f"trainer={{max_steps: 100000, val_every: 20, {CPU}}}",
    ]
    run = subprocess.Popen(
        [sys.executable, "-m", "jepa.cli", "pretrain", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while run.poll() is None and not (out / "last.ckpt").is_file():
        time.sleep(0.05)
    family = psutil.Process(run.pid).children(recursive=True)
    assert len(family) >= 2
    happen(run, videos)
    _, said = run.communicate(timeout=600)
    sentences = [line for line in said.splitlines() if line.startswith("jepa: ")]
    assert run.returncode == 2 and len(sentences) == 1 and "Traceback" not in said, said
    assert all(word in said for word in says), said
    assert read_checkpoint(out / "last.ckpt")["global_step"] >= 20
    assert not list(out.glob(".*")) and not psutil.wait_procs(family, timeout=60)[1]
