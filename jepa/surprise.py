"""Violation of expectation: a model that understands what it sees errs more where something impossible happens.

    errors = surprise_curve(arm, video, window_frames(length, num_frames=16), context=4)    # (windows,)
    accuracy = relative_accuracy(possible, impossible)    # two scores for each pair

A window slides over the video. In each place the model sees its first tubelets, and what it predicts of the others is
compared with what comes, in the model's own space. A pair of videos is judged rightly if the impossible one has the
higher score (relative accuracy, IntPhys, arXiv 1803.07616; with latent predictions, arXiv 2502.11831).

Notable: three scores of a video are kept apart. `mean` over all windows is the usual one; `max` is its most surprising
window; `event` is the mean over the windows that end their context before the evidence and hide it, in which both
videos of a pair show the model the same: only what comes differs. Any model also errs by how much there is to see, and
an empty scene is easy: `vanish` alone is hard to get right, `appear` alone is not, `hang` and `pass` suffer as `vanish`
does. The sums of twin pairs (`accuracy_table`) are free of this.
"""

from collections.abc import Sequence
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
def surprise_curve(
    model: Surprised, video: Tensor, windows: np.ndarray, context: int, batch_size: int = 32, seed: int = 0
) -> np.ndarray:
    """Error (windows,) of a video (C, T, H, W), normalised as in training, in each of `windows` (windows, num_frames).

    torch's generator is seeded anew, so that a model that draws at random meets the same luck in both videos of a pair.
    """
    torch.manual_seed(seed)
    errors = []
    for first in range(0, len(windows), batch_size):
        frames = torch.from_numpy(windows[first : first + batch_size]).to(video.device)
        clips = video[:, frames].movedim(1, 0)  # (B, C, num_frames, H, W)
        mask = model.task_mask("forward", clips, context)
        errors.append(model.surprise(clips, mask).float().cpu())
    return torch.cat(errors).double().numpy()


def video_scores(curve: np.ndarray, windows: np.ndarray, seen: int, evidence: int | None = None) -> Scores:
    """Scores of a video from its errors (windows,); `seen` frames of a window are context, `evidence` is a frame."""
    event = np.nan
    if evidence is not None:
        decisive = (windows[:, seen - 1] < evidence) & (windows[:, -1] >= evidence)
        event = float(curve[decisive].mean()) if decisive.any() else np.nan
    return Scores(float(curve.mean()), float(curve.max()), event)


def relative_accuracy(possible: np.ndarray, impossible: np.ndarray) -> Accuracy | None:
    """How often the impossible video of a pair scores higher: two arrays (pairs,). Pairs with NaN do not count.

    None where no pair counts.
    """
    known = np.isfinite(possible) & np.isfinite(impossible)
    right, ties = (impossible > possible)[known].sum(), (impossible == possible)[known].sum()
    count = int(known.sum())
    if not count:
        return None
    share = float((right + 0.5 * ties) / count)
    return Accuracy(share, wilson(share, count), count, int(ties))


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of `count` trials (Wilson 1927); unlike scipy's it takes halves, which ties give."""
    spread = Z95 * np.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    middle, whole = share + Z95**2 / (2 * count), 1 + Z95**2 / count
    return float(max((middle - spread) / whole, 0.0)), float(min((middle + spread) / whole, 1.0))


def accuracy_table(
    groups: Sequence[tuple[str, str]],
    possible: Sequence[Scores],
    impossible: Sequence[Scores],
    twins: Sequence[tuple[int, int]] = (),
) -> dict[str, dict[str, dict[str, Accuracy | None]]]:
    """table[score][concept][condition] over pairs whose (concept, condition) are `groups`; "all" sums either up.

    `twins` are places of two pairs that were cut from the same two scenes with exchanged roles: the two possible
    videos together hold what the two impossible ones hold, so that only the events can tell their sums apart. They
    make a concept of their own, such as "vanish + appear", which enters no total.
    """
    names = [*groups, *((f"{groups[i][0]} + {groups[j][0]}", groups[i][1]) for i, j in twins)]
    both = [[*each, *(_summed(each[i], each[j]) for i, j in twins)] for each in (possible, impossible)]
    concepts, conditions = ([*dict.fromkeys(words), "all"] for words in zip(*names, strict=True))
    table: dict[str, dict[str, dict[str, Accuracy | None]]] = {}
    for score in SCORES:
        columns = [np.array([getattr(scores, score) for scores in each]) for each in both]
        for concept in concepts:
            for condition in conditions:
                rows = np.array([condition in (b, "all") and concept in (a, "all") for a, b in names])
                if concept == "all":
                    rows[len(groups) :] = False
                if rows.any():
                    found = relative_accuracy(columns[0][rows], columns[1][rows])
                    table.setdefault(score, {}).setdefault(concept, {})[condition] = found
    return table


def _summed(first: Scores, second: Scores) -> Scores:
    return Scores(*(a + b for a, b in zip(first, second, strict=True)))
