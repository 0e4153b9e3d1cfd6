"""Three claims made for video models, read off drawn pixels: coherence, permanence, interaction. A composition root.

Notable: physics is read off pictures by one detector (`data.worlds_detect`), which is first validated on true renders:
its figures stand beside what it measures. The rows `truth` are what it makes of the true pictures.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from data.worlds import load_truth
from data.worlds_claims import coherence, hidings, hits, interaction, permanence
from data.worlds_detect import detect
from data.worlds_tracks import Scene, Tracks, at_frames, follow
from data.worlds_validate import validate
from decoder.compare.bench import BATCH, Bench
from decoder.compose import to_frames
from decoder.estimates import table
from decoder.evaluate import clip_seeds

OTHERS = 4  # scenes of other clips that a roll-out is scored on: what a picture full of sprites would hit by chance


def track(videos: Sequence[Tensor], *scenes: Scene) -> list[Tracks]:
    """What the detector finds of each of `scenes` in drawn clips, each (B, C, T, H, W) in [0, 1]; it looks once."""
    sprites = detect(np.concatenate([to_frames(clip) for video in videos for clip in video]))
    return [follow(sprites, scene) for scene in scenes]


def best(values: np.ndarray, highest: bool) -> np.ndarray:
    """(samples, ...) -> (...): the best sample, NaN where none has a value."""
    filled = np.where(np.isnan(values), -np.inf if highest else np.inf, values)
    chosen = filled.max(0) if highest else filled.min(0)
    return np.where(np.isfinite(chosen), chosen, np.nan)


def average(values: np.ndarray) -> np.ndarray:
    """(samples, ...) -> (...): the mean over the samples that have a value, NaN where none has."""
    known = ~np.isnan(values)
    return np.where(known.any(0), np.where(known, values, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)


def measure_rollout(bench: Bench) -> dict[str, Any]:
    """Long-range coherence: predictions fed back over many clip lengths, tracked by the detector."""
    length, frames, whole = bench.data.num_frames, bench.frames(0, bench.config.rollout_lengths), bench.long
    known, order = load_truth(bench.out / "long"), np.arange(len(whole))
    shifts = sorted({len(whole) * i // (OTHERS + 1) for i in range(OTHERS + 1)})  # 0 first: the clip itself
    scene, *others = [at_frames(known, frames, bench.size[0], np.roll(order, shift)) for shift in shifts]
    truth = bench.decoder.to_unit(whole).clamp(0, 1).cpu()
    edges = [length // 2, *range(length, len(frames) + 1, length)]  # what is drawn of the first clip, and later ones
    found: dict[str, dict[str, np.ndarray]] = {"truth": _coherence([truth], truth, scene, others, edges)}
    for arm in bench.arms:
        samples = bench.config.rollout_samples if arm.samples_differ else 1
        found[arm.name] = _coherence(
            [bench.rolled(arm, sample) for sample in range(samples)], truth, scene, others, edges
        )
    del found["truth"]["psnr"]  # it is itself
    rows: dict[str, dict[str, list[Any]]] = {}
    for place, (low, high) in enumerate(pairwise(edges)):
        part = {arm: {key: values[:, place] for key, values in row.items()} for arm, row in found.items()}
        for name, row in table(part).items():
            for key, value in row.items():
                at = {"first": low, "last": high - 1, **value}
                rows.setdefault(name, {}).setdefault(key, []).append(at)
    bench.forget_long()  # the last stage that looks at them
    return {"clips": len(whole), "samples": bench.config.rollout_samples, "frames": len(frames), "seen": length // 2,
            "clip_frames": length, "rows": rows}  # fmt: skip


def _coherence(
    samples: Sequence[Tensor], truth: Tensor, scene: Scene, others: Sequence[Scene], edges: Sequence[int]
) -> dict[str, np.ndarray]:
    """{score: (clips, parts)} between edges, the mean over samples; of several, best_ too. psnr is a squared error.

    chance is colour as if the roll-out were of another clip, the mean over `others`; kept is colour less that.
    """
    each: list[dict[str, np.ndarray]] = []
    for video in samples:
        found, *chances = map(coherence, track([video], scene, *others), (scene, *others))
        scores = {key: getattr(found, key) for key in COHERENCE}
        if others:
            scores["chance"] = average(np.stack([chance.colour for chance in chances]))
        scores["psnr"] = (video - truth).square().mean((1, 3, 4)).double().numpy()  # (clips, frames)
        parts = {key: [average(values[:, low:high].T) for low, high in pairwise(edges)]
                 for key, values in scores.items()}  # fmt: skip
        if others:
            parts["kept"] = [colour - chance for colour, chance in zip(parts["colour"], parts["chance"], strict=True)]
        each.append({key: np.stack(values, 1) for key, values in parts.items()})
    return _over_samples(each)


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
    if not len(rows):
        return {"clips": 0, "of": len(everything["shapes"]), "rows": {}}
    scene, videos = at_frames(everything, frames, bench.size[0], rows), bench.clips(0, rows, world)
    truth = [bench.decoder.to_unit(video).clamp(0, 1) for video in videos]
    found = {"truth": _scores([judge(track(truth, scene)[0], scene, seen)])}
    for arm in [*bench.arms, bench.drawing["target"]]:
        samples = []
        for sample in range(config.samples if arm.samples_differ else 1):
            drawn = [arm.draw(video, arm.task_mask("forward", video), clip_seeds(i * BATCH, len(video), sample))
                     for i, video in enumerate(videos)]  # fmt: skip
            samples.append(judge(track(drawn, scene)[0], scene, seen))
        found[arm.name] = _scores(samples)
    return {"clips": len(rows), "of": len(everything["shapes"]), "rows": table(found)}


COHERENCE = ("error", "found", "colour", "shape", "count", "missing", "extra")
# Of the scores, those of which more is better.
HIGHER = ("hidden", "returned", "colour", "shape", "found", "count", "kept", "response")


def _scores(samples: Sequence[Any]) -> dict[str, np.ndarray]:
    """{score: values (clips,)} of samples of Permanence or Interaction; see `_over_samples`."""
    each = [{key: np.asarray(values, float) for key, values in vars(sample).items() if key != "hits"}
            for sample in samples]  # fmt: skip
    for scores in each:
        if "time" in scores:
            scores["time"] = np.abs(scores["time"])
    return _over_samples(each)


def _over_samples(samples: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """{score: the mean over samples} and, of several, {"best_" + score: the best}, clip by clip."""
    row: dict[str, np.ndarray] = {}
    for key in samples[0]:
        values = np.stack([sample[key] for sample in samples])
        row[key] = average(values)
        if len(samples) > 1 and key != "chance":
            row[f"best_{key}"] = best(values, key in HIGHER)
    return row
