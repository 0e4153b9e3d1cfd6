"""What a training step and a drawing cost at the tiny setting, and how much of a step is the frozen JEPA.

    python tests/benchmarks/bench_decoder.py [threads]

Times are wall-clock, the best of several, because other programs only ever make a run slower.
"""

import sys
import time
from collections.abc import Callable

import torch

from decoder import Decoder, DecoderConfig, FlowConfig, LatentSource, VideoDiTConfig
from jepa import JEPA, EncoderConfig, JEPAConfig, PredictorConfig
from jepa.training import auto_precision

BATCH = 32


def best(work: Callable[[], object], repeats: int = 8) -> float:
    """Milliseconds of the fastest of `repeats` runs, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def main(threads: int) -> None:
    torch.set_num_threads(threads)
    encoder = EncoderConfig(embed_dim=128, depth=4, num_heads=4, patch_size=8, position="rope+sincos")
    source = LatentSource(JEPA(JEPAConfig(encoder=encoder, predictor=PredictorConfig(64, 2, 4))))
    decoder = Decoder(
        DecoderConfig(dit=VideoDiTConfig(width=128, depth=4, num_heads=4, patch_size=8, condition_dim=128))
    )
    video = torch.randn(BATCH, 3, 8, 32, 32)
    grid, mask = source.grid(video), source.task_mask("forward", video)
    latents = source.predicted(video, mask)
    half = auto_precision("cpu") == "bf16-mixed"

    def train() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = decoder.loss(video, latents, grid, FlowConfig()).loss
        loss.backward()

    def observe(work: Callable[[], object]) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return best(work)

    parameters = sum(p.numel() for p in decoder.parameters())
    print(
        f"{parameters:,} parameters, {BATCH} clips of 8 frames 32x32, {threads} thread(s), {'bf16' if half else 'fp32'}"
    )
    print(f"decoder, forward and backward  {best(train):7.1f} ms")
    print(f"latents of whole clips         {observe(lambda: source.target(video)):7.1f} ms")
    print(f"predicted latents              {observe(lambda: source.predicted(video, mask)):7.1f} ms")
    for method, steps in (("euler", 1), ("euler", 4), ("euler", 8), ("euler", 16), ("heun", 8)):
        spent = best(lambda method=method, steps=steps: decoder.decode(latents, grid, 0, steps, method), 3)
        print(f"draw, {method} {steps:2d} steps            {spent:7.1f} ms, {1000 * BATCH / spent:5.0f} clips a second")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
