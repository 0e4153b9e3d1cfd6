"""The attentive classifier trained as in V-JEPA's evaluation: a frozen encoder, and a whole grid of heads at once.

    tokens = encoder(video)                                     no gradient, once for all heads
    loss = sum over heads of cross_entropy(head(tokens), label)

Notable:
- Heads share nothing but the tokens. The gradient of the sum is to each head that of its own loss, and AdamW works
  element by element: one optimizer with a group for each head does what an optimizer for each head would do.
- The head that is reported is chosen on held-out *training* videos. The official evaluation reports the best of twenty
  heads on the very videos that it is scored on, a maximum that no interval belongs to. Expect a little less here.
"""

from dataclasses import asdict, dataclass, field
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jepa.attentive import AttentiveClassifier, ClassifierConfig
from jepa.config import ConfigError, EncoderConfig
from jepa.grid import Grid, token_grid
from jepa.posembed import sincos3d
from jepa.probe import ProbeResult, pixel_tokens
from jepa.schedules import cosine
from jepa.training import TrainerConfig, build_trainer, fit


@dataclass
class HeadsConfig:
    """The evaluation of V-JEPA 2 (arXiv 2506.09985). That of V-JEPA 1: depth 0, one head (1e-3, .01), decay_all false.

    lrs, weight_decays  their product is the grid of heads. Learning rates fall to zero along a cosine, without warm-up;
                        weight decays stay.
    decay_all           biases, norms and the query decay too (V-JEPA 2); V-JEPA 1 spared biases and 1-D tensors.
    depth, num_heads    self-attention blocks before the cross-attention, and attention heads (fewer where the width of
                        the tokens does not divide).
    held_out            share of the training videos that chooses the head; nobody learns from them.
    accumulate          batches that make an optimizer step (the official learning rates are for 256 clips a step).
    activation_checkpointing    activations of one head at a time, computed again in the backward pass: a third
                        more work for the heads, and a grid of any size fits where one head does.
    """

    lrs: list[float] = field(default_factory=lambda: [5e-3, 3e-3, 1e-3, 3e-4, 1e-4])
    weight_decays: list[float] = field(default_factory=lambda: [0.01, 0.1, 0.4, 0.8])
    decay_all: bool = True
    depth: int = 3
    num_heads: int = 16
    epochs: int = 20
    held_out: float = 0.2
    accumulate: int = 1
    activation_checkpointing: bool = False


@dataclass(frozen=True)
class HeadResult(ProbeResult):
    """What a probe result says, and of which head: its settings, and its accuracy on the videos that chose it."""

    lr: float
    weight_decay: float
    held_out: float


def check_heads(config: HeadsConfig) -> None:
    """ConfigError for settings that cannot be meant, naming the key."""
    for key, fine, wanted in (
        ("lrs", config.lrs and min(config.lrs) >= 0, "at least one, none below 0"),
        ("weight_decays", config.weight_decays and min(config.weight_decays) >= 0, "at least one, none below 0"),
        ("depth", config.depth >= 0, "0 or more"),
        ("epochs", config.epochs >= 1, "at least 1"),
        ("accumulate", config.accumulate >= 1, "at least 1"),
        ("held_out", 0 < config.held_out < 1, "a share between 0 and 1"),
    ):
        if not fine:
            raise ConfigError(f"heads.{key} is {getattr(config, key)}: give {wanted}")


class Frozen:
    """An encoder in evaluation mode, without gradients: videos (B, C, T, H, W) to tokens (B, N, D). Not a Module: it is
    never saved or optimised with the heads."""

    def __init__(self, encoder: nn.Module) -> None:
        self.encoder = encoder.eval().requires_grad_(False)

    def to(self, device: torch.device) -> "Frozen":
        """Move the encoder in place."""
        self.encoder.to(device)
        return self

    @torch.no_grad()
    def __call__(self, video: Tensor) -> Tensor:
        return self.encoder(video)


class PixelTokens(nn.Module):
    """The raw-pixel baseline as an encoder: (B, C, T, H, W) to a token for every moment (B, t, D), its 8 x 8 pixels.

    What a ViT's tokens have by nature these are given: a fixed table says which moment it is, or a head could not tell
    before from after; and every value stands beside its negative, or the layer norm that a head begins with would
    take away how bright a moment is.
    """

    def __init__(self, config: EncoderConfig, cells: int = 8) -> None:
        super().__init__()
        self.config, self.cells = config, cells
        self.dim = 2 * config.in_channels * cells**2

    def forward(self, video: Tensor) -> Tensor:
        grid = token_grid(video.shape, self.config.tubelet_size, self.config.patch_size)
        x = pixel_tokens(video, grid, self.cells).flatten(1, 2)
        x = torch.cat([x, -x], -1)  # (B, t, D)
        return x + sincos3d(self.dim, Grid(grid.t, 1, 1), x.device)


