"""What a training costs, counted before it begins. Claims:

- the operations of a pretraining are those of the masks that it meets: as many on average as its own collator's.
"""

from pathlib import Path

import pytest
import torch

from decoder.budget import CLIPS, pretrain_operations
from decoder.cost import step_operations
from jepa.config import load_config
from jepa.jepa import JEPA
from jepa.masks import Mask, MaskCollator
from jepa.train import PretrainConfig

TINY = Path(__file__).resolve().parents[2] / "configs" / "pretrain" / "worlds_tiny.yaml"


def test_a_pretraining_is_counted_on_the_masks_that_it_meets() -> None:
    config = load_config(PretrainConfig, TINY)
    encoder, data = config.model.encoder, config.data
    collate = MaskCollator(config.masks, encoder.tubelet_size, encoder.patch_size, config.masks_per_step)
    jepa, clip = JEPA(config.model), torch.zeros(encoder.in_channels, data.num_frames, *data.size)
    video, found, steps = clip.expand(CLIPS, -1, -1, -1, -1), {}, []
    for step in range(150):
        (mask,) = collate([{"video": clip, "seed": 1000 * step + i} for i in range(data.batch_size)])["masks"]
        shape = mask.context_ids.shape[1], mask.target_ids.shape[1]
        if shape not in found:
            few = Mask(*(ids[:CLIPS] for ids in mask))
            found[shape] = step_operations(lambda few=few: jepa(video, [few]).total)  # type: ignore[misc]
        steps.append(found[shape] / CLIPS * data.batch_size)
    mean = sum(steps) / len(steps) * config.trainer.max_steps
    assert len(set(steps)) > 5 and pretrain_operations(config) == pytest.approx(mean, rel=0.06)
