"""Pictures of every arm against the truth, on the same clips, masks and seeds. Pure: arms and clips in, numbers out.

Notable:
- An arm that samples is scored three ways: the mean over its samples, the best of them (so that a model which covers
  several futures is not punished for sampling), and the mean picture (which a squared error always prefers).
- Seeds belong to clips, not to batches: another batch size gives the same numbers.
- Every two arms that are compared have a row of their own, of their difference on the same clips (`estimates.table`).
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from decoder.arms import Arm
from decoder.estimates import decibels, estimate, table
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
    clean: Sequence[Tensor] | None = None,
) -> dict[str, Any]:
    """{arm: {"psnr", "best_psnr", "mean_picture_psnr", "ssim", "lpips", "best_lpips", "by_frame": {...}}}, each an
    `Estimate` (by frame, a list of them); arms that do not sample have no best and no mean picture. `videos` are
    batches (B, C, T, H, W). Rows "jepa-pixels" and the like are differences, and have no `by_frame`.

    `clean` are the same clips without unpredictable detail, batch by batch, in [0, 1]. With them there is "clean_psnr",
    against those; and of several samples "expected_clean_psnr": of the picture that ever more samples would average to.
    """
    parts: dict[str, list[list[PictureErrors]]] = {arm.name: [] for arm in arms}
    for first, video, known in _numbered(videos, clean):  # all arms in turn: `lpips` then looks at the truth once
        for arm in arms:
            count = samples if arm.samples_differ else 1
            one = None if known is None else [known]
            parts[arm.name].append(measured(arm, [video], task, context, count, lpips, first, one))
    found = {name: [_joined(sample) for sample in zip(*each, strict=True)] for name, each in parts.items()}
    rows: dict[str, Any] = table({name: _by_clip(errors) for name, errors in found.items()})
    for name, errors in found.items():
        rows[name]["by_frame"] = _by_frame(errors)
    return rows


def measured(
    arm: Arm,
    videos: Sequence[Tensor],
    task: str = "forward",
    context: int | None = None,
    samples: int = 1,
    lpips: nn.Module | None = None,
    first: int = 0,
    clean: Sequence[Tensor] | None = None,
) -> list[PictureErrors]:
    """Errors (clips, hidden frames) of every sample, and last, of several, of their mean picture (without LPIPS).

    `first` is the number of the first clip, to which its seeds belong.
    """
    parts: list[list[PictureErrors]] = [[] for _ in range(samples + (samples > 1))]
    for number, video, known in _numbered(videos, clean, first):
        mask = arm.task_mask(task, video, context)
        truth, hidden = arm.to_unit(video).clamp(0, 1), arm.hidden(video, mask)[0, 0]
        mean = torch.zeros_like(truth)
        for sample in range(samples):
            drawn = arm.draw(video, mask, clip_seeds(number, len(video), sample))
            parts[sample].append(picture_errors(drawn, truth, hidden, lpips, known))
            mean += drawn / samples
        if samples > 1:
            parts[samples].append(picture_errors(mean, truth, hidden, clean=known))
    return [_joined(part) for part in parts]


def _numbered(
    videos: Sequence[Tensor], clean: Sequence[Tensor] | None, first: int = 0
) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """Batches, each with the number of its first clip, and its clean clips where there are any."""
    every: Sequence[Tensor | None] = [None] * len(videos) if clean is None else clean
    for video, known in zip(videos, every, strict=True):
        yield first, video, known
        first += len(video)


def _joined(parts: Sequence[PictureErrors]) -> PictureErrors:
    join = lambda name: np.concatenate([getattr(part, name) for part in parts])
    known = lambda name: None if getattr(parts[0], name) is None else join(name)
    return PictureErrors(parts[0].frames, join("squared_error"), join("ssim"), known("lpips"), known("clean_error"))


def _by_clip(parts: Sequence[PictureErrors]) -> dict[str, np.ndarray]:
    """{measure: values (clips,)} of what `measured` gives, as `estimates.table` takes them."""
    samples = parts[: len(parts) - 1] or parts
    stack = lambda key: np.stack([getattr(sample, key).mean(1) for sample in samples])  # (samples, clips)
    error, ssim = stack("squared_error"), stack("ssim")
    values = {"psnr": error.mean(0), "ssim": ssim.mean(0)}
    best = {"best_psnr": error.min(0), "best_ssim": ssim.max(0)}
    if samples[0].lpips is not None:
        lpips = stack("lpips")
        values["lpips"], best["best_lpips"] = lpips.mean(0), lpips.min(0)
    if samples[0].clean_error is not None:
        values["clean_psnr"] = stack("clean_error").mean(0)
    if len(samples) == 1:
        return values
    best["mean_picture_psnr"] = parts[-1].squared_error.mean(1)
    if parts[-1].clean_error is not None:
        # A sample's error is that of the expected picture and its own variance; the mean of n still has an nth of that.
        one, mean = values["clean_psnr"], parts[-1].clean_error.mean(1)
        best["expected_clean_psnr"] = mean - (one - mean) / (len(samples) - 1)
    return values | best


def _by_frame(parts: Sequence[PictureErrors]) -> dict[str, list[Any]]:
    """{measure: an `Estimate` for every hidden frame} of the mean over samples."""
    samples = parts[: len(parts) - 1] or parts
    mean = lambda key: np.mean([getattr(sample, key) for sample in samples], axis=0)  # (clips, frames)
    frames = {"psnr": [estimate(frame, decibels) for frame in mean("squared_error").T],
              "ssim": [estimate(frame) for frame in mean("ssim").T]}  # fmt: skip
    if samples[0].lpips is not None:
        frames["lpips"] = [estimate(frame) for frame in mean("lpips").T]
    return frames


def clock(device: torch.device) -> float:
    """Seconds on a clock, read when the device has done everything that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def sampling_steps(
    arms: Sequence[Arm], videos: Sequence[Tensor], task: str, steps: Iterable[int], lpips: nn.Module | None = None
) -> dict[str, list[dict[str, Any]]]:
    """{arm: [{"steps", "seconds_per_clip", "psnr", "ssim", "lpips"}, ...]} of one sample, by how many steps it took."""
    clips = sum(map(len, videos))
    curves: dict[str, list[dict[str, Any]]] = {arm.name: [] for arm in arms}
    for count in steps:
        for arm in arms:
            before, arm.steps = arm.steps, count
            begun = clock(videos[0].device)
            for video in videos:
                arm.draw(video, arm.task_mask(task, video), clip_seeds(0, len(video)))
            seconds = clock(videos[0].device) - begun
            row = table({arm.name: _by_clip(measured(arm, videos, task, None, 1, lpips))})[arm.name]
            arm.steps = before
            point: dict[str, Any] = {"steps": count, "seconds_per_clip": seconds / clips}
            curves[arm.name].append(point | row)
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
