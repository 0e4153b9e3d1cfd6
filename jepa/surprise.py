"""Violation of expectation: a model that understands what it sees errs more where something impossible happens.

    errors, = surprise_curves(arm, [video], [window_frames(length, num_frames=16)], context=4)    # (windows,)
    accuracy = relative_accuracy(outcomes(possible, impossible))    # two scores for each pair

A window slides over the video. In each place the model sees its first tubelets, and what it predicts of the others is
compared with what comes, in the model's own space. A pair of videos is judged rightly if the impossible one has the
higher score (relative accuracy, IntPhys, arXiv 1803.07616; with latent predictions, arXiv 2502.11831).

Notable: three scores of a video are kept apart. `mean` over all windows is the usual one; `max` is its most surprising
window; `event` is the mean over the windows that end their context before the evidence and hide it, in which both
videos of a pair show the model the same: only what comes differs. Any model also errs by how much there is to see, and
an empty scene is easy: `vanish` alone is hard to get right, `appear` alone is not, `hang` and `pass` suffer as `vanish`
does. The sums of twin pairs (`accuracy_table`) are free of this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from jepa.config import ConfigError
from jepa.masks import Mask

SCORES = ("mean", "max", "event")
Z95 = 1.959963984540054  # of a normal distribution, 95 % lie within so many standard deviations


class Surprised(Protocol):
    """Whatever predicts hidden parts of a video."""

    name: str
    tubelet_size: int

    def task_mask(self, task: str, video: Tensor, context: int | None = None) -> Mask: ...

    def surprise(self, video: Tensor, mask: Mask) -> Tensor:
        """(B,) prediction error over the hidden tokens of videos (B, C, T, H, W), in the model's own space."""
        ...


class Scores(NamedTuple):
    """How surprising a video was; `event` is NaN where it is not known when to look."""

    mean: float
    max: float
    event: float


@dataclass(frozen=True)
class Accuracy:
    """Share of the pairs judged rightly, ties counting half, and its 95 % Wilson interval."""

    accuracy: float
    ci95: tuple[float, float]
    pairs: int
    ties: int


def window_frames(length: int, num_frames: int, stride: float = 1, step: int = 1) -> np.ndarray:
    """Frames (windows, num_frames) of every window over a video of `length` frames, int64.

    Windows start every `step` video frames, and one ends at the last frame, whatever the step. A video shorter than a
    window has one, in which its last frame is repeated.
    """
    if min(length, num_frames, step) < 1 or stride <= 0:
        raise ConfigError(f"no windows of {num_frames} frames, stride {stride}, step {step} over {length} frames")
    offsets = np.floor(np.arange(num_frames) * stride).astype(np.int64)
    last = max(length - 1 - int(offsets[-1]), 0)
    starts = np.unique([*range(0, last + 1, step), last])
    return np.minimum(starts[:, None] + offsets, length - 1)


