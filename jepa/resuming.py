"""May a run go on here? Whether `out` holds one, and whether it was one with these settings.

What may change between two starts is where a run takes place, how fast, how much it says, and how long it is to last:
`MAY_CHANGE`. Anything else would make another run of it, which nobody could repeat.
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jepa.config import ConfigError, differences, load_config
from jepa.files import write_text

SAME_CLIPS = ("workers", "prefetch", "timeout", "root")  # settings of data that change nothing in a clip,
SAME_STREAM = (*SAME_CLIPS, "backend", "cache*")  # and all that leave which clips are drawn, and when, as it is
_TRAINER = ("accelerator", "devices", "num_nodes", "strategy", "precision", "threads")
_SCALE = ("activation_checkpointing", "compile")
_WATCHED = ("progress", "max_skipped", "log_every", "keep_every", "val_batches", "max_steps")
MAY_CHANGE = (
    *("out", "resume", "stop_sick"),
    *(f"data.{key}" for key in SAME_STREAM),
    *(f"trainer.{key}" for key in (*_TRAINER, *_SCALE, *_WATCHED)),
)


def check_run(out: str | Path, resume: bool) -> bool:
    """Whether to go on with the run in `out`: with `resume`, or in a job that its launcher has started again.

    ConfigError where there is no run to go on with, or where another would be written over.
    """
    last = Path(out) / "last.ckpt"
    if resume and not last.is_file():
        raise ConfigError(f"resume=true, but there is no {last} to go on from")
    if not resume and last.exists() and not _started_again(Path(out)):
        raise ConfigError(f"{out} already holds a run: add resume=true to go on with it, or give another out=")
    return last.exists()


def mark_job(out: str | Path) -> None:
    """Note in `out` which job of a launcher began or went on with the run there, if one did."""
    if _job():
        write_text(Path(out) / ".job", _job())


def _started_again(out: Path) -> bool:
    # A job that was requeued or preempted is given its old command line, which says nothing of resuming. A first try
    # that was refused, because of what another job had left there, is started again too.
    again = any(int(os.environ.get(name, 0)) > 0 for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))
    return again and (out / ".job").is_file() and (out / ".job").read_text() == _job()


def _job() -> str:
    return os.environ.get("SLURM_JOB_ID") or os.environ.get("TORCHELASTIC_RUN_ID") or ""


def check_settings(settings: Any, stored: Path) -> None:
    """ConfigError naming what differs between a config and the one in the YAML file `stored`, where it exists.

    `trainer.max_steps` may differ, with a note: the schedules stretch over it.
    """
    if not stored.is_file():
        return
    before, now = asdict(load_config(type(settings), stored)), asdict(settings)
    refused = [f"{key} was {a!r} and is {b!r}" for key, (a, b) in differences(before, now, MAY_CHANGE).items()]
    if refused:
        more = f"; and {len(refused) - 4} more" if len(refused) > 4 else ""
        raise ConfigError(
            f"resume=true with other settings than those of {stored} ({'; '.join(refused[:4])}{more}): "
            "give them as they were, or another out="
        )
    steps = differences(before, now).get("trainer.max_steps")
    if steps:
        print(f"trainer.max_steps was {steps[0]} and is {steps[1]}: the schedules are now those of {steps[1]} steps")
