"""What comes from elsewhere is data. Claims:

- a pickle with code in it, put in the place of any file that this project reads, is refused in one sentence and not
  run; a YAML tag that would call something likewise.
- settings that came with a model cannot read the environment; a user's own can.
- of a Hub repository one commit is taken, which is said unless it was asked for; nothing but JSON and safetensors is
  asked for, and what an index names is a safetensors file beside it. (No network: the Hub is a folder here.)
- file names and labels cannot steer a terminal, break a report page or a plot, or stop a report for not being text.
"""

import json
import logging
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from data.cache import FrameCache
from data.check import check_folder, report_table, write_reports
from data.dataset import Skip, list_videos
from data.errors import DataError, printable
from data.module import _listing
from data.worlds import load_truth
from decoder import Decoder
from decoder.charts import Interval, Line, interval_chart, line_chart
from decoder.metric_weights import unpickle_arrays
from decoder.report import templates
from decoder.shards import ShardIndex, Shards
from decoder.stages import Ledger, claim
from decoder.surprise_run import read_pairs
from decoder.train import data_settings
from jepa import JEPA, CheckpointError, ConfigError, EncoderConfig, JEPAConfig, PredictorConfig, from_pretrained
from jepa.config import load_config
from jepa.exchange import ImportConfig, read_foreign
from jepa.probe_run import _stored
from jepa.train import PretrainConfig
from jepa.weights import kind_of, read_checkpoint

TINY = JEPAConfig(EncoderConfig(24, 1, 2, patch_size=8), PredictorConfig(12, 1, 2))


