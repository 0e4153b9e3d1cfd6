"""Claims:

1. The page is one file that needs no network: every video and picture is inside it, and nothing in it points elsewhere.
2. It shows what it was given: as many films and frames as there are, every row of the tables, every command, a plot of
   every curve that was logged, and none of those that were not.
3. Its sentences follow the numbers: it says that something worked where the intervals say so, and that it did not where
   they do not, in the headline too.
4. What it is given cannot break it: captions and commands are text, not markup.
5. The plots take their colours from the page, so that they follow it from light to dark.
6. A browser plays every video and has nothing to complain of, and nothing is wider than a telephone.
"""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import look
from comparison import changed

from data import write_video
from decoder.charts import COLOURS, Line, line_chart, running_mean
from decoder.films import png
from decoder.findings import duration, findings, headline, percent, summary
from decoder.report import Command, Film, Page, write_html

COLUMNS = ["context", "predicted\nsample 1", "predicted\nsample 2", "decode(target)\nupper bound",
           "decode(mean)\nknows nothing", "truth"]  # fmt: skip


def scored(accuracy: float, half: float = 0.026) -> dict[str, Any]:
    interval = [accuracy - half, accuracy + half]
    return {"accuracy": accuracy, "ci95": interval, "macro_f1": accuracy - 0.01, "clips": 1350}


def metrics(**changes: Any) -> dict[str, Any]:
    """Figures such as a run that went well might give; `changes` are dotted keys with __ for the dot."""
    probes = {
        "motion": {"jepa": scored(0.482), "random": scored(0.291), "pixels": scored(0.213)},
        "appearance": {"jepa": scored(0.671), "random": scored(0.598), "pixels": scored(0.540)},
    }
    psnr = {"target": 26.5, "predicted": 21.1, "predicted_mean": 21.6, "mean": 16.5, "copy": 22.2}
    found: dict[str, Any] = {
        "budget": 1.0,
        "seconds": {"total": 871.2, "worlds": 62.0, "pretrain": 512.3, "probe": 61.9, "decoder": 205.0, "measure": 22.1,
                    "pictures": 4.6, "other": 3.3},
        "starts": {"worlds": 1, "pretrain": 2, "probe": 1, "decoder": 1, "measure": 1, "pictures": 1},
        "data_wait_fraction": 0.021,
        "data_wait_fraction_decoder": 0.034,
        "health": {"verdict": "healthy", "sentence": "The latents are spread.", "rank": 52.1, "std": 0.41,
                   "at_end": {"verdict": "healthy", "sentence": "The latents are spread."}},
        "probe": {
            "motion": {**probes["motion"], "chance": 0.125, "classes": ["down", "fall", "left"]},
            "appearance": {**probes["appearance"], "chance": 0.341, "classes": ["circle", "square", "triangle"]},
        },
        "probes": {task: {name: {"linear": {"1": found}, "knn": {"1": scored(0.25)}} for name, found in by_name.items()}
                   for task, by_name in probes.items()},
        "skill": {"vs_copy": 0.182, "vs_mean": 0.431, "task": "forward", "clips": 256, "error": {}},
        "decode": {
            "task": "forward", "clips": 256, "seeds": 3, "steps": 4, "method": "euler",
            **{f"{row}_psnr": value for row, value in psnr.items()},
            "ci95": {row: [value - 0.3, value + 0.3] for row, value in psnr.items()},
            "predicted_minus_mean": {"db": 4.6, "ci95": [4.2, 5.0]},
            "predicted_minus_copy": {"db": -1.1, "ci95": [-1.5, -0.7]},
            "frames": [4, 5, 6, 7],
            "by_frame": {row: [value + gap for gap in (0.6, 0.2, -0.2, -0.6)] for row, value in psnr.items()},
        },
        "pretrain": {"parameters": 959360, "steps": 3000, "clips_seen": 192000, "embed_dim": 128},
        "decoder": {"parameters": 1385216, "steps": 2000, "clips_seen": 64000},
        "world": {"train": 7110, "val": 540, "test": 1350, "clip": "8 frames of 32 × 32 pixels",
                  "files": "16 frames of 64 × 64 pixels"},
        "environment": {"device": "A processor (2 cores)", "cores": 2, "threads": 2, "precision": "bf16-mixed",
                        "platform": "Linux x86_64", "python": "3.11.9", "torch": "2.11.0"},
        "commit": "0123456789ab",
        "seeds": {"worlds": 0, "pretrain": 0},
    }  # fmt: skip
    return changed(found, **changes)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    frames = np.broadcast_to(np.arange(40, 200, 20, dtype=np.uint8)[:, None, None, None], (8, 32, 192, 3))
    return write_video(tmp_path_factory.mktemp("film") / "film.mp4", frames, fps=4).read_bytes()


