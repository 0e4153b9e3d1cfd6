"""How much drawn frames resemble the true ones: squared error, SSIM and LPIPS of every clip and hidden frame.

    errors = picture_errors(drawn, truth, hidden, lpips=load_lpips("cuda"))
    errors.ssim.mean(0)  # by frame

Notable:
- Only what was hidden counts. Visible pixels are the truth's in both pictures; squared error and SSIM are averaged over
  hidden pixels alone. LPIPS compares whole pictures: where a mask hides part of a frame (infill), its values are small
  in proportion, for every arm alike.
- SSIM and LPIPS are torchmetrics': Wang et al., IEEE TIP 13(4), 2004, with its 11x11 gaussian; LPIPS 0.1 with AlexNet,
  Zhang et al., arXiv 1801.03924.
- AlexNet halves pictures five times: frames whose shorter side is below 64 pixels are enlarged to 64 (bilinear) for
  LPIPS, for every arm alike. Values of other sizes are not comparable with these.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from decoder.compose import composite
from decoder.metric_weights import ALEXNET_FILE, alexnet_state
from jepa.weights import load_strict

SMALLEST = 64  # pixels of the shorter side that LPIPS is given


@dataclass(frozen=True)
class PictureErrors:
    """Each (B, F) float64, for B clips and the F hidden frames numbered `frames` (from 0).

    squared_error: mean over hidden pixels of [0, 1]; PSNR of any set is -10 log10 of its mean, in dB. ssim: 1 is equal.
    lpips: 0 is equal; None where no network was given. clean_error: the squared error against clean clips instead of
    the true ones, None where none were given.
    """

    frames: list[int]
    squared_error: np.ndarray
    ssim: np.ndarray
    lpips: np.ndarray | None
    clean_error: np.ndarray | None = None


@torch.no_grad()
def picture_errors(
    drawn: Tensor,
    truth: Tensor,
    hidden: Tensor | Sequence[int],
    lpips: nn.Module | None = None,
    clean: Tensor | None = None,
) -> PictureErrors:
    """Drawn clips against true ones, both (B, C, T, H, W) in [0, 1] (a drawing is clamped to it).

    `hidden` is (T, H, W) bool, or the numbers of frames that are hidden whole. `lpips` comes from `load_lpips`. `clean`
    are the true clips without what nobody could have predicted, where that is known. Raises ValueError where shapes do
    not match, or nothing is hidden.
    """
    if drawn.shape != truth.shape or truth.ndim != 5:
        raise ValueError(f"drawn {tuple(drawn.shape)} and true {tuple(truth.shape)} clips must both be (B, C, T, H, W)")
    if clean is not None and clean.shape != truth.shape:
        raise ValueError(f"clean {tuple(clean.shape)} and true {tuple(truth.shape)} clips must be of one shape")
    hidden = _as_mask(hidden, truth)
    frames = hidden.flatten(1).any(1).nonzero().flatten().tolist()
    if not frames:
        raise ValueError("no pixel is hidden: there is nothing to measure")
    drawn = composite(truth, drawn.to(truth).clamp(0, 1), hidden)
    region = hidden[frames]  # (F, H, W)
    one_by_one = lambda clips: clips[:, :, frames].float().transpose(1, 2).flatten(0, 1)  # (B F, C, H, W)
    a, b = one_by_one(drawn), one_by_one(truth)
    _, similarity = structural_similarity_index_measure(
        a, b, data_range=1.0, reduction="none", return_full_image=True
    )  # (B F, C, H, W)
    distance = None if lpips is None else _lpips(a, b, lpips).view(len(truth), -1).cpu().double().numpy()
    error = lambda b: _over_region((a - b).square(), region)
    return PictureErrors(frames, error(b), _over_region(similarity, region), distance,
                         None if clean is None else error(one_by_one(clean.to(truth))))  # fmt: skip


def load_lpips(device: str | torch.device = "cpu") -> nn.Module:
    """torchmetrics' LPIPS 0.1 with AlexNet, its weights from an installed file instead of a download.

    The module takes two batches (N, 3, H, W) in [-1, 1]. Raises ConfigError where the weights are not installed.
    """
    # The public function of torchmetrics always downloads AlexNet; this class alone can be had without. A test holds
    # that the two agree.
    from torchmetrics.functional.image.lpips import _NoTrainLpips

    backbone, _ = alexnet_state()
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers do not depend on being measured
        network = _NoTrainLpips(net="alex", pnet_rand=True)  # AlexNet at random; torchmetrics carries the heads
    load_strict(network.net, backbone, f"{ALEXNET_FILE.package}/{ALEXNET_FILE.path}")
    network.net = _Remembering(network.net)  # type: ignore[assignment]
    return network.to(device)


class _Remembering(nn.Module):
    """A network and its answers to the last two batches: the truth comes again with every drawing of it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.known = network, list[tuple[Tensor, Any]]()

    def forward(self, x: Tensor) -> Any:
        for place, (asked, answer) in enumerate(self.known):
            if asked.shape == x.shape and asked.device == x.device and torch.equal(asked, x):
                self.known.append(self.known.pop(place))
                return answer
        self.known = [*self.known[-1:], (x, self.network(x))]
        return self.known[-1][1]


def _lpips(a: Tensor, b: Tensor, network: nn.Module) -> Tensor:
    """(N,) distances of pictures (N, 1 or 3, H, W) in [0, 1]."""
    a, b = (_enlarged(pictures.expand(-1, 3, -1, -1)) * 2 - 1 for pictures in (a, b))
    return network(a, b).flatten()


def _enlarged(pictures: Tensor) -> Tensor:
    height, width = pictures.shape[-2:]
    scale = SMALLEST / min(height, width)
    if scale <= 1:
        return pictures
    return F.interpolate(pictures, (round(height * scale), round(width * scale)), mode="bilinear", align_corners=False)


def _as_mask(hidden: Tensor | Sequence[int], truth: Tensor) -> Tensor:
    shape = truth.shape[2:]
    if isinstance(hidden, Tensor):
        if hidden.dtype != torch.bool or hidden.shape != shape:
            raise ValueError(f"hidden must be {tuple(shape)} bool, not {tuple(hidden.shape)} {hidden.dtype}")
        return hidden.to(truth.device)
    mask = torch.zeros(shape, dtype=torch.bool, device=truth.device)
    mask[list(hidden)] = True
    return mask


def _over_region(values: Tensor, region: Tensor) -> np.ndarray:
    """Mean of (B F, C, H, W) over channels and the pixels of region (F, H, W): (B, F)."""
    values = values.mean(1).unflatten(0, (-1, len(region))).cpu().double()  # in this order: MPS has no float64
    weight = (region / region.sum((1, 2), keepdim=True)).cpu()
    return (values * weight).sum((2, 3)).numpy()
