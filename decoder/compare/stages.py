"""What `jepa compare` measures, stage by stage, each a dict that becomes a file. A composition root."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from decoder.arms import Arm, LatentArm, PixelArm
from decoder.budget import (
    decoder_operations,
    futures_operations,
    latent_operations,
    pixels_operations,
    pretrain_operations,
)
from decoder.compare.again import rate
from decoder.compare.bench import BATCH, Bench
from decoder.compare.films import films
from decoder.compare.physics import measure_physics, measure_rollout
from decoder.compare.probe import representation
from decoder.compare.surprise import measure_surprise
from decoder.cost import drawing_cost
from decoder.evaluate import clip_seeds, pictures, sampling_steps
from decoder.i3d import I3D
from decoder.metric_weights import missing_weights
from decoder.video_distance import distance_table
from jepa import JEPA

LEAST = 3  # clips a side that a distance with an interval needs
FED_BACK = ("jepa", "pixels", "pixels_plus", "futures", "copy")  # arms whose roll-outs are measured as sets of clips
SAMPLED = ("forward", "animate")  # tasks of which several samples are drawn: those that leave most open


def measure_pictures(bench: Bench) -> dict[str, Any]:
    """Every task, all arms and bounds; forward with every context length too, and against the clean scene (elsewhere
    what is visible may tell some of the detail: at infill, how bright a frame is).

    Other tasks than forward are drawn on half of the clips: LPIPS, and not the drawing, takes the time.
    """
    config = bench.config
    videos, clean = bench.clips(config.clips), bench.clean(config.clips)
    data, (height, width) = bench.data, bench.size
    tubelets = data.num_frames // bench.trained.jepa.model.encoder.tubelet_size
    arms = list(bench.drawing.values())
    few = videos[: max(1, len(videos) // 2)]
    tasks, same = _distinct(config.tasks, arms[0], videos[0])
    return {
        "clips": sum(map(len, videos)), "samples": config.samples, "frames": data.num_frames, "size": [height, width],
        "detail": bench.detail,
        "tasks": {
            task: pictures(arms, videos if task == "forward" else few, task, None,
                           config.samples if task in SAMPLED else 1, bench.lpips,
                           clean if task == "forward" else None)
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
    """Fréchet and kernel video distances on I3D features, of forward predictions and of roll-outs; only a reason where
    there is nothing to measure with."""
    count = bench.config.distance_clips
    if not count:
        return {"reason": "distance_clips is 0"}
    if missing_weights():
        return {"reason": missing_weights()}
    # Everything is compared with other clips than those that were drawn: then the true ones score the floor at this n.
    halves = _halves(torch.cat(bench.clips(2 * count)), count)
    if halves is None:
        return {"reason": f"the test split has fewer than {2 * LEAST} clips, {LEAST} to draw and {LEAST} to compare"}
    network = I3D.load(bench.device)
    features = lambda clips: torch.cat([network.features(part.to(bench.device)) for part in clips.split(8)]).cpu()
    unit = lambda clips: bench.decoder.to_unit(clips).clamp(0, 1)
    videos, others = halves
    found = {"truth": features(unit(videos))}
    for name in [arm.name for arm in bench.arms] + ["target"]:
        arm, drawn = bench.drawing[name], []
        for first, part in zip(range(0, len(videos), BATCH), videos.split(BATCH), strict=True):
            drawn.append(arm.draw(part, arm.task_mask("forward", part), clip_seeds(first, len(part))))
        found[name] = features(torch.cat(drawn))
    return {"clips": len(videos), "frames": bench.data.num_frames, "size": list(bench.size), "task": "forward",
            "features": "I3D, Kinetics-400 logits, 224 x 224",
            "rows": distance_table(features(unit(others)), found),
            "horizons": _horizons(bench, features, max(LEAST, count // 4))}  # fmt: skip


def _halves(videos: Tensor, most: int) -> tuple[Tensor, Tensor] | None:
    """Two sets of as many clips, at most `most` each; None where that leaves fewer than LEAST."""
    count = min(most, len(videos) // 2)
    return None if count < LEAST else (videos[:count], videos[count : 2 * count])


def _horizons(bench: Bench, features: Callable[[Tensor], Tensor], count: int) -> list[dict[str, Any]]:
    """Distances of as many frames as a clip has, all of them drawn, where roll-outs begin and where they end; at most
    `count` long clips, from as many others at the same frames."""
    length, lengths = bench.data.num_frames, bench.config.rollout_lengths
    halves = _halves(bench.decoder.to_unit(bench.long).clamp(0, 1).cpu(), count)
    if halves is None or lengths < 2:
        return []
    videos, others = halves
    arms = [bench.drawing[name] for name in FED_BACK if name in bench.drawing]
    found = []
    for first in (length // 2, (lengths - 1) * length):
        at = slice(first, first + length)
        sets = {"truth": videos} | {arm.name: bench.rolled(arm)[: len(videos)] for arm in arms}
        rows = distance_table(features(others[:, :, at]), {name: features(x[:, :, at]) for name, x in sets.items()})
        found.append({"first": first, "clips": len(videos), "frames": length, "size": list(bench.size), "rows": rows})
    return found


def measure_cost(bench: Bench) -> dict[str, Any]:
    """Parameters, operations and rates of training, operations of drawing, seconds a clip, memory; and quality by
    sampling steps."""
    trained = bench.trained
    jepa, masked, decoder = trained.jepa, trained.masked_pixels, trained.decoder
    videos = bench.clips(min(64, bench.config.clips))
    count = lambda *models: sum(p.numel() for model in models for p in model.parameters())
    denoiser, pretraining = decoder_operations(decoder, jepa), pretrain_operations(jepa)
    model, opponent = bench.source.jepa, JEPA(masked.model)
    # To draw, A reads visible latents with its target encoder, and predicts from those of its context encoder.
    latents = count(model.context_encoder, model.target_encoder, model.predictor)
    rows: dict[str, dict[str, Any]] = {
        "jepa": {"parameters": latents + count(bench.decoder), "denoiser_parameters": count(bench.decoder.dit),
                 "pretraining_operations": pretraining, "training_operations": denoiser,
                 "latent_operations": latent_operations(decoder, jepa)},
        "masked_pixels": {"parameters": count(opponent.context_encoder, opponent.predictor),
                          "pretraining_operations": pretrain_operations(masked)},
    }  # fmt: skip
    for name, arm in bench.drawing.items():
        if isinstance(arm, PixelArm):
            rows[name] = {"parameters": count(arm.model), "denoiser_parameters": count(arm.model.dit),
                          "pretraining_operations": 0,
                          "training_operations": pixels_operations(getattr(trained, name))}  # fmt: skip
        if isinstance(arm, LatentArm) and arm.futures is not None:
            head = futures_operations(trained.futures, jepa)
            rows[name] = rows["jepa"] | {"parameters": rows["jepa"]["parameters"] + count(arm.futures),
                                         "training_operations": denoiser + head}  # fmt: skip
    for name, row in rows.items():
        if name in bench.drawing:
            row["drawing"] = drawing_cost(bench.drawing[name], videos[0])
            row["training"] = rate(trained.folder / ("decoder" if name == "jepa" else name))
        if row["pretraining_operations"]:
            row["pretraining"] = rate(trained.folder / ("masked_pixels" if name == "masked_pixels" else "jepa"))
    arms = [bench.drawing[name] for name in rows if name in bench.drawing]
    return {"rows": rows, "batch": len(videos[0]),
            "steps": sampling_steps(arms, videos, "forward", bench.config.steps, bench.lpips)}  # fmt: skip


class Measurement(NamedTuple):
    """Title, what measures, and the settings on which its outcome depends: with others it is measured again; so is
    what needs weights (`weighed`: LPIPS, I3D) when those have been installed since."""

    title: str
    run: Callable[[Bench], dict[str, Any]]
    settings: tuple[str, ...]
    weighed: bool = False


STAGES = {
    "representation": Measurement("What the features know, along training and by labels", representation,
                                  ("points", "probe_clips", "label_fractions")),
    "pictures": Measurement("Pictures: PSNR, SSIM, LPIPS of every task", measure_pictures,
                            ("plus", "clips", "samples", "tasks"), weighed=True),
    "distance": Measurement("Fréchet and kernel video distances", measure_distance,
                            ("plus", "distance_clips", "rollout_clips", "rollout_lengths"), weighed=True),
    "rollout": Measurement("Long-range coherence: predictions fed back", measure_rollout,
                           ("plus", "rollout_clips", "rollout_lengths", "rollout_samples")),
    "physics": Measurement("Object permanence and interaction", measure_physics,
                           ("plus", "clips", "samples", "hidden_clips")),
    "surprise": Measurement("Surprise: possible against impossible", measure_surprise,
                            ("plus", "surprise_step", "surprise_samples", "surprise_pixels", "real_pairs")),
    "cost": Measurement("Cost, and quality by sampling steps", measure_cost, ("plus", "clips", "steps"), weighed=True),
    "films": Measurement("Films", films, ("plus", "clips", "films")),
}  # fmt: skip
