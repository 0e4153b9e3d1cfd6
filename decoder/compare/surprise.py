"""Surprise of every arm at the pairs of a comparison. A composition root."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from decoder.arms import Arm, LatentArm
from decoder.compare.bench import BATCH, Bench
from decoder.estimates import paired
from decoder.latents import LatentSource
from decoder.surprise_run import SurpriseConfig, Table, VideoRow, judge_pairs, outcome_tables, read_pairs
from jepa import JEPA
from jepa.masks import Mask
from jepa.surprise import Surprised, accuracy_table


class InPixels:
    """An arm that is surprised in latents, asked for its pictures instead: their distance to what came, as for arms
    that draw. A metric in a JEPA's own features should not stand alone."""

    def __init__(self, arm: Arm) -> None:
        self.arm, self.name, self.tubelet_size = arm, f"{arm.name}_pixels", arm.tubelet_size
        self.task_mask = arm.task_mask

    def surprise(self, video: Tensor, mask: Mask) -> Tensor:
        """(B,) of the nearest drawing, see `Arm.surprise`."""
        return Arm.surprise(self.arm, video, mask)


def measure_surprise(bench: Bench) -> dict[str, Any]:
    """Possible against impossible videos, for every arm, masked pixels and random encoders too, and two controls."""
    config = bench.config
    arms = [*bench.arms]
    masked = JEPA.load(bench.trained.folder / "masked_pixels" / "last.ckpt")
    arms.append(LatentArm("masked_pixels", LatentSource(masked).to(bench.device)))
    for seed in range(3):
        torch.manual_seed(1000 + seed)
        untrained = LatentSource(JEPA(bench.source.jepa.config)).to(bench.device)
        arms.append(LatentArm(f"random_{seed}", untrained))
    for arm in arms:
        arm.surprise_samples = config.surprise_samples
    drawing = [bench.drawing[name] for name in ("jepa", "futures")] if config.surprise_pixels else []
    models: list[Surprised] = [*arms, *map(InPixels, drawing)]
    result = _judged(bench, models, read_pairs(bench.out / "pairs" / "pairs.csv"))
    result |= {"windows": config.surprise_step, "samples": config.surprise_samples}
    return result | ({"real": _judged(bench, models, read_pairs(config.real_pairs))} if config.real_pairs else {})


def _judged(bench: Bench, models: list[Surprised], pairs: list[tuple[VideoRow, VideoRow]]) -> dict[str, Any]:
    """{"pairs", "rows": {arm: {score: {concept: {condition: Accuracy}}}}}, and rows of differences between arms."""
    config = bench.config
    settings = SurpriseConfig(step=config.surprise_step, batch_size=BATCH, progress=config.progress)
    found = outcome_tables(pairs, judge_pairs(models, pairs, bench.data, settings, bench.device))
    rows: dict[str, Any] = {name: _plain(accuracy_table(table)) for name, table in found.items()}
    for score, concepts in found["jepa"].items():
        for concept, conditions in concepts.items():
            for condition in conditions:
                known = {name: table[score][concept][condition] for name, table in found.items()}
                for name, gap in paired(known).items():
                    rows.setdefault(name, {}).setdefault(score, {}).setdefault(concept, {})[condition] = gap
    return {"pairs": len(pairs), "rows": rows}


def _plain(table: Table) -> dict[str, Any]:
    return {
        score: {concept: {condition: None if a is None else asdict(a) for condition, a in by.items()}
                for concept, by in concepts.items()} for score, concepts in table.items()
    }  # fmt: skip
