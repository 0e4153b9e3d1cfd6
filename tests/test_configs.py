"""Every YAML file below configs/. Claims:

- it loads into the schema of its command: no unknown key, no wrong type, nothing missing but what its command gives.
- it opens with the command that runs it, which parses as the command line would parse it.
- its model can be built, its masks drawn on its clips, its schedules evaluated, and its decoder fits its JEPA.
- a pixel opponent has the data, the denoiser, the tasks, the optimizer and the steps of the decoder of the same name.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jepa_commands import parse_command

from data.config import validate
from data.worlds_scene import check
from decoder.decoder import Decoder
from decoder.latents import LatentSource
from decoder.train import build_decoder
from decoder.train_opponents import build_pixels
from jepa import JEPA, sample_mask, token_grid
from jepa.config import changed
from jepa.optim import rates
from jepa.train import PretrainConfig

HOUSE = Path(__file__).resolve().parents[1]
COMMAND_OF = {
    "decoder": "train-decoder",
    "pixels": "train-pixels",
    "futures": "train-futures",
}  # of other folders: theirs
FILES = sorted(path.relative_to(HOUSE).as_posix() for path in (HOUSE / "configs").rglob("*.y*ml"))


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HOUSE)


def commands_of(file: str) -> list[str]:
    """The `jepa ...` commands in the comment that a file opens with: in backticks, or to the end of a line."""
    found = []
    for line in Path(file).read_text().splitlines():
        if not line.startswith("#"):
            break
        found += re.findall(r"`(jepa [^`]+)`", line) or re.findall(r"(?:^# |: )(jepa [a-z-]+ .*)", line)
    return found


def config_of(file: str) -> Any:
    """The settings that the command of a file gives, beside the file's own."""
    return parse_command(next(command for command in commands_of(file) if file in command))[1]


def test_there_is_a_config_for_every_command_that_trains() -> None:
    assert {Path(file).parts[1] for file in FILES} >= {"pretrain", "probe", "decoder"}


@pytest.mark.parametrize("file", FILES)
def test_a_config_opens_with_its_command_and_loads(file: str) -> None:
    assert Path(file).read_text().startswith("# "), "opens with a comment"
    commands = commands_of(file)
    own = [command for command in commands if file in command]
    assert own, f"{file} does not open with the command that runs it; it has {commands}"
    for command in commands:
        name, config = parse_command(command)
        assert config is not None
    name, config = parse_command(own[0])
    folder = "pairs" if "pairs" in file else Path(file).parts[1].removesuffix(".yaml")
    assert name == COMMAND_OF.get(folder, folder), "a file lies in the folder of its command"


def wholes(config: PretrainConfig) -> JEPA:
    """The model, without its weights where it is large."""
    with torch.device("meta"):
        model = JEPA(config.model)
    return model if sum(p.numel() for p in model.parameters()) > 50e6 else JEPA(config.model)


@pytest.mark.parametrize("file", [file for file in FILES if "/pretrain/" in file])
def test_a_pretraining_can_be_built(file: str) -> None:
    config = config_of(file)
    validate(config.data)
    encoder = config.model.encoder
    grid = token_grid((config.data.num_frames, *config.data.size), encoder.tubelet_size, encoder.patch_size)
    for mask in config.masks:
        drawn = sample_mask(mask, grid, 2, torch.Generator().manual_seed(0))
        assert min(ids.shape[1] for ids in drawn) > 0
    assert wholes(config).context_encoder.patch_embed.proj.weight.shape[0] == encoder.embed_dim
    first, last = (rates(config.optim, step, config.trainer.max_steps) for step in (0, config.trainer.max_steps - 1))
    assert first.lr > 0 and 0 < last.lr <= config.optim.lr and first.momentum <= last.momentum <= 1
    assert config.optim.warmup_steps < config.trainer.max_steps


@pytest.mark.parametrize("file", [file for file in FILES if "/decoder/" in file])
def test_a_decoder_can_be_built_on_its_jepa(file: str) -> None:
    config = config_of(file)
    runs = {config_of(other).out: config_of(other) for other in FILES if "/pretrain/" in other}
    run = str(Path(config.jepa).parent)
    if run == "models":  # imported: the file has the name of a preset, of which one layer shows all that matters here
        pretrained = PretrainConfig.of_preset(f"{Path(file).stem}16")
        pretrained.model.encoder.depth = pretrained.model.predictor.depth = 1
    else:
        assert run in runs, f"{file} decodes {run}, and no pretraining writes there: {sorted(runs)}"
        pretrained = runs[run]
    data = replace(pretrained.data, **config.data)
    validate(data)
    decoder = build_decoder(config.model, LatentSource(JEPA(pretrained.model)), data)
    assert isinstance(decoder, Decoder) and decoder.config.dit.condition_dim == pretrained.model.encoder.embed_dim


@pytest.mark.parametrize("file", [file for file in FILES if "/pixels/" in file])
def test_a_pixel_opponent_is_trained_as_its_decoder_is(file: str) -> None:
    pixels, decoder = config_of(file), config_of(file.replace("/pixels/", "/decoder/"))
    pretrained = config_of(file.replace("/pixels/", "/pretrain/"))
    assert pixels.data == replace(pretrained.data, **decoder.data)
    for room in ("model", "sampling", "trainer"):
        assert getattr(pixels, room) == getattr(decoder, room), room
    compared = config_of(file.replace("/pixels/", "/compare/"))
    assert pixels == changed(replace(pixels, optim=decoder.optim, flow=decoder.flow), compared.pixels)
    assert pixels.mix.tasks == decoder.mix.tasks and pixels.mix.contexts == decoder.mix.contexts
    encoder = pretrained.model.encoder
    assert (pixels.patch_size, pixels.tubelet_size) == (encoder.patch_size, encoder.tubelet_size)
    assert build_pixels(pixels).config.clip.num_frames == pixels.data.num_frames


@pytest.mark.parametrize("file", [file for file in FILES if "/worlds/" in file and "pairs" not in file])
def test_a_world_is_possible(file: str) -> None:
    check(config_of(file))


@pytest.mark.parametrize("file", [file for file in FILES if "demo" in Path(file).name])
def test_the_stages_of_a_demo_exist(file: str) -> None:
    config = config_of(file)
    for name in ("worlds", "pretrain", "probe", "decoder"):
        assert getattr(config, name) in FILES, f"{file} names {getattr(config, name)}"