def context_tubelets(num_frames: int, tubelet_size: int, context: int | None = None) -> int:
    """How many tubelets of a window are seen: `context`, or half. ConfigError where that leaves nothing to predict."""
    tubelets = num_frames // tubelet_size
    seen = max(1, tubelets // 2) if context is None else context
    if not 0 < seen < tubelets:
        raise ConfigError(f"context is {seen}, and a window has {tubelets} tubelets: give 1 to {tubelets - 1}")
    return seen


@torch.no_grad()
def surprise_curves(
    model: Surprised, videos: Sequence[Tensor], windows: Sequence[np.ndarray], context: int, batch_size: int = 32
) -> list[np.ndarray]:
    """Error (windows,) of each video (C, T, H, W), normalised as in training, in its `windows` (windows, num_frames).

    Windows of several videos share a batch. A model that draws at random must meet the same luck wherever in a batch a
    window is, as those of `decoder.arms` do: else the two videos of a pair are not judged alike.
    """
    frames = [(video, places) for video, of in zip(videos, windows, strict=True) for places in of]
    errors = []
    for first in range(0, len(frames), batch_size):
        part = frames[first : first + batch_size]
        clips = torch.stack([video[:, torch.from_numpy(places)] for video, places in part])  # (B, C, num_frames, H, W)
        errors.append(model.surprise(clips, model.task_mask("forward", clips, context)).float().cpu())
    curves = torch.cat(errors).double().split([len(places) for places in windows])
    return [curve.numpy() for curve in curves]


def video_scores(curve: np.ndarray, windows: np.ndarray, seen: int, evidence: int | None = None) -> Scores:
    """Scores of a video from its errors (windows,); `seen` frames of a window are context, `evidence` is a frame."""
    event = np.nan
    if evidence is not None:
        decisive = (windows[:, seen - 1] < evidence) & (windows[:, -1] >= evidence)
        event = float(curve[decisive].mean()) if decisive.any() else np.nan
    return Scores(float(curve.mean()), float(curve.max()), event)


def outcomes(possible: np.ndarray, impossible: np.ndarray) -> np.ndarray:
    """(pairs,) of two arrays of scores: 1 where the impossible video scores higher, 0 where the possible one does, one
    half where they tie, NaN where a score is not known."""
    known = np.isfinite(possible) & np.isfinite(impossible)
    with np.errstate(invalid="ignore"):
        return np.where(known, (np.sign(impossible - possible) + 1) / 2, np.nan)


def relative_accuracy(found: np.ndarray) -> Accuracy | None:
    """How often the impossible video of a pair scores higher, of `outcomes` (pairs,). Pairs with NaN do not count.

    None where no pair counts.
    """
    known = found[~np.isnan(found)]
    if not len(known):
        return None
    share = float(known.mean())
    return Accuracy(share, wilson(share, len(known)), len(known), int((known == 0.5).sum()))


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of `count` trials (Wilson 1927); unlike scipy's it takes halves, which ties give."""
    spread = Z95 * np.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    middle, whole = share + Z95**2 / (2 * count), 1 + Z95**2 / count
    return float(max((middle - spread) / whole, 0.0)), float(min((middle + spread) / whole, 1.0))


def outcome_table(
    groups: Sequence[tuple[str, str]],
    possible: Sequence[Scores],
    impossible: Sequence[Scores],
    twins: Sequence[tuple[int, int]] = (),
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """table[score][concept][condition]: `outcomes` of pairs whose (concept, condition) are `groups`; "all" holds all.

    `twins` are places of two pairs that were cut from the same two scenes with exchanged roles: the two possible
    videos together hold what the two impossible ones hold, so that only the events can tell their sums apart. They
    make a concept of their own, such as "vanish + appear", which enters no total.
    """
    names = [*groups, *((f"{groups[i][0]} + {groups[j][0]}", groups[i][1]) for i, j in twins)]
    both = [[*each, *(_summed(each[i], each[j]) for i, j in twins)] for each in (possible, impossible)]
    concepts, conditions = ([*dict.fromkeys(words), "all"] for words in zip(*names, strict=True))
    table: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for score in SCORES:
        found = outcomes(*(np.array([getattr(scores, score) for scores in each]) for each in both))
        for concept in concepts:
            for condition in conditions:
                rows = np.array([condition in (b, "all") and concept in (a, "all") for a, b in names])
                if concept == "all":
                    rows[len(groups) :] = False
                if rows.any():
                    table.setdefault(score, {}).setdefault(concept, {})[condition] = found[rows]
    return table


def accuracy_table(
    table: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
) -> dict[str, dict[str, dict[str, Accuracy | None]]]:
    """The same table of `relative_accuracy`, from that of outcomes."""
    return {
        score: {concept: {condition: relative_accuracy(found) for condition, found in row.items()}
                for concept, row in concepts.items()} for score, concepts in table.items()
    }  # fmt: skip


def _summed(first: Scores, second: Scores) -> Scores:
    return Scores(*(a + b for a, b in zip(first, second, strict=True)))
