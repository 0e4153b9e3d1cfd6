"""Clips from files and from tar shards of them, side by side: `python tests/benchmarks/bench_tars.py SOURCE [batches]`.

SOURCE is a folder or a table of videos. The two take turns batch by batch, either first, so that other work on the
machine slows both alike; a line gives the median of the ratios and their middle half, in seconds of processor time,
which other work does not stretch. One thread, no workers.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from data.config import DataConfig
from data.dataset import list_videos
from data.module import ClipDataModule
from data.reader import decord_installed
from data.tars_convert import ShardConfig, shard_videos

CLIPS = 16  # of a batch


def main(source: str, batches: int) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "shards"
        for check in (True, False):
            out = Path(name) / f"check-{check}"
            began = time.perf_counter()
            packed = shard_videos(ShardConfig(source, str(out), shard_mb=8, check=check, progress=False))
            wall = time.perf_counter() - began
            speed = f"{packed.size / 1e6 / wall:.1f} MB/s, {packed.videos / wall:.0f} videos/s"
            print(f"jepa shard check={str(check).lower():<5} {packed.videos} videos in {packed.shards} shards: {speed}")
        for backend in ["pyav"] + ["decord"] * decord_installed():
            compare(source, str(out), backend, batches)


def compare(source: str, shards: str, backend: str, batches: int) -> None:
    base = DataConfig(
        train=source, labels="none", num_frames=16, size=[64, 64], batch_size=CLIPS, workers=0, val_fraction=0.0
    )
    base = replace(base, backend=backend, short="loop")
    loaders = [iter(ClipDataModule(replace(base, train=train)).train_dataloader()) for train in (source, shards)]
    assert len(list_videos(source, "none")) == len(list_videos(shards, "none"))
    seconds = np.zeros((batches, 2))
    for batch in range(-2, batches):
        found = {}
        for which in (0, 1) if batch % 2 else (1, 0):
            began = time.process_time()
            found[which] = next(loaders[which])["video"]
            seconds[max(batch, 0), which] = time.process_time() - began
        assert torch.equal(found[0], found[1])  # the same clips in the same order
    rate = CLIPS / np.median(seconds, axis=0)
    low, middle, high = np.quantile(seconds[:, 0] / seconds[:, 1], [0.25, 0.5, 0.75])
    print(
        f"{backend:<7} {rate[0]:>6.0f} clips/s from files, {rate[1]:>6.0f} from shards: "
        f"{middle:.3f} times as fast ({low:.3f} to {high:.3f} over {batches} pairs of batches)",
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 40)
