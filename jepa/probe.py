"""How much do frozen features know? Three honest probes, and an interval around every accuracy.

linear      logistic regression on tokens averaged over space and kept over time, its penalty chosen on held-out
            training clips
attentive   one learned query that attends over all tokens, then a linear layer (V-JEPA's probe without its blocks)
knn         20 nearest neighbours by cosine, on the same pooled features

`online_probe` is the quick one that chooses the best checkpoint while a JEPA trains.

Every representation, trained or not, is treated exactly alike.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from jepa.config import choose
from jepa.schedules import warmup_cosine
from jepa.training import pick_device

PROBES = ("linear", "attentive", "knn")
PENALTIES = (0.01, 0.1, 1.0)  # inverse strengths of the penalty that a linear probe may choose from
ITERATIONS = 100  # of L-BFGS at most


@dataclass(frozen=True)
class Features:
    """Frozen features of n clips: `tokens` (n, t, h*w, D), float16, which may lie on disk (numpy's memmap)."""

    tokens: np.ndarray

    @property
    def pooled(self) -> np.ndarray:
        """(n, t * D) float32: averaged over space, kept over time."""
        return self.tokens.mean(2, dtype=np.float32).reshape(len(self.tokens), -1)

    def __getitem__(self, rows: np.ndarray) -> "Features":
        return Features(self.tokens[rows])


@dataclass(frozen=True)
class ProbeResult:
    """Accuracy with its 95 % Wilson interval, macro-averaged F1, and how many test clips they stand on."""

    accuracy: float
    ci95: tuple[float, float]
    macro_f1: float
    clips: int


def pixel_tokens(video: Tensor, grid: tuple[int, int, int], cells: int = 8) -> Tensor:
    """The raw-pixel baseline: (B, C, T, H, W) as t x `cells` x `cells`, a token a moment (B, t, 1, C*cells^2)."""
    small = F.adaptive_avg_pool3d(video.float(), (grid[0], cells, cells))
    return small.permute(0, 2, 1, 3, 4).flatten(2)[:, :, None]


def run_probe(
    kind: str, train: Features, y: np.ndarray, test: Features, y_test: np.ndarray, seed: int = 0
) -> ProbeResult:
    """Fit a probe of `kind` on (train, y) and score it on (test, y_test); labels are integers."""
    return score(predict(kind, train, y, test, seed), y_test)


def predict(kind: str, train: Features, y: np.ndarray, test: Features, seed: int = 0) -> np.ndarray:
    """(n,) what a probe of `kind`, fitted on (train, y), says of n test clips; labels are integers."""
    fits: dict[str, Callable[[Features, np.ndarray, Features, int], np.ndarray]] = {
        "linear": _linear,
        "attentive": _attentive,
        "knn": _knn,
    }
    return fits[choose("probes", kind, PROBES)](train, y, test, seed)


def score(predicted: np.ndarray, y_test: np.ndarray) -> ProbeResult:
    """What was predicted for n test clips (n,) against what they are."""
    right = int((predicted == y_test).sum())
    interval = binomtest(right, len(y_test)).proportion_ci(0.95, method="wilson")
    return ProbeResult(
        right / len(y_test),
        (float(interval.low), float(interval.high)),
        float(f1_score(y_test, predicted, average="macro")),
        len(y_test),
    )


def subset(y: np.ndarray, fraction: float, seed: int = 0) -> np.ndarray:
    """Rows of a random `fraction` of the labels, at least two of every class where there are two."""
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.flatnonzero(y == c))[: max(2, round(fraction * (y == c).sum()))] for c in np.unique(y)]
    return np.sort(np.concatenate(rows))


def online_probe(features: Tensor, labels: Tensor) -> float | None:
    """Accuracy of a ridge classifier fitted on a fixed random half of the clips (n, D) and tested on the other.

    None where fewer than 8 clips have labels, or the fitted half knows only one class.
    """
    known = labels >= 0
    order = torch.randperm(int(known.sum()), generator=torch.Generator().manual_seed(0))
    x, y = features[known][order].numpy(), labels[known][order].numpy()
    half = len(y) // 2
    if len(y) < 8 or len(set(y[:half])) < 2:
        return None
    model = make_pipeline(StandardScaler(), RidgeClassifier(alpha=100.0)).fit(x[:half], y[:half])
    return float(model.score(x[half:], y[half:]))


