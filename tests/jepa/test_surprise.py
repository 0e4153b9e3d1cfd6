"""Scores of violation of expectation. Claims:

- windows have the asked-for stride, start every `step` frames, and always reach the last frame;
- who knows how things go on judges every pair rightly, who always says the same exactly half, who guesses about half;
- an event that only the last window shows still counts; what comes is compared, and only the context is shown;
- the score `event` looks at the windows whose context is the same in both videos and whose rest is not, and no others;
- intervals are Wilson's (scipy's, where there are no ties), ties count half, pairs without a score do not count;
- how windows are batched, also of several videos together, changes nothing;
- the table sums up by concept, by condition, and over all; sums of twins are even for who counts what there is to see,
  and enter no total.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from jepa.config import ConfigError
from jepa.grid import Grid
from jepa.masks import Mask, task_mask
from jepa.surprise import (
    Scores,
    accuracy_table,
    context_tubelets,
    outcome_table,
    outcomes,
    relative_accuracy,
    surprise_curves,
    video_scores,
    wilson,
    window_frames,
)

FRAMES, TUBELET = 16, 2
WINDOWS = window_frames(32, FRAMES, 1, 2)


class Stub:
    """One token a tubelet; errs by `rule(video)`."""

    name, tubelet_size = "stub", TUBELET

    def __init__(self, rule: Callable[[Tensor, int], Tensor]) -> None:
        self.rule = rule

    def task_mask(self, task: str, video: Tensor, context: int | None = None) -> Mask:
        return task_mask(task, Grid(video.shape[2] // TUBELET, 1, 1), len(video), context)

    def surprise(self, video: Tensor, mask: Mask) -> Tensor:
        return self.rule(video, TUBELET * mask.context_ids.shape[1])


def carry_on(video: Tensor, seen: int) -> Tensor:
    """Knows that brightness changes evenly, and sees the first `seen` frames alone."""
    light = video.mean((1, 3, 4))  # (B, T)
    step = light[:, seen - 1] - light[:, seen - 2]
    ahead = torch.arange(1, light.shape[1] - seen + 1)
    predicted = light[:, seen - 1, None] + step[:, None] * ahead
    return (predicted - light[:, seen:]).abs().mean(1).round(decimals=4)


def constant(video: Tensor, seen: int) -> Tensor:
    return torch.ones(len(video))


def guess(video: Tensor, seen: int) -> Tensor:
    return torch.rand(len(video), generator=torch.Generator().manual_seed(int(1e6 * video.abs().sum())))


def pair(event: int, seed: int = 0, length: int = 32) -> tuple[Tensor, Tensor]:
    """Videos (3, T, 2, 2) that grow brighter evenly; the second stops to at the event."""
    rng = np.random.default_rng(seed)
    begin, step = rng.uniform(-1, 1), rng.uniform(0.1, 0.2) * rng.choice((-1, 1))
    light = torch.tensor(begin + step * np.arange(length), dtype=torch.float32)
    stopped = torch.where(torch.arange(length) < event, light, light[event - 1])
    return tuple(x[None, :, None, None].expand(3, length, 2, 2) for x in (light, stopped))  # type: ignore[return-value]


def judged(model: Stub, events: list[int]) -> dict[str, float]:
    """Relative accuracy by every score."""
    found: list[list[Scores]] = [[], []]
    for seed, event in enumerate(events):
        for member, video in enumerate(pair(event, seed)):
            curve = surprise_curves(model, [video], [WINDOWS], FRAMES // TUBELET // 2)[0]
            found[member].append(video_scores(curve, WINDOWS, FRAMES // 2, event))
    table = accuracy_table(outcome_table([("stop", "sight")] * len(events), *found))
    return {score: table[score]["all"]["all"].accuracy for score in table}  # type: ignore[union-attr]


def test_windows_slide_and_reach_the_end() -> None:
    for length in range(15, 40):
        windows = window_frames(length, 8, 2, 4)
        assert windows[0, 0] == 0 and windows[-1, -1] == length - 1
        assert (np.diff(windows, axis=1) == 2).all()
        gaps = np.diff(windows[:, 0])
        assert (gaps[:-1] == 4).all() and (gaps > 0).all() and (gaps <= 4).all()
    assert window_frames(32, 8, 1.5, 100).tolist() == [[0, 1, 3, 4, 6, 7, 9, 10], [21, 22, 24, 25, 27, 28, 30, 31]]
    assert window_frames(3, 5).tolist() == [[0, 1, 2, 2, 2]], "a short video stands still at its end"
    with pytest.raises(ConfigError):
        window_frames(0, 5)


def test_who_knows_is_always_right_and_who_says_the_same_exactly_half() -> None:
    events = [9 + i % 23 for i in range(46)]
    assert judged(Stub(carry_on), events) == {"mean": 1.0, "max": 1.0, "event": 1.0}
    assert judged(Stub(constant), events) == {"mean": 0.5, "max": 0.5, "event": 0.5}
    assert judged(Stub(lambda video, seen: -carry_on(video, seen)), events)["mean"] == 0.0


def test_who_guesses_is_right_about_half_of_the_time() -> None:
    accuracy = judged(Stub(guess), [9 + i % 20 for i in range(400)])["mean"]
    assert abs(accuracy - 0.5) < 0.1


def test_an_event_in_the_last_window_alone_counts() -> None:
    assert (WINDOWS[:, -1] >= 31).sum() == 1
    assert judged(Stub(carry_on), [31] * 5) == {"mean": 1.0, "max": 1.0, "event": 1.0}


def test_the_score_at_the_event_sees_windows_of_equal_context_alone() -> None:
    for event in range(8, 32):
        possible, impossible = pair(event)
        curve = np.zeros(len(WINDOWS))
        for i, window in enumerate(WINDOWS):
            same = torch.equal(possible[:, window[:8]], impossible[:, window[:8]])
            curve[i] = same and not torch.equal(possible[:, window], impossible[:, window])
        scores = video_scores(curve, WINDOWS, 8, event)
        assert scores.event == 1 and scores.max == 1
        assert scores.mean == pytest.approx(curve.mean()) and curve.sum() <= 4
    assert np.isnan(video_scores(curve, WINDOWS, 8).event), "no evidence, no such score"
    assert np.isnan(video_scores(curve, WINDOWS, 8, 3).event), "too early for any window"


def test_intervals_are_wilsons() -> None:
    for right, count in ((0, 7), (3, 7), (50, 50), (101, 200)):
        low, high = binomtest(right, count).proportion_ci(0.95, method="wilson")
        assert wilson(right / count, count) == pytest.approx((low, high), abs=1e-9)


def test_ties_count_half_and_pairs_without_a_score_not_at_all() -> None:
    found = relative_accuracy(outcomes(np.array([1.0, 2.0, 3.0, np.nan]), np.array([2.0, 2.0, 1.0, 9.0])))
    assert found is not None and (found.accuracy, found.pairs, found.ties) == (0.5, 3, 1)
    assert found.ci95[0] < 0.5 < found.ci95[1]
    assert relative_accuracy(outcomes(np.array([np.nan]), np.array([1.0]))) is None


def test_batches_change_nothing() -> None:
    videos = [*pair(20), pair(9, length=12)[1]]
    windows = [WINDOWS, WINDOWS, window_frames(12, FRAMES)]
    whole = surprise_curves(Stub(carry_on), videos, windows, 4)
    assert [len(curve) for curve in whole] == [len(places) for places in windows] and len(set(whole[1].tolist())) > 2
    parts = surprise_curves(Stub(carry_on), videos, windows, 4, batch_size=3)
    alone = [surprise_curves(Stub(carry_on), [v], [w], 4)[0] for v, w in zip(videos, windows, strict=True)]
    for one, other, third in zip(whole, parts, alone, strict=True):
        assert np.array_equal(one, other) and np.array_equal(one, third)


def test_the_context_must_leave_something_to_predict() -> None:
    assert (context_tubelets(16, 2), context_tubelets(16, 2, 3), context_tubelets(6, 2)) == (4, 3, 1)
    for context in (0, 8, 9):
        with pytest.raises(ConfigError, match="give 1 to 7"):
            context_tubelets(16, 2, context)


def test_the_table_sums_up() -> None:
    groups = [("vanish", "sight"), ("vanish", "behind"), ("hang", "sight"), ("hang", "sight")]
    low, high = Scores(0.0, 0.0, np.nan), Scores(1.0, 1.0, np.nan)
    table = accuracy_table(outcome_table(groups, [low, low, high, low], [high, high, low, high]))
    shares = {
        (a, b): found and (found.accuracy, found.pairs) for a, row in table["mean"].items() for b, found in row.items()
    }
    assert shares == {
        ("vanish", "sight"): (1.0, 1),
        ("vanish", "behind"): (1.0, 1),
        ("vanish", "all"): (1.0, 2),
        ("hang", "sight"): (0.5, 2),
        ("hang", "all"): (0.5, 2),
        ("all", "sight"): (2 / 3, 3),
        ("all", "behind"): (1.0, 1),
        ("all", "all"): (0.75, 4),
    }
    assert table["event"]["all"]["all"] is None


def test_twins_are_even_for_who_counts_what_there_is_to_see() -> None:
    """Before the event there is an object (1) or none (0), and so after it; each scene is judged on its own."""
    rng = np.random.default_rng(0)
    groups, possible, impossible, twins = [], [], [], []
    for scene in range(20):
        full, bare = rng.uniform(2, 3), rng.uniform(0, 1)
        for start, end in ((full, bare), (bare, full)):
            possible.append(Scores(start, start, start))
            impossible.append(Scores(end, end, end))
        groups += [("vanish", "sight"), ("appear", "sight")]
        twins.append((2 * scene, 2 * scene + 1))
    table = accuracy_table(outcome_table(groups, possible, impossible, twins))["mean"]
    shares = {concept: found["sight"] and found["sight"].accuracy for concept, found in table.items()}
    assert shares == {"vanish": 0.0, "appear": 1.0, "vanish + appear": 0.5, "all": 0.5}
    both = table["vanish + appear"]["all"]
    assert both is not None and (both.pairs, both.ties) == (20, 20) and table["all"]["all"].pairs == 40  # type: ignore
    surprised = [Scores(*(value + 0.01 for value in scores)) for scores in impossible]
    table = accuracy_table(outcome_table(groups, possible, surprised, twins))["mean"]
    assert table["vanish + appear"]["sight"].accuracy == 1.0 and table["vanish"]["sight"].accuracy == 0.0  # type: ignore
