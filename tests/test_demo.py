"""Claims, on one demo of a very small budget that is interrupted while its decoder trains:

1. It ends with a report and the figures that it promises; run again after an interruption, it keeps what was finished,
   resumes what was not, and says what it did; run once more, it does nothing again.
2. The videos on the page are real mp4 files of as many frames as the page says, a column for each picture.
3. The probe learns from train and is scored on test, and pretraining sees neither test nor its labels' table.
4. Each command on the page asks for exactly what the demo ran, and the commands to go on with can be read.
5. Other settings in the same folder are refused by name, and so are settings that cannot be meant.
"""

import json
import re
import shlex
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import open_video
from data.worlds import WorldConfig
from decoder.demo import DemoConfig, demo, go_on, plan
from decoder.look import one_of_each
from decoder.module import DecoderModule
from decoder.render import RenderConfig
from decoder.train import DecoderTrainConfig
from jepa import ConfigError, load_config
from jepa.probe_run import ProbeConfig
from jepa.train import PretrainConfig

ROOT = Path(__file__).parents[1]
SCHEMAS = {"worlds": WorldConfig, "pretrain": PretrainConfig, "probe": ProbeConfig,
           "train-decoder": DecoderTrainConfig, "render": RenderConfig}  # fmt: skip


def settings(out: Path, **changes: Any) -> DemoConfig:
    config = load_config(DemoConfig, ROOT / "configs" / "demo.yaml")
    config.out, config.budget, config.workers, config.progress = str(out), 0.001, 0, False
    config.tasks, config.clips, config.samples = ["forward", "animate", "infill"], 8, 2
    for stage in ("worlds", "pretrain", "probe", "decoder"):
        setattr(config, stage, str(ROOT / getattr(config, stage)))
    for key, value in changes.items():
        setattr(config, key, value)
    return config


