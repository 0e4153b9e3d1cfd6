"""Surprise of every arm at the pairs of a comparison. A composition root."""

from dataclasses import asdict
from typing import Any

import torch

from decoder.arms import Arm, LatentArm
from decoder.compare.bench import BATCH, Bench
from decoder.estimates import paired
from decoder.latents import LatentSource
from decoder.surprise_run import SurpriseConfig, Table, VideoRow, judge_pairs, outcome_tables, read_pairs
from jepa import JEPA
from jepa.surprise import accuracy_table


def measure_surprise(bench: Bench) -> dict[str, Any]:
    """Possible against impossible videos, for every arm, masked pixels and random encoders too, and two controls."""
    config = bench.config
    models: list[Arm] = [*bench.arms]
    masked = JEPA.load(bench.trained.folder / "masked_pixels" / "last.ckpt")
    models.append(LatentArm("masked_pixels", LatentSource(masked).to(bench.device)))
    for seed in range(3):
        torch.manual_seed(1000 + seed)
        untrained = LatentSource(JEPA(bench.source.jepa.config)).to(bench.device)
        models.append(LatentArm(f"random_{seed}", untrained))
    for model in models:
        model.surprise_samples = config.surprise_samples
    result = _judged(bench, models, read_pairs(bench.out / "pairs" / "pairs.csv"))
    result |= {"windows": config.surprise_step, "samples": config.surprise_samples}
    return result | ({"real": _judged(bench, models, read_pairs(config.real_pairs))} if config.real_pairs else {})


def _judged(bench: Bench, models: list[Arm], pairs: list[tuple[VideoRow, VideoRow]]) -> dict[str, Any]:
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
