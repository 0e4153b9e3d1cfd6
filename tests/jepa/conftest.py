"""A tiny JEPA and a clip for it: 4 x 2 x 3 tokens, so that no two axes are alike; a small world to train on;
and a tiny V-JEPA 2 of transformers, imported."""

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import classifier_of_transformers
from tiny import tiny_config
from torch import Tensor

from data.worlds import WorldConfig, generate
from jepa import JEPA, Grid
from jepa.exchange import ImportConfig, import_model


@pytest.fixture
def grid() -> Grid:
    return Grid(4, 2, 3)


@pytest.fixture
def video() -> Tensor:
    """(3, 3, 8, 16, 24), normally distributed."""
    return torch.randn(3, 3, 8, 16, 24, generator=torch.Generator().manual_seed(7))


@pytest.fixture
def jepa() -> JEPA:
    torch.manual_seed(1)
    return JEPA(tiny_config()).eval()


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 clips of 8 frames, 32x32, written in this process."""
    config = WorldConfig(str(tmp_path_factory.mktemp("worlds")), clips=32, num_frames=8, size=32, workers=1)
    return generate(config, progress=False)


@pytest.fixture(scope="module")
def theirs() -> Any:
    return classifier_of_transformers()


@pytest.fixture(scope="module")
def folder(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoder and predictor of `theirs` as transformers saves them."""
    path = tmp_path_factory.mktemp("theirs")
    theirs.vjepa2.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def ours(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, imported."""
    out = tmp_path_factory.mktemp("imported") / "model"
    import_model(ImportConfig(str(folder), str(out)))
    return out
