"""The official models by name. Claims:

- their schedules end where the released runs ended: stretched by 1.25, V-JEPA 1 stops at a learning rate of 7.5e-5, a
  weight decay of .366 and a momentum of .9996; V-JEPA 2 is constant after its warm-up, and its cool-down a line.
- clips and masks are those of the papers, cut to the shortest as released, and a released mask can be drawn on them.
- `preset=` is where a run's settings start: file and command line go on top, a config written down is read back equal,
  and an unknown name is refused with the nearest.
- presets are handed out as copies.
"""

from pathlib import Path

import pytest
import torch

from jepa import ConfigError, Grid, load_config, preset
from jepa.config import save_config
from jepa.masks import sample_mask
from jepa.optim import rates
from jepa.presets import PRESETS
from jepa.train import PretrainConfig, check_mask_tokens


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("vjepa1")])
def test_the_first_generation_stops_before_its_schedules_end(name: str) -> None:
    found = preset(name)
    first, warm, last = (rates(found.optim, step, found.steps) for step in (0, 12_000, found.steps))
    assert (first.lr, first.weight_decay, first.momentum) == pytest.approx((2e-4, 0.04, 0.998))
    assert warm.lr == pytest.approx(6.25e-4)
    assert last.lr == pytest.approx(7.5e-5, rel=0.01)
    assert last.weight_decay == pytest.approx(0.366, abs=5e-4) and last.momentum == pytest.approx(0.9996)
    assert found.batch_size * found.devices in (3072, 2400)


@pytest.mark.parametrize("name", ["vjepa2_vitl16", "vjepa2_vith16", "vjepa2_vitg16"])
def test_the_second_generation_is_constant(name: str) -> None:
    found = preset(name)
    assert rates(found.optim, 0, found.steps).lr == pytest.approx(1e-4)
    for step in (12_000, 100_000, found.steps):
        assert tuple(rates(found.optim, step, found.steps)) == pytest.approx((5.25e-4, 0.04, 0.99925))
    assert (found.num_frames, found.fps, found.size) == (16, 4.0, 256)


def test_the_cool_down_is_a_line() -> None:
    found = preset("vjepa2_vitg16_384")
    lr = [rates(found.optim, step, found.steps).lr for step in (0, found.steps // 2, found.steps)]
    assert lr[0] == pytest.approx(5.25e-4) and lr[1] == pytest.approx((lr[0] + lr[2]) / 2)
    assert lr[2] == pytest.approx(1.06e-4, rel=0.01) and (found.num_frames, found.size) == (64, 384)


def test_the_masks_are_those_of_the_papers() -> None:
    for name in PRESETS:
        found = preset(name)
        assert [(m.num_blocks, m.spatial_scale, m.temporal_scale) for m in found.masks] == [(8, 0.15, 1), (2, 0.7, 1)]
        assert all(m.truncation == "prefix" and m.aspect == [0.75, 1.5] for m in found.masks)
        check_mask_tokens(found.model.predictor, found.masks)
    generator, shares = torch.Generator().manual_seed(0), []
    for config in preset("vjepa1_vitl16").masks:
        drawn = [sample_mask(config, Grid(8, 14, 14), 1, generator).target_ids.shape[1] for _ in range(50)]
        shares.append(sum(drawn) / 50 / 1568)
    assert 0.55 < shares[0] < 0.8 and 0.8 < shares[1] < 1, shares  # blocks of a size overlap


def test_a_run_starts_from_its_preset(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("preset: vjepa2_vith16\ndata: {train: x, num_frames: 8}\noptim: {lr: 1.0e-4}\n")
    config = load_config(PretrainConfig, tmp_path / "x.yaml", ["optim.warmup_steps=7"])
    assert (config.model, config.masks) == (preset("vjepa2_vith16").model, preset("vjepa2_vith16").masks)
    assert (config.data.num_frames, config.data.fps, config.data.size) == (8, 4.0, [256, 256])
    assert (config.optim.lr, config.optim.warmup_steps, config.optim.momentum) == (1e-4, 7, 0.99925)
    assert config.trainer.max_steps == 240_000 and config.data.train == "x"
    other = load_config(PretrainConfig, tmp_path / "x.yaml", ["preset=vjepa1_vitl16"])
    assert other.model == preset("vjepa1_vitl16").model and other.trainer.gradient_clip == 10
    save_config(config, tmp_path / "config.yaml")
    assert load_config(PretrainConfig, tmp_path / "config.yaml") == config
    with pytest.raises(ConfigError, match="did you mean 'vjepa2_vitl16'"):
        load_config(PretrainConfig, None, ["preset=vjepa2_vitl"])


def test_presets_are_copies() -> None:
    preset("vjepa2_vitl16").model.encoder.depth = 1
    preset("vjepa2_vitl16").masks.clear()
    assert preset("vjepa2_vitl16").model.encoder.depth == 24 and len(preset("vjepa2_vitl16").masks) == 2
