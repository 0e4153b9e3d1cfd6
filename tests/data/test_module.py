"""Claims:
1. What is trained on at batch p is the same with 0, 1 and 2 workers, and a stream started at p continues the
   uninterrupted one.
2. Resuming a Lightning run, with gradient accumulation, meets exactly the batches it would have met.
3. An epoch shows every video once, epochs differ, and ranks share the stream without overlap.
4. A mixture draws its parts by weight, whatever their size.
5. Files skipped in worker processes reach the main process, once each; above max_bad_fraction a DataError lists
   them; below it they are listed at the end. An error says all that it said where it was raised, and no more.
6. Validation is finite, complete over ranks, apart from training, and shares its class names; its order never changes,
   and its first batches hold every class, although the files are listed class by class.
7. The injected collate gets the samples and its additions arrive; the package itself imports no model.
8. A worker process that dies is a DataError that says what to do.
9. With the cache the same clips come out; a cache with bad files drops and counts them. Making it shows a bar, unless
   none is wanted.
10. Settings that cannot be meant are a DataError that names the key; the dataclass merges with OmegaConf.
"""

import logging
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from discs import moving_disc
from omegaconf import OmegaConf
from torch.utils.data import default_collate

from data.config import DataConfig, SourceConfig
from data.errors import DataError
from data.module import ClipDataModule
from data.stream import ClipStream
from data.writer import write_video


def config(folder: Path, **settings: Any) -> DataConfig:
    base = DataConfig(train=str(folder), num_frames=4, size=[16, 16], batch_size=4, workers=0, val_fraction=0.0)
    return replace(base, **settings)


def take(module: ClipDataModule, count: int) -> list[dict[str, Any]]:
    loader = iter(module.train_dataloader())
    return [next(loader) for _ in range(count)]


