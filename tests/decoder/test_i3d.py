"""I3D. Claims:

- with the published weights it gives the logits of an independent implementation, and the label of a Kinetics clip, at
  two moments of the action and two sizes.
- padding is TensorFlow's: any length comes out as ceil(length / stride), the odd row at the end.
- clips are prepared alike: [0, 1] to [-1, 1], 224x224, grey to colour, 8 frames shown twice each; another range or
  shape is an error.
- features are float32 whatever precision the caller works in.
- loading leaves the caller's random numbers alone, imports no foreign package, and the network is frozen.

The first and the last need the weights of `make metrics` (and the clip of the development data), and skip without.
"""

import itertools
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torchvision.models.video import R3D_18_Weights

from data.reader import open_video
from decoder.i3d import I3D, Convolution, Pool, pad_same, prepare
from decoder.metric_weights import I3D_FILE, installed

LABELS = R3D_18_Weights.KINETICS400_V1.meta["categories"]  # alphabetical, as I3D's


@pytest.fixture(scope="module")
def i3d() -> I3D:
    if installed(I3D_FILE) is None:
        pytest.skip("needs the weights that `make metrics` installs")
    return I3D.load()


def waves() -> torch.Tensor:
    """(1, 3, 16, 24, 24) in [0, 1], in closed form."""
    t, h, w = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), torch.arange(24.0), indexing="ij")
    return torch.stack([(torch.sin(0.3 * (c + 1) * w + 0.2 * h + 0.5 * t) + 1) / 2 for c in range(3)])[None]


def test_logits_are_those_of_another_implementation(i3d: I3D) -> None:
    # Every 50th logit of cd-fvd 0.1.1's I3D with these weights and the right epsilon (its own is 1e-5, not 1e-3).
    theirs = torch.tensor([1.7360, -5.3990, 3.0477, 3.5202, -2.2188, 3.2583, 4.3427, -0.5277])
    torch.testing.assert_close(i3d.features(waves())[0, ::50], theirs, atol=2e-4, rtol=0)


@pytest.mark.parametrize(("start", "height", "width"), [(0, 240, 426), (120, 112, 112)])
def test_a_known_clip_gets_its_label(i3d: I3D, shared: Path, start: int, height: int, width: int) -> None:
    frames = open_video(shared / "hostile" / "decord" / "flipping_a_pancake.mkv").frames(range(start, start + 32))
    clip = torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 255
    chances = i3d.features(F.interpolate(clip, (32, height, width), mode="area"))[0].softmax(0)
    assert LABELS[int(chances.argmax())] == "flipping pancake" and chances.max() > 0.9


def test_loading_has_no_side_effects(i3d: I3D) -> None:
    before = torch.get_rng_state()
    again = I3D.load()
    assert torch.equal(before, torch.get_rng_state()) and I3D_FILE.package not in sys.modules
    assert not again.training and not any(p.requires_grad for p in again.parameters())
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), i3d.parameters(), strict=True))


def test_padding_is_tensorflows() -> None:
    assert pad_same(torch.ones(1, 1, 4, 6, 7), (1, 3, 3), (1, 2, 2)).shape == (1, 1, 4, 7, 9)
    row = pad_same(torch.ones(1, 1, 1, 1, 6), (1, 1, 3), (1, 1, 2))[0, 0, 0, 0]
    assert row.tolist() == [1] * 6 + [0]  # even: one row is missing, and it comes last
    for length, kernel, stride in itertools.product(range(2, 12), (2, 3, 7), (1, 2)):
        x = torch.rand(1, 3, length, length, length)
        assert Pool((kernel,) * 3, (stride,) * 3)(x).shape[2:] == (-(-length // stride),) * 3
        if kernel != 2:
            assert Convolution(3, 2, kernel, stride)(x).shape[2:] == (-(-length // stride),) * 3


def test_clips_are_prepared_alike() -> None:
    video = torch.rand(2, 3, 8, 20, 24)
    x = prepare(video, 10)
    assert x.shape == (2, 3, 16, 10, 10) and torch.equal(x[:, :, 0::2], x[:, :, 1::2])
    one = F.interpolate(video[1, :, 5][None], (10, 10), mode="bilinear", align_corners=False)[0] * 2 - 1
    torch.testing.assert_close(x[1, :, 10], one)
    assert prepare(video).shape[3:] == (224, 224)
    assert torch.equal(prepare(waves(), 24), waves() * 2 - 1)  # 16 frames of the right size stay as they are
    assert prepare(video[:, :1, :6], 10).shape == (2, 3, 16, 10, 10)
    assert prepare(waves()[:, :, :9], 24).shape[2] == 9
    for bad, fault in (
        (video * 2 - 1, r"in \[0, 1\], not in \[-1"),
        (video * float("nan"), r"not in \[nan"),
        (video[0], "takes videos"),
        (video[:, :2], "takes videos"),
        (video[:0], "takes videos"),
    ):
        with pytest.raises(ValueError, match=fault):
            prepare(bad)


def test_any_length_from_nine_frames_gives_400_logits() -> None:
    network = I3D().eval()
    assert network.features(torch.rand(2, 3, 8, 16, 16), size=32).shape == (2, 400)
    for frames in (9, 17, 25):
        video = torch.rand(1, 3, frames, 16, 16)
        with torch.autocast("cpu", torch.bfloat16):
            features = network.features(video, size=32)
        assert features.shape == (1, 400) and torch.equal(features, network.features(video, size=32))
