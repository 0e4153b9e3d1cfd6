"""What decoding leaves behind: `python tests/benchmarks/bench_memory.py data=FOLDER [clips=20000] [timeout=60]`.

Resident memory in MB of the process that trains, of its two DataLoader workers and of the processes that decode for
them, every thousand clips, with each backend; then what was added after the first thousand. What processes share counts
for each, so that it is the growth that tells. `timeout=0` decodes in the workers, where what a decoder leaks stays.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time

import psutil
import torch

from data.config import DataConfig
from data.module import ClipDataModule
from data.reader import decord_installed

BATCH = 10


def megabytes(processes: list[psutil.Process]) -> float:
    return sum(process.memory_info().rss for process in processes) / 1e6


def measure(folder: str, backend: str, clips: int, timeout: float) -> None:
    config = DataConfig(
        train=folder, val_fraction=0.0, num_frames=4, size=[32, 32], short="loop", batch_size=BATCH, workers=2
    )
    config.backend, config.timeout = backend, timeout
    loader = iter(ClipDataModule(config).train_dataloader())
    here, began, first = psutil.Process(), time.perf_counter(), 0.0
    print(
        f"{backend}, timeout={timeout:g}\n{'clips':>7} {'main':>6} {'workers':>8} {'decoders':>9} {'all':>6}  clips/s"
    )
    for batch in range(1, clips // BATCH + 1):
        next(loader)
        if batch * BATCH % 1000 == 0:
            workers = here.children()
            decoders = [child for worker in workers for child in worker.children()]
            parts = [megabytes(group) for group in ([here], workers, decoders)]
            first = first or sum(parts)
            rate = batch * BATCH / (time.perf_counter() - began)
            print(
                f"{batch * BATCH:>7} {parts[0]:>6.0f} {parts[1]:>8.0f} {parts[2]:>9.0f} {sum(parts):>6.0f}  {rate:.0f}",
                flush=True,
            )
    print(f"added after the first thousand: {sum(parts) - first:.0f} MB\n", flush=True)


def main(words: dict[str, str]) -> None:
    torch.set_num_threads(1)
    for backend in words.get("backend", "pyav" + " decord" * decord_installed()).split():
        measure(words["data"], backend, int(words.get("clips", 20_000)), float(words.get("timeout", 60)))


if __name__ == "__main__":
    main(dict(word.split("=", 1) for word in sys.argv[1:]))
