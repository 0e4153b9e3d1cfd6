"""Claims:

1. The page is one file that needs no network, has every section and plays every film, and is what `write_page` leaves
   beside metrics.csv.
2. Its verdict is five sentences that follow the numbers: they turn when the numbers turn, intervals that overlap are
   called undecided, several seeds must agree, and what was not measured is called that.
3. Every number in a table or under a sentence is in metrics.csv, under the name that the page gives it, with the
   interval and the count that the page shows.
4. Captions, settings and reasons are text, not markup.
5. Stages without result, arms that were not trained and figures that are not known leave dashes and plain words, and a
   sweep has its section.
6. The extended plots draw bands and dashes in the page's colours.
"""

import copy
import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup

from data import write_video
from decoder.charts import Line, line_chart
from decoder.compare import charts
from decoder.compare.figures import Figure, figures
from decoder.compare.findings import fairness, verdicts
from decoder.compare.judge import Judge
from decoder.compare.labels import operations, significant
from decoder.compare.page import WallFilm, render, write_page

ARMS = ("jepa", "futures", "pixels", "pixels_plus", "copy", "extrapolate", "mean", "target")
ORDER = dict(zip(ARMS, (8, 7, 4, 5, 2, 1, 0, 9), strict=True))  # how good each is here: A far ahead of B


def est(value: float | None, half: float = 0.1, n: int = 64) -> dict[str, Any]:
    known = value is not None
    return {"value": value, "ci95": [value - half, value + half] if known else None, "n": n if known else 0}


def probed(accuracy: float, **more: Any) -> dict[str, Any]:
    return {**more, "accuracy": accuracy, "ci95": [accuracy - 0.02, accuracy + 0.02], "macro_f1": accuracy - 0.01,
            "clips": 1350, "labels": 700}  # fmt: skip


def representation() -> dict[str, Any]:
    final = {"random": 0.29, "pixels": 0.21, "jepa": 0.48, "masked_pixels": 0.39}
    along = {name: [probed(final[name], step=0, clips_seen=0, operations=0)] for name in ("random", "pixels")}
    for name in ("jepa", "masked_pixels"):
        along[name] = [
            probed(final[name] * share, step=int(3000 * share), clips_seen=int(192000 * share), operations=6e13 * share)
            for share in (0.5, 1.0)
        ]
    labels = {name: {"0.1": probed(value - 0.1), "1": probed(value)} for name, value in final.items()}
    return {
        "steps": {"motion": along, "appearance": copy.deepcopy(along)},
        "labels": {"motion": labels, "appearance": copy.deepcopy(labels)},
        "chance": {"motion": 0.125, "appearance": 0.341},
        "probe": "linear", "train_clips": 7110, "test_clips": 1350,
    }  # fmt: skip


def drawn(arm: str) -> dict[str, Any]:
    good = ORDER[arm]
    row = {
        "psnr": est(14.3 + good), "ssim": est(0.5 + good / 50, 0.005), "lpips": est(0.4 - good / 50, 0.005),
        "by_frame": {"psnr": [est(15.0 + good), est(14.0 + good)],
                     "lpips": [est(0.4 - good / 50), est(0.41 - good / 50)]},
    }  # fmt: skip
    if not arm.startswith(("copy", "extra", "mean", "target")):
        row |= {"best_psnr": est(15.1 + good), "mean_picture_psnr": est(15.6 + good), "best_lpips": est(0.35, 0.005)}
    return row


def rolled(arm: str) -> dict[str, Any]:
    off = 10 - ORDER.get(arm, 10)
    scores = {"error": (off, 0.2), "found": (1 - off / 20, 0.01), "colour": (0.98 - off / 20, 0.01),
              "shape": (0.97 - off / 20, 0.01), "count": (0.96 - off / 20, 0.01), "missing": (off / 10, 0.01),
              "extra": (off / 10, 0.01), "squared_error": (off / 100, 0.0005)}  # fmt: skip
    return {
        key: [{"first": first, "last": last, **est(value, half, 32)} for first, last in ((4, 7), (8, 15), (16, 23))]
        for key, (value, half) in scores.items()
    }


