"""How fast worlds are made, on one core and on all, and what the video codec does to their pixels.

    python tests/benchmarks/bench_worlds.py [clips]

Rates per core are processor time, the fastest of several passes for every clip: other programs on the machine only ever
make a pass slower. What `generate` does with all cores is wall-clock time, and suffers from them.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.reader import open_video
from data.worlds import WorldConfig, generate, render, simulate
from data.writer import write_video

PASSES = 9


def rate(work: Callable[[int], object], clips: int) -> str:
    """Clips a second of `work(index)` on one core, in words."""
    best = np.full(clips, np.inf)
    for _ in range(PASSES):
        for index in range(clips):
            start = time.thread_time()
            work(index)
            best[index] = min(best[index], time.thread_time() - start)
    return f"{clips / best.sum():6.0f} clips a second and core"


def main(clips: int) -> None:
    config = WorldConfig()
    print(f"clips of {config.num_frames} frames {config.size}x{config.size}, {os.cpu_count()} cores")
    print("simulate          ", rate(lambda i: simulate(config, i), clips))
    episodes = [simulate(config, i) for i in range(clips)]
    print("render            ", rate(lambda i: render(episodes[i]), clips))
    print("simulate + render ", rate(lambda i: render(simulate(config, i)), clips))
    pictures = [render(episode) for episode in episodes]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        for preset in ("superfast", "ultrafast"):
            for crf in (12, 14, 18):
                speed = rate(lambda i, c=crf, p=preset: write_video(path, pictures[i], config.fps, c, p), clips // 4)
                errors, sizes = [], []
                for picture in pictures[:24]:
                    write_video(path, picture, config.fps, crf, preset)
                    seen = open_video(path).frames(np.arange(len(picture)))
                    errors.append(np.abs(seen.astype(float) - picture).mean())
                    sizes.append(path.stat().st_size)
                print(
                    f"encode {preset} crf {crf}",
                    speed,
                    f"error {np.mean(errors):.2f}/255, {np.mean(sizes) / 1e3:.1f} kB",
                )
        for workers in (1, 0):
            start = time.perf_counter()
            generate(WorldConfig(out=f"{folder}/set{workers}", clips=1000, workers=workers), progress=False)
            spent = time.perf_counter() - start
            print(f"generate 1000 clips, {workers or 'all'} workers: {1000 / spent:.0f} clips a second, start included")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
