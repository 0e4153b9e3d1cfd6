"""Claims:

1. The time of a stage is summed over all its starts, also where one was interrupted or killed without a word.
2. A folder that holds a job of other settings is refused by the names of these settings; what changes no result may
   change. Settings that came to be since have their defaults.
"""

import json
import os
from pathlib import Path

import pytest

from decoder.stages import Ledger, Stage, claim
from jepa import ConfigError
from jepa.training import TrainerConfig


def test_times_are_summed_over_starts(tmp_path: Path) -> None:
    file, folder = tmp_path / "stages.json", tmp_path / "work"
    with pytest.raises(KeyboardInterrupt), Ledger(file).timed("work", folder):
        raise KeyboardInterrupt
    starts = json.loads(file.read_text())
    first = starts["work"][0]["seconds"]
    assert first is not None and first < 1
    starts["work"].append({"at": starts["work"][0]["at"], "seconds": None})  # killed: it could not write the end
    file.write_text(json.dumps(starts))
    folder.mkdir()
    (folder / "last.ckpt").write_bytes(b"")
    os.utime(folder / "last.ckpt", (0, starts["work"][0]["at"] + 100))
    ledger = Ledger(file)
    with ledger.timed("work", folder):
        pass
    assert ledger.starts("work") == 3 and Ledger(file).seconds("work") == pytest.approx(100 + first, abs=1)
    assert ledger.seconds("play") == 0


def test_another_job_in_the_folder_is_refused(tmp_path: Path) -> None:
    stage = lambda **settings: [Stage("train", "", TrainerConfig(**settings), "", tmp_path / "x", lambda: None)]
    claim(tmp_path, stage(max_steps=10))
    claim(tmp_path, stage(max_steps=10, progress=False))
    with pytest.raises(ConfigError, match=r"train\.max_steps.*give another out="):
        claim(tmp_path, stage(max_steps=20))


def test_a_setting_that_did_not_exist_then_has_its_default(tmp_path: Path) -> None:
    stage = lambda **settings: [Stage("train", "", TrainerConfig(**settings), "", tmp_path / "x", lambda: None)]
    claim(tmp_path, stage(max_steps=10))
    stored = json.loads((tmp_path / "plan.json").read_text())
    del stored["train"]["activation_checkpointing"]
    (tmp_path / "plan.json").write_text(json.dumps(stored))
    claim(tmp_path, stage(max_steps=10))
    stored["train"]["of_old"] = 1
    (tmp_path / "plan.json").write_text(json.dumps(stored))
    with pytest.raises(ConfigError, match=r"train\.of_old"):
        claim(tmp_path, stage(max_steps=10))
