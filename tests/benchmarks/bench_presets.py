"""What each official model asks of a machine: weights, and peak memory and time of encoding and predicting one clip.

    python tests/benchmarks/bench_presets.py [name ...]          # all presets, in bf16

Random weights; clips as each was pretrained on (16 frames, 64 for the one of V-JEPA 2 at 384). `predict` is the forward
task, from half of the clip. Each model in a process of its own; on a GPU the peaks are torch's own, on a CPU what the
process gained. Not collected by pytest.
"""

import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from jepa.jepa import JEPA
from jepa.presets import PRESETS, preset


def status(key: str) -> float:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 2**20 for line in file if line.startswith(key))


def spent(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """(GiB above what was held before, seconds)."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, or the next peak would hide in it
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the kernel forgets the peak
        before = status("VmRSS")
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**30, time.perf_counter() - begun
    return status("VmHWM") - before, time.perf_counter() - begun


@torch.inference_mode()
def measure(name: str) -> dict[str, float]:
    found = preset(name)
    config = found.model
    config.one_encoder = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.nn.init.trunc_normal_ = lambda tensor, **_: torch.nn.init.normal_(tensor, std=0.02)  # values do not matter
    model = JEPA(config).to(device, torch.bfloat16).eval()
    video = torch.randn(1, 3, found.num_frames, found.size, found.size, dtype=torch.bfloat16, device=device)
    model.predict(video[:, :, :4, :64, :64])  # libraries loaded, weights touched
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**30
    encode, encode_s = spent(lambda: model.target_encoder(video), device)
    predict, predict_s = spent(lambda: model.predict(video), device)
    row = {"parameters": sum(p.numel() for p in model.parameters()) / 1e6, "tokens": model.grid(video).num_tokens}
    return row | {
        "weights": weights,
        "encode": encode,
        "encode_s": encode_s,
        "predict": predict,
        "predict_s": predict_s,
    }


def main(names: list[str]) -> None:
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, bf16, one clip, torch {torch.__version__}")
    print("| preset | parameters, M | tokens | weights, GiB | encode, + GiB | s | predict, + GiB | s |\n|" + "---|" * 8)
    for name in names:
        done = subprocess.run([sys.executable, __file__, "one", name], check=True, stdout=subprocess.PIPE)
        row = json.loads(done.stdout)
        cells = [f"{row['parameters']:.0f}", f"{row['tokens']:,}", f"{row['weights']:.2f}"]
        cells += [f"{row[key]:.{2 if key in ('encode', 'predict') else 1}f}" for key in list(row)[3:]]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        print(json.dumps(measure(sys.argv[2])))
    else:
        main(sys.argv[1:] or list(PRESETS))
