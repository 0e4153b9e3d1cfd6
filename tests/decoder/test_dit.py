"""Claims:

1. At initialisation the guess is zero, and every block is the identity (adaLN-zero).
2. Conditioning is token by token: with closed gates, a token's condition reaches that token's pixels and no others.
3. Position matters: equal patches and conditions at different places give different guesses.
4. One set of weights serves any grid; tokens that do not fill the grid are refused.
5. `keep=False` is the unconditional model, sample by sample.
6. Every parameter gets a gradient, whether conditions are dropped or not (DDP asks for that).
7. The guess is float32 under bf16 autocast, and close to that of full precision.
"""

import pytest
import torch

from decoder import VideoDiT, VideoDiTConfig

CONFIG = VideoDiTConfig(width=48, depth=2, num_heads=3, patch_size=4, tubelet_size=2, condition_dim=10)
GRID = (2, 3, 4)


def inputs(batch: int = 2, tokens: int = 24) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(batch, tokens, CONFIG.patch_dim), torch.rand(batch), torch.randn(batch, tokens, 10)


def alive(model: VideoDiT, std: float = 0.1) -> VideoDiT:
    """Weights at random everywhere, so that nothing is zero by initialisation."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model


def test_the_first_guess_is_zero_and_blocks_are_the_identity() -> None:
    model = VideoDiT(CONFIG)
    x, t, condition = inputs()
    assert torch.equal(model(x, t, GRID, condition), torch.zeros_like(x))
    tokens = torch.randn(2, 24, 48)
    rope = torch.ones(1, 1, 24, 16), torch.zeros(1, 1, 24, 16)
    for block in model.blocks:
        assert torch.equal(block(tokens, torch.randn(2, 48), rope), tokens)


def test_a_condition_acts_at_its_own_place() -> None:
    model = VideoDiT(CONFIG)
    torch.nn.init.normal_(model.head.weight)
    x, t, condition = inputs()
    before = model(x, t, GRID, condition)
    condition[:, 7] += 1.0
    changed = (model(x, t, GRID, condition) != before).any(-1)
    assert changed[:, 7].all() and changed.sum() == len(x)


def test_position_matters() -> None:
    model = alive(VideoDiT(CONFIG))
    x, t, condition = (v[:, :1].expand(-1, 24, -1) if v.ndim == 3 else v for v in inputs(1))
    guess = model(x, t, GRID, condition)[0]
    assert torch.pdist(guess).min() > 1e-4


def test_any_grid_and_nothing_that_does_not_fill_it() -> None:
    model = alive(VideoDiT(CONFIG))
    for grid in ((2, 3, 4), (1, 5, 2), (6, 1, 1)):
        x, t, condition = inputs(2, grid[0] * grid[1] * grid[2])
        assert model(x, t, grid, condition).shape == x.shape
    with pytest.raises(ValueError, match="do not fill"):
        model(x, t, (2, 2, 2), condition)


def test_dropping_the_condition_is_the_unconditional_model() -> None:
    model = alive(VideoDiT(CONFIG))
    x, t, condition = inputs()
    mixed = model(x, t, GRID, condition, torch.tensor([True, False]))
    torch.testing.assert_close(mixed[0], model(x, t, GRID, condition)[0])
    torch.testing.assert_close(mixed[1], model(x, t, GRID)[1])
    assert not torch.allclose(mixed[0], model(x, t, GRID)[0])


@pytest.mark.parametrize("keep", [None, [True, False]])
@pytest.mark.parametrize("bottleneck", [0, 8])
def test_every_parameter_gets_a_gradient(keep: list[bool] | None, bottleneck: int) -> None:
    model = alive(VideoDiT(VideoDiTConfig(**{**vars(CONFIG), "bottleneck": bottleneck})))
    x, t, condition = inputs()
    model(x, t, GRID, condition, None if keep is None else torch.tensor(keep)).square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_bf16_autocast_gives_float32_close_to_full_precision() -> None:
    model = alive(VideoDiT(CONFIG))
    x, t, condition = inputs()
    full = model(x, t, GRID, condition)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(x, t, GRID, condition)
    assert half.dtype == torch.float32
    assert (half - full).norm() / full.norm() < 0.03
