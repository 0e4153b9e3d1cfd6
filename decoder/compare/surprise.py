"""Surprise of every arm at the pairs of a comparison. A composition root."""

from dataclasses import asdict
from typing import Any

import torch

from data.reader import open_video
from data.transforms import ClipTransform
from decoder.arms import Arm, LatentArm
from decoder.compare.bench import Bench
from decoder.latents import LatentSource
from decoder.surprise_run import SurpriseConfig, Table, accuracy_tables, judge_pairs, read_pairs
from jepa import JEPA
from jepa.surprise import context_tubelets, video_scores, window_frames


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
    both = {name: list(zip(found[::2], found[1::2], strict=True)) for name, found in scores.items()}
    result = {"pairs": len(pairs), "windows": config.surprise_step, "samples": config.surprise_samples,
              "rows": _plain(accuracy_tables(pairs, both))}  # fmt: skip
    return result | ({"real": _real(bench, models)} if config.real_pairs else {})


def _real(bench: Bench, models: list[Arm]) -> dict[str, Any]:
    """{"pairs", "rows"} of pairs of real videos: nothing was trained on any like them, and they are few."""
    config = bench.config
    pairs = read_pairs(config.real_pairs)
    settings = SurpriseConfig(step=config.surprise_step, progress=config.progress)
    scores = judge_pairs(models, pairs, bench.data, settings, bench.device)
    return {"pairs": len(pairs), "rows": _plain(accuracy_tables(pairs, scores))}


def _plain(tables: dict[str, Table]) -> dict[str, Any]:
    return {
        name: {score: {concept: {condition: None if a is None else asdict(a) for condition, a in by.items()}
                       for concept, by in table.items()} for score, table in found.items()}
        for name, found in tables.items()
    }  # fmt: skip
