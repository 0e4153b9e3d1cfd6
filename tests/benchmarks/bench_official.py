"""An official encoder, ours beside transformers' (`attn_implementation="sdpa"`): time, and peak memory.

    python tests/benchmarks/bench_official.py [preset=vjepa2_vitl16] [frames=16] [size=256] [dtype=float32] [tries=5]

The same random weights, the same clip, one after the other in every round, so that what else the machine does disturbs
both alike; the ratio is theirs over ours, the median of the rounds. On a GPU the peak is torch's own; on a CPU it is
what the process gained over its resting size, each in a process of its own. Not collected by pytest.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
from transformers.models.vjepa2 import VJEPA2Config, VJEPA2Model

from jepa.checkpoints import read_transformers, transformers_config
from jepa.presets import preset


def build(name: str, frames: int, size: int, whose: str) -> Any:
    """Their encoder or ours, of the same weights."""
    torch.manual_seed(0)
    settings = transformers_config(preset(name).model, frames, size)
    theirs = VJEPA2Model(VJEPA2Config(**settings, attn_implementation="sdpa")).eval()
    if whose == "theirs":
        return theirs
    found = read_transformers(settings, theirs.state_dict()).model
    assert found is not None
    return found.target_encoder


def encode(model: Any, video: torch.Tensor, whose: str) -> torch.Tensor:
    if whose == "ours":
        return model(video)
    return model(video.transpose(1, 2), skip_predictor=True).last_hidden_state


def resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@torch.inference_mode()
def peak(settings: dict[str, Any], whose: str) -> float:
    """GiB that encoding one batch adds, in this process."""
    device, dtype = torch.device(settings["device"]), getattr(torch, settings["dtype"])
    model = build(settings["preset"], settings["frames"], settings["size"], whose).to(device, dtype)
    video = torch.randn(settings["batch"], 3, settings["frames"], settings["size"], settings["size"])
    video = video.to(device, dtype)
    encode(model, video[:, :, :2, :32, :32], whose)  # libraries loaded, weights touched
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        encode(model, video, whose)
        return (torch.cuda.max_memory_allocated() - before) / 2**30
    # The building left a peak of its own: what is resident now, and how far encoding goes above that.
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the kernel forgets the peak
    before = status("VmRSS")
    encode(model, video, whose)
    return status("VmHWM") - before


def status(key: str) -> float:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 2**20 for line in file if line.startswith(key))


@torch.inference_mode()
def main(settings: dict[str, Any]) -> None:
    device, dtype = torch.device(settings["device"]), getattr(torch, settings["dtype"])
    shape = (settings["batch"], 3, settings["frames"], settings["size"], settings["size"])
    video = torch.randn(shape).to(device, dtype)
    models = {}
    for whose in ("theirs", "ours"):
        models[whose] = build(settings["preset"], settings["frames"], settings["size"], whose).to(device, dtype)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{settings['preset']}, video {shape}, {settings['dtype']}, {name}, torch {torch.__version__}")
    spent: dict[str, list[float]] = {"theirs": [], "ours": []}
    outputs = {}
    for round_ in range(settings["tries"] + 1):
        for whose, model in models.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            begun = time.perf_counter()
            outputs[whose] = encode(model, video, whose)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if round_:
                spent[whose].append(time.perf_counter() - begun)
    ratios = [a / b for a, b in zip(spent["theirs"], spent["ours"], strict=True)]
    gap = (outputs["theirs"].float() - outputs["ours"].float()).abs().max().item()
    for whose, times in spent.items():
        print(f"{whose:>7}: {statistics.median(times):8.3f} s, best {min(times):.3f}")
    print(
        f"  ratio: {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]; outputs differ by {gap:.1e}"
    )
    del models, outputs
    for whose in ("theirs", "ours"):
        words = [f"{key}={value}" for key, value in settings.items()]
        done = subprocess.run([sys.executable, __file__, "peak", whose, *words], check=True, stdout=subprocess.PIPE)
        print(f"{whose:>7}: {json.loads(done.stdout):.2f} GiB above the weights at its peak")


if __name__ == "__main__":
    cuda = torch.cuda.is_available()
    settings: dict[str, Any] = {
        "preset": "vjepa2_vitl16", "frames": 16, "size": 256, "batch": 1, "tries": 5,
        "dtype": "bfloat16" if cuda else "float32", "device": "cuda" if cuda else "cpu",
    }  # fmt: skip
    words = [word for word in sys.argv[1:] if "=" in word]
    for word in words:
        key, _, value = word.partition("=")
        settings[key] = int(value) if value.isdigit() else value
    if sys.argv[1:2] == ["peak"]:
        print(json.dumps(peak(settings, sys.argv[2])))
    else:
        main(settings)