class Run:
    """One demo, interrupted once: its folder, and what it printed when it was started again and once more."""

    def __init__(self, out: Path, capture: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        self.out = out
        with patch.context() as broken, pytest.raises(KeyboardInterrupt):
            broken.setattr(DecoderModule, "training_step", interrupted)
            demo(settings(out))
        assert not (out / "report.html").exists()
        self.kept = {path: path.stat().st_mtime_ns for path in (out / "pretrain").glob("*.ckpt")}
        capture.readouterr()
        self.report = demo(settings(out))
        self.printed = capture.readouterr().out
        self.page = self.report.read_text()
        self.metrics = json.loads((out / "metrics.json").read_text())
        demo(settings(out))
        self.again = capture.readouterr().out


_run: list[Run] = []


@pytest.fixture
def run(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    if not _run:
        _run.append(Run(tmp_path_factory.mktemp("demo"), capsys, monkeypatch))
    return _run[0]


def test_it_goes_on_where_it_was_interrupted(run: Run) -> None:
    assert run.report == run.out / "report.html" and run.printed.rstrip().endswith(f"report: {run.report}")
    assert run.printed.count("done before") == 3 and run.again.count("done before") == 6
    assert run.kept and all(path.stat().st_mtime_ns == before for path, before in run.kept.items())
    once = dict.fromkeys(("worlds", "pretrain", "probe", "measure", "pictures"), 1)
    assert run.metrics["starts"] == once | {"decoder": 2}
    last = json.loads((run.out / "metrics.json").read_text())
    for stage in run.metrics["starts"]:
        assert last["seconds"][stage] == run.metrics["seconds"][stage] > 0


def test_the_figures_it_promises(run: Run) -> None:
    m = run.metrics
    for task in ("motion", "appearance"):
        for representation in ("jepa", "random", "pixels"):
            result = m["probe"][task][representation]
            assert 0 <= result["ci95"][0] <= result["accuracy"] <= result["ci95"][1] <= 1
    labels = [line.split(",")[1] for line in (run.out / "worlds" / "test.csv").read_text().splitlines()[1:]]
    assert m["probe"]["motion"]["jepa"]["clips"] == m["world"]["test"] == len(labels) >= len(set(labels)) == 8
    assert m["probe"]["motion"]["chance"] == max(map(labels.count, labels)) / len(labels)
    assert m["seconds"]["total"] == pytest.approx(sum(v for k, v in m["seconds"].items() if k != "total"))
    assert 0 <= m["data_wait_fraction"] <= 1 and 0 <= m["data_wait_fraction_decoder"] <= 1
    assert all(np.isfinite(m["skill"][f"vs_{baseline}"]) for baseline in ("copy", "mean"))
    assert m["health"]["verdict"] and m["health"]["sentence"]
    assert m["decode"]["clips"] == 8
    assert all(m["decode"][f"{row}_psnr"] > 0 for row in ("target", "predicted", "mean", "copy"))
    assert m["pretrain"]["steps"] == m["decoder"]["steps"] == 3
    assert {"device", "cores", "threads", "precision", "torch"} <= set(m["environment"])


def test_the_films_are_real(run: Run, tmp_path: Path) -> None:
    films = re.findall(r'src="data:video/mp4;base64,([^"]+)"', run.page)
    assert len(films) == 3
    (tmp_path / "film.mp4").write_bytes(b64decode(films[0]))
    film = open_video(tmp_path / "film.mp4")
    assert len(film) == 8 and film.width == 6 * film.height  # context, two samples, target, mean, truth
    # the last column of the first film is the first test clip itself
    row = one_of_each(run.out / "worlds" / "test.csv")[0]
    shown = film.frames([0])[0, :, 5 * film.height :].astype(float)
    inner = shown[6:-6, 6:-6].reshape(32, 4, 32, 4, 3).mean((1, 3))
    video = open_video(run.out / "worlds" / row["path"])
    truth = video.frames([(len(video) - 15) // 2])[0].astype(float).reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert abs(inner - truth).mean() < 8


def test_test_clips_teach_nothing(run: Run) -> None:
    configs = run.metrics["configs"]
    table = lambda name: str(run.out / "worlds" / f"{name}.csv")
    assert (configs["pretrain"]["data"]["train"], configs["pretrain"]["data"]["val"]) == (table("train"), table("val"))
    assert (configs["probe"]["data"]["train"], configs["probe"]["data"]["val"]) == (table("train"), table("test"))
    assert "test.csv" not in json.dumps(configs["decoder"])
    train, test = (
        {row.split(",")[0] for row in Path(table(name)).read_text().splitlines()[1:]} for name in ("train", "test")
    )
    assert train and test and not train & test


def test_the_commands_say_what_was_run(run: Run) -> None:
    stages = [stage for stage in plan(settings(run.out)) if stage.command]
    assert len(stages) == 4 and {stage.name for stage in stages} == set(run.metrics["commands"])
    for stage in stages:
        _, command, *words = shlex.split(stage.command)
        assert load_config(SCHEMAS[command], words.pop(0), words) == stage.config
        assert f"jepa {command} " in run.page


def test_the_commands_to_go_on_can_be_read() -> None:
    lines = [shlex.split(command.line) for command in go_on(DemoConfig())]
    read = [line[1] for line in lines if line[1] in SCHEMAS]
    assert read == ["render", "pretrain", "pretrain", "probe", "train-decoder", "render"]
    for _, command, *words in lines:
        if command in SCHEMAS:
            path = ROOT / words.pop(0) if words[0].endswith(".yaml") else None
            load_config(SCHEMAS[command], path, [word for word in words if word != "--resume"])


def test_other_settings_are_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"decoder\.trainer\.max_steps.*give another out="):
        demo(settings(run.out, budget=0.02))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 0.0}, "budget is 0"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"tasks": []}, "at least one task"),
        ({"probe": "none.yaml"}, "none.yaml"),
    ],
)
def test_settings_that_cannot_be_meant(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        demo(settings(tmp_path / "demo", **changes))
    assert not (tmp_path / "demo").exists()
