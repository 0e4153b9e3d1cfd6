"""Claims:

1. `train_decoder` on a folder of real mp4 files leaves a decoder that loads, from the folder and from last.ckpt alike,
knows its
   clip and its JEPA, and has the statistics of the training latents; curves and pictures are logged. The JEPA is
   unchanged, and is not in the checkpoint.
2. A run that is interrupted and resumed ends with the weights of the uninterrupted one, moving average included;
   with other settings it is refused.
3. The moving average has its closed form, once per optimizer step under accumulation.
4. Data settings are the JEPA run's, with the chosen keys replaced; unknown keys and sizes that do not divide are
refused by name. 5. A training batch is split between target and predicted latents as configured, and draws are a
function of the seed.
"""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import squares
from omegaconf import OmegaConf
from torch import Tensor

from data import write_video
from data.module import DataConfig
from decoder import Decoder, DenoiserSize, FlowConfig, LatentSource
from decoder.module import (
    DecoderModule,
    DecoderOptimConfig,
    LatentMixConfig,
    SamplingConfig,
    WeightEMA,
    ema_decay,
    ema_update,
)
from decoder.train import DecoderTrainConfig, Falling, build_decoder, data_settings, train_decoder
from jepa import JEPA, ConfigError
from jepa.config import save_config
from jepa.errors import DivergedError, Interrupted
from jepa.training import TrainerConfig, read_history
from jepa.weights import read_checkpoint


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for i, frames in enumerate(squares(10)):
        write_video(tmp_path / "videos" / f"{i}.mp4", frames, fps=8)
    return tmp_path / "videos"


def settings(jepa: JEPA, videos: Path, out: Path, **changes: object) -> DecoderTrainConfig:
    if not (videos.parent / "jepa").exists():
        jepa.save_pretrained(videos.parent / "jepa")
    config = DecoderTrainConfig(
        jepa=str(videos.parent / "jepa"),
        out=str(out),
        data={
            "train": str(videos),
            "num_frames": 8,
            "size": [32, 32],
            "scale": [1.0, 1.0],
            "batch_size": 4,
            "workers": 0,
        },
        latent_clips=8,
        model=DenoiserSize(width=24, depth=1, num_heads=2),
        optim=DecoderOptimConfig(warmup_steps=2),
        sampling=SamplingConfig(steps=1, show=1),
        trainer=TrainerConfig(max_steps=6, val_every=3, val_batches=1, log_every=1, progress=False, accelerator="cpu"),
    )
    for key, value in changes.items():
        setattr(config, key, value)
    return config


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in a.state_dict().items())