def same(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> bool:
    return len(one) == len(two) and all(
        torch.equal(a[key], b[key])
        for a, b in zip(one, two, strict=True)
        for key in ("video", "index", "seed", "label")
    )


def test_workers_change_nothing(folder: Path) -> None:
    batches = take(ClipDataModule(config(folder, labels="folder")), 6)
    assert batches[0]["video"].shape == (4, 3, 4, 16, 16) and batches[0]["label"].dtype == torch.int64
    for workers in (1, 2):
        assert same(batches, take(ClipDataModule(config(folder, labels="folder", workers=workers)), 6))
    assert same(batches[4:], take(ClipDataModule(config(folder, labels="folder", workers=2), start=4), 2))
    assert not same(batches, take(ClipDataModule(config(folder, labels="folder", seed=1)), 6))


class Recorder(pl.LightningModule):
    """Remembers the seeds of the batches it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        self.seen.append(batch["seed"].tolist())
        return self.weight * batch["video"].mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(module: ClipDataModule, steps: int, resume: str | None = None) -> tuple[Recorder, pl.Trainer]:
    trainer = pl.Trainer(
        max_steps=steps, accumulate_grad_batches=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    model = Recorder()
    trainer.fit(model, module, ckpt_path=resume)
    return model, trainer


def test_resuming_meets_the_same_batches(folder: Path, tmp_path: Path) -> None:
    whole, _ = fit(ClipDataModule(config(folder)), 6)
    first, trainer = fit(ClipDataModule(config(folder)), 4)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    second, _ = fit(ClipDataModule(config(folder, workers=1)), 6, str(tmp_path / "half.ckpt"))
    assert len(whole.seen) == 12 and len(second.seen) == 4
    assert first.seen + second.seen == whole.seen


def test_an_epoch_shows_everything_once_and_ranks_share_it() -> None:
    stream = ClipStream(10, 5, seed=3)
    epochs = [[index for step in (2 * e, 2 * e + 1) for index, _ in stream.batch(step)] for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs) and epochs[0] != epochs[1] != epochs[2]
    ranks = [ClipStream(10, 5, seed=3, rank=rank, world_size=2) for rank in range(2)]
    assert ranks[0].batch(1) + ranks[1].batch(1) == stream.batch(2) + stream.batch(3)
    seeds = [seed for step in range(400) for _, seed in stream.batch(step)]
    assert len(set(seeds)) == 2000 and min(seeds) >= 0 and max(seeds) < 2**63


def test_a_mixture_draws_by_weight(folder: Path) -> None:
    parts = [SourceConfig(str(folder / "left"), 3.0), SourceConfig(str(folder / "right" / "01.mp4"), 1.0)]
    module = ClipDataModule(config(folder, train="", mixture=parts, batch_size=50))
    module.setup()
    assert module.train_set is not None and len(module.train_set) == 7
    stream = ClipStream(7, 50, groups=module._groups)
    drawn = np.bincount([index for step in range(80) for index, _ in stream.batch(step)], minlength=7) / 4000
    assert drawn[6] == pytest.approx(0.25, abs=0.03) and np.abs(drawn[:6] - 0.125).max() < 0.02
    held = ClipDataModule(config(folder, train="", mixture=parts, val_fraction=0.3))
    held.setup()
    assert held.train_set is not None and held._groups is not None
    assert sum(len(rows) for rows, _ in held._groups) == len(held.train_set) == 5


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """9 good videos and one bad."""
    for i in range(9):
        write_video(tmp_path / f"{i}.mp4", moving_disc(i, 6, 16, 16), fps=8)
    (tmp_path / "bad.mp4").write_text("no video")
    return tmp_path


def test_bad_files_are_counted_across_workers(spoilt: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = ClipDataModule(config(spoilt, workers=2, max_bad_fraction=0.1))
    batches = take(module, 10)
    assert all("skipped" not in batch and len(batch["index"]) == 4 for batch in batches)
    assert [Path(path).name for path in module.skipped] == ["bad.mp4"]
    with caplog.at_level(logging.WARNING):
        module.teardown()
    assert "1 video files were skipped" in caplog.text and "bad.mp4" in caplog.text
    for workers in (0, 2):
        with pytest.raises(
            DataError, match=r"1 of 10 video files cannot be read.*max_bad_fraction=0\.05(.|\n)*bad\.mp4"
        ):
            take(ClipDataModule(config(spoilt, workers=workers)), 10)


def test_a_folder_of_short_videos_stops_with_one_reason_per_file(spoilt: Path) -> None:
    module = ClipDataModule(config(spoilt, workers=1, num_frames=16))
    with pytest.raises(DataError, match=r"no clip could be read.*(.|\n)*has 6 frames and a clip needs 16") as caught:
        take(module, 1)
    assert "Traceback" not in str(caught.value)


def fails(samples: list[dict[str, Any]]) -> dict[str, Any]:
    raise DataError("clip.mp4: EOFError: end of file")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_keeps_all_its_words(folder: Path, workers: int) -> None:
    with pytest.raises(DataError) as caught:
        take(ClipDataModule(config(folder, workers=workers), collate=fails), 1)
    assert str(caught.value) == "clip.mp4: EOFError: end of file"


def test_validation_is_finite_ordered_and_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ClipDataModule(config(folder, labels="folder", val_fraction=0.25, clips_per_video=2))
    indices = [batch["index"].tolist() for batch in module.val_dataloader()]
    order = [i for batch in indices for i in batch]
    assert [len(batch) for batch in indices] == [4, 2] and sorted(order) == list(range(6))
    assert module.train_set is not None and module.val_set is not None
    assert not set(module.train_set.videos.paths) & set(module.val_set.videos.paths)
    assert same(list(module.val_dataloader()), list(module.val_dataloader()))
    shares = []
    for rank in range(4):
        monkeypatch.setattr(ClipDataModule, "_rank", lambda self, rank=rank: (rank, 4))
        shares.append([i for batch in module.val_dataloader() for i in batch["index"].tolist()])
    assert shares == [order[rank::4] for rank in range(4)]
    monkeypatch.undo()
    (folder / "some.csv").write_text("path,label\nright/01.mp4,right\n")
    apart = ClipDataModule(config(folder / "videos.csv", val=str(folder / "some.csv")))
    assert apart.classes == ["left", "right"]
    assert next(iter(apart.val_dataloader()))["label"].tolist() == [1]
    assert ClipDataModule(config(folder)).val_dataloader() == []


def test_a_part_of_validation_is_a_fair_sample(folder: Path) -> None:
    module = ClipDataModule(config(folder, labels="folder", val=str(folder)))
    first = next(iter(module.val_dataloader()))["label"].tolist()
    assert module.val_set is not None and module.val_set.videos.labels == [0] * 6 + [1] * 6
    assert set(first) == {0, 1}


def with_masks(samples: list[dict[str, Any]]) -> dict[str, Any]:
    return default_collate(samples) | {"masks": [sample["seed"] % 7 for sample in samples]}


def test_the_injected_collate_makes_the_batch(folder: Path) -> None:
    batch = take(ClipDataModule(config(folder, workers=1), collate=with_masks), 1)[0]
    assert batch["masks"] == [seed % 7 for seed in batch["seed"].tolist()]
    for file in (Path(__file__).parents[2] / "data").glob("*.py"):
        assert not any(
            word in file.read_text() for word in ("import jepa", "from jepa", "import decoder", "from decoder")
        )


def dies(samples: list[dict[str, Any]]) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def test_a_worker_that_dies_is_said_in_a_sentence(folder: Path) -> None:
    with pytest.raises(DataError, match=r"process that reads videos died.*check-data"):
        take(ClipDataModule(config(folder, workers=1), collate=dies), 1)


def test_the_cache_changes_nothing(folder: Path, tmp_path: Path) -> None:
    plain = ClipDataModule(config(folder, val_fraction=0.25))
    cached = ClipDataModule(config(folder, val_fraction=0.25, scale=[1.0, 1.0], cache=True, cache_dir=str(tmp_path)))
    plain.config.scale = [1.0, 1.0]
    assert same(take(plain, 5), take(cached, 5))
    assert same(list(plain.val_dataloader()), list(cached.val_dataloader()))
    assert len(list(tmp_path.iterdir())) == 1  # one cache for the training and the held-out part


@pytest.mark.parametrize("progress", [True, False])
def test_making_a_cache_shows_a_bar_where_one_is_wanted(
    progress: bool, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ClipDataModule(config(folder, cache=True, cache_dir=str(tmp_path)), progress=progress).setup()
    assert list(tmp_path.iterdir()) and ("decoding videos once" in capfd.readouterr().err) is progress


def test_a_cache_drops_bad_files_and_counts_them(spoilt: Path) -> None:
    module = ClipDataModule(config(spoilt, cache=True, max_bad_fraction=0.1))
    take(module, 3)
    assert module.train_set is not None and len(module.train_set) == 9 and len(module.skipped) == 1
    assert (spoilt / ".cache").is_dir()
    with pytest.raises(DataError, match="1 of 10"):
        ClipDataModule(config(spoilt, cache=True)).setup()
    for path in spoilt.glob("?.mp4"):
        path.write_text("no video")
    with pytest.raises(DataError, match=r"none of 10 video files can be read(.|\n)*bad\.mp4"):
        ClipDataModule(config(spoilt, cache=True)).setup()


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"train": ""}, "data.train"),
        ({"mixture": [SourceConfig("x")]}, "data.mixture"),
        ({"train": "", "mixture": [SourceConfig("x", 0.0)]}, "data.mixture"),
        ({"short": "cut"}, "data.short"),
        ({"backend": "opencv"}, "data.backend"),
        ({"batch_size": 0}, "data.batch_size"),
        ({"num_frames": 0}, "data.num_frames"),
        ({"stride": 0}, "data.stride"),
        ({"fps": 0.0}, "data.fps"),
        ({"size": [0]}, "data.size"),
        ({"scale": [0.0, 1.0]}, "data.scale"),
        ({"ratio": [1.0]}, "data.ratio"),
        ({"val_fraction": 1.0}, "data.val_fraction"),
        ({"max_bad_fraction": 2.0}, "data.max_bad_fraction"),
        ({"labels": "csv"}, "data.labels"),
        ({"clips_per_video": 0}, "data.clips_per_video"),
    ],
)
def test_settings_that_cannot_be_meant(folder: Path, settings: dict[str, Any], key: str) -> None:
    with pytest.raises(DataError, match=key.replace(".", r"\.")):
        ClipDataModule(config(folder, **settings))


def test_the_config_merges_with_omegaconf() -> None:
    given = OmegaConf.create({"train": "x", "size": [32, 48], "fps": 4, "mixture": [{"path": "a", "weight": 2}]})
    merged = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), given))
    assert isinstance(merged, DataConfig) and merged.fps == 4.0 and merged.mixture == [SourceConfig("a", 2.0)]


def test_the_position_follows_the_trainer(folder: Path) -> None:
    module = ClipDataModule(config(folder))
    module.trainer = SimpleNamespace(global_step=5, accumulate_grad_batches=3, global_rank=0, world_size=1)  # type: ignore[assignment]
    expected = [seed for _, seed in ClipStream(12, 4).batch(15)]
    assert take(module, 1)[0]["seed"].tolist() == expected
