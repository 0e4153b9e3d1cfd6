"""Claims:

1. Only hidden pixels count, and the figures are those of numpy's mean squared error over clips and hidden pixels.
2. Frame by frame the errors add up to the whole; intervals contain the value; pairs are compared clip by clip.
3. Copying repeats the nearest visible frame at the same place; where nothing was ever visible it takes the mean colour.
4. The number of clips is respected, and the result does not depend on how they were batched.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from decoder import Decoder, LatentSource, measure_latents
from decoder.metrics import decode_metrics, nearest_visible


def psnr(drawing: Tensor, truth: Tensor) -> float:
    return float(-10 * np.log10(np.mean((drawing.double().numpy() - truth.double().numpy()) ** 2)))


@pytest.fixture
def fitted(decoder: Decoder, source: LatentSource, video: Tensor) -> Decoder:
    decoder.set_statistics(measure_latents(source, [video], 3))
    return decoder


def test_figures_equal_numpy(fitted: Decoder, source: LatentSource, video: Tensor) -> None:
    result = decode_metrics(fitted, source, [video], "forward", seeds=2, steps=2, bootstrap=200)
    grid, truth, half = source.grid(video), fitted.to_unit(video).clamp(0, 1), slice(4, None)
    predicted = source.predicted(video, source.task_mask("forward", video))
    samples = [fitted.decode(predicted, grid, [s * 1_000_003 + i for i in range(3)], 2) for s in range(2)]
    assert result["predicted_psnr"] == pytest.approx(
        psnr(torch.stack(samples)[:, :, :, half], truth[None, :, :, half].expand(2, -1, -1, -1, -1, -1)), abs=2e-3
    )
    assert result["predicted_mean_psnr"] == pytest.approx(
        psnr(sum(samples)[:, :, half] / 2, truth[:, :, half]), abs=2e-3
    )
    copied = truth[:, :, 3:4].expand(-1, -1, 4, -1, -1)
    assert result["copy_psnr"] == pytest.approx(psnr(copied, truth[:, :, half]), abs=2e-3)
    assert result["frames"] == [4, 5, 6, 7] and result["clips"] == 3


def test_frames_intervals_and_pairs(fitted: Decoder, source: LatentSource, video: Tensor) -> None:
    result = decode_metrics(fitted, source, [video], "forward", seeds=1, steps=1, bootstrap=500)
    for row in ("target", "predicted", "mean", "copy"):
        error = np.mean([10 ** (-db / 10) for db in result["by_frame"][row]])
        assert -10 * np.log10(error) == pytest.approx(result[f"{row}_psnr"], abs=2e-3)
        low, high = result["ci95"][row]
        assert low <= result[f"{row}_psnr"] <= high
    gap = result["predicted_minus_mean"]
    assert gap["db"] == pytest.approx(result["predicted_psnr"] - result["mean_psnr"], abs=2e-3)
    assert gap["ci95"][0] <= gap["db"] <= gap["ci95"][1]


def test_a_perfect_decoder_scores_the_ceiling(
    fitted: Decoder, source: LatentSource, video: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = fitted.to_unit(video).clamp(0, 1)
    wrong_where_visible = truth.clone()
    wrong_where_visible[:, :, :4] = 0
    monkeypatch.setattr(fitted, "decode", lambda *_: wrong_where_visible)
    assert decode_metrics(fitted, source, [video], "forward", seeds=1)["target_psnr"] == pytest.approx(100, abs=1)


def test_copy_repeats_the_nearest_visible_frame() -> None:
    video = torch.arange(8.0).view(1, 1, 8, 1, 1).expand(1, 1, 8, 2, 2)
    hidden = torch.zeros(8, 2, 2, dtype=torch.bool)
    hidden[2:6] = True  # connect: 0, 1 and 6, 7 are visible
    assert nearest_visible(video, hidden)[0, 0, :, 0, 0].tolist() == [0, 1, 1, 1, 6, 6, 6, 7]
    hidden[:] = False
    hidden[:, 0, 0] = True  # one place is never visible
    assert nearest_visible(video, hidden)[0, 0, :, 0, 0].tolist() == [3.5] * 8
    hidden[:], hidden[:5] = False, True  # backward: a tie cannot occur, the first visible frame is copied
    assert nearest_visible(video, hidden)[0, 0, :, 0, 0].tolist() == [5, 5, 5, 5, 5, 5, 6, 7]


def test_clips_are_counted_whatever_the_batches(fitted: Decoder, source: LatentSource, video: Tensor) -> None:
    one = decode_metrics(fitted, source, [video, video], "animate", clips=2, seeds=2, steps=2)
    two = decode_metrics(fitted, source, [video[:1], video[1:]], "animate", clips=2, seeds=2, steps=2)
    assert one["clips"] == two["clips"] == 2 and one["frames"] == [2, 3, 4, 5, 6, 7]
    assert one["predicted_psnr"] == pytest.approx(two["predicted_psnr"], abs=2e-3)
    with pytest.raises(ValueError, match="empty"):
        decode_metrics(fitted, source, [])
