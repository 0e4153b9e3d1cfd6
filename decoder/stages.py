"""The stages of a long job: what each runs, what it took over all starts, and whether a folder holds this very job.

Both records are files that survive an interruption.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from decoder.findings import duration
from jepa import ConfigError
from jepa.config import differences
from jepa.files import write_text
from jepa.resuming import SAME_CLIPS
from jepa.weights import read_json

PLAN = "plan.json"  # in a job's folder: the settings of its stages

# Settings that may change between two starts of a job.
IRRELEVANT = ("*.resume", "*.progress", "*.stop_sick", *(f"*.{key}" for key in SAME_CLIPS))


@dataclass(frozen=True)
class Stage:
    """One step. `command` runs the same from a shell (empty: there is none); `result` is written last."""

    name: str
    title: str
    config: Any
    command: str
    result: Path
    run: Callable[[], object]

    @property
    def done(self) -> bool:
        return self.result.is_file()


class Ledger:
    """Starts of named stages and how long each lasted, in a JSON file.

    A start that was killed without a word is taken to have lasted until the last file in the stage's folder was
    written, so that the sum stays honest.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._starts: dict[str, list[dict[str, Any]]] = read_json(file) if file.is_file() else {}

    @contextmanager
    def timed(self, name: str, folder: Path) -> Iterator[None]:
        """Times one start of a stage that writes below `folder`, whether it ends well or not."""
        starts = self._starts.setdefault(name, [])
        for start in starts:
            if start["seconds"] is None:
                start["seconds"] = max(0.0, _last_sign(folder, start["at"]) - start["at"])
        begun = time.perf_counter()
        starts.append({"at": time.time(), "seconds": None})
        self._save()
        try:
            yield
        finally:
            starts[-1]["seconds"] = time.perf_counter() - begun
            self._save()

    def seconds(self, name: str) -> float:
        """Of all starts together; 0 for a stage that never started."""
        return sum(start["seconds"] or 0.0 for start in self._starts.get(name, []))

    def starts(self, name: str) -> int:
        """How often the stage was started."""
        return len(self._starts.get(name, []))

    def forget(self, name: str) -> None:
        """What a stage took before: it is to be done anew."""
        self._starts.pop(name, None)
        self._save()

    def _save(self) -> None:
        write_text(self.file, json.dumps(self._starts, indent=2) + "\n")


def run_stages(stages: Sequence[Stage], ledger: Ledger) -> float:
    """Run what is not done, in order, and say so; the seconds that it took."""
    begun, spent = time.perf_counter(), 0.0
    for number, stage in enumerate(stages, 1):
        elapsed = time.perf_counter() - begun
        line = f"[{elapsed // 60:2.0f}:{elapsed % 60:02.0f}] {number}/{len(stages)} {stage.title}"
        if stage.done:
            took = ledger.seconds(stage.name)  # 0 where it was done elsewhere, and brought here
            print(f"{line}: done before" + (f", in {duration(took)}" if took else ""))
            continue
        print(f"\n{line}", flush=True)
        with ledger.timed(stage.name, stage.result.parent):
            stage.run()
        spent += time.perf_counter() - begun - elapsed
    return spent


def _last_sign(folder: Path, otherwise: float) -> float:
    """When the newest file below `folder` was written."""
    files = (os.path.join(here, name) for here, _, names in os.walk(folder) for name in names)
    return max((os.stat(file).st_mtime for file in files), default=otherwise)


def claim(out: Path, stages: list[Stage]) -> None:
    """Write the settings of all stages to `out/plan.json`; ConfigError where that holds others for one of them.

    Stages that it does not name yet are added.
    """
    file = out / PLAN
    wanted = json.loads(json.dumps({stage.name: asdict(stage.config) for stage in stages}))
    before = read_json(file) if file.is_file() else {}
    before |= {stage.name: _filled(stage.config, before[stage.name]) for stage in stages if stage.name in before}
    both = before.keys() & wanted.keys()
    other = sorted(differences({k: before[k] for k in both}, {k: wanted[k] for k in both}, IRRELEVANT))
    if other:
        keys = ", ".join(other[:4]) + (f" and {len(other) - 4} more" if len(other) > 4 else "")
        raise ConfigError(f"{out} was made with other settings ({keys}): delete it, or give another out=")
    write_text(file, json.dumps(before | wanted, indent=2) + "\n")


def _filled(config: Any, stored: dict[str, Any]) -> dict[str, Any]:
    """Stored settings with the defaults of keys that did not exist when they were stored."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(type(config)), stored)
        return json.loads(json.dumps(asdict(cast(Any, OmegaConf.to_object(merged)))))
    except OmegaConfBaseException:  # a key that no longer exists: other settings
        return stored
