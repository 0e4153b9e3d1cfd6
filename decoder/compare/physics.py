"""Three claims made for video models, read off drawn pixels: coherence, permanence, interaction. A composition root.

Notable: physics is read off pictures by one detector (`data.worlds_detect`), which is first validated on true renders:
its figures stand beside what it measures. The rows `truth` are what it makes of the true pictures.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.dataset import list_videos
from data.reader import open_video
from data.transforms import ClipTransform
from data.worlds import load_truth
from data.worlds_claims import coherence, hidings, hits, interaction, permanence
from data.worlds_detect import detect
from data.worlds_tracks import Scene, Tracks, at_frames, follow
from data.worlds_validate import validate
from decoder.compare.bench import BATCH, Bench
from decoder.compose import to_frames
from decoder.estimates import estimate
from decoder.evaluate import clip_seeds, rollout


def track(videos: Sequence[Tensor], scene: Scene) -> Tracks:
    """What the detector finds of a scene in drawn clips, each (B, C, T, H, W) in [0, 1]."""
    frames = [to_frames(clip) for video in videos for clip in video]
    return follow(detect(np.concatenate(frames)), scene)


def best(values: np.ndarray, highest: bool) -> np.ndarray:
    """(samples, clips) -> (clips,): the best sample of each clip, NaN where none has a value."""
    filled = np.where(np.isnan(values), -np.inf if highest else np.inf, values)
    chosen = filled.max(0) if highest else filled.min(0)
    return np.where(np.isfinite(chosen), chosen, np.nan)


def average(values: np.ndarray) -> np.ndarray:
    """(samples, clips) -> (clips,): the mean over the samples that have a value."""
    known = ~np.isnan(values)
    return np.where(known.any(0), np.where(known, values, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)


def measure_rollout(bench: Bench) -> dict[str, Any]:
    """Long-range coherence: predictions fed back over many clip lengths, tracked by the detector."""
    config, folder = bench.config, bench.out / "long"
    lengths = config.rollout_lengths
    rows = list_videos(str(folder / "train.csv"), "none").paths[: config.rollout_clips]
    frames = bench.frames(0, lengths)
    transform = ClipTransform(list(bench.size))
    whole = torch.stack([transform(open_video(path).frames(frames)) for path in rows]).to(bench.device)
    scene = at_frames(load_truth(folder), frames, bench.size[0], np.arange(len(rows)))
    length = bench.data.num_frames
    unit = bench.decoder.to_unit(whole).clamp(0, 1)
    result: dict[str, Any] = {
        "clips": len(rows),
        "frames": len(frames),
        "seen": length // 2,
        "clip_frames": length,
        "rows": {},
    }
    drawn = {"truth": unit}
    for arm in bench.arms:
        parts = [rollout(arm, part[:, :, :length], lengths, clip_seeds(i * BATCH, len(part)))
                 for i, part in enumerate(whole.split(BATCH))]  # fmt: skip
        drawn[arm.name] = torch.cat(parts)
    for name, video in drawn.items():
        found = coherence(track([video], scene), scene)
        error = (video - unit).square().mean((1, 3, 4)).cpu().double().numpy()  # (clips, frames)
        result["rows"][name] = {
            key: _by_clip_length(getattr(found, key), length)
            for key in ("error", "found", "colour", "shape", "count", "missing", "extra")
        } | {"squared_error": _by_clip_length(error, length)}
    return result


def _by_clip_length(values: np.ndarray, length: int) -> list[dict[str, Any]]:
    """Estimates of values (clips, frames) over the drawn half of the first clip, and over every later clip length."""
    edges = [length // 2, *range(length, values.shape[1] + 1, length)]
    found = []
    for low, high in pairwise(edges):
        part = values[:, low:high].astype(float)
        known = ~np.isnan(part)
        mean = np.where(known.any(1), np.where(known, part, 0).sum(1) / np.maximum(known.sum(1), 1), np.nan)
        found.append({"first": low, "last": high - 1, **estimate(mean)})
    return found


def measure_physics(bench: Bench) -> dict[str, Any]:
    """Object permanence, on clips of a world in which every scene has a bar; interaction, on the test clips.

    Clips count in which the predicted part shows it: little of what happens in the world hides completely and comes
    back within a few frames.
    """
    config = bench.config
    seen = bench.data.num_frames // 2
    result: dict[str, Any] = {
        "samples": config.samples,
        "seen": seen,
        "permanence": _claim(bench, "hidden", lambda scene: np.flatnonzero(hidings(scene, seen)[0] >= 0), permanence),
        "interaction": _claim(bench, "worlds", lambda scene: np.unique(hits(scene, seen).clip), interaction),
    }
    found = validate(bench.out / "worlds", min(96, config.clips), bench.size[0], bench.data.stride or 1)
    return result | {"detector": asdict(found)}


def _claim(
    bench: Bench, world: str, where: Callable[[Scene], np.ndarray], judge: Callable[[Tracks, Scene, int], Any]
) -> dict[str, Any]:
    """{"clips", "of", "rows": {arm: scores}} by `judge`, on the first clips of a world that `where` picks."""
    config, seen, everything = bench.config, bench.data.num_frames // 2, bench.truth(world)
    frames = bench.frames(everything["positions"].shape[1])
    rows = where(at_frames(everything, frames, bench.size[0]))[: config.clips]
    result: dict[str, Any] = {"clips": len(rows), "of": len(everything["shapes"]), "rows": {}}
    if not len(rows):
        return result
    scene, videos = at_frames(everything, frames, bench.size[0], rows), bench.clips(0, rows, world)
    truth = [bench.decoder.to_unit(video).clamp(0, 1) for video in videos]
    result["rows"]["truth"] = _scores([judge(track(truth, scene), scene, seen)])
    for arm in [*bench.arms, bench.drawing["target"]]:
        samples = []
        for sample in range(config.samples if arm.samples_differ else 1):
            drawn = [arm.draw(video, arm.task_mask("forward", video), clip_seeds(i * BATCH, len(video), sample))
                     for i, video in enumerate(videos)]  # fmt: skip
            samples.append(judge(track(drawn, scene), scene, seen))
        result["rows"][arm.name] = _scores(samples)
    return result


HIGHER = ("hidden", "returned", "colour", "shape", "found", "response")  # of the scores: higher is better


def _scores(samples: Sequence[Any]) -> dict[str, Any]:
    """{score: Estimate of the mean over samples, "best_" + score: of the best} of Permanence or Interaction results."""
    row: dict[str, Any] = {}
    for key in vars(samples[0]):
        if key == "hits":
            continue
        values = np.stack([np.asarray(getattr(sample, key), float) for sample in samples])
        if key == "time":
            values = np.abs(values)
        row[key] = estimate(average(values))
        if len(samples) > 1:
            row[f"best_{key}"] = estimate(best(values, key in HIGHER))
    return row
