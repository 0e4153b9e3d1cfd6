"""What the comparison measures, on arms whose answers are known. Claims:

1. Estimates: the mean and an interval around it, of the clips that have a value; none at all where none has. Two arms
   are compared on the clips of which both have one, resampled in pairs.
2. An arm that knows the truth scores 100 dB and SSIM 1, copying a still clip too; the best of several samples is at
   least their mean, and the mean picture is at least as close as the mean sample.
3. Numbers do not depend on how clips are batched, and only hidden pixels count.
4. Extrapolation continues a linear fade exactly, where copying does not; with one visible frame it copies.
5. A roll-out reads nothing but the first half clip, is as long as asked, and feeds back what was drawn.
6. Beside a clean clip, what nobody can predict does not count: an arm that draws the clean scene is perfect by it, one
   that draws other detail is as far off as that is strong, and its expected picture as far off as without that.
7. Operations are counted: a linear layer's are 2 x in x out, and a training step's are three times that.
8. Memory is what lives at once of what a call makes, as torch's allocator counts it, also without a GPU.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from decoder.arms import Arm, CopyArm, ExtrapolateArm
from decoder.cost import drawing_cost, operations, peak_memory, step_operations
from decoder.dit import VideoDiT, VideoDiTConfig
from decoder.estimates import decibels, estimate, gap, table
from decoder.evaluate import measured, pictures, rollout, sampling_steps
from jepa import Mask


class Known(Arm):
    """Answers with the truth plus noise of strength `noise` from its seed; `calls` keeps what it was asked."""

    def __init__(self, noise: float = 0.0, name: str = "known") -> None:
        super().__init__(name, tubelet_size=2, patch_size=8)
        self.noise, self.calls = noise, list[Tensor]()

    def answer(self, video: Tensor, mask: Mask, seeds: Sequence[int]) -> Tensor:
        self.calls.append(video.clone())
        rows = [torch.randn(video.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return video + self.noise * torch.stack(rows)

    def to_unit(self, video: Tensor) -> Tensor:
        return video

    def from_unit(self, pixels: Tensor) -> Tensor:
        return pixels


class Fade(Known):
    """Draws every hidden frame a tenth brighter than the last visible one."""

    def answer(self, video: Tensor, mask: Mask, seeds: Sequence[int]) -> Tensor:
        super().answer(video, mask, seeds)
        return (video[:, :, 3:4] + 0.1).expand_as(video)


@pytest.fixture
def clips() -> Tensor:
    return torch.rand(5, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))


def test_an_estimate_is_a_mean_and_an_interval_over_the_clips_that_have_a_value() -> None:
    values = np.random.default_rng(0).normal(3, 1, 400)
    values[::4] = np.nan
    found = estimate(values)
    known = values[~np.isnan(values)]
    assert found["n"] == 300 and found["value"] == pytest.approx(known.mean())
    low, high = found["ci95"] or (0.0, 0.0)
    assert high - low == pytest.approx(2 * 1.96 * known.std() / np.sqrt(300), rel=0.15)
    assert estimate(np.full(3, np.nan)) == {"value": None, "ci95": None, "n": 0}
    assert estimate(np.full(4, 0.01), decibels)["value"] == pytest.approx(20)
    hard = np.random.default_rng(1).uniform(0.001, 1, 300)  # clips differ widely, both arms alike
    apart, paired = [estimate(x, decibels)["ci95"] or [] for x in (hard, hard / 10)], gap(hard / 10, hard, decibels)
    assert paired["value"] == pytest.approx(10) and paired["ci95"] == pytest.approx([10, 10])
    assert apart[0][1] - apart[0][0] > 0.3


def test_arms_are_compared_on_the_clips_that_both_have() -> None:
    rng = np.random.default_rng(2)
    hard = rng.uniform(0.001, 1, 300)
    values = {
        "jepa": {"psnr": hard, "score": hard},
        "pixels": {"psnr": hard * 10, "score": hard + 1},
        "mean": {"psnr": hard},
        "copy": {"psnr": hard / 10, "score": np.where(np.arange(300) < 100, hard - 1, np.nan)},
    }
    rows = table(values)
    assert rows.keys() - values.keys() == {"jepa-pixels", "jepa-mean", "jepa-copy", "pixels-copy"}
    assert rows["jepa-pixels"]["psnr"]["value"] == pytest.approx(10) and rows["jepa-mean"].keys() == {"psnr"}
    score = rows["jepa-copy"]["score"]
    assert score["n"] == 100 and score["value"] == pytest.approx(1) and score["ci95"] == pytest.approx([1, 1])
    assert rows["pixels-copy"]["score"]["value"] == pytest.approx(2)
    for measure, found in rows["jepa-pixels"].items():
        opposite = gap(values["pixels"][measure], values["jepa"][measure], decibels if measure == "psnr" else None)
        assert opposite["value"] == pytest.approx(-(found["value"] or 0))
    other = rng.uniform(0.001, 1, 300)  # intervals hold what chance makes of equal arms, nineteen times in twenty
    held = [gap(*rng.permuted(np.stack([hard, other]), axis=0))["ci95"] or [1.0, 1.0] for _ in range(100)]
    assert sum(low <= 0 <= high for low, high in held) >= 88
    assert gap(np.full(3, np.nan), np.ones(3)) == {"value": None, "ci95": None, "n": 0}
    assert "jepa-copy" not in table({"copy": values["copy"], "pixels": values["pixels"]})


def test_truth_scores_perfectly_and_the_best_sample_is_at_least_the_mean(clips: Tensor) -> None:
    rows = pictures([Known(), Known(0.2, "noisy")], [clips], "forward", samples=3)
    assert rows["known"]["psnr"]["value"] == pytest.approx(100) and rows["known"]["ssim"]["value"] == pytest.approx(1)
    noisy = rows["noisy"]
    assert noisy["best_psnr"]["value"] > noisy["psnr"]["value"] and noisy["best_ssim"]["value"] > noisy["ssim"]["value"]
    assert noisy["mean_picture_psnr"]["value"] > noisy["best_psnr"]["value"]
    assert len(noisy["by_frame"]["psnr"]) == 4 and "lpips" not in noisy
    still = clips[:, :, :1].expand(-1, -1, 8, -1, -1)
    copied = pictures([CopyArm("copy", Known())], [still], "forward", samples=3)["copy"]
    assert copied["psnr"]["value"] == pytest.approx(100) and "best_psnr" not in copied


@pytest.mark.parametrize("task", ["forward", "infill"])
def test_batches_do_not_matter_and_visible_pixels_do_not_count(task: str, clips: Tensor) -> None:
    arm = Known(0.2)
    whole, parts = measured(arm, [clips], task), measured(arm, list(clips.split(2)), task)
    assert np.allclose(whole[0].squared_error, parts[0].squared_error)
    rows = [pictures([arm, CopyArm("copy", arm)], batches, task) for batches in ([clips], list(clips.split(2)))]
    for key in ("value", "ci95"):
        assert rows[0]["known"]["psnr"][key] == pytest.approx(rows[1]["known"]["psnr"][key], rel=1e-5)
    hidden = arm.hidden(clips, arm.task_mask(task, clips)).expand_as(clips)

    class Spoiled(Known):
        def answer(self, video: Tensor, mask: Mask, seeds: Sequence[int]) -> Tensor:
            return torch.where(hidden, super().answer(video, mask, seeds), 0.0)

    assert np.array_equal(measured(Spoiled(0.2), [clips], task)[0].squared_error, whole[0].squared_error)


def test_unpredictable_detail_does_not_count_beside_a_clean_clip(clips: Tensor) -> None:
    calm = 0.3 + 0.4 * clips  # in the middle: noise is not clipped away
    noisy = calm + 0.05 * torch.randn(calm.shape, generator=torch.Generator().manual_seed(1))

    class Drawing(Known):
        bias = 0.0

        def answer(self, video: Tensor, mask: Mask, seeds: Sequence[int]) -> Tensor:
            return super().answer(calm + self.bias, mask, seeds)

    arms = [Drawing(name="calm"), Drawing(0.05, "restless"), Drawing(0.05, "wrong"), CopyArm("copy", Known())]
    arms[2].bias = 0.1
    rows = pictures(arms, list(noisy.split(5)), "infill", samples=4, clean=list(calm.split(5)))
    level = -20 * np.log10(0.05)
    assert rows["calm"]["psnr"]["value"] == pytest.approx(level, abs=0.2) and rows["calm"]["clean_psnr"]["value"] > 80
    assert rows["restless"]["psnr"]["value"] == pytest.approx(level - 3, abs=0.2)  # two noises, one of them the truth's
    assert rows["restless"]["clean_psnr"]["value"] == pytest.approx(level, abs=0.2)
    assert rows["restless"]["expected_clean_psnr"]["value"] > level + 12  # beyond the mean of sixteen
    assert rows["wrong"]["expected_clean_psnr"]["value"] == pytest.approx(20, abs=0.1)
    assert rows["wrong"]["clean_psnr"]["value"] < 19.1
    assert "clean_psnr" in rows["copy"] and "expected_clean_psnr" not in rows["copy"]
    assert "clean_psnr" not in pictures(arms[:1], [noisy], "infill")["calm"]


def test_clean_clips_go_with_their_batches(clips: Tensor) -> None:
    calm = torch.rand(clips.shape, generator=torch.Generator().manual_seed(2))
    whole, parts = (pictures([Known(0.1)], b, "forward", clean=c)["known"]
                    for b, c in (([clips], [calm]), (clips.split(2), calm.split(2))))  # fmt: skip
    assert parts["clean_psnr"]["value"] == pytest.approx(whole["clean_psnr"]["value"])
    assert parts["clean_psnr"]["value"] != pytest.approx(whole["psnr"]["value"], abs=0.5)
    with pytest.raises(ValueError, match="shorter"):
        measured(Known(), clips.split(2), clean=[calm[:2]])
    with pytest.raises(ValueError, match="of one shape"):
        measured(Known(), [clips], clean=[calm[:2]])


def test_extrapolation_continues_what_is_linear() -> None:
    ramp = (0.2 + 0.1 * torch.arange(8.0)).view(1, 1, 8, 1, 1).expand(2, 3, 8, 32, 32)
    arms = [ExtrapolateArm("extrapolate", Known()), CopyArm("copy", Known())]
    rows = pictures(arms, [ramp], "forward")
    assert rows["extrapolate"]["psnr"]["value"] > 80 > 30 > rows["copy"]["psnr"]["value"]
    back = pictures(arms, [ramp.flip(2)], "backward")
    assert back["extrapolate"]["psnr"]["value"] > 80
    single = arms[0].draw(ramp, arms[0].task_mask("animate", ramp), [0, 0])
    clipped = (ramp[:, :, 1] + 6 * 0.1).clamp(0, 1)  # the last frame, from the two of the first tubelet
    torch.testing.assert_close(single[:, :, 7], clipped)


def test_a_rollout_feeds_back_what_was_drawn(clips: Tensor) -> None:
    arm = Fade()
    video = rollout(arm, clips[:2] * 0.1, 3, [0, 1])
    assert video.shape == (2, 3, 24, 32, 32)
    torch.testing.assert_close(video[:, :, :4], clips[:2, :, :4] * 0.1)
    for step in range(5):  # 4 frames a step
        torch.testing.assert_close(video[:, :, 4 + 4 * step], video[:, :, 3 + 4 * step] + 0.1)
    changed = clips[:2].clone()
    changed[:, :, 4:] = 7.0
    torch.testing.assert_close(rollout(Fade(), changed * 0.1, 3, [0, 1]), video)
    assert all((call[:, :, 4:] == 0).all() for call in arm.calls), "the future is not there to be looked at"


def test_operations_are_counted() -> None:
    layer, x = torch.nn.Linear(30, 20, bias=False), torch.randn(7, 30, requires_grad=True)
    assert operations(lambda: layer(x)) == 2 * 7 * 30 * 20
    assert step_operations(lambda: layer(x).square().sum()) == 3 * 2 * 7 * 30 * 20
    found = drawing_cost(Known(), torch.rand(2, 3, 8, 32, 32))
    assert found["operations"] == 0 and found["seconds"] > 0 and found["steps"] == 8
    assert found["peak_bytes"] > 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_memory_is_that_of_what_lives_at_once(mode: Callable[[], AbstractContextManager[None]]) -> None:
    held = torch.ones(100)

    def call() -> Tensor:
        first, second = torch.ones(1000), torch.ones(2000)  # 12,000 bytes
        del first
        third = torch.ones(500)  # 10,000
        seen = [held.view(10, 10).t(), second[:5], held.add_(0)]  # nothing new
        return third + float(len(seen))  # 12,000

    def again() -> None:
        value = held
        for _ in range(10):
            value = value + 1

    cpu = torch.device("cpu")
    with mode():
        assert peak_memory(call, cpu) == 12_000
        assert peak_memory(again, cpu) == 800, "what is replaced is free again"


def test_memory_is_what_the_allocator_gave(tmp_path: Path) -> None:
    model = VideoDiT(VideoDiTConfig(48, 2, 2, patch_size=8, condition_dim=16)).eval()
    x, t, condition = torch.randn(2, 16, 384), torch.rand(2), torch.randn(2, 16, 16)
    call = torch.no_grad()(lambda: model(x, t, (4, 2, 2), condition))
    call()  # the first fills caches that stay
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    profile.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]")
    given = max(accumulate(change for _, change in changes))
    assert peak_memory(call, torch.device("cpu")) == pytest.approx(given, rel=1e-3)


def test_sampling_steps_leaves_the_arm_as_it_was(clips: Tensor) -> None:
    arm = Known(0.1)
    curves = sampling_steps([arm], [clips], "forward", [1, 4])
    assert [point["steps"] for point in curves["known"]] == [1, 4] and arm.steps == 8
    assert curves["known"][0]["psnr"]["n"] == 5
