"""How close a decoded clip comes to the truth, beside everything it must be compared with.

Notable:
- Only hidden pixels count; a model is not paid for copying what it was shown.
- PSNR of a set is that of its mean squared error over all clips (torchmetrics' default too): a few still clips that
  copying reproduces exactly cannot lift the mean to infinity.
- 95 % intervals by bootstrap over clips; differences are bootstrapped in pairs, because a hard clip is hard for every
  row.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from decoder.compose import hidden_pixels
from decoder.decoder import Decoder
from decoder.latents import LatentSource
from jepa.masks import Mask

ROWS = ("target", "predicted", "predicted_mean", "mean", "copy")


def decode_metrics(
    decoder: Decoder,
    source: LatentSource,
    videos: Iterable[Tensor],
    task: str = "forward",
    *,
    context: int | None = None,
    clips: int = 256,
    seeds: int = 3,
    steps: int = 8,
    method: str = "euler",
    bootstrap: int = 1000,
) -> dict[str, Any]:
    """PSNR in dB over the pixels that `task` hides, on the first `clips` clips of `videos` (batches B C T H W,
    normalised).

    Rows: decode(`target` latents), decode(`predicted` latents) averaged over `seeds` samples, the mean picture of these
    samples (`predicted_mean`), decode(dataset `mean` latent), and `copy` (nearest visible frame).

    Returns {"task", "clips", "seeds", "steps", "method", "{row}_psnr": dB, "ci95": {row: [low, high]},
    "predicted_minus_mean" and "predicted_minus_copy": {"db", "ci95"}, "frames": hidden frames (from 0),
    "by_frame": {row: [dB of each hidden frame]}}.
    """
    errors: dict[str, list[Tensor]] = {row: [] for row in ROWS}
    done, frames = 0, []
    for batch in videos:
        video = batch[: clips - done]
        grid = source.grid(video)
        mask = source.task_mask(task, video, context)
        hidden = hidden_pixels(mask, grid, decoder.config.dit.tubelet_size, decoder.config.dit.patch_size)[0, 0]
        frames = hidden.flatten(1).any(1).nonzero().flatten().tolist()
        truth = decoder.to_unit(video).clamp(0, 1)
        for row, drawing in _drawings(decoder, source, video, truth, mask, hidden, done, seeds, steps, method):
            errors[row].append(_squared_errors(drawing, truth, hidden, frames))
        done += len(video)
        if done >= clips:
            break
    if not done:
        raise ValueError("no clip to measure: the set is empty")
    # `predicted` has one entry for each seed and batch; seeds are averaged, so that clips stay the unit of the
    # bootstrap.
    errors["predicted"] = [
        torch.stack(errors["predicted"][i : i + seeds]).mean(0) for i in range(0, len(errors["predicted"]), seeds)
    ]
    table = {row: torch.cat(parts).double().numpy() for row, parts in errors.items()}  # each (clips, frames)
    settings = {"task": task, "clips": done, "seeds": seeds, "steps": steps, "method": method}
    return {**settings, **_summary(table, bootstrap), "frames": frames}


def nearest_visible(video: Tensor, hidden: Tensor) -> Tensor:
    """Every hidden pixel from the same place in the nearest visible frame (the earlier of two); `hidden` is (T, H, W)
    bool.

    A place that is never visible (infill) gets the mean colour of what is visible.
    """
    length = video.shape[2]
    index = torch.arange(length, device=video.device)
    distance = (index[:, None] - index[None, :]).abs().float() + 0.1 * (index[None, :] > index[:, None])  # (to, from)
    cost = distance[:, :, None, None] + hidden[None].float() * 1e6  # (T, T, H, W)
    nearest = cost.argmin(1).expand(*video.shape[:2], -1, -1, -1)
    never = hidden.all(0)
    mean = (video * ~hidden).sum((2, 3, 4), keepdim=True) / (~hidden).sum()
    return torch.where(hidden, torch.where(never, mean, video.gather(2, nearest)), video)


def _drawings(
    decoder: Decoder,
    source: LatentSource,
    video: Tensor,
    truth: Tensor,
    mask: Mask,
    hidden: Tensor,
    first: int,
    seeds: int,
    steps: int,
    method: str,
) -> Iterable[tuple[str, Tensor]]:
    grid = source.grid(video)
    # Noise of its own for each clip and sample, whatever the batch size.
    noise = lambda sample: [sample * 1_000_003 + first + i for i in range(len(video))]
    yield "target", decoder.decode(source.target(video), grid, noise(0), steps, method)
    latents = source.predicted(video, mask)
    samples = [decoder.decode(latents, grid, noise(i), steps, method) for i in range(seeds)]
    for drawing in samples:
        yield "predicted", drawing
    yield "predicted_mean", torch.stack(samples).mean(0)
    yield "mean", decoder.decode(decoder.mean_latents(len(video), grid), grid, noise(0), steps, method)
    yield "copy", nearest_visible(truth, hidden)


def _squared_errors(drawing: Tensor, truth: Tensor, hidden: Tensor, frames: list[int]) -> Tensor:
    """(B, F) mean squared error of each clip and hidden frame over its hidden pixels."""
    columns = []
    for frame in frames:
        region = hidden[frame]
        pair = drawing[:, :, frame, region], truth[:, :, frame, region]  # each (B, C, pixels)
        columns.append(peak_signal_noise_ratio(*pair, data_range=1.0, dim=(1, 2), reduction="none"))
    return 10 ** (-torch.stack(columns, 1).cpu().double() / 10)  # in this order: MPS has no float64


def _summary(table: dict[str, np.ndarray], bootstrap: int) -> dict[str, Any]:
    clips = {row: errors.mean(1) for row, errors in table.items()}  # (clips,)
    draws = np.random.default_rng(0).integers(0, len(clips["target"]), (bootstrap, len(clips["target"])))
    resampled = {row: _psnr(errors[draws].mean(1)) for row, errors in clips.items()}  # (bootstrap,)
    value = {row: float(_psnr(errors.mean())) for row, errors in clips.items()}
    result: dict[str, Any] = {f"{row}_psnr": round(value[row], 3) for row in ROWS}
    result["ci95"] = {row: _interval(resampled[row]) for row in ROWS}
    for other in ("mean", "copy"):
        gap = resampled["predicted"] - resampled[other]
        result[f"predicted_minus_{other}"] = {"db": round(value["predicted"] - value[other], 3), "ci95": _interval(gap)}
    result["by_frame"] = {row: [round(float(db), 3) for db in _psnr(errors.mean(0))] for row, errors in table.items()}
    return result


def _psnr(error: np.ndarray | float) -> np.ndarray:
    """dB of a mean squared error of pixels in [0, 1]; 100 dB stands for identical."""
    return -10 * np.log10(np.maximum(error, 1e-10))


def _interval(values: np.ndarray) -> list[float]:
    low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (math.nan, math.nan)
    return [round(float(low), 3), round(float(high), 3)]
