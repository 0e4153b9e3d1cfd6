"""Lightning glue around `JEPA`: when to step, what to log. No maths of the method lives here."""

from dataclasses import asdict
from statistics import mean
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from jepa.diagnostics import PredictionErrors, assess, effective_rank, feature_std, observe, variety
from jepa.jepa import JEPA
from jepa.optim import OptimConfig, adamw, apply_rates, rates
from jepa.probe import online_probe
from jepa.scaling import shard


class JEPAModule(pl.LightningModule):
    """Trains a `JEPA`. Batches hold `video` (B, C, T, H, W), `masks`, `seed` (B,) and `label` (B,), -1 for none."""

    def __init__(self, jepa: JEPA, optim: OptimConfig, max_steps: int, frozen_teacher: bool = False) -> None:
        super().__init__()
        self.jepa, self.optim, self.max_steps, self.frozen_teacher = jepa, optim, max_steps, frozen_teacher
        self._validation: list[dict[str, Tensor]] = []
        self.health: dict[str, Any] = {}

    def configure_model(self) -> None:
        if self.device_mesh is not None:  # trainer.strategy=fsdp
            strategy = self.trainer.strategy
            shard(self.jepa, init_device_mesh(strategy.root_device.type, (self.trainer.world_size,)))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        if self.jepa.config.regulariser == "sigreg":
            torch.manual_seed(int(batch["seed"][0]))  # its directions are the step's own: resuming is exact
        loss = self.jepa(batch["video"], batch["masks"], batch["mask_kinds"])
        parts = {"train/loss": loss.total, "train/prediction": loss.prediction}
        if self.jepa.config.context_loss:
            parts["train/context"] = loss.context
        if self.jepa.config.regulariser != "none":
            parts["train/regulariser"] = loss.regulariser
        self.log_dict(parts, prog_bar=True)
        hidden = mean(mask.target_ids.shape[1] / loss.h.shape[1] for mask in batch["masks"])
        self.log("train/hidden", hidden)
        # Where it is read, for it looks at every pixel; of fewer clips it says how much moves, not how they differ.
        logged = (self.global_step + 1) % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if logged and len(batch["video"]) >= 8:
            self.log("train/variety", variety(batch["video"]))
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
        seen = observe(self.jepa, video)
        moments = seen.raw.unflatten(1, (self.jepa.grid(video).t, -1)).mean(2)  # (B, t, D)
        found = {"pooled": moments.flatten(1), "label": batch["label"], "tokens": seen.tokens}
        if seen.errors is not None:
            found |= {key: value[None] for key, value in vars(seen.errors).items()}
        self._validation.append({key: value.detach().cpu() for key, value in found.items()})

    def on_validation_epoch_end(self) -> None:
        parts = gather(self._validation)
        self._validation = []
        if not parts:
            return
        found = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        if "copy" in found:
            errors = PredictionErrors(**{key: found[key].mean() for key in ("predictor", "copy", "mean", "cosine")})
            self.health = asdict(assess(found["tokens"], errors))
            values = {f"val/{key}": value for key, value in self.health.items() if isinstance(value, float)}
        else:
            spread = {"val/rank": effective_rank(found["tokens"]), "val/std": feature_std(found["tokens"])}
            values = {key: float(value) for key, value in spread.items()}
        probed = online_probe(found["pooled"], found["label"])
        # The best checkpoint is chosen by a probe where labels exist, else by effective rank (RankMe), never by loss.
        values["val/choose"] = values["val/rank"] if probed is None else probed
        if probed is not None:
            values["val/probe"] = probed
        self.log_dict(values, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["kind"], checkpoint["config"] = "jepa", asdict(self.jepa.config)
        checkpoint["health"] = self.health
        if self.device_mesh is None:
            for state, optimizer in zip(checkpoint.get("optimizer_states", []), self.trainer.optimizers, strict=False):
                number_as_model(state, optimizer, self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.health = checkpoint["health"]  # a run that had reached its last step is not validated again


def number_as_model(state: dict[str, Any], optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Number the parameters in an optimizer's `state` as `model` lists them, in place.

    Torch numbers them group by group. Sharded runs are read and written by the model's order; torch reads either.
    """
    place = {id(parameter): i for i, parameter in enumerate(model.parameters())}
    new = [place[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    state["state"] = {new[old]: value for old, value in state["state"].items()}
    for group in state["param_groups"]:
        group["params"] = [new[old] for old in group["params"]]


def gather(parts: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The parts of all processes, in the order of their ranks: every process then computes, and logs, the same."""
    if not (dist.is_available() and dist.is_initialized()):
        return parts
    everyone: list[list[dict[str, Tensor]]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(everyone, parts)
    return [part for some in everyone for part in some]