class HeadsModule(pl.LightningModule):
    """Trains `heads`, whose settings are `rates`: (lr, weight decay). Batches hold video (B, C, T, H, W), label (B,).

    `held_out` (heads, 2): accuracy and loss of every head as it is now; None where that is not known.
    """

    def __init__(self, encoder: nn.Module, classifier: ClassifierConfig, config: HeadsConfig, max_steps: int) -> None:
        super().__init__()
        self.frozen, self.config, self.max_steps = Frozen(encoder), config, max_steps
        self.rates = list(product(config.lrs, config.weight_decays))
        self.heads = nn.ModuleList(AttentiveClassifier(classifier) for _ in self.rates)
        self.held_out: Tensor | None = None
        self._seen: list[tuple[Tensor, int]] = []

    @property
    def chosen(self) -> int:
        """The head with the best held-out accuracy; of equals, that with the smallest held-out loss."""
        if self.held_out is None:
            raise RuntimeError("no head can be chosen before the held-out videos were seen")
        scores = self.held_out.nan_to_num(nan=float("inf")).tolist()  # a head that diverged
        return max(range(len(scores)), key=lambda i: (scores[i][0], -scores[i][1]))

    def on_fit_start(self) -> None:
        self.frozen.to(self.device)

    def on_validation_start(self) -> None:
        self.frozen.to(self.device)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        tokens, label = self.frozen(batch["video"]), batch["label"]
        losses = []
        for head in self.heads:
            logits = (
                checkpoint(head, tokens, use_reentrant=False) if self.config.activation_checkpointing else head(tokens)
            )
            losses.append(F.cross_entropy(logits.float(), label))
        self.held_out = None  # what is known of the heads will not be true after this step
        every = torch.stack(losses)
        median = every.detach().nan_to_num(nan=float("inf")).median()  # a head that diverges does not hide the others
        self.log("train/loss", median, prog_bar=True)
        return every.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return heads_adamw(self.heads, self.rates, self.config.decay_all)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        for group in optimizer.param_groups:
            group["lr"] = cosine(self.global_step, self.max_steps, group["peak"], 0.0)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        tokens, label = self.frozen(batch["video"]), batch["label"]
        found = []
        for head in self.heads:
            logits = head(tokens).float()
            right = (logits.argmax(1) == label).float().sum()
            found.append(torch.stack([right, F.cross_entropy(logits, label, reduction="sum")]))
        self._seen.append((torch.stack(found), len(label)))

    def on_validation_epoch_end(self) -> None:
        total = torch.stack([found for found, _ in self._seen]).sum(0).cpu()  # (heads, 2)
        self.held_out = total / sum(count for _, count in self._seen)
        self._seen = []
        accuracy = self.held_out[:, 0].tolist()
        named = zip(self.rates, accuracy, strict=True)
        self.log_dict({f"heads/lr_{lr:g}_decay_{decay:g}": value for (lr, decay), value in named})
        self.log("val/accuracy", accuracy[self.chosen], prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["kind"], checkpoint["held_out"] = "heads", self.held_out

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.held_out = checkpoint["held_out"]  # a run that had reached its last step is not validated again


def heads_adamw(heads: nn.ModuleList, rates: list[tuple[float, float]], decay_all: bool) -> torch.optim.AdamW:
    """One AdamW, each head with its own learning rate ("peak", where the schedule starts) and weight decay."""
    groups: list[dict[str, Any]] = []
    for head, (lr, decay) in zip(heads, rates, strict=True):
        if decay_all:
            parts: list[dict[str, Any]] = [{"params": list(head.parameters()), "weight_decay": decay}]
        else:
            spared, decayed = param_groups_weight_decay(head, 1.0)  # it does not split where the decay is zero
            parts = [spared, decayed | {"weight_decay": decay}]
        groups += [part | {"lr": lr, "peak": lr} for part in parts]
    return torch.optim.AdamW(groups)


def train_heads(
    encoder: nn.Module,
    classifier: ClassifierConfig,
    config: HeadsConfig,
    data: pl.LightningDataModule,
    batches: tuple[int, int],
    out: Path,
    progress: bool = True,
) -> HeadsModule:
    """Heads trained on `data`, whose validation videos are the held-out ones; goes on where `out/last.ckpt` stopped.

    `batches`: how many make an epoch of training, and how many of validation. On one device. No best.ckpt is kept: with
    a learning rate that ends at zero the last weights are the ones that are meant.
    """
    check_heads(config)
    every = ceil(batches[0] / config.accumulate)
    module = HeadsModule(encoder, classifier, config, every * config.epochs)
    settings = TrainerConfig(
        max_steps=module.max_steps,
        devices="1",
        accumulate_grad_batches=config.accumulate,
        max_skipped=0,  # a head that diverges is its own affair
        gradient_clip=0.0,  # as officially; and a norm over all heads would tie each to the others
        val_every=every,
        val_batches=batches[1],
        progress=progress,
    )
    trainer = build_trainer(settings, out, monitor=None)
    fit(trainer, module, data, (out / "last.ckpt").is_file(), out, settings=config)
    if module.held_out is None:  # stopped between the last step and its validation
        trainer.validate(module, datamodule=data, verbose=False)
    return module


def head_result(score: ProbeResult, module: HeadsModule) -> HeadResult:
    """The score of the chosen head, with what it is."""
    assert module.held_out is not None
    lr, decay = module.rates[module.chosen]
    return HeadResult(**asdict(score), lr=lr, weight_decay=decay, held_out=float(module.held_out[module.chosen, 0]))
