"""Shared by every test: one thread, fixed seeds, and the development data where it lies beside the checkout."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start, too

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

torch.set_num_threads(1)  # threads that wait for each other are slowest where the machine is busy


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real development videos; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the development videos in {SHARED.parent.name}/{SHARED.name} beside the checkout")
    return SHARED
