"""The models that come with the package. Claims:

- they are found by name from any folder, and a folder of that name comes first; half precision, and small together.
- decoder and JEPA belong together, and both arms draw the same clips.
- they have learnt something: on new clips of their world, what is drawn from predicted latents is closer to the truth
  than what is drawn from the mean latent, by decibels and clip by clip, and decode(target) closer still; pixels too.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from data import ClipTransform, open_video
from data.worlds import WorldConfig, generate
from decoder import Decoder, LatentSource
from decoder.compose import hidden_pixels
from decoder.pixels import PixelModel
from decoder.train import data_settings
from jepa import JEPA, from_pretrained, load_config
from jepa.weights import SHIPPED, kind_of, shipped

CLIPS = {"worlds-tiny": (8, 2, [32, 32]), "worlds-small": (16, 1, [64, 64])}  # frames, stride, size
WORLDS = Path(__file__).parents[2] / "configs" / "worlds"
each = pytest.mark.parametrize("name", CLIPS)


@each
def test_they_are_found_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert from_pretrained(name).config == JEPA.load(name).config and kind_of(name) == "jepa"
    assert shipped(name) == SHIPPED / name / "jepa" and shipped("no-such") == Path("no-such")
    assert shipped(f"x/{name}") == Path(f"x/{name}")
    settings = data_settings(name, {"train": "x"})
    assert (settings.num_frames, settings.stride, settings.size) == CLIPS[name]
    (tmp_path / name).mkdir()
    assert shipped(name) == Path(name)


@each
def test_they_are_small(name: str) -> None:
    sizes = [file.stat().st_size for file in (SHIPPED / name).rglob("*.safetensors")]
    assert len(sizes) == 3 and sum(sizes) <= 24e6


@each
def test_they_belong_together(name: str) -> None:
    decoder, pixels = Decoder.load(name), PixelModel.load(name)
    decoder.check_source(LatentSource(JEPA.load(name)))
    assert decoder.config.clip == pixels.config.clip
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in decoder.parameters())


@each
def test_they_have_learnt_something(name: str, tmp_path: Path) -> None:
    words = [f"out={tmp_path}", "clips=48", "seed=987", "bounce=0.5"]
    world = WORLDS / f"{name.removeprefix('worlds-')}.yaml"
    folder = generate(load_config(WorldConfig, world, words), progress=False)
    source, decoder, pixels = LatentSource(JEPA.load(name)), Decoder.load(name), PixelModel.load(name)
    clip = decoder.config.clip
    places = np.arange(clip.num_frames) * clip.stride
    videos = sorted(folder.rglob("*.mp4"))[:48]
    video = torch.stack([ClipTransform(clip.size)(open_video(file).frames(places)) for file in videos])
    mask, grid = source.task_mask("forward", video), source.grid(video)
    hidden = hidden_pixels(mask, grid, decoder.config.dit.tubelet_size, decoder.config.dit.patch_size)[0, 0]
    truth = decoder.to_unit(video)

    def psnr(drawn: torch.Tensor) -> np.ndarray:
        return (-10 * (drawn - truth)[..., hidden].square().mean((1, 2)).log10()).numpy()

    found = {
        "predicted": psnr(decoder.decode(source.predicted(video, mask), grid, steps=4)),
        "target": psnr(decoder.decode(source.target(video), grid, steps=4)),
        "mean": psnr(decoder.decode(decoder.mean_latents(len(video), grid), grid, steps=4)),
        "pixels": psnr(pixels.draw(video, mask, seeds=0, steps=4)),
    }
    closer = lambda a, b, decibels, share: (
        (found[a] - found[b]).mean() > decibels and (found[a] > found[b]).mean() > share
    )
    assert closer("predicted", "mean", 2, 0.8), {name: value.mean() for name, value in found.items()}
    assert closer("target", "predicted", 5, 0.95) and closer("pixels", "mean", 3, 0.8)
