"""`jepa surprise`. Claims:

- an arm that knows what is possible judges every pair of the worlds rightly; a constant one exactly half;
- the baselines are judged on the same windows by real predictions: the copy errs where something moves;
- what is not said about clips is as the model was trained; what is said goes first; with neither it asks;
- how windows are batched changes nothing, also for an arm that draws at random; more samples find a nearer one;
- tables without condition and evidence work, and so do videos shorter than a window and tables in any order;
- surprise.json and surprise.csv hold what was printed, beside the checkpoint unless told otherwise;
- a real JEPA can be asked, and the command reads its settings;
- a table that cannot be used is one clear sentence, which names the line.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jepa_commands import parse_command
from torch import Tensor

import decoder.surprise_run as surprise_run
from data.config import DataConfig
from data.errors import DataError
from data.reader import open_video
from data.transforms import ClipTransform
from data.worlds_pairs import PairsConfig, generate_pairs
from data.writer import write_video
from decoder.arms import Arm, CopyArm
from decoder.surprise_run import PixelsOnly, SurpriseConfig, judge_pairs, read_pairs, surprise
from jepa import JEPA, EncoderConfig, JEPAConfig, PredictorConfig
from jepa.config import ConfigError
from jepa.masks import Mask


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of the worlds: vanish and appear, in sight and behind a bar."""
    out = tmp_path_factory.mktemp("pairs")
    return generate_pairs(PairsConfig(out=str(out), pairs=3, size=32, concepts=["vanish", "appear"]), progress=False)


