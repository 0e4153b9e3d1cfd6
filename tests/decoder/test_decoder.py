"""Claims:

1. A saved decoder is read back exactly: config, weights, latent statistics; the picture it draws is bit-identical.
2. A checkpoint of another architecture, and a JEPA that the decoder does not belong to, are refused by name.
3. Same seed, same video, alone or in a batch; different seeds differ. Pixels lie in [0, 1].
4. Guidance is refused where the decoder was never trained without latents.
5. The mean latent is the origin of the normalised space.
6. It learns: one clip is overfitted to more than 30 dB in a few hundred steps of a tiny model.
"""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from decoder import Decoder, DecoderConfig, FlowConfig, LatentSource, Observation, measure_latents
from jepa import JEPA, CheckpointError, ConfigError

GRID = (4, 4, 4)


def test_saved_and_read_back(decoder: Decoder, source: LatentSource, video: Tensor, tmp_path: Path) -> None:
    decoder.set_statistics(measure_latents(source, [video], 3))
    decoder.save_pretrained(tmp_path / "shared")
    for back in (Decoder.load(tmp_path / "shared"), Decoder.from_pretrained(str(tmp_path / "shared"))):
        assert back.config == decoder.config and not back.training
        assert torch.equal(back.condition.std, decoder.condition.std)
        latents = source.target(video)
        assert torch.equal(back.decode(latents, GRID, 3), decoder.decode(latents, GRID, 3))


def test_another_architecture_is_refused_by_name(decoder: Decoder, tmp_path: Path) -> None:
    decoder.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"depth": 2', '"depth": 3'))
    with pytest.raises(CheckpointError, match=r"missing dit\.blocks\.2"):
        Decoder.load(tmp_path)
    config.write_text(config.read_text().replace('"depth": 3', '"depth": 2').replace('"width": 48', '"width": 96'))
    with pytest.raises(CheckpointError, match=r"\(48,\) there and \(96,\) here"):
        Decoder.load(tmp_path)


def test_another_jepa_is_refused(decoder: Decoder, source: LatentSource, jepa: JEPA) -> None:
    decoder.check_source(source)
    stranger = copy.deepcopy(jepa)
    next(stranger.target_encoder.parameters()).data += 0.1
    with pytest.raises(CheckpointError, match="another JEPA"):
        decoder.check_source(LatentSource(stranger))
    config = copy.deepcopy(decoder.config)
    config.dit.patch_size = 4
    with pytest.raises(CheckpointError, match=r"\(24, 2, 8, 3\)"):
        Decoder(config).check_source(source)


def test_seeds(decoder: Decoder, source: LatentSource, video: Tensor) -> None:
    latents = source.target(video)
    batch = decoder.decode(latents, GRID, seeds=[5, 6, 5])
    assert torch.equal(batch, decoder.decode(latents, GRID, seeds=[5, 6, 5]))
    torch.testing.assert_close(decoder.decode(latents[2:], GRID, seeds=5), batch[2:], atol=1e-5, rtol=0)
    assert not torch.allclose(decoder.decode(latents[:1], GRID, seeds=6), batch[:1])
    assert batch.shape == video.shape and batch.min() >= 0 and batch.max() <= 1
    with pytest.raises(ValueError, match="2 seeds for 3 clips"):
        decoder.decode(latents, GRID, seeds=[1, 2])


def test_guidance_needs_an_unconditional_model(decoder: Decoder, source: LatentSource, video: Tensor) -> None:
    latents = source.target(video)
    with pytest.raises(ConfigError, match="condition_dropout=0"):
        decoder.decode(latents, GRID, guidance=2.0)
    decoder.config.unconditional = True
    assert not torch.equal(decoder.decode(latents, GRID, guidance=2.0), decoder.decode(latents, GRID))


def test_the_mean_latent_is_the_origin(decoder: Decoder, source: LatentSource, video: Tensor) -> None:
    decoder.set_statistics(measure_latents(source, [video], 3))
    normalised = decoder.condition.tokens(Observation(source.grid(video), latents=decoder.mean_latents(2, GRID)))
    assert normalised.shape == (2, 64, 24) and normalised.abs().max() == 0


def test_one_clip_is_learned(decoder: Decoder, source: LatentSource, video: Tensor) -> None:
    torch.manual_seed(0)
    fresh = Decoder(DecoderConfig(dit=decoder.config.dit))
    fresh.set_statistics(measure_latents(source, [video], 3))
    clip, grid = video[:1], source.grid(video)
    latents = fresh.condition.normalise(source.target(clip))
    optimizer = torch.optim.AdamW(fresh.parameters(), lr=8e-3, betas=(0.9, 0.95))
    batch, condition = clip.expand(4, -1, -1, -1, -1), latents.expand(4, -1, -1)
    for step in range(120):
        for group in optimizer.param_groups:
            group["lr"] = 8e-3 * (1 - step / 120)
        loss = fresh.loss(batch, condition, grid, FlowConfig()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    truth = fresh.to_unit(clip)
    scores = [
        peak_signal_noise_ratio(fresh.decode(source.target(clip), grid, s), truth, data_range=1.0) for s in (0, 1)
    ]
    assert min(scores) > 30
