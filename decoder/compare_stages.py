"""What `jepa compare` measures, stage by stage, each a dict that becomes a file. A composition root.

Notable:
- Test clips meet nothing that learns or chooses. All arms meet the same clips, masks and seeds.
- Physics is read off pictures by one detector (`data.worlds_detect`), which is first validated on true renders: its
  figures stand beside what it measures. The rows `truth` are what it makes of the true pictures.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from data.clips import clip_indices
from data.dataset import list_videos
from data.module import build_cache, make_dataset
from data.reader import open_video
from data.transforms import ClipTransform, frame_size
from data.worlds import load_truth
from data.worlds_claims import coherence, hidings, hits, interaction, permanence
from data.worlds_detect import detect
from data.worlds_tracks import Scene, Tracks, at_frames, follow
from data.worlds_validate import validate
from decoder.arms import Arm, CopyArm, ExtrapolateArm, LatentArm, MeanArm, PixelArm, TargetArm
from decoder.budget import decoder_operations, latent_operations, pretrain_operations
from decoder.compare_films import films
from decoder.compare_plan import CompareConfig, Trained
from decoder.compare_probe import representation
from decoder.compose import to_frames
from decoder.cost import drawing_cost, peak_memory
from decoder.decoder import Decoder
from decoder.estimates import estimate
from decoder.evaluate import clip_seeds, pictures, rollout, sampling_steps
from decoder.futures import Futures
from decoder.i3d import I3D
from decoder.latents import LatentSource
from decoder.metric_weights import missing_weights
from decoder.perceptual import load_lpips
from decoder.pixels import PixelModel
from decoder.surprise_run import read_pairs, twin_places
from decoder.video_distance import distance_table
from jepa import JEPA
from jepa.surprise import accuracy_table, context_tubelets, video_scores, window_frames
from jepa.training import pick_device

BATCH = 64
SAMPLED = ("forward", "animate")  # tasks of which several samples are drawn: those that leave most open


class Bench:
    """The trained arms of one seed, and the clips they are measured on; everything is loaded when first used."""

    def __init__(self, config: CompareConfig, trained: Trained) -> None:
        self.config, self.trained, self.data = config, trained, trained.jepa.data
        self.out, self.size = Path(config.out), frame_size(trained.jepa.data.size)

    @cached_property
    def device(self) -> torch.device:
        return pick_device()

    @property
    def steps(self) -> int:
        """Sampling steps of every arm: the decoder's own."""
        return self.trained.decoder.sampling.steps

    @cached_property
    def source(self) -> LatentSource:
        return LatentSource(JEPA.load(self.trained.folder / "jepa" / "best.ckpt")).to(self.device)

    @cached_property
    def decoder(self) -> Decoder:
        return Decoder.load(self.trained.folder / "decoder" / "decoder").to(self.device)

    @cached_property
    def drawing(self) -> dict[str, Arm]:
        """Every arm and control that draws, by name: A jepa, D futures, B pixels, B+ pixels_plus, and the controls."""
        steps = self.steps
        futures = Futures.load(self.trained.folder / "futures" / "futures").to(self.device)
        arms: list[Arm] = [
            LatentArm("jepa", self.source, self.decoder, steps=steps),
            LatentArm("futures", self.source, self.decoder, futures, steps),
        ]
        for name in ("pixels", "pixels_plus") if self.config.plus else ("pixels",):
            model = PixelModel.load(self.trained.folder / name / "pixels").to(self.device)
            arms.append(PixelArm(name, model, steps))
        arms += [CopyArm("copy", arms[0]), ExtrapolateArm("extrapolate", arms[0])]
        arms += [
            MeanArm("mean", self.source, self.decoder, steps=steps),
            TargetArm("target", self.source, self.decoder, steps=steps),
        ]
        return {arm.name: arm for arm in arms}

    @cached_property
    def arms(self) -> list[Arm]:
        """The arms that predict, without bounds."""
        return [arm for name, arm in self.drawing.items() if name not in ("mean", "target")]

    @cached_property
    def lpips(self) -> nn.Module | None:
        """LPIPS, where its weights are installed."""
        return None if missing_weights() else load_lpips(self.device)

    def clips(self, count: int, rows: np.ndarray | None = None) -> list[Tensor]:
        """Batches (B, C, T, H, W) of test clips: the first `count`, or those of `rows`."""
        data = self.data
        videos = list_videos(str(self.out / "worlds" / "test.csv"), data.labels, data.label_column)
        dataset = make_dataset(data, videos, cache=build_cache(data, videos))
        chosen = Subset(dataset, list(range(min(count, len(dataset)))) if rows is None else rows.tolist())
        return [batch["video"].to(self.device) for batch in DataLoader(chosen, BATCH)]

    @cached_property
    def truth(self) -> dict[str, np.ndarray]:
        """Ground truth of the test clips, in the order of test.csv."""
        everything = load_truth(self.out / "worlds")
        rows = np.flatnonzero(everything["splits"] == 2)
        place = np.full(len(everything["splits"]), -1)
        place[rows] = np.arange(len(rows))
        kept = {k: v[rows] for k, v in everything.items() if k != "collisions"}
        found = everything["collisions"][place[everything["collisions"][:, 0]] >= 0].copy()
        found[:, 0] = place[found[:, 0]]
        return kept | {"collisions": found}

    def frames(self, length: int, count: int | None = None) -> np.ndarray:
        """(T,) frames of a world video of `length` frames that a clip holds, or that `count` clips in a row would."""
        data = self.data
        if count is not None:
            return np.arange(count * data.num_frames) * (data.stride or 1)
        return clip_indices(length, data.num_frames, stride=data.stride, position="uniform")[0]


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


