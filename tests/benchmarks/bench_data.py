"""How fast clips get in and out: `python tests/benchmarks/bench_data.py [clips]`, one line per measurement.

One thread, one process unless a line says otherwise; clips of the size of the worlds (64x64, 16 frames).
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from data.config import DataConfig
from data.module import ClipDataModule
from data.reader import decord_installed, open_video
from data.writer import write_video


@contextmanager
def measured(what: str, count: int, unit: str = "clips/s") -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"{what:<58} {count / wall:>9.0f} {unit}   ({count / max(cpu, 1e-9):.0f} per second of this process)",
        flush=True,
    )


def moving_disc(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    background, colour = rng.uniform(20, 150, 3) + (x / 3)[..., None], rng.uniform(0, 255, 3)
    discs = [np.hypot(x - 20 - 1.5 * t, y - 32)[..., None] < 12 for t in range(16)]
    return np.stack([np.where(disc, colour, background) for disc in discs]).astype(np.uint8)


def main(count: int) -> None:
    torch.set_num_threads(1)
    clips = [moving_disc(seed) for seed in range(min(count, 50))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / f"{i:05d}.mp4" for i in range(count)]
        with measured("write_video 64x64x16", count):
            for i, path in enumerate(paths):
                write_video(path, clips[i % len(clips)], fps=8)
        written = sum(path.stat().st_size for path in paths) / count
        error = np.mean([np.abs(open_video(p).frames(range(16)).astype(int) - c).mean() for p, c in zip(paths, clips)])  # noqa: B905
        print(f"{'bytes a clip, mean absolute error after reading':<58} {written:>9.0f} bytes, {error:.2f} levels")
        for backend in ["pyav"] + ["decord"] * decord_installed():
            with measured(f"open_video and 16 frames, {backend}", count):
                for path in paths:
                    open_video(path, backend).frames(range(16))
        tiny = DataConfig(train=str(folder), num_frames=8, size=[32, 32], batch_size=64, workers=0, scale=[1.0, 1.0])
        for title, settings in {
            "cached 8x32x32, flip and normalise": {"cache": True},
            "cached 8x32x32, random resized crop": {"cache": True, "scale": [0.3, 1.0]},
            "cached 8x32x32, two workers": {"cache": True, "workers": 2},
            "decoded 8x32x32, two workers": {"workers": 2},
            "decoded 8x32x32, two workers, without processes of their own": {"workers": 2, "timeout": 0.0},
        }.items():
            module = ClipDataModule(DataConfig(**{**vars(tiny), **settings}))  # type: ignore[arg-type]
            loader = iter(module.train_dataloader())
            next(loader)
            batches = 100 if "cache" in settings else 8
            with measured(title, batches * 64):
                for _ in range(batches):
                    next(loader)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
