"""Pictures of every arm against the truth, on the same clips, masks and seeds. Pure: arms and clips in, numbers out.

Notable:
- An arm that samples is scored three ways: the mean over its samples, the best of them (so that a model which covers
  several futures is not punished for sampling), and the mean picture (which a squared error always prefers).
- Seeds belong to clips, not to batches: another batch size gives the same numbers.
"""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from decoder.arms import Arm
from decoder.estimates import decibels, estimate, gap
from decoder.perceptual import PictureErrors, picture_errors


def clip_seeds(first: int, count: int, sample: int = 0) -> list[int]:
    """Seeds of clips `first`, `first` + 1, ... for a sample of them."""
    return [sample * 1_000_003 + first + i for i in range(count)]


def pictures(
    arms: Sequence[Arm],
    videos: Sequence[Tensor],
    task: str,
    context: int | None = None,
    samples: int = 1,
    lpips: nn.Module | None = None,
) -> dict[str, Any]:
    """{arm: {"psnr", "best_psnr", "mean_picture_psnr", "ssim", "lpips", "best_lpips", "by_frame": {...}}}, each an
    `Estimate` (by frame, a list of them); arms that do not sample have no best and no mean picture. `videos` are
    batches (B, C, T, H, W).

    Beside an arm called `pixels` every other has "psnr_over_pixels" too: the difference in dB, paired by clip.
    """
    rows, errors = {}, {}
    for arm in arms:
        count = samples if arm.samples_differ else 1
        found = measured(arm, videos, task, context, count, lpips)
        rows[arm.name] = _row(found[:count])
        errors[arm.name] = np.mean([part.squared_error.mean(1) for part in found[:count]], axis=0)  # (clips,)
        if count > 1:
            rows[arm.name]["mean_picture_psnr"] = estimate(found[-1].squared_error.mean(1), decibels)
    for name in rows.keys() - {"pixels"} if "pixels" in rows else ():
        rows[name]["psnr_over_pixels"] = gap(errors[name], errors["pixels"], decibels)
    return rows


def measured(
    arm: Arm,
    videos: Sequence[Tensor],
    task: str = "forward",
    context: int | None = None,
    samples: int = 1,
    lpips: nn.Module | None = None,
) -> list[PictureErrors]:
    """Errors (clips, hidden frames) of every sample, and last, of several, of their mean picture (without LPIPS)."""
    parts: list[list[PictureErrors]] = [[] for _ in range(samples + (samples > 1))]
    first = 0
    for video in videos:
        mask = arm.task_mask(task, video, context)
        truth, hidden = arm.to_unit(video).clamp(0, 1), arm.hidden(video, mask)[0, 0]
        mean = torch.zeros_like(truth)
        for sample in range(samples):
            drawn = arm.draw(video, mask, clip_seeds(first, len(video), sample))
            parts[sample].append(picture_errors(drawn, truth, hidden, lpips))
            mean += drawn / samples
        if samples > 1:
            parts[samples].append(picture_errors(mean, truth, hidden))
        first += len(video)
    return [_joined(part) for part in parts]


def _joined(parts: Sequence[PictureErrors]) -> PictureErrors:
    join = lambda name: np.concatenate([getattr(part, name) for part in parts])
    lpips = None if parts[0].lpips is None else join("lpips")
    return PictureErrors(parts[0].frames, join("squared_error"), join("ssim"), lpips)


def _row(samples: Sequence[PictureErrors]) -> dict[str, Any]:
    error = np.stack([sample.squared_error for sample in samples])  # (samples, clips, frames)
    ssim = np.stack([sample.ssim for sample in samples])
    row: dict[str, Any] = {
        "psnr": estimate(error.mean((0, 2)), decibels),
        "ssim": estimate(ssim.mean((0, 2))),
        "by_frame": {
            "psnr": [estimate(frame, decibels) for frame in error.mean(0).T],
            "ssim": [estimate(frame) for frame in ssim.mean(0).T],
        },
    }
    if len(samples) > 1:
        row["best_psnr"] = estimate(error.mean(2).min(0), decibels)
        row["best_ssim"] = estimate(ssim.mean(2).max(0))
    if samples[0].lpips is not None:
        lpips = np.stack([np.asarray(sample.lpips) for sample in samples])
        row["lpips"] = estimate(lpips.mean((0, 2)))
        row["by_frame"]["lpips"] = [estimate(frame) for frame in lpips.mean(0).T]
        if len(samples) > 1:
            row["best_lpips"] = estimate(lpips.mean(2).min(0))
    return row


def sampling_steps(
    arms: Sequence[Arm], videos: Sequence[Tensor], task: str, steps: Iterable[int], lpips: nn.Module | None = None
) -> dict[str, list[dict[str, Any]]]:
    """{arm: [{"steps", "seconds_per_clip", "psnr", "ssim", "lpips"}, ...]} of one sample, by how many steps it took."""
    clips = sum(map(len, videos))
    curves: dict[str, list[dict[str, Any]]] = {arm.name: [] for arm in arms}
    for count in steps:
        for arm in arms:
            before, arm.steps = arm.steps, count
            begun = time.perf_counter()
            for video in videos:
                arm.draw(video, arm.task_mask(task, video), clip_seeds(0, len(video)))
            seconds = time.perf_counter() - begun
            row = _row(measured(arm, videos, task, None, 1, lpips))
            arm.steps = before
            point: dict[str, Any] = {"steps": count, "seconds_per_clip": seconds / clips}
            curves[arm.name].append(point | {key: row[key] for key in ("psnr", "ssim", "lpips") if key in row})
    return curves


@torch.no_grad()
def rollout(arm: Arm, video: Tensor, lengths: int, seeds: Sequence[int]) -> Tensor:
    """Predictions fed back: (B, C, lengths * T, H, W) in [0, 1] from the first half of clips (B, C, T, H, W).

    Each step shows the arm the latest half clip, real or drawn, and appends the half that it draws. What is fed back
    are pixels for every arm: a JEPA reads its own pictures again. Only the first half clip of `video` is read.
    """
    tubelets = arm.grid(video).t
    half = tubelets // 2 * arm.tubelet_size
    if tubelets % 2:
        raise ValueError(f"a roll-out goes on by half clips, and {tubelets} tubelets cannot be halved")
    shown = arm.to_unit(video[:, :, :half]).clamp(0, 1)
    frames = [shown]
    for step in range(2 * lengths - 1):
        clip = torch.cat([arm.from_unit(shown), torch.zeros_like(shown)], 2)
        drawn = arm.draw(clip, arm.task_mask("forward", clip), [seed + 7919 * step for seed in seeds])
        shown = drawn[:, :, half:]
        frames.append(shown)
    return torch.cat(frames, 2)
