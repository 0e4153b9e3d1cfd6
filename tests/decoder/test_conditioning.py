"""Claims:

1. A pixel condition shows visible patches and a flag at their own places and nothing of the others: hidden pixels
changed,
   or NaN, leave it bit-identical.
2. A latent condition normalises by its statistics and does not look at the video; nothing is said by `NoCondition`.
3. A condition that lacks what it needs says so.
"""

import pytest
import torch
from torch import Tensor

from decoder import LatentCondition, NoCondition, Observation, PixelCondition
from decoder.compose import hidden_pixels
from jepa import Grid, patchify, task_mask

GRID = Grid(4, 4, 4)


@pytest.mark.parametrize("task", ["forward", "backward", "animate", "loop", "connect", "infill"])
@pytest.mark.parametrize("damage", [float("nan"), 7.0])
def test_hidden_pixels_never_reach_the_condition(video: Tensor, task: str, damage: float) -> None:
    mask = task_mask(task, GRID, len(video))
    condition = PixelCondition(3, 2, 8)
    before = condition.tokens(Observation(GRID, video=video, mask=mask))
    hidden = hidden_pixels(mask, GRID, 2, 8)
    after = condition.tokens(Observation(GRID, video=video.masked_fill(hidden, damage), mask=mask))
    assert torch.equal(before, after)
    assert before.shape == (3, 64, condition.dim)
    assert before[0, mask.context_ids[0], -1].eq(1).all() and before[0, mask.target_ids[0]].eq(0).all()
    torch.testing.assert_close(before[0, mask.context_ids[0], :-1], patchify(video, 2, 8)[0, mask.context_ids[0]])


def test_visible_pixels_do_reach_it(video: Tensor) -> None:
    mask, condition = task_mask("forward", GRID, len(video)), PixelCondition(3, 2, 8)
    tokens = [condition.tokens(Observation(GRID, video=v, mask=mask)) for v in (video, video + 1)]
    assert (tokens[0] != tokens[1]).any(-1).sum() == mask.context_ids.numel()


def test_latents_are_normalised_and_nothing_is_nothing(video: Tensor) -> None:
    condition = LatentCondition(5)
    condition.mean.fill_(2.0)
    condition.std.fill_(4.0)
    latents = torch.randn(3, 64, 5)
    torch.testing.assert_close(condition.tokens(Observation(GRID, latents=latents, video=video)), (latents - 2) / 4)
    assert NoCondition().tokens(Observation(GRID, latents=latents)) is None


def test_what_is_missing_is_named(video: Tensor) -> None:
    with pytest.raises(ValueError, match="latents"):
        LatentCondition(5).tokens(Observation(GRID, video=video))
    with pytest.raises(ValueError, match="mask"):
        PixelCondition(3, 2, 8).tokens(Observation(GRID, video=video))