def test_training_leaves_a_usable_decoder(jepa: JEPA, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    folder = train_decoder(settings(jepa, videos, out))
    decoder, source = Decoder.load(folder), LatentSource(JEPA.load(str(tmp_path / "jepa")))
    assert same(decoder, Decoder.load(out / "last.ckpt"))
    assert decoder.config.clip.num_frames == 8 and decoder.config.clip.size == [32, 32]
    decoder.check_source(source)
    assert same(source.jepa, jepa)
    assert decoder.condition.std.ne(1).all()
    checkpoint = read_checkpoint(out / "last.ckpt")
    assert checkpoint["kind"] == "decoder"
    assert all(key.startswith("decoder.") for key in checkpoint["state_dict"])
    run = OmegaConf.load(out / "config.yaml")
    assert (run.data.batch_size, run.data.flip) == (4, True)  # what was chosen, and what was not
    history = read_history(out)
    assert len(history["train/loss"]) == 6
    assert {"train/loss_target", "val/target_psnr", "val/predicted_psnr", "val/mean_psnr"} <= set(history)
    events = list((out / "tensorboard").glob("events*"))
    assert b"val/truth_target_predicted" in b"".join(event.read_bytes() for event in events)


@pytest.mark.parametrize("how", [KeyboardInterrupt, Interrupted])
def test_resumed_equals_uninterrupted(
    jepa: JEPA, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: type[BaseException]
) -> None:
    straight = Decoder.load(train_decoder(settings(jepa, videos, tmp_path / "straight")))

    step = DecoderModule.training_step

    def interrupted(self: DecoderModule, batch: dict, batch_idx: int) -> Tensor:
        if self.global_step == 4 and how is KeyboardInterrupt:
            raise KeyboardInterrupt
        if self.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(DecoderModule, "training_step", interrupted)
    with pytest.raises(how):
        train_decoder(settings(jepa, videos, tmp_path / "broken"))
    assert not (tmp_path / "broken" / "decoder").exists()
    monkeypatch.setattr(DecoderModule, "training_step", step)
    resume = settings(jepa, videos, tmp_path / "broken", resume=True)
    assert same(straight, Decoder.load(train_decoder(resume)))
    assert OmegaConf.load(tmp_path / "broken" / "config.yaml").resume is False  # or who starts from it starts nothing
    assert same(straight, Decoder.load(train_decoder(resume)))  # complete already: nothing is trained, nothing is lost
    resume.optim.lr, resume.data["flip"], resume.data["workers"] = 0.5, False, 1
    with pytest.raises(ConfigError, match=r"\(optim\.lr was 0\.001 and is 0\.5; data\.flip was True and is False\)"):
        train_decoder(resume)


def test_the_moving_average_has_its_closed_form() -> None:
    average, update = [torch.zeros(3)], ema_update(0.99)
    values = torch.randn(40, 3, dtype=torch.float64)
    expected = torch.zeros(3, dtype=torch.float64)
    for n, value in enumerate(values):
        update(average, [value.float()], n)
    decays = torch.tensor([min(0.99, (1 + n) / (10 + n)) for n in range(40)], dtype=torch.float64)
    for n, value in enumerate(values):
        expected += value * (1 - decays[n]) * decays[n + 1 :].prod()
    torch.testing.assert_close(average[0], expected.float(), rtol=1e-5, atol=1e-6)
    assert ema_decay(0.99, 10**6) == 0.99


def test_averaged_once_per_optimizer_step(
    jepa: JEPA, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(jepa, videos, tmp_path / "run")
    config.trainer.accumulate_grad_batches = 3
    seen: list[int] = []
    after = WeightEMA.on_train_batch_end

    def watched(self: WeightEMA, *arguments: object) -> None:
        after(self, *arguments)
        assert self._average_model is not None
        seen.append(int(self._average_model.n_averaged))

    monkeypatch.setattr(WeightEMA, "on_train_batch_end", watched)
    train_decoder(config)
    assert seen == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6]


def test_data_settings_are_the_jepas(tmp_path: Path) -> None:
    run = DecoderTrainConfig(jepa="x", data={"train": "a", "val": "b", "size": [48, 64], "batch_size": 7})
    save_config(run, tmp_path / "config.yaml")
    found = data_settings(str(tmp_path / "best.ckpt"), {"batch_size": 9})
    assert found == DataConfig(train="a", val="b", size=[48, 64], batch_size=9)
    moved = data_settings(str(tmp_path / "best.ckpt"), {"train": "c"})
    assert (moved.train, moved.val, moved.size) == ("c", "", [48, 64])
    with pytest.raises(ConfigError, match=r"data\.batch_siz.*did you mean data\.batch_size"):
        data_settings(str(tmp_path / "best.ckpt"), {"batch_siz": 9})


def test_sizes_and_tasks_are_checked(jepa: JEPA, videos: Path, tmp_path: Path) -> None:
    config = settings(jepa, videos, tmp_path / "run")
    config.data["size"] = [32, 36]
    with pytest.raises(ConfigError, match="width 36"):
        train_decoder(config)
    config = settings(jepa, videos, tmp_path / "run", mix=LatentMixConfig(tasks=["forwards"]))
    with pytest.raises(ConfigError, match=r"mix\.tasks.*'forward'"):
        train_decoder(config)


def test_one_number_is_a_square(source: LatentSource) -> None:
    decoder = build_decoder(DenoiserSize(width=24, depth=1, num_heads=2), source, DataConfig(num_frames=8, size=[32]))
    assert decoder.config.clip.size == [32, 32]


def test_a_batch_is_split_and_drawn_by_seed(decoder: Decoder, source: LatentSource, video: Tensor) -> None:
    def drawn(seed: int, **mix: object) -> tuple[Tensor, int, str]:
        parts = LatentMixConfig(**mix), DecoderOptimConfig(), FlowConfig(), SamplingConfig()  # type: ignore[arg-type]
        return DecoderModule(decoder, source, *parts).draw_latents(video, torch.Generator().manual_seed(seed))

    clean, count, task = drawn(0, p_target=0.67, latent_noise=0.0, tasks=["backward"])
    assert (count, task) == (2, "backward")
    torch.testing.assert_close(clean[:2], decoder.condition.normalise(source.target(video[:2])))
    mask = source.task_mask("backward", video[2:])
    torch.testing.assert_close(clean[2:], decoder.condition.normalise(source.predicted(video[2:], mask)))
    noisy = drawn(0, p_target=0.67, latent_noise=0.5, tasks=["backward"])[0]
    assert (noisy - clean)[:2].abs().max() > 0.01 and torch.equal(noisy[2:], clean[2:])
    assert torch.equal(noisy, drawn(0, p_target=0.67, latent_noise=0.5, tasks=["backward"])[0])
    assert not torch.equal(noisy, drawn(1, p_target=0.67, latent_noise=0.5, tasks=["backward"])[0])
    assert drawn(0, p_target=1.0)[1] == 3 and drawn(0, p_target=0.0)[1] == 0


def test_a_training_that_has_diverged_is_ended() -> None:
    def seen(watch: Falling, score: float, step: int, **more: bool) -> None:
        metrics = {"val/predicted_psnr": torch.tensor(score)}
        trainer = SimpleNamespace(callback_metrics=metrics, global_step=step, default_root_dir="out")
        watch.on_validation_end(SimpleNamespace(**vars(trainer), **{"sanity_checking": False} | more), None)

    watch = Falling("val/predicted_psnr")
    seen(watch, 20.0, 0, sanity_checking=True)
    for step, score in enumerate((14.9, 16.4, 17.5, 14.6, 9.0, 17.1)):  # once may be an accident
        seen(watch, score, 500 * step)
    seen(watch, 12.4, 3000)
    resumed = Falling("val/predicted_psnr")
    resumed.load_state_dict(watch.state_dict())
    for again in (watch, resumed):
        seen(again, 12.0, 3020)  # not for long yet
        for score in (4.8, float("nan")):
            with pytest.raises(DivergedError, match=r"was 17\.5 after step 1000: .* out/best\.ckpt .* lower optim\.lr"):
                seen(again, score, 3500)
