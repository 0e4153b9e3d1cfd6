"""Arms that may be compared. Claims:

1. The opponents are trained as the decoder is: data, denoiser, tasks, contexts, steps and seed are equal, and so are
   the denoisers, to the last parameter; learning rate and times of the flow may be an arm's own, nothing else. B and D
   alone, by their own files, have the same optimizer and flow.
2. B's operations, counted on B, are those of the decoder. B+ differs from B in its steps alone, by what pretraining the
   JEPA costs.
3. The masked-pixel arm differs from the JEPA in its targets alone.
"""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from decoder.budget import decoder_operations, pixels_operations, pretrain_operations
from decoder.compare.plan import CompareConfig, Trained, trained
from decoder.latents import LatentSource
from decoder.train import build_decoder
from decoder.train_opponents import FuturesTrainConfig, PixelTrainConfig, build_pixels
from jepa import JEPA
from jepa.config import load_config

HOUSE = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HOUSE)


@pytest.fixture(scope="module", params=["worlds_tiny", "worlds_small"])
def arms(request: pytest.FixtureRequest) -> Trained:
    config = load_config(CompareConfig, HOUSE / f"configs/compare/{request.param}.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(HOUSE)
        return trained(config, config.seeds[0])


def test_the_opponent_is_trained_as_the_decoder_is(arms: Trained) -> None:
    pixels, decoder = arms.pixels, arms.decoder
    assert pixels.data == replace(arms.jepa.data, **decoder.data)
    for key in ("seed", "condition_dim", "model", "sampling", "trainer"):
        assert getattr(pixels, key) == getattr(decoder, key) == getattr(arms.futures, key, getattr(decoder, key)), key
    for key in ("warmup_steps", "ema_decay", "weight_decay", "betas"):  # the learning rate is each arm's own
        assert getattr(pixels.optim, key) == getattr(decoder.optim, key) == getattr(arms.futures.optim, key), key
    for key in ("tasks", "contexts", "condition_dropout"):
        assert getattr(pixels.mix, key) == getattr(decoder.mix, key) == getattr(arms.futures.mix, key), key
    assert len(decoder.mix.contexts) > 1, "several context lengths are trained"
    source = LatentSource(JEPA(arms.jepa.model))
    drawer = build_decoder(decoder.model, source, arms.jepa.data, False, decoder.condition_dim)
    opponent = build_pixels(pixels)
    shapes = [{k: tuple(v.shape) for k, v in model.dit.named_parameters()} for model in (drawer, opponent)]
    assert shapes[0] == shapes[1]
    counted = pixels_operations(pixels)
    assert counted == pytest.approx(decoder_operations(decoder, arms.jepa), rel=0.02)
    assert pixels_operations(arms.pixels_plus) > counted


@pytest.mark.parametrize("setting", ["worlds_tiny", "worlds_small"])
def test_an_arm_trained_alone_has_the_settings_of_the_comparison(setting: str) -> None:
    arms = trained(load_config(CompareConfig, HOUSE / f"configs/compare/{setting}.yaml"), 0)
    words = [f"jepa={arms.decoder.jepa}"]
    alone = (
        (arms.pixels, load_config(PixelTrainConfig, HOUSE / f"configs/pixels/{setting}.yaml")),
        (arms.futures, load_config(FuturesTrainConfig, HOUSE / f"configs/futures/{setting}.yaml", words)),
    )
    for compared, own in alone:
        for key in ("model", "optim", "flow", "sampling"):
            assert getattr(compared, key) == getattr(own, key), key
        assert compared.trainer.max_steps == own.trainer.max_steps and compared.mix.tasks == own.mix.tasks


def test_more_steps_pay_for_the_pretraining(arms: Trained) -> None:
    plus = arms.pixels_plus
    same = replace(plus, out=arms.pixels.out, trainer=arms.pixels.trainer)
    assert asdict(same) == asdict(arms.pixels)
    one = decoder_operations(arms.decoder, arms.jepa) / arms.decoder.trainer.max_steps
    extra = (plus.trainer.max_steps - arms.pixels.trainer.max_steps) * one
    assert extra == pytest.approx(pretrain_operations(arms.jepa), rel=0.01)


def test_masked_pixels_differ_in_their_targets_alone(arms: Trained) -> None:
    masked = replace(arms.masked_pixels, out=arms.jepa.out, model=replace(arms.masked_pixels.model, targets="latents"))
    assert asdict(masked) == asdict(arms.jepa) and arms.masked_pixels.model.targets == "pixels"
