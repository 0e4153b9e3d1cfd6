"""What `jepa compare` measures, stage by stage, each a dict that becomes a file. A composition root."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from decoder.arms import Arm, LatentArm, PixelArm
from decoder.budget import decoder_operations, futures_operations, latent_operations, pretrain_operations
from decoder.compare.bench import BATCH, Bench
from decoder.compare.films import films
from decoder.compare.physics import measure_physics, measure_rollout
from decoder.compare.probe import representation
from decoder.compare.surprise import measure_surprise
from decoder.cost import drawing_cost, peak_memory
from decoder.evaluate import clip_seeds, pictures, sampling_steps
from decoder.i3d import I3D
from decoder.metric_weights import missing_weights
from decoder.video_distance import distance_table

SAMPLED = ("forward", "animate")  # tasks of which several samples are drawn: those that leave most open


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
    tasks, same = _distinct(config.tasks, arms[0], videos[0])
    return {
        "clips": sum(map(len, videos)), "samples": config.samples, "frames": data.num_frames, "size": [height, width],
        "tasks": {
            task: pictures(arms, videos if task == "forward" else few, task, None,
                           config.samples if task in SAMPLED else 1, bench.lpips)
            for task in tasks
        },
        "same": same,
        "contexts": [
            {"context": context, "of": tubelets, "clips": sum(map(len, few)),
             "rows": pictures(arms, few, "forward", context)}
            for context in range(1, tubelets)
        ],
    }  # fmt: skip


def _distinct(tasks: Sequence[str], arm: Arm, video: Tensor) -> tuple[list[str], dict[str, str]]:
    """Tasks whose masks differ, and {task: the earlier one that hides the same}: in short clips some are one."""
    masks: dict[str, Tensor] = {}
    same: dict[str, str] = {}
    for task in tasks:
        hidden = arm.hidden(video, arm.task_mask(task, video))
        twin = next((other for other, found in masks.items() if torch.equal(found, hidden)), "")
        if twin:
            same[task] = twin
        else:
            masks[task] = hidden
    return list(masks), same


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
            head = futures_operations(bench.trained.futures, jepa)
            rows[name] = rows["jepa"] | {"parameters": rows["jepa"]["parameters"] + count(arm.futures),
                                         "training_operations": denoiser + head}  # fmt: skip
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
