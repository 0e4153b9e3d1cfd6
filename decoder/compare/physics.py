"""Three claims made for video models, read off drawn pixels: coherence, permanence, interaction. A composition root.

Notable:
- Physics is read off pictures by one detector (`data.worlds_detect`), which is first validated on true renders: its
  figures stand beside what it measures. The rows `truth` are what it makes of the true pictures.
- A picture full of sprites has one near every place. So what is drawn is scored on other clips' scenes too: KEY_chance
  is the mean score there, and KEY_beyond how much better the score on its own scene is, whether less of KEY is better
  or more. Compare arms by KEY_beyond.
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

OTHERS = 4  # scenes of other clips that every clip is scored on
BEYOND = ("error", "colour", "returned")  # scores that are told beyond chance


def scenes_of(truth: dict[str, np.ndarray], frames: np.ndarray, size: int, rows: np.ndarray) -> list[Scene]:
    """The scenes of the clips `rows`, and then up to OTHERS times those of other clips among them in their place."""
    shifts = sorted({len(rows) * i // (OTHERS + 1) for i in range(OTHERS + 1)})
    return [at_frames(truth, frames, size, np.roll(rows, shift)) for shift in shifts]


def track(videos: Sequence[Tensor], *scenes: Scene) -> list[Tracks]:
    """What the detector finds of each of `scenes` in drawn clips, each (B, C, T, H, W) in [0, 1]; it looks once."""
    sprites = detect(np.concatenate([to_frames(clip) for video in videos for clip in video]))
    return [follow(sprites, scene) for scene in scenes]


def average(values: np.ndarray) -> np.ndarray:
    """(samples, ...) -> (...): the mean over the samples that have a value, NaN where none has."""
    known = ~np.isnan(values)
    return np.where(known.any(0), np.where(known, values, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)


def measure_rollout(bench: Bench) -> dict[str, Any]:
    """Long-range coherence: predictions fed back over many clip lengths, tracked by the detector."""
    length, frames, whole = bench.data.num_frames, bench.frames(0, bench.config.rollout_lengths), bench.long
    known = scenes_of(load_truth(bench.out / "long"), frames, bench.size[0], np.arange(len(whole)))
    truth = bench.decoder.to_unit(whole).clamp(0, 1).cpu()
    edges = [length // 2, *range(length, len(frames) + 1, length)]  # what is drawn of the first clip, and later ones
    found: dict[str, dict[str, np.ndarray]] = {"truth": _coherence([truth], truth, known, edges)}
    for arm in bench.arms:
        samples = bench.config.rollout_samples if arm.samples_differ else 1
        found[arm.name] = _coherence([bench.rolled(arm, i) for i in range(samples)], truth, known, edges)
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
    samples: Sequence[Tensor], truth: Tensor, known: Sequence[Scene], edges: Sequence[int]
) -> dict[str, np.ndarray]:
    """{score: (clips, parts)} between edges, the mean over samples; of several, best_ too. psnr is a squared error.

    `known` are the clips' own scenes, and those of others.
    """
    parts = lambda values: np.stack([average(values[:, low:high].T) for low, high in pairwise(edges)], 1)
    each: list[dict[str, np.ndarray]] = []
    for video in samples:
        judged = map(coherence, track([video], *known), known)
        scores = _beyond_chance([{key: parts(getattr(found, key)) for key in COHERENCE} for found in judged])
        each.append(scores | {"psnr": parts((video - truth).square().mean((1, 3, 4)).double().numpy())})
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
    known, videos = scenes_of(everything, frames, bench.size[0], rows), bench.clips(0, rows, world)

    def scores(drawn: Sequence[Tensor]) -> dict[str, np.ndarray]:
        found = zip(track(drawn, *known), known, strict=True)
        return _beyond_chance([_values(judge(tracks, scene, seen)) for tracks, scene in found])

    found = {"truth": scores([bench.decoder.to_unit(video).clamp(0, 1) for video in videos])}
    for arm in [*bench.arms, bench.drawing["target"]]:
        samples = []
        for sample in range(config.samples if arm.samples_differ else 1):
            drawn = [arm.draw(video, arm.task_mask("forward", video), clip_seeds(i * BATCH, len(video), sample))
                     for i, video in enumerate(videos)]  # fmt: skip
            samples.append(scores(drawn))
        found[arm.name] = _over_samples(samples)
    return {"clips": len(rows), "of": len(everything["shapes"]), "rows": table(found)}


COHERENCE = ("error", "found", "colour", "shape", "count", "missing", "extra")
# Of the scores, those of which more is better.
HIGHER = ("hidden", "returned", "colour", "shape", "found", "count", "response")


def _values(judged: Any) -> dict[str, np.ndarray]:
    """{score: (clips,)} of Permanence or Interaction; of times, how far off they are."""
    scores = {key: np.asarray(values, float) for key, values in vars(judged).items() if key != "hits"}
    return scores | ({"time": np.abs(scores["time"])} if "time" in scores else {})


def _beyond_chance(known: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Scores of the same pictures on their own scenes, first, and on others: the first, with what those make of it."""
    own, *others = known
    more: dict[str, np.ndarray] = {}
    for key in (key for key in BEYOND if key in own and others):
        more[f"{key}_chance"] = chance = average(np.stack([other[key] for other in others]))
        more[f"{key}_beyond"] = own[key] - chance if key in HIGHER else chance - own[key]
    return own | more


def _over_samples(samples: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """{score: the mean over samples} and, of several, {"best_" + score: the best}, clip by clip."""
    row: dict[str, np.ndarray] = {}
    for key in samples[0]:
        values = np.stack([sample[key] for sample in samples])
        row[key] = average(values)
        if len(samples) > 1 and not key.endswith("_chance"):
            higher = key in HIGHER or key.endswith("_beyond")
            row[f"best_{key}"] = (np.fmax if higher else np.fmin).reduce(values)  # NaN where no sample has a value
    return row
