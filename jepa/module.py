"""Lightning glue around `JEPA`: when to step, what to log. No maths of the method lives here."""

from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from jepa.diagnostics import effective_rank, feature_std, prediction_errors, skill, verdict
from jepa.jepa import JEPA
from jepa.masks import task_mask
from jepa.optim import OptimConfig, adamw, apply_rates, rates


class JEPAModule(pl.LightningModule):
    """Trains a `JEPA`. Batches hold `video` (B, C, T, H, W), `masks`, `seed` (B,) and `label` (B,), -1 for none."""

    def __init__(self, jepa: JEPA, optim: OptimConfig, max_steps: int, frozen_teacher: bool = False) -> None:
        super().__init__()
        self.jepa, self.optim, self.max_steps, self.frozen_teacher = jepa, optim, max_steps, frozen_teacher
        self._validation: list[dict[str, Tensor]] = []
        self.health: dict[str, Any] = {}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        torch.manual_seed(int(batch["seed"][0]))  # SIGReg's directions are the step's own: resuming is exact
        loss = self.jepa(batch["video"], batch["masks"])
        parts = {"train/loss": loss.total, "train/prediction": loss.prediction}
        if self.jepa.config.context_loss:
            parts["train/context"] = loss.context
        if self.jepa.config.regulariser != "none":
            parts["train/regulariser"] = loss.regulariser
        self.log_dict(parts, prog_bar=True)
        return loss.total

    def configure_optimizers(self) -> torch.optim.Optimizer:
        now = rates(self.optim, 0, self.max_steps)
        return adamw(self.jepa, now.lr, now.weight_decay, self.optim.betas)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        # Here, and not in a batch hook: batch hooks fire once per micro-batch under gradient accumulation.
        now = rates(self.optim, self.global_step, self.max_steps)
        apply_rates(optimizer, now.lr, now.weight_decay)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.jepa.update_target(1.0 if self.frozen_teacher else now.momentum)
        self.log_dict({"schedule/lr": now.lr, "schedule/momentum": now.momentum, "schedule/decay": now.weight_decay})

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        video = batch["video"]
        jepa, grid = self.jepa, self.jepa.grid(video)
        raw = jepa.target_encoder(video).float()  # (B, N, D)
        h = jepa.encode(video)
        found = {"pooled": raw.unflatten(1, (grid.t, -1)).mean(2).flatten(1), "label": batch["label"]}
        found["tokens"] = raw[:, :: max(1, grid.num_tokens // 16)].flatten(0, 1)
        if grid.t > 1:
            mask = task_mask("forward", grid, len(video))
            mask = type(mask)(*(ids.to(video.device) for ids in mask))
            errors = prediction_errors(jepa.predict(video, mask), h, mask, grid)
            found |= {key: getattr(errors, key)[None] for key in ("predictor", "copy", "mean", "cosine")}
        self._validation.append({key: value.detach().cpu() for key, value in found.items()})

    def on_validation_epoch_end(self) -> None:
        if not self._validation:
            return
        found = {key: torch.cat([part[key] for part in self._validation]) for key in self._validation[0]}
        self._validation.clear()
        width = self.jepa.config.encoder.embed_dim
        values = {"val/rank": float(effective_rank(found["tokens"])), "val/std": float(feature_std(found["tokens"]))}
        if "copy" in found:
            error = {key: float(found[key].mean()) for key in ("predictor", "copy", "mean", "cosine")}
            values |= {
                "val/error": error["predictor"],
                "val/cosine": error["cosine"],
                "val/skill_vs_copy": skill(error["predictor"], error["copy"]),
                "val/skill_vs_mean": skill(error["predictor"], error["mean"]),
            }
            word, sentence = verdict(
                values["val/std"], values["val/rank"], width, values["val/skill_vs_copy"], values["val/skill_vs_mean"]
            )
            self.health = {"verdict": word, "sentence": sentence}
            self.health |= {key.removeprefix("val/"): value for key, value in values.items()}
        probed = online_probe(found["pooled"], found["label"])
        # The best checkpoint is chosen by a probe where labels exist, else by effective rank (RankMe), never by loss.
        values["val/choose"] = values["val/rank"] if probed is None else probed
        if probed is not None:
            values["val/probe"] = probed
        self.log_dict(values, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["kind"], checkpoint["config"] = "jepa", asdict(self.jepa.config)
        checkpoint["health"] = self.health

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.health = checkpoint["health"]  # a run that had reached its last step is not validated again


def online_probe(features: Tensor, labels: Tensor) -> float | None:
    """Accuracy of a ridge classifier fitted on every other clip (n, D) and tested on the rest; None without labels."""
    known = labels >= 0
    features, labels = features[known], labels[known]
    if len(labels) < 8 or len(labels[::2].unique()) < 2:
        return None
    model = make_pipeline(StandardScaler(), RidgeClassifier(alpha=100.0))
    model.fit(features[::2].numpy(), labels[::2].numpy())
    return float(model.score(features[1::2].numpy(), labels[1::2].numpy()))