# ---------------------------------------------------------------------- the stages


def measure_pictures(bench: Bench) -> dict[str, Any]:
    """Every task, all arms and bounds; forward with every context length too.

    Other tasks than forward are drawn on half of the clips: LPIPS, and not the drawing, takes the time.
    """
    config = bench.config
    videos = bench.clips(config.clips)
    data, (height, width) = bench.data, bench.size
    tubelets = data.num_frames // bench.trained.jepa.model.encoder.tubelet_size
    arms = list(bench.drawing.values())
    few = videos[: max(1, len(videos) // 2)]
    return {
        "clips": sum(map(len, videos)), "samples": config.samples, "frames": data.num_frames, "size": [height, width],
        "tasks": {
            task: pictures(arms, videos if task == "forward" else few, task, None,
                           config.samples if task in SAMPLED else 1, bench.lpips)
            for task in config.tasks
        },
        "contexts": [
            {"context": context, "of": tubelets, "clips": sum(map(len, few)),
             "rows": pictures(arms, few, "forward", context)}
            for context in range(1, tubelets)
        ],
    }  # fmt: skip


def measure_distance(bench: Bench) -> dict[str, Any]:
    """Fréchet and kernel video distances of forward predictions on I3D features; {} where its weights are missing."""
    count = bench.config.distance_clips
    if not count:
        return {"reason": "distance_clips is 0"}
    if missing_weights():
        return {"reason": missing_weights()}
    network = I3D.load(bench.device)
    videos = torch.cat(bench.clips(2 * count))
    videos, others = videos[:count], videos[count : 2 * count]
    features = lambda clips: torch.cat([network.features(part) for part in clips.split(8)]).cpu().numpy()
    unit = lambda clips: bench.decoder.to_unit(clips).clamp(0, 1)
    # Everything is compared with other clips than those that were drawn: then the true ones score the floor at this n.
    found = {"truth": features(unit(videos))}
    for name in [arm.name for arm in bench.arms] + ["target"]:
        arm, drawn = bench.drawing[name], []
        for first, part in zip(range(0, len(videos), BATCH), videos.split(BATCH), strict=True):
            drawn.append(arm.draw(part, arm.task_mask("forward", part), clip_seeds(first, len(part))))
        found[name] = features(torch.cat(drawn))
    return {"clips": len(videos), "frames": bench.data.num_frames, "size": list(bench.size), "task": "forward",
            "features": "I3D, Kinetics-400 logits, 224 x 224",
            "rows": distance_table(features(unit(others)), found)}  # fmt: skip


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
    """Object permanence and interaction, on all test clips in which the predicted part shows either."""
    config, data = bench.config, bench.data
    seen = data.num_frames // 2
    frames = bench.frames(bench.truth["positions"].shape[1])
    scene = at_frames(bench.truth, frames, bench.size[0])
    hide, _ = hidings(scene, seen)
    chosen = {
        "permanence": np.flatnonzero(hide >= 0)[: config.clips],
        "interaction": np.unique(hits(scene, seen).clip)[: config.clips],
    }
    result: dict[str, Any] = {"samples": config.samples, "seen": seen}
    for claim, rows in chosen.items():
        result[claim] = {"clips": len(rows), "rows": {}}
        if not len(rows):
            continue
        part = at_frames(bench.truth, frames, bench.size[0], rows)
        videos = bench.clips(0, rows)
        judge = permanence if claim == "permanence" else interaction
        score: Callable[[Tracks], Any] = partial(judge, scene=part, seen=seen)
        truth = [bench.decoder.to_unit(video).clamp(0, 1) for video in videos]
        result[claim]["rows"]["truth"] = _scores([score(track(truth, part))])
        for arm in [*bench.arms, bench.drawing["target"]]:
            samples = []
            for sample in range(config.samples if arm.samples_differ else 1):
                drawn = [arm.draw(video, arm.task_mask("forward", video), clip_seeds(i * BATCH, len(video), sample))
                         for i, video in enumerate(videos)]  # fmt: skip
                samples.append(score(track(drawn, part)))
            result[claim]["rows"][arm.name] = _scores(samples)
    settings = asdict(validate(bench.out / "worlds", min(96, config.clips), bench.size[0], data.stride or 1))
    result["detector"] = settings
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


def measure_surprise(bench: Bench) -> dict[str, Any]:
    """Possible against impossible videos, for every arm, masked pixels and random encoders too, and two controls."""
    config, data = bench.config, bench.data
    models: list[Arm] = [*bench.arms]
    masked = JEPA.load(bench.trained.folder / "masked_pixels" / "best.ckpt")
    models.append(LatentArm("masked_pixels", LatentSource(masked).to(bench.device)))
    for seed in range(3):
        torch.manual_seed(1000 + seed)
        untrained = LatentSource(JEPA(bench.source.jepa.config)).to(bench.device)
        models.append(LatentArm(f"random_{seed}", untrained))
    transform = ClipTransform(list(bench.size))
    tubelet = models[0].tubelet_size
    stride, context = data.stride or 1, context_tubelets(data.num_frames, tubelet)
    pairs = read_pairs(bench.out / "pairs" / "pairs.csv")
    scores: dict[str, list[Any]] = {model.name: [] for model in models}
    rows = [row for pair in pairs for row in pair]
    for first in range(0, len(rows), 16):  # several videos at a time: a window alone leaves the device idle
        part, clips, windows = rows[first : first + 16], [], []
        for row in part:
            video = open_video(row.path)
            places = window_frames(len(video), data.num_frames, stride, config.surprise_step * stride)
            clip = transform(video.frames(range(len(video))))  # (C, T, H, W)
            clips.append(clip[:, torch.from_numpy(places)].movedim(1, 0))
            windows.append(places)
        batch = torch.cat(clips).to(bench.device)
        for model in models:
            model.surprise_samples = config.surprise_samples
            mask = model.task_mask("forward", batch, context)
            errors = model.surprise(batch, mask).float().cpu().double().split([len(places) for places in windows])
            for row, places, curve in zip(part, windows, errors, strict=True):
                scores[model.name].append(video_scores(curve.numpy(), places, context * tubelet, row.evidence))
    groups, twins = [(possible.concept, possible.condition) for possible, _ in pairs], twin_places(pairs)
    tables = {
        name: accuracy_table(groups, found[::2], found[1::2], twins)  # the possible one of a pair comes first
        for name, found in scores.items()
    }
    plain = {name: {score: {concept: {condition: None if a is None else asdict(a) for condition, a in by.items()}
                                for concept, by in table.items()} for score, table in found.items()}
             for name, found in tables.items()}  # fmt: skip
    return {"pairs": len(pairs), "windows": config.surprise_step, "samples": config.surprise_samples, "rows": plain}


def measure_cost(bench: Bench) -> dict[str, Any]:
    """Parameters, operations of training and drawing, seconds a clip, memory; and quality by sampling steps."""
    jepa, masked, decoder = bench.trained.jepa, bench.trained.masked_pixels, bench.trained.decoder
    videos = bench.clips(min(64, bench.config.clips))
    count = lambda model: sum(p.numel() for p in model.parameters())
    denoiser, pretraining = decoder_operations(decoder, jepa), pretrain_operations(jepa)
    model = bench.source.jepa
    encoder = count(model.context_encoder) + count(model.predictor)
    rows: dict[str, dict[str, Any]] = {
        "jepa": {"parameters": encoder + count(bench.decoder), "denoiser_parameters": count(bench.decoder.dit),
                 "pretraining_operations": pretraining, "training_operations": denoiser,
                 "latent_operations": latent_operations(decoder, jepa)},
        "masked_pixels": {"parameters": encoder, "pretraining_operations": pretrain_operations(masked)},
    }  # fmt: skip
    for name, arm in bench.drawing.items():
        if isinstance(arm, PixelArm):
            share = getattr(bench.trained, name).trainer.max_steps / decoder.trainer.max_steps
            rows[name] = {"parameters": count(arm.model), "denoiser_parameters": count(arm.model.dit),
                          "pretraining_operations": 0, "training_operations": denoiser * share}  # fmt: skip
        if isinstance(arm, LatentArm) and arm.futures is not None:
            rows[name] = rows["jepa"] | {"parameters": rows["jepa"]["parameters"] + count(arm.futures)}
    for name, row in rows.items():
        if name in bench.drawing:
            row["drawing"] = drawing_cost(bench.drawing[name], videos[0])
    arms = [bench.drawing[name] for name in rows if name in bench.drawing]
    return {"rows": rows, "peak_bytes": peak_memory(),
            "steps": sampling_steps(arms, videos, "forward", bench.config.steps, bench.lpips)}  # fmt: skip


STAGES: dict[str, tuple[str, Callable[[Bench], dict[str, Any]]]] = {
    "representation": ("What the features know, along training and by labels", representation),
    "pictures": ("Pictures: PSNR, SSIM, LPIPS of every task", measure_pictures),
    "distance": ("Fréchet and kernel video distances", measure_distance),
    "rollout": ("Long-range coherence: predictions fed back", measure_rollout),
    "physics": ("Object permanence and interaction", measure_physics),
    "surprise": ("Surprise: possible against impossible", measure_surprise),
    "cost": ("Cost, and quality by sampling steps", measure_cost),
    "films": ("Films", films),
}
