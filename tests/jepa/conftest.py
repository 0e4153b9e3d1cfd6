"""A tiny JEPA and a clip for it: 4 x 2 x 3 tokens, so that no two axes are alike."""

import pytest
import torch
from tiny import tiny_config
from torch import Tensor

from jepa import JEPA, Grid


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
