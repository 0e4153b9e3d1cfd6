"""Claims:

1. No leakage: pixels under the target mask changed (or NaN), and the latents offered to the decoder are bit-identical,
at the
   targets and at the visible places; changed visible pixels do change them.
2. `predicted` holds z at the targets and, at the context, latents of the visible tokens read alone (not of the whole
clip). 3. A mask that leaves a token without a latent is refused.
4. Streaming statistics equal numpy's over the whole set, whatever the batches.
5. The source is frozen: no gradients, evaluation mode, unchanged by use; copies of what holds it share it.
6. The fingerprint tells JEPAs apart and survives half precision.
"""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from decoder import LatentSource, LatentStats, measure_latents
from decoder.compose import hidden_pixels
from jepa import JEPA, TASKS, Mask
from jepa.grid import gather_tokens


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("damage", [float("nan"), 5.0])
def test_hidden_pixels_never_reach_the_latents(source: LatentSource, video: Tensor, task: str, damage: float) -> None:
    mask = source.task_mask(task, video)
    hidden = hidden_pixels(mask, source.grid(video), 2, 8)
    before = source.predicted(video, mask)
    assert torch.isfinite(before).all()
    assert torch.equal(before, source.predicted(video.masked_fill(hidden, damage), mask))
    assert not torch.equal(before, source.predicted(torch.where(hidden, video, video + 1), mask))


def test_predicted_latents_are_z_and_latents_of_the_visible_alone(source: LatentSource, video: Tensor) -> None:
    mask = source.task_mask("forward", video)
    latents = source.predicted(video, mask)
    assert torch.equal(gather_tokens(latents, mask.target_ids), source.jepa.predict(video, mask))
    visible = gather_tokens(latents, mask.context_ids)
    assert torch.equal(visible, source.jepa.encode(video, mask.context_ids))
    assert not torch.allclose(visible, gather_tokens(source.target(video), mask.context_ids))


def test_a_mask_with_gaps_is_refused(source: LatentSource, video: Tensor) -> None:
    mask = source.task_mask("forward", video)
    with pytest.raises(ValueError, match="31 visible and 32 hidden of 64"):
        source.predicted(video, Mask(mask.context_ids[:, 1:], mask.target_ids))


def test_statistics_equal_numpy(source: LatentSource) -> None:
    latents = 1000 + torch.randn(37, 6, 5) * torch.tensor([1.0, 10.0, 0.01, 3.0, 0.0])
    stats = LatentStats(5)
    for batch in latents.split([1, 20, 16]):
        stats.update(batch)
    rows = latents.double().numpy().reshape(-1, 5)
    np.testing.assert_allclose(stats.mean, rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(stats.std, np.maximum(rows.std(0), 1e-4), rtol=1e-5)


def test_measured_over_the_first_clips(source: LatentSource, video: Tensor) -> None:
    stats = measure_latents(source, [video[:2], video], clips=3)
    rows = torch.cat([source.target(video[:2]), source.target(video[:1])]).flatten(0, 1)
    torch.testing.assert_close(stats.mean, rows.mean(0))
    torch.testing.assert_close(stats.std, rows.std(0, unbiased=False))
    with pytest.raises(ValueError, match="empty"):
        measure_latents(source, [], clips=3)


def test_the_source_is_frozen(jepa: JEPA, video: Tensor) -> None:
    jepa.train()
    source = LatentSource(jepa)
    before = copy.deepcopy(jepa.state_dict())
    latents = source.predicted(video, source.task_mask("forward", video))
    assert not latents.requires_grad and not source.target(video).requires_grad and not jepa.training
    assert all(torch.equal(before[key], value) for key, value in jepa.state_dict().items())
    assert copy.deepcopy({"holder": source})["holder"] is source


def test_the_fingerprint_tells_jepas_apart(source: LatentSource, jepa: JEPA) -> None:
    original = source.fingerprint
    assert LatentSource(copy.deepcopy(jepa).half()).fingerprint == original
    other = copy.deepcopy(jepa)
    next(other.target_encoder.parameters()).data += 0.1
    assert LatentSource(other).fingerprint != original
