"""How long a training step of a config takes on this machine, and where the time goes.

    python tests/benchmarks/bench_step.py configs/pretrain/worlds_tiny.yaml [key=value ...]

Random clips of the config's size stand in for videos, so that only the model is measured: masks, target encoder,
context encoder with predictor and loss, backwards, optimizer, moving average. Each is the median over `STEPS` steps.
Not collected by pytest.
"""

import statistics
import sys
import time
from collections import defaultdict

import torch

from jepa.config import load_config
from jepa.jepa import JEPA
from jepa.masks import MaskCollator
from jepa.optim import adamw, apply_rates, rates
from jepa.train import PretrainConfig
from jepa.training import auto_precision

STEPS, WARM_UP = 20, 3


def main(path: str, words: list[str]) -> None:
    config = load_config(PretrainConfig, path, words)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = auto_precision() if config.trainer.precision == "auto" else config.trainer.precision
    half = precision.startswith("bf16")
    encoder, data = config.model.encoder, config.data
    jepa = JEPA(config.model).to(device).train()
    optimizer = adamw(jepa, config.optim.lr, config.optim.weight_decay, config.optim.betas)
    collate = MaskCollator(config.masks, encoder.tubelet_size, encoder.patch_size, config.masks_per_step)
    spent: dict[str, list[float]] = defaultdict(list)
    begun = [time.perf_counter()]

    def lap(part: str) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        spent[part].append(now - begun[0])
        begun[0] = now

    for step in range(STEPS + WARM_UP):
        clips = torch.randn(data.batch_size, encoder.in_channels, data.num_frames, *data.size)
        samples = [{"video": clip, "seed": 1000 * step + i} for i, clip in enumerate(clips)]
        if step == WARM_UP:
            spent.clear()
        begun[0] = time.perf_counter()
        batch = collate(samples)
        lap("collate and masks")
        video = batch["video"].to(device)
        masks = [type(mask)(*(ids.to(device) for ids in mask)) for mask in batch["masks"]]
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            with torch.no_grad():
                jepa.target_encoder(video)
            lap("target encoder, alone")
            loss = jepa(video, masks).total
        lap("forwards")
        optimizer.zero_grad()
        loss.backward()
        lap("backwards")
        now = rates(config.optim, step, config.trainer.max_steps)
        apply_rates(optimizer, now.lr, now.weight_decay)
        optimizer.step()
        lap("optimizer")
        jepa.update_target(now.momentum)
        lap("moving average")
    medians = {part: statistics.median(times) for part, times in spent.items()}
    alone = medians.pop("target encoder, alone")
    total = sum(medians.values())
    size = sum(p.numel() for p in jepa.parameters() if p.requires_grad)
    print(f"{path}: {size / 1e6:.2f} M parameters, {'bf16' if half else 'fp32'} on {device.type}, ", end="")
    print(f"{torch.get_num_threads()} threads, batches of {data.batch_size}, grid {tuple(jepa.grid(video))}")
    for part, seconds in medians.items():
        note = f"  (of which target encoder {1000 * alone:.1f} ms)" if part == "forwards" else ""
        print(f"  {part:<18} {1000 * seconds:8.1f} ms {seconds / total:6.0%}{note}")
    print(f"  {'a step':<18} {1000 * total:8.1f} ms, {data.batch_size / total:.0f} clips a second")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
