"""Pictures against the truth. Claims:

- PSNR of the squared error and SSIM are torchmetrics', clip by clip and frame by frame; LPIPS is its public function's
  with the same backbone, and torchmetrics' heads are those that came with the backbone.
- what was visible counts for nothing; a perfect drawing scores 0, 1 and 0; a blurred picture is worse for LPIPS than a
  faint veil of equal PSNR.
- frames below 64 pixels are enlarged for LPIPS, larger ones and their shape are kept; grey pictures are taken.
- what LPIPS remembers of its network is what that would say again, and a truth is computed once.
- shapes that do not match, and masks that hide nothing, are errors.

What needs LPIPS needs the weights of `make metrics`, and skips without.
"""

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.image import (
    learned_perceptual_image_patch_similarity,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from decoder.metric_weights import ALEXNET_FILE, alexnet_state, installed
from decoder.perceptual import _Remembering, load_lpips, picture_errors


@pytest.fixture(scope="module")
def lpips() -> nn.Module:
    if installed(ALEXNET_FILE) is None:
        pytest.skip("needs the weights that `make metrics` installs")
    return load_lpips()


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """Smooth truth and a noisy drawing, (2, 3, 5, 24, 32)."""
    rough = torch.rand(2, 3, 5, 6, 8)
    truth = F.interpolate(rough, (5, 24, 32), mode="trilinear")
    return (truth + 0.1 * torch.randn_like(truth)).clamp(0, 1), truth


def test_psnr_and_ssim_are_torchmetrics(pair: tuple[Tensor, Tensor]) -> None:
    drawn, truth = pair
    errors = picture_errors(drawn, truth, [1, 4])
    assert errors.frames == [1, 4] and errors.squared_error.shape == errors.ssim.shape == (2, 2)
    assert errors.lpips is None
    for clip in range(2):
        for column, frame in enumerate(errors.frames):
            a, b = drawn[clip, :, frame][None], truth[clip, :, frame][None]
            psnr = -10 * torch.tensor(errors.squared_error[clip, column]).log10()
            assert float(psnr) == pytest.approx(float(peak_signal_noise_ratio(a, b, data_range=1.0)), abs=1e-4)
            ssim = structural_similarity_index_measure(a, b, data_range=1.0)
            assert errors.ssim[clip, column] == pytest.approx(float(ssim), abs=1e-5)


def test_lpips_is_torchmetrics(lpips: nn.Module, pair: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    alexnet = torchvision.models.alexnet(weights=None)
    state, heads = alexnet_state()
    alexnet.features.load_state_dict({key.split(".", 1)[1]: value for key, value in state.items()})
    monkeypatch.setattr(torchvision.models, "alexnet", lambda weights: alexnet)  # instead of its download
    large = [F.interpolate(x, (5, 72, 96)) for x in pair]
    errors = picture_errors(*large, [0, 2, 3], lpips)
    assert errors.lpips is not None
    for column, frame in enumerate(errors.frames):
        pictures = (x[:, :, frame] for x in large)
        theirs = learned_perceptual_image_patch_similarity(*pictures, net_type="alex", reduction="none", normalize=True)
        torch.testing.assert_close(torch.from_numpy(errors.lpips[:, column]).float(), theirs, rtol=1e-4, atol=1e-6)
    for head, layer in zip(heads, lpips.lins, strict=True):
        torch.testing.assert_close(head, layer.model[-1].weight)


def test_small_frames_are_enlarged(lpips: nn.Module, pair: tuple[Tensor, Tensor]) -> None:
    enlarged = [F.interpolate(x[:, :, 1], (64, 85), mode="bilinear", align_corners=False)[:, :, None] for x in pair]
    small, large = picture_errors(*pair, [1], lpips).lpips, picture_errors(*enlarged, [0], lpips).lpips
    torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-6)
    grey = [x[:, :1] for x in pair]
    as_colour = picture_errors(*(x.expand(-1, 3, -1, -1, -1) for x in grey), [1], lpips)
    torch.testing.assert_close(picture_errors(*grey, [1], lpips).lpips, as_colour.lpips, rtol=1e-4, atol=1e-6)


def test_blur_is_worse_than_a_veil(lpips: nn.Module) -> None:
    truth = torch.rand(1, 3, 1, 64, 64)
    blurred = F.avg_pool3d(truth, (1, 5, 5), stride=1, padding=(0, 2, 2), count_include_pad=False)
    squared = (blurred - truth).square().mean()
    veiled = (truth * (1 - squared.sqrt() * 1.5)).clamp(0, 1)
    blur, veil = (picture_errors(drawn, truth, [0], lpips) for drawn in (blurred, veiled))
    assert veil.squared_error[0, 0] > 0.5 * blur.squared_error[0, 0]
    assert blur.lpips is not None and veil.lpips is not None and blur.lpips[0, 0] > 2 * veil.lpips[0, 0]


def test_only_what_was_hidden_counts(pair: tuple[Tensor, Tensor]) -> None:
    drawn, truth = pair
    hidden = torch.zeros(5, 24, 32, dtype=torch.bool)
    hidden[2:4, 8:16, :20] = True
    errors = picture_errors(drawn, truth, hidden)
    again = picture_errors(torch.where(hidden, drawn, 1 - drawn), truth, hidden)
    assert errors.frames == [2, 3] and (errors.squared_error == again.squared_error).all()
    assert (errors.ssim == again.ssim).all()
    expected = (drawn - truth)[1, :, 3, 8:16, :20].double().square().mean()
    assert errors.squared_error[1, 1] == pytest.approx(float(expected), rel=1e-5)
    whole = picture_errors(torch.where(hidden, drawn, truth), truth, [2, 3])
    assert (errors.ssim < whole.ssim).all()  # the visible rest of the frame would have hidden the difference


def test_lpips_counts_nothing_visible(lpips: nn.Module, pair: tuple[Tensor, Tensor]) -> None:
    drawn, truth = pair
    hidden = torch.zeros(5, 24, 32, dtype=torch.bool)
    hidden[2:4, 8:16, :20] = True
    part = picture_errors(drawn, truth, hidden, lpips).lpips
    again = picture_errors(torch.where(hidden, drawn, 1 - drawn), truth, hidden, lpips).lpips
    whole = picture_errors(drawn, truth, [2, 3], lpips).lpips
    assert part is not None and (part == again).all() and (part > 0).all() and (part < whole).all()
    assert (picture_errors(truth.clone(), truth, hidden, lpips).lpips == 0).all()


def test_a_perfect_drawing(pair: tuple[Tensor, Tensor]) -> None:
    truth = pair[1]
    errors = picture_errors(truth.clone(), truth, range(5))
    assert (errors.squared_error == 0).all()
    assert errors.ssim == pytest.approx(1, abs=1e-6)
    outside = torch.where(truth > 0.5, truth.round() + 1, truth)
    inside = picture_errors(outside, truth, range(5)).squared_error
    assert (inside == picture_errors(outside.clamp(0, 1), truth, range(5)).squared_error).all()


def test_what_cannot_be_measured(pair: tuple[Tensor, Tensor]) -> None:
    drawn, truth = pair
    with pytest.raises(ValueError, match=r"must both be \(B, C, T, H, W\)"):
        picture_errors(drawn[:1], truth, [0])
    with pytest.raises(ValueError, match="no pixel is hidden"):
        picture_errors(drawn, truth, [])
    with pytest.raises(ValueError, match=r"hidden must be \(5, 24, 32\) bool"):
        picture_errors(drawn, truth, torch.ones(5, dtype=torch.bool))


def test_what_is_remembered_of_a_network_is_what_it_would_say() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.asked = 0

        def forward(self, x: Tensor) -> Tensor:
            self.asked += 1
            return x.square()

    inner = Counting()
    network = _Remembering(inner)
    truths, drawings = torch.rand(2, 3, 3, 8, 8), torch.rand(6, 3, 3, 8, 8)
    for batch, truth in enumerate(truths):
        for drawn in drawings[3 * batch : 3 * batch + 3]:
            for asked in (drawn, truth):
                assert torch.equal(network(asked), asked.square())
    assert inner.asked == 6 + 2, "every drawing once, and every truth once"
