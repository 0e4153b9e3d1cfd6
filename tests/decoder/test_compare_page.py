"""Claims:

1. The page is one file that needs no network, has every section and plays every film, and is what `write_page` leaves
   beside metrics.csv.
2. Every number in a table or under a sentence is in metrics.csv, under the name that the page gives it, with the
   interval and the count that the page shows: with several seeds and settings of the detail, too.
3. Captions, settings and reasons are text, not markup.
4. Stages without result, arms that were not trained, differences clip by clip that were not measured and figures that
   are not known leave dashes and plain words; a training that was begun again is told.
5. A sweep has its section, with every headline figure at every setting, and its time is that of all settings. Its films
   begin with one scene at every setting, a plain run's among them.
6. The extended plots draw bands and dashes in the page's colours.
7. A browser plays every film and has nothing to complain of, and nothing is wider than a telephone.
"""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import look
from comparison import judge, metrics, paired, seeded, swept
from markupsafe import Markup

from data import write_video
from decoder.charts import Line, line_chart
from decoder.compare import charts, tables
from decoder.compare.figures import Figure, figures
from decoder.compare.findings import fairness, verdicts
from decoder.compare.judge import Judge
from decoder.compare.labels import operations, significant
from decoder.compare.page import WallFilm, read_films, render, write_page
from decoder.findings import duration


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished comparison in it."""
    folder = tmp_path_factory.mktemp("compare")
    frames = np.broadcast_to(np.arange(40, 200, 20, dtype=np.uint8)[:, None, None, None], (8, 32, 160, 3))
    for film in metrics()["films"]["films"]:
        (folder / "seed0" / "measured" / film["file"]).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / "seed0" / "measured" / film["file"], frames, fps=4)
    assert write_page(folder, whole()) == folder / "report.html"
    return folder


def whole() -> dict[str, Any]:
    """With all that is measured today; `metrics` alone is what an older run left."""
    found = paired(metrics(rollout__samples=2, cost__batch=32, cost__memory="", measured={"cost": "fedcba987654"}))
    found["distance"]["horizons"] = [
        {"first": first, "clips": 128, "frames": 8, "size": [32, 32], "rows": found["distance"]["rows"]}
        for first in (8, 16)
    ]
    found["surprise"]["rows"]["jepa_pixels"] = found["surprise"]["rows"]["pixels"]
    for row in found["rollout"]["rows"].values():
        row |= {f"best_{key}": row[key] for key in ("error", "count")}
    return found


def page_of(found: dict[str, Any], *films: WallFilm) -> str:
    return render(found, figures(found), list(films))


@pytest.fixture(scope="module")
def html(out: Path) -> str:
    return (out / "report.html").read_text()


@pytest.fixture(scope="module")
def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as lines:
        return {row["name"]: row for row in csv.DictReader(lines)}


@pytest.fixture
def unplotted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take most of the time."""
    for kind in ("line_chart", "interval_chart"):
        monkeypatch.setattr(charts, kind, lambda *rows, **options: Markup("<svg></svg>"))


