"""Positions. Claims:

- sincos3d is V-JEPA's table (`uniform_power`), as computed here independently with numpy in float64.
- the standard rotary embedding is a rotation: it keeps norms, and scores depend on differences of positions alone.
- the vjepa2 variant is not a rotation, and equals the code released in transformers.
- angles are float32 and tables float64 inside, whatever the autocast and however the grid was first met.
"""

import numpy as np
import pytest
import torch

from jepa import Grid
from jepa.grid import coordinates
from jepa.posembed import rope3d, rotate, sincos3d


def table_of_vjepa(dim: int, t: int, h: int, w: int) -> np.ndarray:
    """As in the paper's repository: each axis ceil(dim / 6) * 2 wide, sin then cos, concatenated and cut."""
    width = int(np.ceil(dim / 6) * 2)
    rows = []
    for place in np.ndindex(t, h, w):
        parts = []
        for position in place:
            angles = position / 10000 ** (np.arange(width // 2) / (width / 2))
            parts += [np.sin(angles), np.cos(angles)]
        rows.append(np.concatenate(parts)[:dim])
    return np.array(rows)


@pytest.mark.parametrize("dim", [24, 128, 384, 26])
def test_sincos_is_the_table_of_vjepa(dim: int) -> None:
    ours = sincos3d(dim, Grid(5, 2, 3))
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours.numpy(), table_of_vjepa(dim, 5, 2, 3), atol=1e-7)


def test_the_standard_rope_keeps_norms_and_knows_only_differences() -> None:
    grid, shift = Grid(6, 5, 4), torch.tensor([2, 1, 1])
    q, k = torch.randn(2, 1, 1, 1, 20)
    cos, sin = rope3d(20, grid)
    turned_q, turned_k = (rotate(x.expand(1, 1, grid.num_tokens, 20), cos, sin)[0, 0] for x in (q, k))
    torch.testing.assert_close(turned_q.norm(dim=-1), q.norm().expand(grid.num_tokens))
    scores = turned_q @ turned_k.T
    moved = coordinates(grid) + shift
    inside = (moved < torch.tensor(grid)).all(1).nonzero()[:, 0]
    there = (moved[inside] * torch.tensor([20, 4, 1])).sum(1)
    assert len(inside) == 4 * 4 * 3
    torch.testing.assert_close(scores[inside][:, inside], scores[there][:, there])
    assert scores.std() > 0.1, "and they do differ with the difference"


def test_the_vjepa2_rope_is_the_released_one_and_no_rotation() -> None:
    released = pytest.importorskip("transformers.models.vjepa2.modeling_vjepa2").rotate_queries_or_keys
    grid, width = Grid(3, 2, 4), 20  # 6 channels an axis, 2 that stay as they are
    x = torch.randn(2, 3, grid.num_tokens, width)
    place = coordinates(grid).float()
    parts = [released(x[..., 6 * axis : 6 * axis + 6], pos=place[:, axis]) for axis in range(3)]
    theirs = torch.cat([*parts, x[..., 18:]], dim=-1)
    ours = rotate(x, *rope3d(width, grid, "vjepa2"))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    assert (ours.norm(dim=-1) - x.norm(dim=-1)).abs().max() > 0.1
    assert (ours - rotate(x, *rope3d(width, grid))).abs().max() > 0.1
    with pytest.raises(ValueError, match="vjepa3"):
        rope3d(width, grid, "vjepa3")


def test_angles_stay_precise_under_autocast_and_can_be_trained_with_afterwards() -> None:
    grid = Grid(300, 1, 1)  # in bf16, 299 and 300 are one number
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        cos, sin = rope3d(12, grid)
        table = sincos3d(12, grid)
    assert cos.dtype == sin.dtype == table.dtype == torch.float32
    assert not torch.equal(cos[298], cos[299]) and not torch.equal(table[298], table[299])
    x = torch.randn(1, 1, 5, 12, requires_grad=True)
    ids = torch.arange(5)
    rotate(x, cos[ids], sin[ids]).sum().backward()  # what was cached in inference mode must not forbid a gradient
    assert x.grad is not None
