"""`jepa health`. Claims:

- it judges the folder of a run by what was logged there, prints the verdict, and writes one page that needs no network,
  with a chart for every curve that the run has, beside those of the runs that come with the package.
- a folder that is no run, and a run that was never validated, are one sentence.
- the name of a run is text on the page, whatever is in it.
- a browser shows it without a complaint, and nothing is wider than a telephone.
"""

import re
from pathlib import Path

import pytest
from browser import look
from torch.utils.tensorboard import SummaryWriter

from decoder.health_page import CHARTS, HealthConfig, health, reference_runs, write_page
from jepa.config import ConfigError, save_config
from jepa.health import Verdict, judge
from jepa.train import PretrainConfig

FALLEN = {"val/std": [0.3, 0.3, 0.1, 0.1], "val/rank": [40.0, 40, 39, 38], "val/skill_vs_mean": [-1.0, 0, 0.1, -30]}


def logged(folder: Path, curves: dict[str, list[float]]) -> Path:
    """The folder of a run with these values at steps 100, 200, ..."""
    save_config(PretrainConfig(), folder / "config.yaml")
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        for key, values in curves.items():
            for i, value in enumerate(values, 1):
                writer.add_scalar(key, value, 100 * i)
    return folder


def test_a_run_is_judged_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = logged(tmp_path / "mine", FALLEN)
    found = health(HealthConfig(str(run)))
    assert (found.word, found.since) == ("partially collapsed", 300)
    said = capsys.readouterr().out
    assert said.startswith("partially collapsed since step 300. The spread of the latents is 0.1, and was 0.3.")
    page = (run / "health.html").read_text()
    assert page.count("<svg") == 3 and "this run" in page and found.sentence.split(". ")[0] in page
    assert not re.search(r'(src|href)="(?!data:|#)', page) and "http" not in page.replace("http://www.w3.org", "")
    health(HealthConfig(str(run), str(tmp_path / "elsewhere.html")))
    assert (tmp_path / "elsewhere.html").read_text().count("<svg") == 3


def test_all_charts_are_there_for_a_run_that_logged_everything() -> None:
    curves = reference_runs()["seed0"]
    page = write_page("seed0", curves, judge(curves), 400)
    assert page.count("<svg") == len(CHARTS) and all(title in page for _, title, *_ in CHARTS)
    assert page.count("10 healthy runs") == len(CHARTS)


def test_what_is_no_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not the folder of a pretraining"):
        health(HealthConfig(str(tmp_path)))
    with pytest.raises(ConfigError, match="has not been validated yet"):
        health(HealthConfig(str(logged(tmp_path / "young", {"train/loss": [1.0]}))))


def test_a_name_is_only_text() -> None:
    hostile = '<script>alert(1)</script> & "quoted" {{ 7 * 7 }} $x$'
    page = write_page(hostile, {"val/rank": [(1, 2.0)]}, Verdict("healthy", 0, hostile), 10)
    assert "<script>alert" not in page and "{{ 7 * 7 }}" in page and "49" not in page.partition("<h1>")[2][:300]


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_a_complaint(width: int, tmp_path: Path) -> None:
    curves = reference_runs()["seed0"]
    seen = look(write_page("seed0", curves, judge(curves), 400), width, tmp_path)
    assert seen["content"] <= seen["width"] == width and not seen["console"]