class Trap:
    """A pickle of this makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def torch_zip(trap: Trap, path: Path) -> None:
    torch.save({"kind": "jepa", "config": {}, "state_dict": {"jepa.x": trap}}, path)


def bare(trap: Trap, path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": trap, "path": trap}))


def numpy_array(trap: Trap, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([trap], dtype=object), allow_pickle=True)


def numpy_zip(trap: Trap, path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, positions=np.array([trap], dtype=object))


def yaml_tag(trap: Trap, path: Path) -> None:
    path.write_text(f"out: !!python/object/apply:os.mkdir ['{trap.path}']\n")


def shard_folder(path: Path) -> Shards:
    index = ShardIndex("", "", {}, "", [], 1, [2, 8, 8, 3], [1, 1, 1], 4)
    if path.name == "index.json":
        save_file({"x": torch.zeros(1)}, path.with_name("shard-00000.safetensors"))
    else:
        Shards(path.parent, index)
        (path.parent / "index.json").write_text(json.dumps(index.__dict__))
    return Shards(path.parent, index)


def with_config(path: Path) -> Path:
    """The folder of a model whose weights are at `path`."""
    JEPA(TINY).save_pretrained(path.parent / "model")
    shutil.copy(path.parent / "model" / "config.json", path.parent)
    return path.parent


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a run": ("best.ckpt", JEPA.load),
    "a decoder": ("best.ckpt", Decoder.load),
    "the kind of a run": ("best.ckpt", kind_of),
    "a checkpoint to resume": ("last.ckpt", read_checkpoint),
    "an official file": ("vitl16.pth.tar", lambda path: read_foreign(ImportConfig(str(path), "out"))),
    "shared weights": ("model.safetensors", lambda path: JEPA.load(with_config(path))),
    "shared settings": ("config.json", lambda path: JEPA.load(path.parent)),
    "transformers' settings": ("config.json", lambda path: read_foreign(ImportConfig(str(path.parent), "out"))),
    "features": ("jepa.npy", _stored),
    "the truth of a world": ("truth.npz", load_truth),
    "a shard": ("shard-00000.safetensors", lambda path: shard_folder(path).read(0, "target")),
    "the index of shards": ("index.json", shard_folder),
    "the index of a cache": ("index.json", lambda path: FrameCache(path.parent)),
    "weights of a metric": ("weights.ckpt", lambda path: unpickle_arrays(path.read_bytes(), path)),
    "a table": ("train.csv", list_videos),
    "a table of pairs": ("pairs.csv", read_pairs),
    "a config": ("config.yaml", lambda path: load_config(PretrainConfig, path)),
    "the config of a run": ("config.yaml", lambda path: data_settings(str(path.parent / "best.ckpt"), {})),
    "the times of a job": ("stages.json", Ledger),
    "the plan of a job": ("plan.json", lambda path: claim(path.parent, [])),
}
TRAPS = (torch_zip, bare, numpy_array, numpy_zip, yaml_tag)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("lay", TRAPS, ids=lambda lay: lay.__name__)
def test_no_file_can_run_code(lay: Callable[[Trap, Path], None], reader: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    (tmp_path / "foreign").mkdir()
    path, sprung = tmp_path / "foreign" / name, tmp_path / "sprung"
    lay(Trap(sprung), path)
    if reader == "shared settings":
        save_file({"x": torch.zeros(1)}, path.with_name("model.safetensors"))
    with pytest.raises((CheckpointError, ConfigError, DataError)) as caught:
        read(path)
    said = str(caught.value)
    assert not sprung.exists() and "\n" not in said and "foreign" in said


def test_the_traps_work(tmp_path: Path) -> None:
    for number, lay in enumerate((bare, numpy_array, numpy_zip, torch_zip)):
        path, sprung = tmp_path / f"{number}", tmp_path / f"sprung-{number}"
        lay(Trap(sprung), path)
        if lay is bare:
            pickle.loads(path.read_bytes())
        elif lay is torch_zip:
            torch.load(path, weights_only=False)
        else:
            found = np.load(path, allow_pickle=True)
            _ = found["positions"] if lay is numpy_zip else found
        assert sprung.exists(), lay.__name__


def test_the_switch_of_torch_does_not_open_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch_zip(Trap(tmp_path / "sprung"), tmp_path / "best.ckpt")
    with pytest.raises(CheckpointError, match=r"asks to run posix\.mkdir"):
        JEPA.load(tmp_path / "best.ckpt")
    assert not (tmp_path / "sprung").exists()


def test_what_came_with_a_model_cannot_read_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "hush")
    JEPA(TINY).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text()) | {"target_norm": "${oc.env:A_SECRET}"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=r"config\.json asks for \$\{") as caught:
        JEPA.load(tmp_path)
    assert "hush" not in str(caught.value)
    (tmp_path / "config.yaml").write_text("data: {train: '${oc.env:A_SECRET}'}\n")
    with pytest.raises(ConfigError, match=r"config\.yaml asks for \$\{"):
        data_settings(str(tmp_path), {})
    (tmp_path / "mine.yaml").write_text("out: ${oc.env:A_SECRET}\n")
    assert load_config(PretrainConfig, tmp_path / "mine.yaml").out == "hush"


# ---------------------------------------------------------------------- the Hub

COMMITS = "a" * 40, "b" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """A repository with two commits, of which main moves from the first to the second after one file was taken.

    Returns what is asked for: (file, revision).
    """
    asked: list[tuple[str, str | None]] = []
    for seed, commit in enumerate(COMMITS):
        torch.manual_seed(seed)
        JEPA(TINY).save_pretrained(tmp_path / "snapshots" / commit)
        bare(Trap(tmp_path / "sprung"), tmp_path / "snapshots" / commit / "pytorch_model.bin")

    def download(repo_id: str, filename: str, revision: str | None = None, **_: object) -> str:
        asked.append((filename, revision))
        commit = revision if revision in COMMITS else COMMITS[len(asked) > 1]
        return str(tmp_path / "snapshots" / str(commit) / filename)

    monkeypatch.setattr("jepa.weights.hf_hub_download", download)
    # huggingface_hub asks for a config of its own, which takes part in nothing here.
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", lambda **_: str(tmp_path / "none"))
    (tmp_path / "none").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return asked


def weights_of(jepa: JEPA) -> torch.Tensor:
    return jepa.predictor.predictor_proj.weight


def test_all_files_are_of_one_commit_which_is_said(
    hub: list[tuple[str, str | None]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = from_pretrained("someone/model")
    first, second = (JEPA.load(tmp_path / "snapshots" / commit) for commit in COMMITS)
    assert torch.equal(weights_of(found), weights_of(first)) and not torch.equal(weights_of(found), weights_of(second))
    assert {revision for _, revision in hub[1:]} == {COMMITS[0]}, "main is asked what it is once"
    assert f"someone/model is taken at commit {COMMITS[0]}: give revision={COMMITS[0]}" in caplog.text
    assert {name for name, _ in hub} == {"config.json", "model.safetensors"} and not (tmp_path / "sprung").exists()


def test_a_commit_that_was_asked_for_is_taken(
    hub: list[tuple[str, str | None]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = from_pretrained("someone/model", revision=COMMITS[1])
    assert torch.equal(weights_of(found), weights_of(JEPA.load(tmp_path / "snapshots" / COMMITS[1])))
    assert {revision for _, revision in hub} == {COMMITS[1]} and not caplog.text


def test_an_import_is_pinned_too(hub: list[tuple[str, str | None]], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CheckpointError, match="is a model of this project already"):
        read_foreign(ImportConfig("someone/model", "out", revision="main"))
    assert f"give revision={COMMITS[0]}" in caplog.text and [name for name, _ in hub] == ["config.json"] * 2


@pytest.mark.parametrize("name", ["../other/weights.safetensors", "/etc/passwd", "pytorch_model.bin", 3, None])
def test_an_index_names_files_beside_it(name: object, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vjepa2"}')
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(CheckpointError, match=r"index\.json does not name the safetensors files beside it"):
        read_foreign(ImportConfig(str(tmp_path), "out"))


# ---------------------------------------------------------------------- what people look at

HOSTILE = "\x1b[2J\x1b]0;owned\x07red\u202emp4\n  jepa: all is well\r$\\frac{$<b>"


def test_a_terminal_is_not_steered() -> None:
    said = printable(f"{HOSTILE} is no video\nnor this\n  item")
    assert "\\x1b[2J" in said and "\\u202e" in said and "\\r" in said and "nor this\n  item" in said
    assert all(line.isprintable() for line in said.split("\n")) and printable("ä b – 日本") == "ä b – 日本"
    assert printable("a\nb\udc80") == "a\\nb\\udc80"


def test_hostile_file_names_in_reports(tmp_path: Path) -> None:
    name = "\x1b[2J\x07\nBAD .mp4"
    for each in (name, os.fsdecode(b"\xff.mp4")):
        (tmp_path / each).write_bytes(b"no video")
    reports = check_folder(tmp_path, workers=1, progress=False)
    text = report_table(reports, tmp_path)
    text.encode()
    assert "\x1b" not in text and "\\x1b[2J\\x07\\nBAD .mp4" in text and len(text.splitlines()) == 5
    write_reports(reports, tmp_path / "report.csv")
    write_reports(reports, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())[0]["path"] == str(tmp_path / name)
    assert "\x1b" not in _listing([Skip(name, f"{name} is no video")])


def test_names_in_plots_are_names() -> None:
    hostile = "$\\frac{ <script>alert(1)</script> & $"
    rows = [Interval(hostile, 0.5, 0.4, 0.6)]
    for svg in (interval_chart(rows, hostile), line_chart([Line([(0, 1), (1, 2)], name=hostile)], hostile, hostile)):
        assert "<script" not in svg and "&lt;script&gt;" in svg and "frac{" in svg


def test_every_template_escapes() -> None:
    environment = templates()
    assert environment.autoescape is True
    for name in environment.list_templates(extensions=["j2"]):
        text = Path(environment.get_template(name).filename or "").read_text()
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", text), name
        assert not re.search(r"=\{\{|<script[^>]*>[^<]*\{\{", text), f"{name}: an attribute without quotes, or a script"


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "best.ckpt", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        bomb.writestr("archive/data/0", bytes(50_000_000))
        bomb.writestr("archive/version", "3\n")
    assert (tmp_path / "best.ckpt").stat().st_size < 100_000
    with pytest.raises(CheckpointError, match=r"best\.ckpt"):
        JEPA.load(tmp_path / "best.ckpt")
