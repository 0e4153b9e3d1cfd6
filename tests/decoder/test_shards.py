"""Claims:

1. A clip is stored exactly, as bytes; its latents read back equal to what the JEPA says, to float16, for whole clips
   and for everything that the mix of tasks can draw.
2. Training on shards runs no encoder, neither for its steps nor for the statistics; a second run computes nothing.
3. A step on stored latents is the step of the live encoder, to float16, with the same draws.
4. A build that is killed leaves whole shards and goes on with what is missing; several processes share one.
5. Shards of another JEPA, predictor, data or mix are refused, naming what differs; what does not change them may be
   other.
6. A damaged shard is named, and so is a disk that is too small; nothing is left then. The size is told beforehand.
7. A run on shards that is interrupted and resumed ends with the weights of the uninterrupted one.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import squares
from torch import Tensor
from torch.utils.data import default_collate

import decoder.shards
from data import write_video
from data.module import ClipDataModule, ClipStream
from data.transforms import ClipTransform
from decoder import Decoder, DenoiserSize, FlowConfig, LatentSource, measure_latents
from decoder.module import DecoderModule, DecoderOptimConfig, LatentMixConfig, SamplingConfig
from decoder.shards import TARGET, VIDEO, Shards, task_name
from decoder.train import DecoderTrainConfig, ShardData, data_settings, train_decoder
from jepa import JEPA, ConfigError
from jepa.errors import CheckpointError
from jepa.training import TrainerConfig

CLIPS, BATCH, PER_SHARD = 14, 4, 6  # three shards, of two batches each, none of them whole
MIX = LatentMixConfig(tasks=["forward", "forward", "animate", "backward"], contexts=[1, 2])
NAMES = ["forward-1", "forward-2", "animate", "backward-1", "backward-2"]
CLIP_BYTES = 8 * 32 * 32 * 3 + 2 * (4 * 4 * 4) * 24 * (1 + len(NAMES))


@pytest.fixture
def settings(jepa: JEPA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DecoderTrainConfig]:
    for i, frames in enumerate(squares(10)):
        write_video(tmp_path / "videos" / f"{i}.mp4", frames, fps=8)
    jepa.save_pretrained(tmp_path / "jepa")
    monkeypatch.setattr(decoder.shards, "SHARD_BYTES", PER_SHARD * CLIP_BYTES)

    def make(out: str = "run", **changes: object) -> DecoderTrainConfig:
        data = {"train": str(tmp_path / "videos"), "num_frames": 8, "size": [32, 32], "batch_size": BATCH, "workers": 0}
        trainer = TrainerConfig(6, "cpu", val_every=3, val_batches=1, log_every=1, progress=False, precision="32-true")
        config = DecoderTrainConfig(
            jepa=str(tmp_path / "jepa"),
            out=str(tmp_path / out),
            data=data,
            latent_clips=8,
            model=DenoiserSize(width=24, depth=1, num_heads=2),
            mix=MIX,
            optim=DecoderOptimConfig(warmup_steps=2),
            sampling=SamplingConfig(steps=1, show=1),
            trainer=trainer,
            shards=str(tmp_path / "shards"),
            shard_clips=CLIPS,
        )
        return replace(config, **changes)

    return make


CPU = SimpleNamespace(
    strategy=SimpleNamespace(root_device=torch.device("cpu")),
    precision_plugin=SimpleNamespace(forward_context=torch.no_grad),
    global_rank=0,
    world_size=1,
    is_global_zero=True,
)


def opened(config: DecoderTrainConfig, source: LatentSource) -> ShardData:
    return ShardData(data_settings(config.jepa, config.data), config, source)


def filled(config: DecoderTrainConfig, source: LatentSource) -> Shards:
    data = opened(config, source)
    data.fill(CPU)  # type: ignore[arg-type]
    return data.shards


def live_clips(config: DecoderTrainConfig) -> Tensor:
    """The first clips of the training stream, as training without shards meets them."""
    batches = ClipDataModule(data_settings(config.jepa, config.data)).train_dataloader()
    return torch.cat([batch["video"] for batch, _ in zip(batches, range(4), strict=False)])[:CLIPS]


def close(stored: Tensor, live: Tensor) -> None:
    assert stored.dtype == torch.float16
    torch.testing.assert_close(stored.float(), live, rtol=1e-3, atol=1e-3)


def test_bytes_undo_normalising_exactly() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(6).view(2, 4, 8, 8, 3)
    transform = ClipTransform(8)
    video = transform.finish(pixels, np.zeros(2))
    assert torch.equal(transform.to_bytes(video), pixels)
    assert torch.equal(transform.finish(transform.to_bytes(video), np.zeros(2)), video)


def test_what_is_stored_is_what_the_jepa_says(
    settings: Callable[..., DecoderTrainConfig], source: LatentSource, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings()
    shards, video = filled(config, source), live_clips(config)
    assert f"{CLIPS} clips of 0.043 MB" in capsys.readouterr().out and shards.index.clip_bytes == CLIP_BYTES
    assert shards.index.tasks == NAMES and [len(rows) for rows in shards.rows] == [6, 6, 2]
    read = lambda name: torch.stack([shards.read(clip, name) for clip in range(CLIPS)])
    assert torch.equal(ClipTransform(32).finish(read(VIDEO), np.zeros(CLIPS)), video)
    close(read(TARGET), source.target(video))
    for task, context in MIX.drawable():
        close(read(task_name(task, context)), source.predicted(video, source.task_mask(task, video, context)))
    stats = measure_latents(source, [video], 8)
    torch.testing.assert_close(shards.statistics(8).std, stats.std, rtol=1e-3, atol=1e-4)
    assert sum(file.stat().st_size for file in shards.folder.glob("*.safetensors")) < CLIPS * CLIP_BYTES * 1.1


def test_the_draws_are_those_that_are_stored() -> None:
    draw = torch.Generator().manual_seed(0)
    assert {MIX.draw(draw) for _ in range(200)} == set(MIX.drawable())
    assert replace(MIX, contexts=[]).drawable() == [("forward", None), ("animate", None), ("backward", None)]


def test_training_runs_no_encoder(settings: Callable[..., DecoderTrainConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    train_decoder(settings("first"))
    asked: list[int] = []
    target, step = LatentSource.target, DecoderModule.training_step
    monkeypatch.setattr(LatentSource, "target", lambda self, video: (asked.append(len(video)), target(self, video))[1])

    def blind(self: DecoderModule, batch: dict, batch_idx: int) -> Tensor:
        with monkeypatch.context() as patch:
            patch.setattr(JEPA, "encode", lambda *_: pytest.fail("the encoder ran in a training step"))
            patch.setattr(JEPA, "predict", lambda *_: pytest.fail("the predictor ran in a training step"))
            return step(self, batch, batch_idx)

    monkeypatch.setattr(DecoderModule, "training_step", blind)
    first, second = Decoder.load(settings("first").out + "/decoder"), Decoder.load(train_decoder(settings("second")))
    assert asked == [1, 1], "two validations of the one clip held out, and nothing else"
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())
    assert second.condition.std.ne(1).all()


def test_a_step_is_that_of_the_live_encoder(
    settings: Callable[..., DecoderTrainConfig], decoder: Decoder, source: LatentSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings()
    data = opened(config, source)
    data.fill(CPU)  # type: ignore[arg-type]
    decoder.set_statistics(measure_latents(source, [live_clips(config)], CLIPS))
    mix = replace(MIX, condition_dropout=0.3)
    module = DecoderModule(decoder, source, mix, DecoderOptimConfig(), FlowConfig(), SamplingConfig())
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    tasks, video = set(), live_clips(config)
    for step in range(6):
        keys = ClipStream(CLIPS, BATCH).batch(step)
        batch = default_collate(data.clips.__getitems__(keys))
        assert batch["latents"].shape == (BATCH, 64, 24) and batch["seed"].tolist() == [seed for _, seed in keys]
        live = {"video": video[[clip for clip, _ in keys]], "seed": batch["seed"]}
        seeded = lambda seed=keys[0][1]: torch.Generator().manual_seed(seed)
        ours, targets, task = module.draw_latents(batch["video"], seeded(), batch["latents"])
        theirs = module.draw_latents(live["video"], seeded())
        assert (targets, task) == theirs[1:] == (2, mix.draw(seeded())[0])
        torch.testing.assert_close(ours, theirs[0], rtol=2e-3, atol=5e-3)  # in units of their spread
        torch.testing.assert_close(module.training_step(batch, 0), module.training_step(live, 0), rtol=2e-4, atol=0)
        tasks.add(task)
    assert len(tasks) >= 2


def test_a_killed_build_goes_on(
    settings: Callable[..., DecoderTrainConfig],
    source: LatentSource,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = settings()
    whole = filled(replace(config, shards=config.shards + "-whole"), source)
    target, seen = LatentSource.target, []

    def killed(self: LatentSource, video: Tensor) -> Tensor:
        seen.append(len(video))
        if sum(seen) > 10:
            raise KeyboardInterrupt
        return target(self, video)

    monkeypatch.setattr(LatentSource, "target", killed)
    with pytest.raises(KeyboardInterrupt):
        filled(config, source)
    names = lambda: sorted(file.name for file in Path(config.shards).iterdir())
    assert names() == ["index.json", "shard-00000.safetensors"]
    monkeypatch.setattr(LatentSource, "target", lambda self, video: (seen.append(len(video)), target(self, video))[1])
    seen.clear()
    shards = filled(config, source)
    assert seen == [4, 2, 2] and "shards: 8 clips of" in capsys.readouterr().out, "eight clips were missing"
    both = [(shards.read(clip, name), whole.read(clip, name)) for clip in range(CLIPS) for name in (VIDEO, *NAMES)]
    assert len(names()) == 4 and all(torch.equal(ours, theirs) for ours, theirs in both)
    shards.file(0).unlink(), shards.file(2).unlink()
    seen.clear()
    data = opened(config, source)
    data.fill(SimpleNamespace(**vars(CPU) | {"global_rank": 1, "world_size": 2}))  # type: ignore[arg-type]
    assert seen == [2, 4, 2], "the second of two processes begins with the second of two missing shards"
    assert all(torch.equal(shards.read(clip, TARGET), whole.read(clip, TARGET)) for clip in range(CLIPS))


def test_other_shards_are_refused(
    settings: Callable[..., DecoderTrainConfig], source: LatentSource, tmp_path: Path
) -> None:
    config = settings()
    filled(config, source)
    jepa = JEPA(source.jepa.config)
    with pytest.raises(ConfigError, match=r"shards of something else \(jepa was '\w{16}' and is '\w{16}'; predictor"):
        opened(config, LatentSource(jepa))
    jepa.target_encoder = source.jepa.target_encoder  # as two JEPAs with one frozen teacher
    with pytest.raises(ConfigError, match=r"else \(predictor was '\w{16}' and is '\w{16}'\)"):
        opened(config, LatentSource(jepa))
    with pytest.raises(ConfigError, match=r"\(data\.flip was True and is False\)"):
        opened(replace(config, data=config.data | {"flip": False}), source)
    with pytest.raises(ConfigError, match=r"\(tasks was .*'animate'.* and is \['loop'\]; clips was 14 and is 15\)"):
        opened(replace(config, mix=replace(MIX, tasks=["loop"]), shard_clips=15), source)
    opened(replace(config, data=config.data | {"workers": 1, "batch_size": 2}, mix=replace(MIX, p_target=0.1)), source)
    write_video(tmp_path / "videos" / "more.mp4", squares(1)[0], fps=8)
    with pytest.raises(ConfigError, match=r"\(videos was '\w{16}' and is '\w{16}'\)"):
        opened(config, source)
    with pytest.raises(ConfigError, match="shard_clips is 0"):
        opened(replace(config, shard_clips=0), source)


def test_what_is_broken_is_named(
    settings: Callable[..., DecoderTrainConfig], source: LatentSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings()
    monkeypatch.setattr(decoder.shards.shutil, "disk_usage", lambda _: SimpleNamespace(free=CLIPS * CLIP_BYTES - 1))
    with pytest.raises(ConfigError, match=r"no room for 14 clips of 0\.043 MB in .*shards, 0\.000602 GB.*shard_clips"):
        filled(config, source)
    assert not list(Path(config.shards).iterdir())
    monkeypatch.undo()
    monkeypatch.setattr(decoder.shards, "SHARD_BYTES", PER_SHARD * CLIP_BYTES)
    shards = filled(config, source)
    file = shards.file(1)
    content = file.read_bytes()
    for damaged in (content[:-1], b"", content[:1] + b"\xff" * 20 + content[21:]):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"shard-00001\.safetensors is damaged .*: delete it"):
            filled(config, source)
    file.write_bytes(shards.file(2).read_bytes())
    with pytest.raises(CheckpointError, match=r"shard-00001\.safetensors is damaged \(it holds .*: delete it"):
        filled(config, source)
    file.unlink()
    filled(config, source)
    assert file.read_bytes() == content
    (shards.folder / "index.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"index\.json is not JSON"):
        filled(config, source)
    monkeypatch.setattr(LatentSource, "target", lambda *_: torch.full((4, 64, 24), 1e6))
    with pytest.raises(ConfigError, match="target latents of this JEPA go beyond float16"):
        filled(replace(config, shards=config.shards + "-wild"), source)


def test_resumed_equals_uninterrupted(
    settings: Callable[..., DecoderTrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = Decoder.load(train_decoder(settings("straight")))
    step = DecoderModule.training_step

    def interrupted(self: DecoderModule, batch: dict, batch_idx: int) -> Tensor:
        if self.global_step == 4:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    monkeypatch.setattr(DecoderModule, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_decoder(settings("broken"))
    monkeypatch.setattr(DecoderModule, "training_step", step)
    config = settings("broken", resume=True)
    config.data["workers"] = 1  # a worker reads what the main process read
    resumed = Decoder.load(train_decoder(config)).state_dict()
    assert all(torch.equal(value, resumed[key]) for key, value in straight.state_dict().items())
    with pytest.raises(ConfigError, match=r"shards was '.*shards' and is ''"):
        train_decoder(replace(config, shards=""))