class Seen(HTMLParser):
    """Tags with their attributes, all text, whether every element was closed, and the text of what has a title."""

    VOID = ("meta", "link", "img", "input", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.titled: list[tuple[str, str]] = []
        self.text, self.open = "", [("", False)]
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag not in self.VOID:
            self.open.append((tag, "title" in found))
            if found.get("title"):
                self.titled.append((str(found["title"]), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data
        if any(titled for _, titled in self.open):
            name, text = self.titled[-1]
            self.titled[-1] = (name, f"{text} {data}")

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


SECTIONS = ("verdict", "read", "films", "features", "pictures", "distances", "rollouts", "physics", "surprise", "cost",
            "reproduce")  # fmt: skip


def test_one_file_with_every_section(html: str) -> None:
    seen = Seen(html)
    assert seen.open == [("", False)]
    assert tuple(section["id"] for section in seen.all("section")) == SECTIONS
    places = [str(a["href"]) for a in seen.all("a")]
    assert set(places) == {f"#{section}" for section in SECTIONS}
    sources = [str(v) for _, attributes in seen.tags for k, v in attributes.items() if k in ("src", "poster", "srcset")]
    assert len(sources) == 2 and all(source.startswith("data:video/mp4;base64,") for source in sources)
    assert not re.findall(r"(?:https?:)?//[a-z][\w.-]*\.[a-z]{2,}", html.replace("http://www.w3.org", ""))
    assert "@import" not in html and not re.findall(r"url\((?!#)", html)
    words = re.sub("[ \n]+", " ", seen.text)
    for wanted in ("a red square falls", "A 1.7\u00a0dB ahead of B", "A 2.3\u00a0dB behind B", "B furthest ahead of A",
                   "own latents", "jepa compare compare.yaml only=evaluate", "max_steps: 3000", "0123456789ab",
                   "other true clips", "1\u00a0h 10\u00a0min", "other objects", "A − B+\u2002clip by clip",
                   "8 frames of 32 × 32 pixels, against 126 true clips", "Best of 2 samples", "Fréchet, from frame 16",
                   "only the first and the last 2 frames are seen", "memory a batch adds, MB",
                   "drawn in batches of 32 clips", "measured at fedcba987654", "A, drawn",
                   "judged by their pictures like those of B",
                   "A − raw pixels\u2002clip by clip",
                   "Settings of every world and training"):  # fmt: skip
        assert wanted in words, wanted
    assert "A trial run" not in words and "only: ''" in words  # what it says to run trains, too
    plots = seen.all("svg")
    assert len(plots) == 2 + 2 + 3 + 2 + 1 + 2 + 4 + 8 + 3 + 2 and all(plot.get("aria-label") for plot in plots)


def test_every_number_is_in_the_csv(html: str, rows: dict[str, dict[str, str]]) -> None:
    found = figures(whole())
    assert list(found) == list(rows)
    for name, figure in found.items():
        known = [float(rows[name][key]) if rows[name][key] else None for key in ("value", "low", "high", "n")]
        assert known == [figure.value, figure.low, figure.high, figure.n]
    numbers_are_figures(html, whole())


def numbers_are_figures(html: str, metrics: dict[str, Any]) -> None:
    """All of a page."""
    found, titled = figures(metrics), Seen(html).titled
    assert len(titled) > 400
    for names, text in titled:
        shown = re.findall(r"−?[\d,]*\.?\d+", text)
        named = [found[name] for name in names.split(", ")]  # KeyError: a number without a row
        if "seconds/" in names:
            continue  # in words
        known = [value for f in named for value in (f.value, f.low, f.high, f.n) if value is not None]
        known.append(len(named))  # "3 seeds"
        for number in shown:
            assert any(close(number, value) for value in known), (names, text, number)
    cells = re.findall(r"<td((?! colspan)[^>]*)>([^<]*\d[^<]*)", html)
    assert len(cells) > 400 and all("title=" in attributes for attributes, _ in cells)


def close(number: str, value: float) -> bool:
    """Whether a figure is what is shown, to the digits shown, perhaps in per cent or another unit."""
    shown, digits = float(number.replace(",", "").replace("−", "-")), len(number.partition(".")[2])
    return any(abs(shown - value * unit) <= 0.5001 * 10**-digits for unit in (1, 100, 1e3, 1e-6, 1e-9, 1e-12))


def test_names_and_intervals_of_the_csv(rows: dict[str, dict[str, str]]) -> None:
    psnr = rows["pictures/tasks/forward/jepa/psnr"]
    assert [psnr[key] for key in ("value", "low", "high", "n")] == ["22.3", "22.2", "22.400000000000002", "64"]
    accuracy = rows["representation/steps/motion/jepa/step=3000"]
    assert (accuracy["value"], accuracy["n"]) == ("0.48", "1350")
    assert rows["distance/rows/jepa/fvd"]["n"] == "128" and rows["surprise/rows/jepa/event/all/all"]["n"] == "400"
    unknown = rows["physics/permanence/rows/copy/time"]
    assert (unknown["value"], unknown["low"], unknown["n"]) == ("", "", "0")
    assert rows["physics/detector/distractors/shape"]["value"] == ""
    assert not any(name.startswith("config") for name in rows)


def test_text_is_not_markup(unplotted: None) -> None:
    hostile = '<script>alert(1)</script> & "quoted" {{ 7 * 7 }}'
    film = WallFilm("forward", hostile, hostile, 0.5, 8, b"")
    found = metrics(distance={"reason": hostile}, setting=hostile, config={"out": hostile, "world": []})
    seen = Seen(page_of(found, film))
    assert len(seen.all("script")) == 1 and seen.text.count("alert(1)") == 5
    assert "49" not in "".join(re.findall(r"alert\(1\).{0,60}", seen.text))


def test_what_is_missing_is_said(unplotted: None) -> None:
    found = metrics(distance={"reason": "the weights of i3d are not installed"}, budget=0.02)
    for task in found["pictures"]["tasks"].values():
        del task["pixels_plus"]
        for row in task.values():
            row.pop("lpips"), row.pop("best_lpips", None), row["by_frame"].pop("lpips")
    parts = [found[stage]["rows"] for stage in ("surprise", "rollout", "cost")]
    parts += [found["physics"]["interaction"]["rows"], *(each["rows"] for each in found["pictures"]["contexts"])]
    for part in parts:
        del part["pixels_plus"]
    del found["surprise"]["real"]
    found["physics"]["permanence"] = {"clips": 0, "of": 24, "rows": {}}
    for task in ("motion", "appearance"):
        del found["representation"]["labels"][task]["jepa"]  # a trial so short that the last step was not kept
    found = json.loads(json.dumps(found))
    seen = Seen(page_of(found))
    words = re.sub("[ \n]+", " ", seen.text)
    assert "Not measured: the weights of i3d are not installed" in words and "A trial run" in words
    assert "trained longer" not in words and "B+ was given" not in words
    told = verdicts(judge(found))
    assert "A’s pictures were not compared with those of B by LPIPS and Fréchet distance" in told[1].sentence
    assert told[1].mark == "A ahead in part" and "B+" not in told[1].sentence
    assert (
        "not be compared with B at bringing a hidden object back and the colour of what comes back" in told[3].sentence
    )
    assert "clip by clip" not in words.replace("Clip by clip", "").replace("compared clip by clip", "")
    assert (
        told[0].mark == "A ahead"
        and told[0].measures[0].numbers[0].name == "representation/steps/motion/jepa/step=3000"
    )
    assert "–" in words and not re.search(r"\bnan\b|None", words)
    nothing = verdicts(Judge({}))
    assert len(nothing) == 5 and {v.kind for v in nothing} == {"missing"} and not any(v.measures for v in nothing)


def test_a_training_begun_again_stands_with_its_cost() -> None:
    table = tables.cost(figures(metrics()))
    cells = {row.label.split("\u2002")[0]: [c.text for c in row.cells] for row in table.rows}
    told = {arm: dict(zip(table.columns, row, strict=True)) for arm, row in cells.items()}
    assert (told["B+"]["rate of training"], told["B+"]["trainings that diverged before"]) == ("0.00200", "1")
    assert {told["B"][head] for head in ("rate of training", "trainings that diverged before")} == {"–"}


def test_a_training_begun_again_in_one_seed_stands_under_it() -> None:
    calm = metrics(cost__rows__pixels_plus__training={"lr": 0.004, "diverged": 0})
    found = seeded(calm, metrics(), calm)  # by itself the second seed's would be hidden by the first's
    table = tables.cost(figures(found), list(found["by_seed"]))
    rows = {row.label.split("\u2002")[0]: dict(zip(table.columns, row.cells, strict=True)) for row in table.rows}
    heads = ("rate of training", "trainings that diverged before")
    told = [[rows["B+"][f"{head}, seed {seed}"].text for seed in range(3)] for head in heads]
    assert told == [["0.00400", "0.00200", "0.00400"], ["0", "1", "0"]] and not set(heads) & set(table.columns)
    alike = tables.cost(figures(seeded(calm, calm)), ["0", "1"])
    assert set(heads) <= set(alike.columns) and not [head for head in alike.columns if "seed" in head]


def test_fairness_is_counted() -> None:
    assert fairness(judge(metrics())) == (
        "A’s decoder and B are denoisers of 1,418,112 parameters each, trained with 24.2\u00a0TFLOP each. Pretraining "
        "the JEPA took 60.5\u00a0TFLOP more; B+ was given as many on top, 84.7\u00a0TFLOP in all."
    )
    unequal = fairness(
        judge(metrics(cost__rows__pixels={"denoiser_parameters": 1500000, "training_operations": 2.5e13}))
    )
    assert "a difference of 5.8\u00a0%, more than the 2\u00a0% allowed" in unequal
    assert operations(2.42e11) == "242\u00a0GFLOP" and [significant(x) for x in (0, 0.01234, -3.456, 1234.5)] == [
        "0", "0.0123", "−3.46", "1,234"
    ]  # fmt: skip


def test_several_seeds_are_one_figure(unplotted: None) -> None:
    other = paired(metrics(pictures__tasks__forward__jepa__psnr={"value": 20.3, "ci95": [20.2, 20.4], "n": 64}))
    found = seeded(whole(), other)
    page = page_of(json.loads(json.dumps(found)))
    assert "seed by seed" in page and "figures are means over them" in page and "No films were found" in page
    name = "pictures/tasks/forward/jepa/psnr"
    for path, value in ((f"by_seed/0/{name}", "22.3"), (f"by_seed/1/{name}", "20.3"), (name, "21.3")):
        assert f'title="{path}">{value}' in page
    for arm in ("pixels", "pixels_plus", "futures", "jepa-pixels", "jepa-pixels_plus"):
        assert f'title="by_seed/1/pictures/tasks/forward/{arm}/psnr"' in page
    assert 'title="by_seed/1/representation/labels/motion/random/1"' in page
    numbers_are_figures(page, found)


def test_a_sweep_has_its_section(unplotted: None) -> None:
    runs = [(detail, seeded(paired(metrics(), pixels=detail + 1), whole())) for detail in (0.0, 0.5, 1.0)]
    found = json.loads(json.dumps(swept(*runs)))
    page = page_of(found)
    sections = [str(section["id"]) for section in Seen(page).all("section")]
    assert sections == [SECTIONS[0], "detail", *SECTIONS[1:]]
    words = re.sub("[ \n]+", " ", Seen(page).text)
    assert "unpredictable detail varied: 0" in words and "of detail 0" in words
    assert f"All of it took {duration(3 * 4211.5)} on" in words
    for name in ("representation/labels/motion/jepa-masked_pixels/1", "pictures/tasks/forward/jepa-pixels/psnr",
                 "pictures/tasks/forward/pixels/expected_clean_psnr",
                 "distance/rows/jepa-pixels_plus/fvd", "rollout/rows/jepa-pixels/error_beyond/first=16",
                 "physics/permanence/rows/futures/returned_beyond", "physics/interaction/rows/jepa-pixels/error_beyond",
                 "surprise/rows/jepa-pixels/event/all/behind", "seconds/total"):  # fmt: skip
        assert all(f'title="detail/detail={detail:g}/{name}"' in page for detail in (0, 0.5, 1)), name
    numbers_are_figures(page, found)
    assert "clean scene" in words and "One training of every arm" not in words
    older = swept((0.0, paired(metrics())), (1.0, paired(metrics())))
    for row in older["detail"]:
        for drawn in row["pictures"]["tasks"]["forward"].values():
            drawn.pop("expected_clean_psnr", None), drawn.pop("clean_psnr", None)
    words = re.sub("[ \n]+", " ", Seen(page_of(older | {"pictures": older["detail"][0]["pictures"]})).text)
    assert "clean scene:" not in words and "One training of every arm" in words


def test_a_sweep_shows_one_scene_at_every_setting(tmp_path: Path) -> None:
    for folder in ("detail/0", ".", "detail/1"):  # a plain run stands for the setting between
        for number in (0, 1):
            file = tmp_path / folder / "seed0" / "measured" / "films" / f"{number}.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{folder} {number}")
    found = read_films(tmp_path / "detail", swept(*((detail, metrics()) for detail in (0.0, 0.25, 1.0))))
    assert [film.video.decode() for film in found] == ["detail/0 0", ". 0", "detail/1 0", "detail/0 1"]
    assert [film.rule.partition(",")[0] for film in found] == ["detail 0", "detail 0.25", "detail 1", "detail 0"]
    (tmp_path / "seed0" / "measured" / "films" / "0.mp4").unlink()
    assert len(read_films(tmp_path / "detail", swept((0.25, metrics()), (1.0, metrics())))) == 2


def test_the_clean_scene_is_shown_where_it_differs(unplotted: None) -> None:
    title = 'title="pictures/tasks/forward/jepa/clean_psnr"'
    assert title not in page_of(metrics()), "it would repeat the PSNR"
    page = page_of(metrics(pictures__detail=0.5))
    assert title in page and 'title="pictures/tasks/forward/jepa/expected_clean_psnr"' in page


def test_the_plots_of_a_sweep(unplotted: None) -> None:
    found = figures(swept((0.0, paired(metrics())), (1.0, paired(metrics()))))
    assert len(charts.leads(found, "event")) == len(charts.details(found, "event")) == 12
    assert charts.leads(figures(swept((0.0, metrics()), (1.0, metrics()))), "event") == []


def test_bands_and_dashes_follow_the_page() -> None:
    band = [(0.0, 0.2), (float("nan"), float("nan")), (0.5, 0.8)]
    line = Line([(1, 0.1), (10, 0.4), (100, 0.7)], "futures", "D", band, True)
    svg = line_chart([line], "share", "accuracy", ticks=[(1, "few"), (100, "many")], log=True)
    assert svg.count("var(--futures)") >= 3 and "3px dashed var(--futures)" in svg
    assert "few" in svg and "many" in svg and "stroke-dasharray" in svg
    assert not re.findall(r"(?:fill|stroke): #", svg)
    assert Figure("a", 1.0) == Figure("a", 1.0, None, None, None)


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_plays_every_film_without_a_complaint(html: str, width: int, tmp_path: Path) -> None:
    seen = look(html, width, tmp_path)
    assert seen["played"] == [True] * len(metrics()["films"]["films"])
    assert seen["content"] <= seen["width"] == width and not seen["console"]