@pytest.fixture(scope="module")
def page(film: bytes) -> Page:
    steps = range(0, 3000, 20)
    rising = [(step, 0.2 + step / 6000) for step in range(499, 3000, 500)]
    curves = {
        "pretrain": {
            "train/prediction": [(step, 0.3 + 0.4 * float(np.exp(-step / 700))) for step in steps],
            "schedule/momentum": [(step, 0.99 + step * 3e-6) for step in steps],
            **{f"val/{name}": rising for name in ("rank", "std", "skill_vs_copy", "skill_vs_mean", "probe")},
        },
        "decoder": {
            "train/loss": [(step, 0.03 + float(np.exp(-step / 300))) for step in steps],
            **{f"val/{row}_psnr": [(s, 20 + 5 * v) for s, v in rising] for row in ("target", "predicted", "mean")},
        },
    }
    picture = png(np.full((8, 8, 3), 90, np.uint8))
    return Page(
        metrics=metrics(),
        curves=curves,
        films=[Film("forward", "a large red square falls", film, 8), Film("infill", "a blue circle rests", film, 8)],
        columns=COLUMNS,
        fps=4,
        strip=picture,
        strip_of=1,
        samples=[("a green triangle moves left", picture)],
        reproduce=[Command("Worlds", "jepa worlds out=runs/demo/worlds")],
        go_on=[Command("Pretrain", "jepa pretrain data.train=/my/videos")],
    )


@pytest.fixture(scope="module")
def html(page: Page) -> str:
    return write_html(page)


@pytest.fixture(scope="module")
def bare(page: Page) -> Page:
    """The same with one curve only: plots take most of the time."""
    return replace(page, curves={"pretrain": {"val/rank": page.curves["pretrain"]["val/rank"]}, "decoder": {}})


