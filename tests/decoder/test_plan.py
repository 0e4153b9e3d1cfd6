"""Claims:

1. The seed of a demo reaches every choice of its stages: the worlds, the trainings, the order of the clips, the probe.
2. Who goes on to real videos is sent to the recipes for real videos, which exist, whatever recipes the demo had.
"""

import shlex
from pathlib import Path

import pytest

from decoder.demo import DemoConfig, go_on, plan

ROOT = Path(__file__).parents[2]


def test_the_seed_reaches_every_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    stages = {stage.name: stage.config for stage in plan(DemoConfig(seed=7))}
    assert [stages[name].seed for name in ("worlds", "pretrain", "probe", "decoder")] == [7] * 4
    assert stages["pretrain"].data.seed == 7
    assert "seed" not in stages["decoder"].data  # which is then as in the JEPA's run


def test_real_videos_have_recipes_of_their_own() -> None:
    lines = [shlex.split(command.line) for command in go_on(DemoConfig(pretrain="my.yaml", decoder="other.yaml"))]
    recipes = [word for line in lines for word in line if word.endswith(".yaml")]
    assert recipes == [f"configs/{room}/videos_tiny.yaml" for room in ("pretrain", "pretrain", "probe", "decoder")]
    assert all((ROOT / recipe).is_file() for recipe in recipes)