def physics() -> dict[str, Any]:
    permanence, interaction = {"truth": {}}, {"truth": {}}
    for arm in ("truth", *ARMS[:6], "target"):
        off = 10 - ORDER.get(arm, 10)
        permanence[arm] = {"hidden": est(1 - off / 40, 0.01, 40), "returned": est(1 - off / 20, 0.02, 41),
                           "time": est(None if arm == "copy" else off / 5, 0.1, 30), "place": est(off, 0.3, 39),
                           "colour": est(0.99 - off / 20, 0.02, 41),
                           "shape": est(0.98 - off / 20, 0.02, 41)}  # fmt: skip
        interaction[arm] = {"found": est(1 - off / 20, 0.02, 55), "error": est(off / 5, 0.05, 54),
                            "angle": est(9.0 * off, 2, 53), "response": est(1 - off / 10, 0.02, 54)}  # fmt: skip
    for row in (permanence["jepa"], interaction["jepa"]):
        row.update({f"best_{key}": copy.deepcopy(value) for key, value in row.items()})
    sprites = {"sprites": 900, "found": 0.99, "mean": 0.09, "p95": 0.21, "colour": 0.98, "shape": 0.97}
    detector = {"main": sprites, "partial": sprites, "distractors": sprites | {"shape": float("nan")}, "extra": 0.002}
    return {"samples": 4, "seen": 4, "permanence": {"clips": 41, "of": 900, "rows": permanence},
            "interaction": {"clips": 55, "of": 120, "rows": interaction}, "detector": detector}  # fmt: skip


def surprised(accuracy: float) -> dict[str, Any]:
    found = {"accuracy": accuracy, "ci95": [accuracy - 0.05, accuracy + 0.05], "pairs": 400, "ties": 2}
    both = {"sight": found, "behind": found, "all": found}
    table = {"vanish": both, "pass": {"sight": found, "all": found}, "vanish + appear": both, "all": both}
    return {"mean": table, "max": table, "event": {**table, "pass": {"sight": None, "all": None}}}


