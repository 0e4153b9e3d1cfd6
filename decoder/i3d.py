"""I3D, the network whose logits the video distances are measured on.

    i3d = I3D.load("cuda")
    features = i3d.features(videos)  # (B, 3, T, H, W) in [0, 1] -> (B, 400)

Inception-v1 inflated to three dimensions (Carreira and Zisserman, arXiv 1705.07750, figure 3), with the weights of the
Fréchet Video Distance (Unterthiner et al., arXiv 1812.01717), whose features are its 400 Kinetics logits.

Notable:
- Padding is TensorFlow's SAME, which puts the odd row at the end; torch's symmetric padding gives other logits.
- Batch normalisation is folded into the convolutions when weights are read: there is nothing here to leave in training
  mode.
- Every clip is judged alike: pictures are stretched to 224x224 (bilinear), and a clip of fewer than 9 frames, too short
  for the last pool, is repeated to 16 (each frame in place: 8 frames are shown twice each). Distances of clips of
  another size or length are not comparable with these.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from decoder.metric_weights import I3D_FILE, i3d_state
from jepa.weights import load_strict

CLASSES, SIZE = 400, 224
SHORTEST, REPEATED = 9, 16  # frames: below the first, a clip is repeated to the second
# Channels of the four branches: 1x1; 1x1 then 3x3; 1x1 then 3x3; pool then 1x1 (GoogLeNet, arXiv 1409.4842, table 1).
BLOCKS = {
    "3b": (64, (96, 128), (16, 32), 32),
    "3c": (128, (128, 192), (32, 96), 64),
    "4b": (192, (96, 208), (16, 48), 64),
    "4c": (160, (112, 224), (24, 64), 64),
    "4d": (128, (128, 256), (24, 64), 64),
    "4e": (112, (144, 288), (32, 64), 64),
    "4f": (256, (160, 320), (32, 128), 128),
    "5b": (256, (160, 320), (32, 128), 128),
    "5c": (384, (192, 384), (48, 128), 128),
}
POOLS = {"4b": ((3, 3, 3), (2, 2, 2)), "5b": ((2, 2, 2), (2, 2, 2))}  # before these blocks: kernel, stride


class I3D(nn.Module):
    """Kinetics-400 logits of videos (B, 3, T, 224, 224) in [-1, 1], averaged over time, (B, 400)."""

    def __init__(self) -> None:
        super().__init__()
        trunk: dict[str, nn.Module] = {
            "1a": Convolution(3, 64, 7, stride=2),
            "pool2": Pool((1, 3, 3), (1, 2, 2)),
            "2b": Convolution(64, 64, 1),
            "2c": Convolution(64, 192, 3),
            "pool3": Pool((1, 3, 3), (1, 2, 2)),
        }
        width = 192
        for name, (one, three, five, pooled) in BLOCKS.items():
            if name in POOLS:
                trunk[f"pool{name[0]}"] = Pool(*POOLS[name])
            trunk[name] = Inception(width, one, three, five, pooled)
            width = one + three[1] + five[1] + pooled
        self.trunk = nn.Sequential(OrderedDict(trunk))
        self.logits = nn.Conv3d(width, CLASSES, 1)

    @classmethod
    def load(cls, device: str | torch.device = "cpu") -> "I3D":
        """The published network, frozen. ConfigError, which says what to run, where its weights are not installed."""
        state = i3d_state()
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers do not depend on being measured
            model = cls()
        load_strict(model, state, f"{I3D_FILE.package}/{I3D_FILE.path}")
        model = model.eval().requires_grad_(False).to(device)
        return model.to(memory_format=_layout(torch.device(device)))

    @torch.no_grad()
    def features(self, videos: Tensor, size: int = SIZE) -> Tensor:
        """Logits (B, 400), float32, of videos (B, 1 or 3, T, H, W) in [0, 1], at any T, H and W.

        Another `size` than 224 is another measure, not an approximation of this one: 112 is three times as fast, and
        gives a known clip another label. Always in float32, whatever precision the caller works in: bfloat16 moves
        distances of small sets by up to 2 %. Raises ValueError for another shape or range.
        """
        with torch.autocast(videos.device.type, enabled=False):
            return self(prepare(videos, size).contiguous(memory_format=_layout(videos.device)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(x)  # (B, 1024, T / 8, 7, 7)
        x = F.avg_pool3d(x, (2, x.shape[3], x.shape[4]), stride=1)  # (B, 1024, T / 8 - 1, 1, 1)
        return self.logits(x).mean((2, 3, 4))  # (B, 400)


def _layout(device: torch.device) -> torch.memory_format:
    """On a CPU channels last: torch's pooling is vectorised only there, and the network 1.8 times as fast."""
    return torch.channels_last_3d if device.type == "cpu" else torch.contiguous_format


class Convolution(nn.Conv3d):
    """Convolution with SAME padding, then ReLU. The batch normalisation between them is in weight and bias."""

    def __init__(self, width: int, out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(width, out, kernel, stride, padding=kernel // 2 if stride == 1 else 0)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:  # else SAME is symmetric
            x = pad_same(x, self.kernel_size, self.stride)
        return F.relu(super().forward(x), inplace=True)


class Pool(nn.Module):
    """Maximum with SAME padding. What it meets has passed a ReLU, so that padding with zeros adds nothing."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Inception(nn.Module):
    """Four branches side by side, concatenated over channels."""

    def __init__(self, width: int, one: int, three: tuple[int, int], five: tuple[int, int], pooled: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                nn.Sequential(Convolution(width, one, 1)),
                nn.Sequential(Convolution(width, three[0], 1), Convolution(*three, 3)),
                nn.Sequential(Convolution(width, five[0], 1), Convolution(*five, 3)),  # 5x5 in the paper, 3x3 in fact
                nn.Sequential(nn.MaxPool3d(3, 1, 1), Convolution(width, pooled, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def prepare(videos: Tensor, size: int = SIZE) -> Tensor:
    """Videos (B, 1 or 3, T, H, W) in [0, 1] as I3D takes them: (B, 3, at least 9, size, size) in [-1, 1].

    Raises ValueError for another shape or range.
    """
    if videos.ndim != 5 or videos.shape[1] not in (1, 3) or 0 in videos.shape:
        raise ValueError(f"I3D takes videos (B, 1 or 3, T, H, W), not {tuple(videos.shape)}")
    low, high = (float(value) for value in videos.aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"I3D takes videos in [0, 1], not in [{low:.3g}, {high:.3g}]")
    batch, _, frames = videos.shape[:3]
    videos = videos.float().expand(-1, 3, -1, -1, -1)
    if frames < SHORTEST:
        index = torch.arange(REPEATED, device=videos.device) * frames // REPEATED
        videos, frames = videos[:, :, index], REPEATED
    pictures = videos.transpose(1, 2).flatten(0, 1)  # (B T, 3, H, W)
    pictures = F.interpolate(pictures, (size, size), mode="bilinear", align_corners=False)
    return pictures.unflatten(0, (batch, frames)).transpose(1, 2) * 2 - 1


def pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Zeros around (B, C, T, H, W), so that every axis comes out as ceil(length / stride); the odd one at the end."""
    padding: list[int] = []
    for length, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        total = max((-(-length // s) - 1) * s + k - length, 0)
        padding = [total // 2, total - total // 2, *padding]  # F.pad starts with the last axis
    return F.pad(x, padding) if any(padding) else x
