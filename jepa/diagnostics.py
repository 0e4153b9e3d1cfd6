"""Is a JEPA healthy? The loss does not say: falling then rising is normal, and a sudden drop is a partial collapse.

What does: the spread and effective rank of the target latents, whether predictions point where targets do, and
whether the predictor beats copying what it saw. `verdict` puts it in words.

    seen = observe(jepa, video)
    assess(seen.tokens, seen.errors).sentence
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa.grid import Grid, gather_tokens
from jepa.jepa import JEPA
from jepa.masks import Mask, task_mask

LEAST_STD, LEAST_RANK = 0.01, 2.0  # below: collapsed to a point, or to a line


def feature_std(x: Tensor) -> Tensor:
    """Mean over channels of the standard deviation over all tokens of (..., D). Zero means collapse to a point."""
    return x.flatten(0, -2).float().std(0).mean()


def effective_rank(x: Tensor, max_tokens: int = 8192) -> Tensor:
    """RankMe (arXiv 2210.02885): exp of the entropy of the normalised singular values of centred tokens (..., D)."""
    x = x.flatten(0, -2).float()
    x = x[:: max(1, -(-len(x) // max_tokens))]
    values = torch.linalg.svdvals(x - x.mean(0))
    p = values / values.sum().clamp_min(1e-12) + 1e-12
    return torch.exp(-(p * p.log()).sum())


def variety(video: Tensor) -> Tensor:
    """Mean over places of the standard deviation of pixels over clips and frames (B, C, T, H, W). Zero: all alike."""
    return video.float().std((0, 2)).mean()


@dataclass(frozen=True)
class PredictionErrors:
    """Mean absolute errors against the target latents (scalars), and the cosine of predictions and targets."""

    predictor: Tensor
    copy: Tensor
    mean: Tensor
    cosine: Tensor


def prediction_errors(z: Tensor, h: Tensor, mask: Mask, grid: Grid) -> PredictionErrors:
    """Errors of predictions z (B, M, D) at `mask.target_ids` given all target latents h (B, N, D).

    copy: the target latent of the nearest visible moment at the same place (at any place where that was never seen);
    mean: the mean latent of the batch.
    """
    target = gather_tokens(h, mask.target_ids)
    copied = gather_tokens(h, copy_ids(mask, grid))
    mean = h.mean((0, 1)).expand_as(target)
    return PredictionErrors(
        predictor=F.l1_loss(z.float(), target),
        copy=F.l1_loss(copied, target),
        mean=F.l1_loss(mean, target),
        cosine=F.cosine_similarity(z.float(), target, dim=-1).mean(),
    )


def copy_ids(mask: Mask, grid: Grid) -> Tensor:
    """(B, M) id of the visible token nearest to each target; the same place at another time comes before any other."""
    place = grid.h * grid.w
    context, target = mask.context_ids, mask.target_ids
    elsewhere = (target[:, :, None] % place != context[:, None, :] % place).float()
    lag = (target[:, :, None] // place - context[:, None, :] // place).abs()
    nearest = (elsewhere * 10_000 + lag).argmin(-1)  # (B, M) index into the context
    return context.gather(1, nearest)


def skill(error: float, baseline: float) -> float:
    """1 - error / baseline: 1 is perfect, 0 no better than the baseline, negative worse."""
    return 1.0 - error / max(baseline, 1e-12)


def verdict(std: float, rank: float, width: int, vs_copy: float, vs_mean: float) -> tuple[str, str]:
    """(one word, one sentence) on a model whose raw target latents have `std` and effective `rank` of `width`."""
    if std < LEAST_STD or rank < LEAST_RANK:
        return "collapsed", f"The latents have collapsed: spread {std:.3f}, effective rank {rank:.1f} of {width}."
    if rank < 0.05 * width:
        few = f"effective rank {rank:.1f} of {width}"
        return "partially collapsed", f"The latents use few directions: {few}. Raise the final momentum."
    if vs_mean <= 0:
        return "untrained", f"The predictor does not beat the mean latent (skill {vs_mean:+.2f}). Train longer."
    if vs_copy <= 0:
        skill_word = f"skill {vs_copy:+.2f}"
        return "copying", f"The predictor does not beat copying the last visible latent ({skill_word}). Train longer."
    words = f"{vs_copy:.0%} less error than copying, {vs_mean:.0%} less than the mean latent"
    return "healthy", f"The latents are spread (effective rank {rank:.1f} of {width}) and predictable: {words}."


@dataclass(frozen=True)
class Observed:
    """A JEPA on a batch: `raw` target latents (B, N, D), before the normalisation, which would hide a collapse; errors
    of the forward task, None for clips of one tubelet; and `tokens` (n, D), about 16 raw latents of every clip."""

    raw: Tensor
    errors: PredictionErrors | None

    @property
    def tokens(self) -> Tensor:
        return self.raw[:, :: max(1, self.raw.shape[1] // 16)].flatten(0, 1)


@torch.no_grad()
def observe(jepa: JEPA, video: Tensor) -> Observed:
    """What health is judged by, of a batch (B, C, T, H, W)."""
    grid = jepa.grid(video)
    raw = jepa.target_encoder(video).float()  # (B, N, D)
    if grid.t == 1:
        return Observed(raw, None)
    mask = Mask(*(ids.to(video.device) for ids in task_mask("forward", grid, len(video))))
    h = jepa.normalise(raw) if jepa.config.targets == "latents" else jepa.encode(video)
    return Observed(raw, prediction_errors(jepa.predict(video, mask), h, mask, grid))


@dataclass(frozen=True)
class Health:
    """The verdict and what it stands on: see `effective_rank`, `feature_std`, `PredictionErrors`, `skill`."""

    verdict: str
    sentence: str
    rank: float
    std: float
    error: float
    cosine: float
    skill_vs_copy: float
    skill_vs_mean: float


def assess(tokens: Tensor, errors: PredictionErrors) -> Health:
    """The health of a JEPA whose raw target latents are `tokens` (n, D), and whose predictions have `errors`."""
    rank, std, error = float(effective_rank(tokens)), float(feature_std(tokens)), float(errors.predictor)
    vs_copy, vs_mean = skill(error, float(errors.copy)), skill(error, float(errors.mean))
    word, sentence = verdict(std, rank, tokens.shape[-1], vs_copy, vs_mean)
    return Health(word, sentence, rank, std, error, float(errors.cosine), vs_copy, vs_mean)
