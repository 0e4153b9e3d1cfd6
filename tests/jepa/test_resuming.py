"""Going on with a run. Claims:

- settings that say what is learned may not change: one sentence names each with both values, and nothing is written.
- those that say where, how fast and how loudly may, and `trainer.max_steps` may, with a note; the run then goes on.
- a run without its config.yaml is taken at its word.
"""

from pathlib import Path

import pytest
import torch

from jepa import ConfigError, load_config
from jepa.resuming import MAY_CHANGE, check_settings
from jepa.train import PretrainConfig, pretrain

TINY = [
    "data={num_frames: 4, size: [16, 16], batch_size: 2, workers: 0}",
    "model.encoder={embed_dim: 24, depth: 1, num_heads: 2, patch_size: 8}",
    "model.predictor={embed_dim: 12, depth: 1, num_heads: 2}",
    "masks=[{kind: tube, ratio: 0.5}]",
    "trainer={max_steps: 2, val_every: 2, val_batches: 1, accelerator: cpu, precision: 32-true, progress: false}",
]


def run(worlds: Path, out: Path, *words: str) -> Path:
    data = f"data.train={worlds / 'train.csv'}"
    return pretrain(load_config(PretrainConfig, None, [f"out={out}", data, *TINY, *words]))


def test_what_is_learned_may_not_change(worlds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    run(worlds, out)
    kept = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    changes = ("optim.lr=0.01", "masks=[{kind: tube, ratio: 0.6}, {kind: future}]", "model.encoder.depth=2")
    with pytest.raises(ConfigError) as error:
        run(worlds, out, "resume=true", *changes, "data.workers=1")
    said = str(error.value)
    assert str(out / "config.yaml") in said and said.endswith("give them as they were, or another out=")
    for words in ("model.encoder.depth was 1 and is 2", "masks[0].ratio was 0.5 and is 0.6", "; and "):
        assert words in said
    with pytest.raises(ConfigError, match=r"\(optim\.lr was 0\.\d+ and is 0\.01\): "):
        run(worlds, out, "resume=true", changes[0], "data.workers=1")
    assert {path: path.read_bytes() for path in out.iterdir() if path.is_file()} == kept

    others = ("trainer.max_steps=3", "trainer.log_every=1", "data.prefetch=2", "data.backend=pyav")
    run(worlds, out, "resume=true", *others)
    assert "trainer.max_steps was 2 and is 3: the schedules are now those of 3 steps" in capsys.readouterr().out
    assert torch.load(out / "last.ckpt", weights_only=True)["global_step"] == 3
    run(worlds, out, "resume=true", *others)
    assert "max_steps" not in capsys.readouterr().out, "config.yaml says three by now"


def test_every_key_that_may_change_exists() -> None:
    config = PretrainConfig()
    for key in MAY_CHANGE:
        room, _, name = key.rpartition(".")
        assert hasattr(getattr(config, room) if room else config, name.rstrip("*")), key


def test_a_run_without_its_settings_is_taken_at_its_word(tmp_path: Path) -> None:
    check_settings(PretrainConfig(seed=5), tmp_path / "config.yaml")
