"""Official models, whatever their format (test_transformers.py and test_official.py have the numbers). Claims:

- sizes of every preset are those published, the others those that transformers' config gives.
- a wrong file (truncated, another architecture, one that would run code) is one sentence, and runs nothing.
- official preprocessing: clips are what transformers' VJEPA2VideoProcessor makes of the same frames.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foreign import GRID, VJEPA1, meta_file, random_model
from torch import nn

from data.transforms import ClipTransform
from jepa import JEPA, CheckpointError, preset
from jepa.checkpoints import transformers_config
from jepa.exchange import SHORTER_SIDE, ImportConfig, import_model
from jepa.presets import PRESETS

vjepa2 = pytest.importorskip("transformers.models.vjepa2")


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_sizes_of_the_presets() -> None:
    published = {"vjepa1_vitl16": 303_885_312, "vjepa1_vith16": 631_648_000, "vjepa1_vith16_384": 631_648_000}
    for name in PRESETS:
        config = preset(name).model
        with torch.device("meta"):
            model = JEPA(config)
        if name in published:
            assert count(model.context_encoder) == published[name]
            continue
        settings = vjepa2.VJEPA2Config(**transformers_config(config))
        with torch.device("meta"):
            reference = vjepa2.VJEPA2Model(settings)
        assert count(model.context_encoder) == count(reference.encoder)
        assert count(model.predictor) == count(reference.predictor)
    with torch.device("meta"):
        assert count(JEPA(preset("vjepa1_vitl16").model).predictor) == 22_082_944


def test_wrong_files_are_one_sentence_and_run_nothing(folder: Path, ours: Path, tmp_path: Path) -> None:
    good = meta_file(random_model(VJEPA1), GRID, tmp_path / "good.pt").read_bytes()
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (trap,)

    (tmp_path / "cut.pt").write_bytes(good[: len(good) // 2])
    (tmp_path / "trap.pt").write_bytes(pickle.dumps({"encoder": Trap()}))
    torch.save({"encoder": Trap(), "predictor": {}, "target_encoder": {}}, tmp_path / "trapped.pt")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "config.json").write_text('{"model_type": "videomae"}')
    short = tmp_path / "short"
    short.mkdir()
    (short / "config.json").write_text((folder / "config.json").read_text())
    (short / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    wide = tmp_path / "wide"
    wide.mkdir()
    (wide / "config.json").write_text(
        (folder / "config.json").read_text().replace('"hidden_size": 40', '"hidden_size": 80')
    )
    (wide / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    for name, words in (
        ("cut.pt", "damaged"),
        ("trap.pt", "cannot be read safely|can be read safely"),
        ("trapped.pt", "can be read safely: it asks to run"),
        ("other.pt", "has no encoder: it holds state_dict"),
        ("none.pt", "no such file"),
        ("short/model.safetensors", "give the folder"),
        ("list", "videomae: only vjepa2 is known"),
        ("short", "not a readable safetensors file"),
        ("wide", "there and .* here"),
    ):
        with pytest.raises(CheckpointError, match=words) as error:
            import_model(ImportConfig(str(tmp_path / name), str(tmp_path / "out")))
        assert "\n" not in str(error.value) and name in str(error.value)
    with pytest.raises(CheckpointError, match="is a model of this project already"):
        import_model(ImportConfig(str(ours), str(tmp_path / "out")))
    assert not trap.exists() and not (tmp_path / "out").exists()


def test_official_preprocessing_is_theirs() -> None:
    processing = pytest.importorskip("transformers.models.vjepa2.video_processing_vjepa2")
    rng = np.random.default_rng(0)
    # Where what is cut off is odd, they begin a pixel earlier than torchvision, Meta's code and ours.
    for height, width in ((48, 64), (72, 40), (33, 90)):
        noise = torch.from_numpy(rng.integers(0, 256, (4, 3, height // 4, width // 4), dtype=np.uint8))
        smooth = F.interpolate(noise.float(), size=(height, width), mode="bicubic").clamp(0, 255).byte()
        frames = smooth.movedim(1, -1).numpy()
        processor = processing.VJEPA2VideoProcessor(crop_size=32)
        expected = processor(list(frames), return_tensors="pt")["pixel_values_videos"][0]  # (T, C, H, W)
        found = ClipTransform(32, shorter_side=SHORTER_SIDE)(frames)  # (C, T, H, W)
        assert found.shape == (3, 4, 32, 32)
        assert (found.transpose(0, 1) - expected).abs().max() < 1.01 / 255 / 0.22, "one grey level of 255 at most"