class Seen(HTMLParser):
    """Tags with their attributes, all text, and whether every element was closed."""

    VOID = ("meta", "link", "img", "input", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", [""]
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_one_file_without_network(html: str, film: bytes) -> None:
    seen = Seen(html)
    assert seen.open == [""]
    links = ("src", "href", "poster", "srcset")
    sources = [value for _, attributes in seen.tags for key, value in attributes.items() if key in links]
    assert len(sources) == 2 + 2 + 1  # films, pictures, and an icon that keeps browsers from asking for one
    assert all(source and source.startswith("data:") for source in sources)
    assert not re.findall(r"(?:https?:)?//[a-z][\w.-]*\.[a-z]{2,}", html.replace("http://www.w3.org", ""))
    assert "@import" not in html and not re.findall(r"url\((?!#)", html)
    kind, content = str(seen.all("video")[0]["src"]).split(",")
    assert kind == "data:video/mp4;base64" and base64.b64decode(content) == film


def test_everything_is_shown(page: Page, bare: Page, html: str) -> None:
    seen = Seen(html)
    assert len(seen.all("video")) == len(page.films)
    assert next(tag for tag in seen.all("input") if tag.get("id") == "scrub")["max"] == "7"
    words = re.sub("[ \n]+", " ", seen.text)
    for wanted in ("A large red square falls", "decode(target)", "upper bound", "jepa worlds out=runs/demo/worlds",
                   "jepa pretrain data.train=/my/videos", "959,360", "48.2\u00a0%", "45.6\u00a0% to 50.8\u00a0%",
                   "26.5\u00a0dB", "14\u00a0min 31\u00a0s", "0123456789ab", "knn"):  # fmt: skip
        assert wanted in words, wanted
    assert "A trial run" not in words
    assert len(seen.all("svg")) == 6 + 2 + 2 + 2
    assert all(svg.get("aria-label") for svg in seen.all("svg"))
    trial = write_html(replace(bare, metrics=metrics(budget=0.02)))
    assert len(Seen(trial).all("svg")) == 1 + 2 + 2
    assert "A trial run" in trial


def test_a_good_run_is_called_good() -> None:
    found = findings(metrics())
    assert len(found) == 6 and all(finding.holds for finding in found)
    words = headline(metrics())
    assert "4.6 dB closer to the truth than a picture that knows nothing" in words
    assert "but 1.1 dB further from it than the last visible frame" in words
    assert "the motion in 48.2\u00a0% of clips, against 29.1\u00a0% untrained, and the shape in 67.1\u00a0%" in words
    better = headline(metrics(decode__predicted_minus_copy={"db": 0.8, "ci95": [0.3, 1.2]}))
    assert "and 0.8 dB closer to it than the last visible frame" in better
    equal = headline(metrics(decode__predicted_minus_copy={"db": 0.2, "ci95": [-0.2, 0.6]}))
    assert "but no closer to it than the last visible frame" in equal


@pytest.mark.parametrize(
    ("number", "changes", "claim", "detail"),
    [
        (0, {"probe__motion__jepa": scored(0.31)}, "do not clearly know", "intervals overlap"),
        (1, {"probe__appearance__jepa": scored(0.40)}, "do not clearly know", "know less"),
        (2, {"skill__vs_copy": -0.05}, "do not beat", "5.0\u00a0% more error"),
        (3, {"decode__predicted_minus_mean": {"db": 1.4, "ci95": [1.1, 1.7]}}, "a little closer", "2 dB were asked"),
        (3, {"decode__predicted_minus_mean": {"db": 0.1, "ci95": [-0.1, 0.3]}}, "no closer", "2 dB were asked"),
        (4, {"decode__target_psnr": 24.9}, "does not yet", "goal 25 dB"),
        (5, {"data_wait_fraction": 0.3}, "is the bottleneck", "30.0\u00a0%"),
    ],
)
def test_what_failed_is_said(number: int, changes: dict[str, Any], claim: str, detail: str) -> None:
    found = findings(metrics(**changes))
    assert [finding.holds for finding in found] == [i != number for i in range(6)]
    assert claim in found[number].claim and detail in found[number].numbers


def test_a_bad_run_has_a_plain_headline(bare: Page) -> None:
    nothing = {"db": 0.1, "ci95": [-0.2, 0.4]}
    bad = metrics(probe__motion__jepa=scored(0.30), probe__appearance__jepa=scored(0.60),
                  decode__predicted_minus_mean=nothing, health__verdict="collapsed",
                  health__at_end={"verdict": "partially collapsed", "sentence": "Few directions."})  # fmt: skip
    words = headline(bad)
    assert words.startswith("In this run, pictures decoded from predicted latents are no closer")
    assert ", and 1.1 dB further" in words and "do not clearly know more than those of an untrained encoder" in words
    one = headline(metrics(probe__motion__jepa=scored(0.30)))
    assert "name the shape in" in one and "for the motion no advantage is certain" in one
    weak = headline(metrics(decode__predicted_minus_mean={"db": 0.9, "ci95": [0.4, 1.3]}))
    assert "only 0.9 dB closer" in weak
    seen = Seen(write_html(replace(bare, metrics=bad)))
    assert "collapsed" in seen.text and "At the very end of training the verdict was “partially collapsed”" in seen.text
    marks = [tag["aria-label"] for tag in seen.all("span") if "mark" in (tag.get("class") or "")]
    assert marks == ["no", "no", "yes", "no", "yes", "yes"]


def test_text_is_not_markup(bare: Page, film: bytes) -> None:
    hostile = '<script>alert(1)</script> & "quoted" {{ 7 * 7 }}'
    films = [Film("forward", hostile, film, 8), bare.films[1]]
    found = write_html(replace(bare, films=films, go_on=[Command(hostile, hostile)], samples=[(hostile, b"")]))
    seen = Seen(found)
    assert len(seen.all("script")) == 1 and seen.text.count("alert(1)") == 4
    assert "49" not in "".join(re.findall(r"alert\(1\).{0,60}", seen.text))


def test_plots_follow_the_page() -> None:
    line = Line([(0, 0.1), (10, 0.7)], "jepa", "ours")
    svg = line_chart([line], "step", "share", references=[(0.5, "half")], percent=True)
    assert "var(--jepa)" in svg and "var(--faint)" in svg
    assert not set(re.findall(r"#[0-9a-f]{6}\b", svg.lower())) & set(COLOURS.values())
    assert not re.findall(r"(?:fill|stroke): #", svg)
    assert "ours" in svg and "half" in svg and "font-family" not in svg
    np.testing.assert_allclose(running_mean(np.array([1.0, 2.0, 3.0, 4.0]), 2), [1, 1.5, 2.5, 3.5])


def test_numbers_in_words() -> None:
    assert percent(-1e-6) == "0.0\u00a0%"  # no figure is minus nothing
    assert [percent(0.4823), percent(1.0)] == ["48.2\u00a0%", "100.0\u00a0%"]
    assert [duration(s) for s in (4.25, 42.4, 760, 59.9 + 60, 7260)] == [
        "4.2\u00a0s", "42\u00a0s", "12\u00a0min 40\u00a0s", "2\u00a0min 0\u00a0s", "2\u00a0h 1\u00a0min"
    ]  # fmt: skip
    lines = summary(metrics()).splitlines()
    assert lines[0].startswith("motion") and "[45.6, 50.8]" in lines[0] and "predicted 21.1" in lines[2]


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_plays_every_video_without_a_complaint(page: Page, html: str, width: int, tmp_path: Path) -> None:
    seen = look(html, width, tmp_path)
    assert seen["played"] == [True] * len(page.films)
    assert seen["content"] <= seen["width"] == width and not seen["console"]