class Oracle(PixelsOnly):
    """Finds whatever begins like a possible video and does not go on like it surprising."""

    def __init__(self, table: Path) -> None:
        super().__init__("oracle", 2, 8)
        paths = [possible.path for possible, _ in read_pairs(table)]
        videos = [ClipTransform(32)(open_video(path).frames(range(32))) for path in paths]
        self.known = torch.stack([coarse(video) for video in videos])  # (K, 32, places)
        self.shapes: list[tuple[int, ...]] = []

    def surprise(self, video: Tensor, mask: Mask, samples: int = 1) -> Tensor:
        self.shapes.append(tuple(video.shape))
        seen, length = 2 * (mask.context_ids.shape[1] // 16), video.shape[2]
        clips = torch.stack([coarse(clip) for clip in video])  # (B, T, places)
        windows = self.known.unfold(1, length, 1).movedim(-1, 2).flatten(0, 1)  # (K * starts, T, places)
        parts = (slice(None, seen), slice(seen, None))
        past, ahead = (torch.cdist(clips[:, s].flatten(1), windows[:, s].flatten(1), p=1) for s in parts)
        return ahead.masked_fill(past > past.amin(1, keepdim=True), torch.inf).amin(1)


def coarse(video: Tensor) -> Tensor:
    """(T, places) of a video (C, T, H, W)."""
    return torch.nn.functional.avg_pool3d(video, (1, 4, 4)).movedim(1, 0).flatten(1)


class Constant(PixelsOnly):
    def surprise(self, video: Tensor, mask: Mask, samples: int = 1) -> Tensor:
        return torch.ones(len(video))


def asked(monkeypatch: pytest.MonkeyPatch, arm: PixelsOnly, config: SurpriseConfig) -> dict:
    def load(path: str, *, jepa: str, steps: int, device: torch.device) -> PixelsOnly:
        arm.steps = steps
        return arm

    monkeypatch.setattr(surprise_run, "load_arm", load)
    return surprise(config)


def settings(table: Path, folder: Path, **more: object) -> SurpriseConfig:
    config = SurpriseConfig(
        checkpoint=str(folder / "best.ckpt"), videos=str(table), num_frames=16, stride=1, size=[32, 32]
    )
    return replace(config, progress=False, device="cpu", **more)  # type: ignore[arg-type]


def test_who_knows_is_always_right_and_who_says_the_same_half(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = asked(monkeypatch, Oracle(table), settings(table, tmp_path))
    assert list(results) == ["oracle", "copy", "extrapolate"]
    for score in ("max", "event"):
        for by_condition in results["oracle"][score].values():
            assert {found.accuracy for found in by_condition.values()} == {1.0}
    assert results["oracle"]["mean"]["all"]["all"].pairs == 12
    copy = results["copy"]["mean"]
    assert copy["appear"]["sight"].accuracy > 0.5 > copy["vanish"]["behind"].accuracy, "it counts what there is to see"
    assert copy["all"]["all"].ties == 0, "real predictions"
    assert (
        copy["vanish + appear"]["behind"].pairs == 3 and results["oracle"]["event"]["vanish + appear"]["all"].pairs == 6
    )
    shown = capsys.readouterr().out
    assert "oracle" in shown and "vanish" in shown and "behind" in shown
    arm = Constant("constant", 2, 8)
    constant = asked(monkeypatch, arm, settings(table, tmp_path, baselines=False, samples=3, steps=5))
    assert (arm.surprise_samples, arm.steps) == (3, 5)
    found = constant["constant"]["mean"]["all"]["all"]
    assert list(constant) == ["constant"] and (found.accuracy, found.ties) == (0.5, 12)


def test_what_is_written_is_what_was_found(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = asked(monkeypatch, Oracle(table), settings(table, tmp_path))
    written = json.loads((tmp_path / "surprise" / "surprise.json").read_text())
    assert written["settings"]["num_frames"] == 16 and written["settings"]["step"] is None
    found = results["copy"]["mean"]["vanish"]["behind"]
    there = written["relative_accuracy"]["copy"]["mean"]["vanish"]["behind"]
    assert there == {"accuracy": found.accuracy, "ci95": list(found.ci95), "pairs": 3, "ties": 0}
    rows = list(csv.DictReader((tmp_path / "surprise" / "surprise.csv").read_text().splitlines()))
    assert len(rows) == 3 * 24
    ours = [row for row in rows if (row["model"], row["concept"], row["condition"]) == ("copy", "vanish", "behind")]
    scores = {(row["pair"], row["possible"]): float(row["mean"]) for row in ours}
    names = {name for name, _ in scores}
    assert len(scores) == 6
    assert np.mean([scores[n, "False"] > scores[n, "True"] for n in names]) == found.accuracy
    asked(monkeypatch, Oracle(table), settings(table, tmp_path, out=str(tmp_path / "there")))
    assert (tmp_path / "there" / "surprise.csv").read_bytes() == (tmp_path / "surprise" / "surprise.csv").read_bytes()


def test_clips_are_as_in_training_unless_told(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text("data: {num_frames: 4, stride: 2, size: [32, 32], train: gone}\n")
    plain = replace(settings(table, tmp_path, baselines=False), num_frames=None, stride=None, size=[])
    oracle = Oracle(table)
    oracle.surprise = lambda video, mask: oracle.shapes.append(tuple(video.shape)) or torch.zeros(len(video))  # type: ignore
    asked(monkeypatch, oracle, plain)
    windows = len(range(0, 26, 4)) + 1  # one every tubelet of 2 x 2 frames, of each of 24 videos
    assert sum(shape[0] for shape in oracle.shapes) == 24 * windows
    assert {shape[1:] for shape in oracle.shapes} == {(3, 4, 32, 32)}
    oracle.shapes.clear()
    asked(monkeypatch, oracle, replace(plain, num_frames=8, stride=1, size=[16, 16], step=8, batch_size=3))
    assert [shape[0] for shape in oracle.shapes[:2]] == [3, 1], "4 windows a video"
    assert oracle.shapes[0][1:] == (3, 8, 16, 16)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"give num_frames, size and stride \(or fps\)"):
        asked(monkeypatch, oracle, plain)


class Guess(PixelsOnly):
    """Draws noise, by its seeds alone."""

    def answer(self, video: Tensor, mask: Mask, seeds: Sequence[int]) -> Tensor:
        return torch.stack([torch.rand(video.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds])


def test_batches_change_nothing_and_samples_do(table: Path, tmp_path: Path) -> None:
    clip, pairs = DataConfig(num_frames=16, stride=1, size=[32, 32]), read_pairs(table)
    arms: list[Arm] = [Guess("guess", 2, 8), CopyArm("copy", PixelsOnly("pixels", 2, 8))]
    of = lambda **more: judge_pairs(arms, pairs, clip, settings(table, tmp_path, **more), torch.device("cpu"))
    whole, single = of(batch_size=64), of(batch_size=5)
    assert whole.keys() == single.keys() == {"guess", "copy"} and len(whole["guess"]) == len(pairs)
    for name in whole:
        assert np.allclose(whole[name], single[name], rtol=1e-5, equal_nan=True)
    arms[0].surprise_samples = 1
    assert np.array(of(batch_size=64)["guess"])[..., 0].mean() > np.array(whole["guess"])[..., 0].mean()


def two_videos(folder: Path, frames: tuple[int, int] = (12, 12)) -> Path:
    """A table without condition and evidence, as other people's are: one pair, the impossible video first."""
    rng = np.random.default_rng(0)
    for name, count in zip("ab", frames, strict=True):
        write_video(folder / f"{name}.mp4", rng.integers(0, 255, (count, 48, 64, 3), np.uint8), fps=10)
    (folder / "labels.csv").write_text("path,pair,possible,concept,frames\nb.mp4,p,False,c,12\na.mp4,p,True,c,12\n")
    return folder / "labels.csv"


def test_other_tables_and_short_videos_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = two_videos(tmp_path, (12, 20))
    possible, impossible = read_pairs(labels)[0]
    assert (possible.path.name, impossible.path.name, possible.condition) == ("a.mp4", "b.mp4", "any")
    results = asked(monkeypatch, Constant("constant", 2, 8), settings(labels, tmp_path))
    assert results["copy"]["mean"]["c"]["any"].pairs == 1 and results["copy"]["event"]["c"]["any"] is None


def test_a_real_jepa_can_be_asked(table: Path, tmp_path: Path) -> None:
    encoder = EncoderConfig(embed_dim=24, depth=1, num_heads=2, patch_size=8)
    JEPA(JEPAConfig(encoder, PredictorConfig(embed_dim=12, depth=1, num_heads=2))).save_pretrained(tmp_path / "model")
    config = replace(settings(table, tmp_path), checkpoint=str(tmp_path / "model"), score="event")
    found = surprise(config)["jepa"]["event"]["all"]["all"]
    assert found is not None and found.pairs == 12 and found.ties == 0


def test_the_command_reads_its_settings() -> None:
    name, config = parse_command("jepa surprise checkpoint=a.ckpt videos=pairs.csv score=max context=2")
    assert name == "surprise" and (config.checkpoint, config.score, config.context) == ("a.ckpt", "max", 2)
    name, config = parse_command("jepa pairs configs/worlds/pairs_tiny.yaml out=there")
    assert name == "pairs" and (config.out, config.pairs, config.size) == ("there", 50, 64)
    assert parse_command("jepa pairs configs/worlds/pairs_small.yaml")[1].pairs == 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,pair,possible\na.mp4,p,True\n", "has no column concept"),
        ("", "has no column path, pair, possible, concept"),
        ("path,pair,possible,concept\na.mp4,p,maybe,c\n", "line 2: possible is 'maybe'; write True or False"),
        ("path,pair,possible,concept\na.mp4,p,True,c\n", "pair 'p' has no impossible video"),
        ("path,pair,possible,concept\na.mp4,p,True,c\nb.mp4,p,1,c\n", "line 3: pair 'p' has two possible videos"),
        ("path,pair,possible,concept\na.mp4,p,True,c\nz.mp4,p,False,c\n", "line 3: .*z.mp4 does not exist"),
        ("path,pair,possible,concept\na.mp4,p,True\n", "line 2: it has fewer fields"),
        ("path,pair,possible,concept,evidence\na.mp4,p,True,c,soon\n", "line 2: evidence is 'soon'"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path: Path, text: str, words: str) -> None:
    labels = two_videos(tmp_path)
    labels.write_text(text)
    with pytest.raises(DataError, match=words):
        read_pairs(labels)


def test_what_is_no_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist: give the table of pairs"):
        read_pairs(tmp_path / "none.csv")
    two_videos(tmp_path)
    with pytest.raises(DataError, match="is not a text table"):
        read_pairs(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"score": "median"}, "score"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"samples": 0}, "samples is 0"),
        ({"context": 8}, "context is 8"),
    ],
)
def test_settings_that_cannot_be_are_named(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        asked(monkeypatch, Constant("constant", 2, 8), settings(table, tmp_path, **more))


def test_the_real_pairs_beside_the_checkout(shared: Path, tmp_path: Path) -> None:
    pairs = read_pairs(shared / "voe_mcs" / "labels.csv")
    assert len(pairs) == 8 and all(possible.possible and not impossible.possible for possible, impossible in pairs)
