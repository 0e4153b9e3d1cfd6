"""Token order. Claims:

- patchify and unpatchify are inverses, and each token holds the pixels of its own place, in the order t, h, w.
- patchify followed by a linear layer is the Conv3d of V-JEPA.
- gather and scatter are inverses at the ids they are given, and touch nothing else.
- a size that does not divide is refused with the name of what must change, and a size that would do.
"""

import pytest
import torch

from jepa import ConfigError, Grid, patchify, token_grid, unpatchify
from jepa.grid import coordinates, gather_tokens, scatter_tokens


def test_unpatchify_is_the_inverse_on_any_grid() -> None:
    for shape in ((2, 3, 4, 16, 24), (1, 1, 2, 8, 8), (1, 4, 6, 8, 40)):
        video = torch.randn(shape)
        tokens = patchify(video, 2, 8)
        assert torch.equal(unpatchify(tokens, token_grid(shape, 2, 8), 2, 8), video)
    with pytest.raises(ValueError, match="do not fill"):
        unpatchify(torch.randn(1, 7, 12), Grid(2, 2, 2), 1, 2)


def test_token_n_holds_the_pixels_of_its_place() -> None:
    grid = Grid(4, 2, 3)
    video = torch.zeros(1, 1, 8, 16, 24)
    for n, (t, h, w) in enumerate(coordinates(grid).tolist()):
        video[:, :, 2 * t : 2 * t + 2, 8 * h : 8 * h + 8, 8 * w : 8 * w + 8] = n
    tokens = patchify(video, 2, 8)
    assert tokens.shape == (1, 24, 128)
    assert torch.equal(tokens[0], torch.arange(24.0)[:, None].expand(24, 128))
    assert coordinates(grid)[:4].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0]], "width is fastest"


def test_a_linear_layer_on_patches_is_the_convolution() -> None:
    conv = torch.nn.Conv3d(3, 5, (2, 4, 4), (2, 4, 4))
    video = torch.randn(2, 3, 4, 8, 12)
    ours = torch.nn.functional.linear(patchify(video, 2, 4), conv.weight.flatten(1), conv.bias)
    torch.testing.assert_close(ours, conv(video).flatten(2).transpose(1, 2))


def test_scatter_writes_what_gather_read() -> None:
    x = torch.randn(2, 6, 3)
    ids = torch.tensor([[0, 4], [1, 5]])
    taken = gather_tokens(x, ids)
    assert torch.equal(taken, torch.stack([x[0, [0, 4]], x[1, [1, 5]]]))
    assert torch.equal(scatter_tokens(x, ids, taken), x)
    written = scatter_tokens(x, ids, taken + 1)
    assert ((written - x).abs().sum(-1) > 0).nonzero().tolist() == [[0, 0], [0, 4], [1, 1], [1, 5]]


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((7, 16, 16), "frames 7 .* tubelet_size 2: choose 8"),
        ((8, 20, 16), "height 20 .* patch_size 8: choose 16"),
        ((8, 16, 3), "width 3 .* patch_size 8: choose 8"),
        ((0, 16, 16), "frames 0"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(shape: tuple[int, int, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        token_grid(shape, 2, 8)