def metrics(**changes: Any) -> dict[str, Any]:
    """Figures such as a run might give in which A is ahead everywhere; `changes` are dotted keys, __ for the dot."""
    accuracies = {"jepa": 0.8, "futures": 0.75, "pixels": 0.6, "pixels_plus": 0.62, "masked_pixels": 0.55, "copy": 0.5,
                  "extrapolate": 0.52, "random_0": 0.5, "random_1": 0.47, "random_2": 0.52}  # fmt: skip
    cost = {"parameters": 2509504, "denoiser_parameters": 1418112, "pretraining_operations": 6.05e13,
            "training_operations": 2.42e13, "drawing": {"operations": 6.6e8, "seconds": 0.012, "steps": 8}}  # fmt: skip
    rows = {"jepa": cost | {"latent_operations": 1.6e11}, "pixels": cost | {"pretraining_operations": 0},
            "pixels_plus": cost | {"pretraining_operations": 0, "training_operations": 8.47e13},
            "masked_pixels": {"parameters": 1091392, "pretraining_operations": 4.5e13}}  # fmt: skip
    step = lambda k: {"steps": k, "seconds_per_clip": 0.01 * k, "psnr": est(15.0 + k), "lpips": est(0.4 - k / 50, 0.01)}
    found: dict[str, Any] = {
        "setting": "compare", "budget": 1.0, "commit": "0123456789ab", "seeds": [0], "by_seed": {},
        "environment": {"device": "A processor (2 cores)", "cores": 2, "threads": 2, "precision": "bf16-mixed",
                        "platform": "Linux x86_64", "python": "3.11.9", "torch": "2.11.0"},
        "seconds": {"total": 4211.5, "worlds": 93.5, "jepa": 812.0},
        "clip": {"frames": 8, "height": 32, "width": 32, "stride": 2, "tubelet_size": 2, "patch_size": 8},
        "representation": representation(),
        "pictures": {
            "clips": 64, "samples": 4, "frames": 8, "size": [32, 32],
            "tasks": {task: {arm: drawn(arm) for arm in ARMS} for task in ("forward", "loop")},
            "contexts": [{"context": k, "of": 4, "clips": 64, "rows": {arm: {"psnr": est(13.0 + k + ORDER[arm])}
                                                                       for arm in ARMS}} for k in (1, 2, 3)],
            "same": {"connect": "loop"},
        },
        "distance": {
            "clips": 128, "frames": 8, "size": [32, 32], "task": "forward", "features": "I3D",
            "rows": {arm: {"fvd": {"value": 90.0 - 5 * ORDER.get(arm, 10), "ci95": [85.0 - 5 * ORDER.get(arm, 10), 92.0]
                                   if arm == "truth" else [89.0 - 5 * ORDER[arm], 91.0 - 5 * ORDER[arm]]},
                           "kvd": {"value": 0.0123, "ci95": [-0.001, 0.02]}, "n": 128, "n_truth": 128}
                     for arm in ("truth", *ARMS)},
        },
        "rollout": {"clips": 32, "frames": 24, "seen": 4, "clip_frames": 8,
                    "rows": {arm: rolled(arm) for arm in ("truth", *ARMS[:6])}},
        "physics": physics(),
        "surprise": {"pairs": 400, "windows": 4, "samples": 2,
                     "rows": {arm: surprised(accuracy) for arm, accuracy in accuracies.items()},
                     "real": {"pairs": 8, "rows": {arm: surprised(accuracy) for arm, accuracy in accuracies.items()}}},
        "cost": {"rows": rows, "peak_bytes": 1397207040,
                 "steps": {arm: [step(k) for k in (1, 2)] for arm in ("jepa", "pixels")}},
        "films": {"columns": ["truth", "shown", "jepa", "pixels", "copy"], "fps": 4, "task": "forward", "films": [
            {"file": "films/0.mp4", "rule": "clip 1 of the test set", "clip": 0, "caption": "a red square falls",
             "ahead_db": 1.7, "frames": 8},
            {"file": "films/1.mp4", "rule": "B furthest ahead of A", "clip": 7, "caption": "a blue circle rests",
             "ahead_db": -2.3, "frames": 8}]},
        "configs": {"jepa": {"out": "runs/compare/jepa", "trainer": {"max_steps": 3000}}},
        "config": {"out": "runs/compare", "world": ["bounce=0.5"], "seeds": [0], "sweep": "", "only": "evaluate"},
    }  # fmt: skip
    for dotted, value in changes.items():
        *rooms, key = dotted.split("__")
        room = found
        for name in rooms:
            room = room[name]
        room[key] = copy.deepcopy(value)
    return found


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished comparison in it."""
    folder = tmp_path_factory.mktemp("compare")
    frames = np.broadcast_to(np.arange(40, 200, 20, dtype=np.uint8)[:, None, None, None], (8, 32, 160, 3))
    for film in metrics()["films"]["films"]:
        (folder / "seed0" / "measured" / film["file"]).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / "seed0" / "measured" / film["file"], frames, fps=4)
    assert write_page(folder, metrics()) == folder / "report.html"
    return folder


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


def judge(found: dict[str, Any]) -> Judge:
    return Judge(figures(found), list(found["by_seed"]))


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
                   "other true clips", "1\u00a0h 10\u00a0min", "other objects"):  # fmt: skip
        assert wanted in words, wanted
    assert "A trial run" not in words and "only: ''" in words  # what it says to run trains, too
    plots = seen.all("svg")
    assert len(plots) == 2 + 2 + 3 + 2 + 1 + 2 + 2 + 6 + 2 + 1 and all(plot.get("aria-label") for plot in plots)


def test_five_sentences_follow_the_numbers() -> None:
    won = verdicts(judge(metrics()))
    assert [verdict.mark for verdict in won] == ["A ahead"] * 5 and {verdict.kind for verdict in won} == {"ahead"}
    assert all(verdict.sentence.count(".") == 1 and verdict.sentence.endswith(".") for verdict in won)
    assert [v.sentence for v in won] == [
        "A’s frozen features name the motion and the shape better than C’s; an untrained encoder’s know less of the "
        "motion and the shape than A’s.",
        "A’s pictures are closer to the truth than B’s by PSNR, LPIPS and Fréchet distance; by PSNR A is ahead of B+ "
        "and D; the nearest visible frame, repeated, is further from the truth than A and B.",
        "In the last of 3 clip lengths of predictions fed back, A keeps the place of the object, its colour and the "
        "number of objects better than B; a picture that stands still is further off than A and B.",
        "A is better than B at bringing a hidden object back, its colour afterwards and the velocity after a "
        "collision.",
        "Impossible videos surprise A and B more often than chance allows; A is right more often than B; A is right "
        "more often than copying and untrained encoders.",
    ]  # fmt: skip
    assert [n.text for n in won[1].measures[0].numbers][:2] == ["22.3 [22.2, 22.4]", "18.3 [18.2, 18.4]"]
    assert won[1].measures[0].n == 64
    lost = verdicts(judge(swapped(metrics())))
    assert [verdict.mark for verdict in lost] == ["C ahead"] + ["B ahead"] * 4
    words = [
        "C’s frozen features name the motion and the shape better than A’s",
        "B’s pictures are closer to the truth than A’s by PSNR, LPIPS and Fréchet distance",
        "B keeps the place of the object",
        "B is better than A at",
        "B is right more often than A",
    ]
    for verdict, wanted in zip(lost, words, strict=True):
        assert wanted in verdict.sentence


def swapped(found: dict[str, Any]) -> dict[str, Any]:
    """What A scored given to its opponents, and the other way round."""
    pairs = [(rows, "pixels") for rows in (*found["pictures"]["tasks"].values(), found["distance"]["rows"],
             found["rollout"]["rows"], found["physics"]["permanence"]["rows"], found["physics"]["interaction"]["rows"],
             found["surprise"]["rows"])]  # fmt: skip
    pairs += [(found["representation"]["labels"][task], "masked_pixels") for task in ("motion", "appearance")]
    for rows, opponent in pairs:
        rows["jepa"], rows[opponent] = rows[opponent], rows["jepa"]
    return found


@pytest.mark.parametrize(
    ("number", "changes", "mark", "words"),
    [
        (0, {"representation__labels__motion__masked_pixels__1": probed(0.45)}, "A ahead in part",
         "whether A’s or C’s frozen features name the motion better is undecided, as the intervals overlap"),
        (0, {"representation__labels__motion__random__1": probed(0.47)}, "A ahead",
         "A’s are not certainly better than an untrained encoder’s for the motion"),
        (1, {"pictures__tasks__forward__jepa__psnr": est(18.4)}, "A ahead in part", "by PSNR it is undecided"),
        (1, {"pictures__tasks__forward__jepa__psnr": est(12.0)}, "Mixed", "A is behind B+ and D"),
        (1, {"pictures__tasks__forward__copy__psnr": est(20.0)}, "A ahead",
         "repeated, is further from the truth than A; the nearest visible frame, repeated, is closer to it than B"),
        (2, {"rollout__rows__jepa__found": [{"first": 16, "last": 23, **est(0.01, 0.01, 32)}]}, "A ahead",
         "by then the object is gone from the pictures of A"),
        (3, {"physics__interaction__rows__jepa__error": est(None)}, "A ahead in part",
         "the velocity after a collision could not be compared"),
        (4, {"surprise__rows__pixels": surprised(0.78)}, "Undecided", "between A and B nothing is decided"),
        (4, {"surprise__rows__random_1": surprised(0.79)}, "A ahead", "not certainly better than untrained encoders"),
        (4, {"surprise__rows__jepa": surprised(0.51)}, "Undecided", "for A chance is not excluded"),
    ],
)  # fmt: skip
def test_what_is_not_certain_is_said(number: int, changes: dict[str, Any], mark: str, words: str) -> None:
    found = verdicts(judge(metrics(**changes)))
    assert found[number].mark == mark and words in found[number].sentence, found[number].sentence
    assert [v.mark for i, v in enumerate(found) if i != number] == ["A ahead"] * 4


def test_seeds_must_agree(unplotted: None) -> None:
    stages = ("representation", "pictures", "distance", "rollout", "physics", "surprise")
    one = {key: metrics()[key] for key in stages}
    two = copy.deepcopy(one)
    both = {"seeds": [0, 1], "by_seed": {"0": one, "1": two}}
    assert [v.mark for v in verdicts(judge(metrics(**both)))] == ["A ahead"] * 5
    two["surprise"]["rows"]["pixels"] = surprised(0.78)  # overlaps in the second seed
    two["pictures"]["tasks"]["forward"]["jepa"]["psnr"] = est(12.0)  # B is ahead in the second seed
    found = verdicts(judge(metrics(**both)))
    assert found[4].mark == "Undecided" and found[1].mark == "A ahead in part"
    page = render(json.loads(json.dumps(metrics(**both))), [])
    assert "seed by seed" in page and 'title="by_seed/1/pictures/tasks/forward/jepa/psnr">12.0' in page
    assert "No films were found" in page


def test_every_number_is_in_the_csv(html: str, rows: dict[str, dict[str, str]]) -> None:
    titled = Seen(html).titled
    assert len(titled) > 400
    for names, text in titled:
        shown = re.findall(r"−?[\d,]*\.?\d+", text)
        named = [rows[name] for name in names.split(", ")]  # KeyError: a number without a row
        if names.startswith("seconds/"):
            continue  # in words
        known = [float(row[key]) for row in named for key in ("value", "low", "high", "n") if row[key]]
        known.append(len(named))  # "3 seeds"
        for number in shown:
            assert any(close(number, value) for value in known), (names, text, number)
    cells = re.findall(r"<td((?! colspan)[^>]*)>([^<]*\d[^<]*)", html)
    assert len(cells) > 400 and all("title=" in attributes for attributes, _ in cells)


def close(number: str, value: float) -> bool:
    """Whether a figure is what is shown, to the digits shown, perhaps in per cent or another unit."""
    shown, digits = float(number.replace(",", "").replace("−", "-")), len(number.partition(".")[2])
    return any(abs(shown - value * unit) <= 0.5001 * 10**-digits for unit in (1, 100, 1e3, 1e-9, 1e-12))


def test_names_and_intervals_of_the_csv(rows: dict[str, dict[str, str]]) -> None:
    psnr = rows["pictures/tasks/forward/jepa/psnr"]
    assert [psnr[key] for key in ("value", "low", "high", "n")] == ["22.3", "22.2", "22.400000000000002", "64"]
    accuracy = rows["representation/steps/motion/jepa/step=3000"]
    assert (accuracy["value"], accuracy["n"]) == ("0.48", "1350")
    assert rows["distance/rows/jepa/fvd"]["n"] == "128" and rows["surprise/rows/jepa/event/all/all"]["n"] == "400"
    psnr, error = (rows[f"rollout/rows/pixels/{key}/first=16"] for key in ("psnr", "squared_error"))
    assert float(psnr["value"]) == pytest.approx(-10 * np.log10(float(error["value"])))
    assert float(psnr["low"]) == pytest.approx(-10 * np.log10(float(error["high"]))) and psnr["n"] == "32"
    assert "rollout/rows/truth/psnr/first=16" not in rows  # identical to itself
    unknown = rows["physics/permanence/rows/copy/time"]
    assert (unknown["value"], unknown["low"], unknown["n"]) == ("", "", "0")
    assert rows["physics/detector/distractors/shape"]["value"] == ""
    assert not any(name.startswith("config") for name in rows)


def test_text_is_not_markup(unplotted: None) -> None:
    hostile = '<script>alert(1)</script> & "quoted" {{ 7 * 7 }}'
    film = WallFilm("forward", hostile, hostile, 0.5, 8, b"")
    found = metrics(distance={"reason": hostile}, setting=hostile, config={"out": hostile, "world": []})
    seen = Seen(render(found, [film]))
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
    seen = Seen(render(found, []))
    words = re.sub("[ \n]+", " ", seen.text)
    assert "Not measured: the weights of i3d are not installed" in words and "A trial run" in words
    assert "trained longer" not in words and "B+ was given" not in words
    told = verdicts(judge(found))
    assert "not measured: LPIPS and Fréchet distance" in told[1].sentence and told[1].mark == "A ahead in part"
    assert "bringing a hidden object back and its colour afterwards could not be compared" in told[3].sentence
    assert (
        told[0].mark == "A ahead"
        and told[0].measures[0].numbers[0].name == "representation/steps/motion/jepa/step=3000"
    )
    assert "–" in words and not re.search(r"\bnan\b|None", words)
    nothing = verdicts(Judge({}))
    assert len(nothing) == 5 and {v.kind for v in nothing} == {"missing"} and not any(v.measures for v in nothing)


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


def test_a_sweep_has_its_section(unplotted: None) -> None:
    part = lambda shift: {
        "representation": representation(),
        "pictures": {"tasks": {"forward": {a: {"psnr": est(14.0 + ORDER[a] - shift)} for a in ARMS}}},
        "surprise": {"rows": {"jepa": surprised(0.8), "pixels": surprised(0.6)}},
    }
    dial = [{"detail": 0.0, **part(0)}, {"detail": 0.5, **part(3)}]
    page = render(metrics(detail=dial, config={"out": "runs/sweep/detail_0", "world": ["bounce=1", "detail=0"]}), [])
    assert '<section id="detail">' in page
    assert 'title="detail/detail=0.5/pictures/tasks/forward/jepa/psnr">19.0' in page
    assert "sweep: detail" in page and "out: runs/sweep\n" in page and "detail=0\n" not in page


def test_bands_and_dashes_follow_the_page() -> None:
    band = [(0.0, 0.2), (float("nan"), float("nan")), (0.5, 0.8)]
    line = Line([(1, 0.1), (10, 0.4), (100, 0.7)], "futures", "D", band, True)
    svg = line_chart([line], "share", "accuracy", ticks=[(1, "few"), (100, "many")], log=True)
    assert svg.count("var(--futures)") >= 3 and "3px dashed var(--futures)" in svg
    assert "few" in svg and "many" in svg and "stroke-dasharray" in svg
    assert not re.findall(r"(?:fill|stroke): #", svg)
    assert Figure("a", 1.0) == Figure("a", 1.0, None, None, None)
