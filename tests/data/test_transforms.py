"""Claims:
1. One crop and one flip per clip: frames that are equal stay equal, and every frame moves alike.
2. A sample is a function of its seed; torch's global generator is left as it was.
3. A batch gives exactly what single calls give.
4. Evaluation resizes at the video's own aspect and crops the centre, for any aspect; `size` may be a number or [h,
   w].
5. The normalisation is ImageNet's, or the one given, and undone it gives every byte back.
6. About half the clips are flipped; without crop and flip training and evaluation are the same.
"""

import numpy as np
import pytest
import torch
from discs import moving_disc, pixels

from data.errors import DataError
from data.transforms import ClipTransform


def still(height: int = 40, width: int = 60) -> np.ndarray:
    return np.repeat(moving_disc(1, 1, height, width), 5, axis=0)


def test_one_crop_and_one_flip_per_clip() -> None:
    transform = ClipTransform([32, 32], train=True)
    different = []
    for seed in range(12):
        clip = transform(still(), seed)
        assert clip.shape == (3, 5, 32, 32) and clip.dtype == torch.float32
        assert torch.equal(clip, clip[:, :1].expand_as(clip))
        different.append(clip)
    assert not any(torch.equal(different[0], other) for other in different[1:])


def test_a_sample_is_a_function_of_its_seed() -> None:
    transform = ClipTransform(32, train=True)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = transform(moving_disc(0), 9)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(first, transform(moving_disc(0), 9))


@pytest.mark.parametrize("scale", [(0.3, 1.0), (1.0, 1.0)])
def test_a_batch_is_its_samples(scale: tuple[float, float]) -> None:
    transform = ClipTransform(32, train=True, scale=scale)
    clips, seeds = [moving_disc(i, 8, 48, 64) for i in range(6)], np.arange(6) * 77
    placed = torch.stack([transform.place(clip, int(seed)) for clip, seed in zip(clips, seeds, strict=True)])
    assert placed.dtype == torch.uint8
    batch = transform.finish(placed, seeds)
    assert batch.shape == (6, 3, 8, 32, 32)
    for video, clip, seed in zip(batch, clips, seeds, strict=True):
        assert torch.equal(video, transform(clip, int(seed)))


@pytest.mark.parametrize(("size", "shape"), [(24, (24, 24)), ([16, 48], (16, 48)), ([48, 16], (48, 16))])
@pytest.mark.parametrize(("height", "width"), [(40, 60), (61, 33), (16, 16), (7, 100)])
def test_evaluation_keeps_the_aspect(size: object, shape: tuple[int, int], height: int, width: int) -> None:
    frames = np.zeros((2, height, width, 3), np.uint8)
    frames[:, : height // 2, :, 0], frames[:, :, : width // 2, 1] = 255, 255  # the edges run through the middle
    clip = pixels(ClipTransform(size)(frames))  # type: ignore[arg-type]
    assert clip.shape == (3, 2, *shape)
    if height % 2 == width % 2 == 0:
        assert clip[0].mean() == pytest.approx(0.5, abs=0.04) and clip[1].mean() == pytest.approx(0.5, abs=0.04)
    circle = moving_disc(0, 1, 60, 90)
    assert ClipTransform([60, 90])(circle).shape == (3, 1, 60, 90)


def test_normalising_loses_nothing() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    clip = ClipTransform(16)(frames)
    back = (pixels(clip) * 255).round().to(torch.uint8)
    assert torch.equal(back, torch.from_numpy(frames).permute(3, 0, 1, 2))
    grey = ClipTransform(16, mean=(0, 0, 0), std=(1, 1, 1))(np.full((1, 16, 16, 3), 51, np.uint8))
    assert torch.allclose(grey, torch.tensor(0.2))


def test_half_are_flipped() -> None:
    frames = moving_disc(0, 2, 32, 32)
    plain, flipping = ClipTransform(32), ClipTransform(32, train=True, scale=(1, 1))
    flipped = 0
    for seed in range(400):
        clip = flipping(frames, seed)
        flipped += not torch.equal(clip, plain(frames))
        assert torch.equal(clip, plain(frames)) or torch.equal(clip.flip(-1), plain(frames))
    assert 150 < flipped < 250
    assert torch.equal(ClipTransform(32, train=True, scale=(1, 1), flip=False)(frames, 3), plain(frames))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": [8, 8, 8]}, "size"),
        ({"size": 0}, "size"),
        ({"scale": (0.5, 2)}, "scale"),
        ({"ratio": (2, 1)}, "ratio"),
    ],
)
def test_nonsense_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ClipTransform(**{"size": 8, "train": True} | arguments)
