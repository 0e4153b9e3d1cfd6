"""What lets a run be left alone: steps that are not finite, checkpoints that are always whole, and signals to stop."""

import errno
import io
import os
import signal
import threading
import zipfile
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, Checkpoint
from torch.distributed.tensor import DTensor

from jepa.errors import DivergedError, Interrupted
from jepa.files import replacing

# Ctrl-C; the end of a job or of a machine (SLURM, Kubernetes, torchrun); SLURM's early warning (`--signal=USR1@120`).
STOP = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class FiniteSteps(Callback):
    """Leaves out the update of a step whose gradients are not finite, and counts it; stops at `most` in a row.

    Weights, the optimizer's averages and its clock stay as they were, on every process alike: gradients have been
    exchanged by then. What is saved when it stops is therefore the last good state.
    """

    def __init__(self, most: int) -> None:
        self.most, self.skipped, self.in_a_row = most, 0, 0

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        if isinstance(norm, DTensor):  # each process has a part of it
            norm = norm.full_tensor()
        pl_module.log("train/gradient", norm)
        if bool(norm.isfinite()):
            self.in_a_row = 0
            return
        optimizer.zero_grad(set_to_none=True)  # a parameter without a gradient is not touched, by decay neither
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if trainer.logger is not None:  # at once: what is merely noted is only written every so many steps
            trainer.logger.log_metrics({"train/skipped": self.skipped}, trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if self.in_a_row >= self.most:
            raise DivergedError(
                f"gradients were not finite for {self.in_a_row} steps in a row, up to step {trainer.global_step - 1}: "
                f"no update of these was made, and {trainer.default_root_dir}/last.ckpt is the last good state. Lower "
                "optim.lr, look at the data (`jepa check-data`), or use trainer.precision=32-true"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped, self.in_a_row = state_dict["skipped"], 0  # whoever resumes has changed something, or tries again


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt`: every `every` steps, after the last step, and when training is interrupted or fails outside
    of a step, in which weights and their average disagree, or micro-batches are forgotten.

    After a validation it is written again, with the best score and the health of that step: a resumed run must not
    forget them, and does not validate a step twice.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every
        self._saved: int | None = None  # the step that is on disk; None before training has begun
        self._in_step = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved = trainer.global_step

    def on_before_optimizer_step(self, *_: Any) -> None:
        self._in_step = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._in_step = (batch_idx + 1) % trainer.accumulate_grad_batches != 0
        if trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps:
            self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._saved is not None:
            self._saved = None
            self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        # Before training has begun, a run that was to be resumed may not be restored yet: leave what it left. Saving
        # takes all processes: what befell one of them alone would leave it waiting for the others for ever.
        together = trainer.world_size == 1 or isinstance(exception, Interrupted | DivergedError)
        whole = not self._in_step or isinstance(
            exception, Interrupted | DivergedError
        )  # which are raised between steps
        if self._saved is not None and together and whole and not isinstance(exception, OSError):
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.global_step != self._saved:
            trainer.save_checkpoint(self.path)
            self._saved = trainer.global_step


class StopSignals(Checkpoint):
    """A signal to stop ends the run after the step it falls into, on every process at the same step, and saves it.

    In the middle of a step weights and their averages disagree, so nothing is interrupted there; a second Ctrl-C does.
    Lightning's own handler of SIGTERM calls a collective whenever the signal happens to come, and its handler for SLURM
    saves there and then: both are replaced while a run trains. A Checkpoint, for those have their turn last: when the
    weights have been averaged and, at the end, when all is saved.
    """

    def __init__(self) -> None:
        self.asked = 0  # the number of the signal
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():  # nobody else may
            self._before = {number: signal.signal(number, self._note) for number in STOP}

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, number
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not again:  # print is not safe in a handler that may have interrupted it
            os.write(2, f"\n{signal.Signals(number).name}: stopping after this step\n".encode())

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # a step ends with the last of its micro-batches
        number = self.asked
        if trainer.world_size > 1:
            asked = torch.tensor(number, device=trainer.strategy.root_device)
            number = int(trainer.strategy.reduce(asked, reduce_op="max"))
        if number:
            name, last = signal.Signals(number).name, f"{trainer.default_root_dir}/last.ckpt"
            raise Interrupted(
                number, f"stopped by {name} after step {trainer.global_step}, kept in {last}: add --resume to go on"
            )

    def on_train_end(self, *_: Any) -> None:  # and not at teardown, which comes after Lightning's own
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def on_exception(self, *_: Any) -> None:
        self.on_train_end()


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, reads back what is on the disk, then renames.

    Lightning's own goes through the system's temporary folder, which is often another disk: its last move is then a
    copy, and a full disk leaves half of it where a good checkpoint was.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()  # torch reports a full disk as an internal error of its zip writer, a plain file by name
        torch.save(checkpoint, buffer)
        with replacing(path) as partial:
            with open(partial, "wb") as file:
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            with zipfile.ZipFile(partial) as stored:  # a checkpoint is a zip, with a checksum for every tensor
                if broken := stored.testzip():
                    raise OSError(errno.EIO, f"what was written is not what is read back ({broken})", str(path))
