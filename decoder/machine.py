"""Where and by which code something was made: what a reader needs to make sense of a time or a figure."""

import os
import platform
import subprocess
from pathlib import Path

import torch

from jepa.training import TrainerConfig, auto_precision


def environment(trainer: TrainerConfig) -> dict[str, str | int]:
    """Device, cores, threads, precision and versions of a run with these settings, on this machine."""
    precision = auto_precision(trainer.accelerator) if trainer.precision == "auto" else trainer.precision
    return {
        "device": device_name(),
        "cores": os.cpu_count() or 1,
        "threads": trainer.threads or torch.get_num_threads(),
        "precision": precision,
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def device_name() -> str:
    """The GPU's name, else the processor's and how many cores of it there are."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cores = os.cpu_count() or 1
    return f"{_processor()} ({cores} {'core' if cores == 1 else 'cores'})"


def _processor() -> str:
    known = Path("/proc/cpuinfo")
    if known.is_file():
        for line in known.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """Commit of the checkout this code lies in, marked where files differ from it; empty outside a checkout."""
    here = Path(__file__).resolve()
    # An installed copy may lie inside somebody else's repository: ask whether this very file is tracked.
    if _git("ls-files", "--error-unmatch", here.name) is None:
        return ""
    found = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return f"{found} with changes" if found and changed else found or ""


def _git(*words: str) -> str | None:
    """What git says in this folder; None where it fails or is not installed."""
    try:
        done = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