def _linear(train: Features, y: np.ndarray, test: Features, seed: int) -> np.ndarray:
    scale = StandardScaler().fit(train.pooled)
    x, x_test = scale.transform(train.pooled), scale.transform(test.pooled)
    held_out = _held_out(y, seed)
    scores = {PENALTIES[0]: 0.0}
    if held_out.any():
        for penalty in PENALTIES:
            model = _logistic(penalty, x[~held_out], y[~held_out])
            scores[penalty] = model.score(x[held_out], y[held_out])
    best = max(scores, key=lambda c: scores[c])
    return _logistic(best, x, y).predict(x_test)


def _logistic(penalty: float, x: np.ndarray, y: np.ndarray) -> LogisticRegression:
    # One thread: products are small here, and on a busy machine threads that wait for each other take 30 times as long.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # the same number of iterations for everyone is the rule
        return LogisticRegression(C=penalty, max_iter=ITERATIONS).fit(x, y)


def _held_out(y: np.ndarray, seed: int) -> np.ndarray:
    """(n,) bool: a random fifth of the rows, never the last of its class, so that few labels are no obstacle."""
    order = np.random.default_rng(seed).permutation(len(y))
    firsts = order[np.unique(y[order], return_index=True)[1]]  # one row of every class stays
    spare = order[~np.isin(order, firsts)]
    held = np.zeros(len(y), bool)
    held[spare[: max(1, len(y) // 5)]] = True
    return held


def _knn(train: Features, y: np.ndarray, test: Features, seed: int) -> np.ndarray:
    neighbours = KNeighborsClassifier(min(20, len(y)), weights="distance")
    return make_pipeline(StandardScaler(), Normalizer(), neighbours).fit(train.pooled, y).predict(test.pooled)


class AttentiveProbe(nn.Module):
    """Tokens (B, N, D) -> logits (B, classes): learned query, multi-head cross-attention, LayerNorm, linear."""

    def __init__(self, dim: int, classes: int, num_heads: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Parameter(torch.zeros(1, 1, dim))
        self.attention = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, classes))
        nn.init.trunc_normal_(self.query, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(tokens)
        # Asked for weights, torch takes plain products, which on a CPU are faster than its fused kernel.
        x, _ = self.attention(self.query.expand(len(x), -1, -1), x, x, need_weights=True)
        return self.head(x[:, 0])


def _attentive(
    train: Features, y: np.ndarray, test: Features, seed: int, steps: int = 600, batch: int = 128
) -> np.ndarray:
    torch.manual_seed(seed)
    x, target = torch.from_numpy(train.tokens).flatten(1, 2), torch.from_numpy(y).long()
    x_test = torch.from_numpy(test.tokens).flatten(1, 2)
    device = pick_device()
    place = torch.zeros(1, x.shape[1], x.shape[2])  # standardise every channel, so that scale favours no representation
    mean, std = _moments(x)
    heads = next(n for n in (4, 3, 2, 1) if x.shape[2] % n == 0)
    probe = AttentiveProbe(x.shape[2], int(target.max()) + 1, heads).to(device)
    where = nn.Parameter(place.to(device))  # the query may look at a place: a representation need not carry its own
    optimizer = torch.optim.AdamW([*probe.parameters(), where], lr=1e-3, weight_decay=0.05)

    def logits(rows: Tensor) -> Tensor:
        return probe(((rows.float() - mean) / std).to(device) + where)

    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(step, steps, steps // 20, 1e-5, 1e-3, 1e-6)
        rows = torch.randint(len(x), (min(batch, len(x)),))
        loss = F.cross_entropy(logits(x[rows]), target[rows].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return torch.cat([logits(part).argmax(1).cpu() for part in x_test.split(128)]).numpy()


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """(D,) mean and standard deviation of every channel of (n, N, D), of which little is in memory at a time."""
    count, total, squares = x.shape[0] * x.shape[1], torch.zeros(x.shape[2]).double(), torch.zeros(x.shape[2]).double()
    for part in x.split(128):
        rows = part.flatten(0, 1).double()
        total += rows.sum(0)
        squares += rows.square().sum(0)
    mean = total / count
    variance = (squares - count * mean.square()) / max(count - 1, 1)
    return mean.float(), variance.clamp_min(0).sqrt().float() + 1e-5
