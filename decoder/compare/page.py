"""A comparison as one self-contained HTML page, and all its numbers as a table: metrics and films in, files out.

Notable: nothing is measured or judged here. Sentences come from `findings`, cells from `tables`, plots from `charts`;
each number on the page has a name in metrics.csv, which its cell shows when pointed at.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from decoder.compare import charts, tables
from decoder.compare.figures import NAMES, figures, write_csv
from decoder.compare.findings import fairness, surprise_score, verdicts
from decoder.compare.judge import Judge, listed
from decoder.compare.labels import ARMS, IN_LATENTS
from decoder.report import TASKS, templates
from jepa.files import write_text

SHOWN = {"shown": ("shown", "what the models see"), "truth": ("truth", "")}  # columns that are no arm
SCORES = {
    "event": "only the windows in which the two videos of a pair show the same and go on differently: the fairest",
    "mean": "all windows of a video, as is usual; any model errs more where there is more to see",
    "max": "the most surprising window of a video",
}


@dataclass(frozen=True)
class WallFilm:
    """A film of all columns side by side: an mp4, and the rule by which its clip was chosen."""

    task: str
    rule: str
    caption: str
    ahead_db: float
    frames: int
    video: bytes


def write_page(out: Path, metrics: dict[str, Any]) -> Path:
    """Write `out/report.html` and `out/metrics.csv`; the path of the former. Films are read from below `out`."""
    metrics = json.loads(json.dumps(metrics))  # keys as the file has them
    write_csv(out / "metrics.csv", figures(metrics))
    write_text(out / "report.html", render(metrics, read_films(out, metrics)))
    return out / "report.html"


def read_films(out: Path, metrics: dict[str, Any]) -> list[WallFilm]:
    """The films that metrics name, of the first seed (and first setting of a sweep); missing files are left out."""
    folder = (out / metrics["setting"] if metrics.get("detail") else out) / f"seed{metrics['seeds'][0]}"
    found = metrics.get("films", {})
    return [
        WallFilm(found["task"], film["rule"], film["caption"], film["ahead_db"], film["frames"], path.read_bytes())
        for film in found.get("films", [])
        if (path := folder / "measured" / film["file"]).is_file()
    ]


def render(metrics: dict[str, Any], films: list[WallFilm]) -> str:
    """The page as HTML."""
    found = figures(metrics)
    judge, score = Judge(found, list(metrics["by_seed"])), surprise_score(found)
    dial = [row["detail"] for row in metrics.get("detail", [])]
    return (
        templates()
        .get_template("compare.html.j2")
        .render(
            m=metrics,
            verdicts=verdicts(judge),
            fairness=fairness(judge),
            arms={arm: label for arm, label in ARMS.items() if arm in _present(metrics)},
            in_latents=listed([f"{ARMS[arm].name}s" if ARMS[arm].control else ARMS[arm].letter for arm in IN_LATENTS]),
            films=films,
            columns=[_column(name) for name in metrics.get("films", {}).get("columns", [])],
            tasks=TASKS,
            tables=_tables(metrics, score, dial),
            charts={
                "features": charts.features(found),
                "pictures": charts.pictures(found, metrics["clip"]["tubelet_size"]),
                "distances": charts.distances(found),
                "rollouts": charts.rollouts(found),
                "physics": charts.physics(found),
                "surprise": charts.surprise(found, score),
                "details": charts.details(found, score) if dial else [],
            },
            score=score,
            scores=SCORES,
            names=NAMES,
            settings=_yaml(_settings(metrics)),
            configs={name: _yaml(config) for name, config in metrics["configs"].items()},
        )
    )


def _tables(metrics: dict[str, Any], score: str, dial: list[float]) -> dict[str, Any]:
    found = figures(metrics)
    pictures, physics = metrics.get("pictures", {}), metrics.get("physics", {})
    scores = [score, *(other for other in SCORES if other != score)]
    return {
        "probes": [tables.probes(found, task) for task in ("motion", "appearance")],
        "pictures": {t: tables.pictures(found, t, pictures["samples"]) for t in pictures.get("tasks", {})},
        "contexts": tables.contexts(found, metrics["clip"]["tubelet_size"]),
        "steps": tables.steps(found),
        "distances": tables.distances(found),
        "rollouts": tables.rollouts(found),
        "physics": [tables.physics(found, c, physics.get("samples", 1)) for c in ("permanence", "interaction")],
        "detector": tables.detector(found),
        "surprise": {name: tables.surprise(found, name) for name in scores},
        "real_pairs": tables.real_pairs(found),
        "cost": tables.cost(found),
        "counts": tables.counts(found),
        "times": tables.times(found),
        "seeds": tables.seeds(found, list(metrics["by_seed"]), score),
        "details": tables.details(found, dial, score),
    }


def _present(metrics: dict[str, Any]) -> set[str]:
    """The arms that anything was measured of."""
    pictures = metrics.get("pictures", {}).get("tasks", {})
    return {"masked_pixels", "random", "truth"} | {arm for rows in pictures.values() for arm in rows}


def _settings(metrics: dict[str, Any]) -> dict[str, Any]:
    """What `jepa compare` was given, for all settings of the detail where it was varied."""
    settings = metrics["config"] | {"only": ""}
    if metrics.get("detail"):
        words = [word for word in settings["world"] if not word.startswith("detail=")]
        settings |= {"sweep": "detail", "out": str(Path(settings["out"]).parent), "world": words}
    return settings


def _yaml(settings: dict[str, Any]) -> str:
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def _column(name: str) -> tuple[str, str]:
    """Heading and remark of a column of films."""
    if name in SHOWN or name not in ARMS:
        return SHOWN.get(name, (name, ""))
    label = ARMS[name]
    return (label.name, "") if label.control else (label.letter, label.name)
