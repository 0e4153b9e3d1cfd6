"""A training that diverges is begun again at half its rate: one rule for every arm, told with its cost.

A rate is tuned on one seed and one length. An arm that diverges at it in another seed, or later, says nothing of its
kind, and a comparison must not end there. What diverged is put aside as OUT.diverged1, OUT.diverged2, which is also how
a job that was killed knows how far it had come.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from jepa.config import stored_settings
from jepa.errors import DivergedError

TRIES = 3


def train(run: Callable[[Any], object], settings: Any) -> None:
    """Run a training of `settings`, or go on with it; DivergedError where all tries diverged."""
    out = Path(settings.out)
    while True:
        tries = len(put_aside(out))
        lr = settings.optim.lr / 2**tries
        resume = (out / "last.ckpt").is_file()
        try:
            run(replace(settings, resume=resume, optim=replace(settings.optim, lr=lr)))
            return
        except DivergedError as error:
            if tries + 1 >= TRIES:
                raise
            aside = out.rename(f"{out}.diverged{tries + 1}")
            print(f"{error}\nBegun again with optim.lr={lr / 2:g}; what diverged is in {aside}", flush=True)


def put_aside(out: Path) -> list[Path]:
    """The folders of trainings that diverged, in order."""
    return sorted(out.parent.glob(f"{out.name}.diverged*"))


def rate(out: Path) -> dict[str, float | None]:
    """With which rate an arm was trained, and how many trainings had diverged before, each at twice the rate of the
    next; None where that does not stand beside its weights."""
    return {"lr": stored_settings(out / "config.yaml").get("optim", {}).get("lr"), "diverged": len(put_aside(out))}
