"""A comparison as one self-contained HTML page, and all its numbers as a table: metrics and films in, files out.

Notable: nothing is measured or judged here. Sentences come from `findings`, cells from `tables`, plots from `charts`;
each number on the page has a name in metrics.csv, which its cell shows when pointed at.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from decoder.compare import charts, headline_tables, tables
from decoder.compare.brief import brief
from decoder.compare.figures import NAMES, Figure, figures, write_csv
from decoder.compare.findings import fairness, surprise_score, verdicts
from decoder.compare.headlines import dial
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
    """Write `out/report.html`, `out/report.md` and `out/metrics.csv`; the path of the first. Films are read from below
    `out`."""
    metrics = json.loads(json.dumps(metrics))  # keys as the file has them
    found = figures(metrics)
    write_csv(out / "metrics.csv", found)
    write_text(out / "report.md", brief(metrics, found))
    write_text(out / "report.html", render(metrics, found, read_films(out, metrics)))
    return out / "report.html"


def read_films(out: Path, metrics: dict[str, Any]) -> list[WallFilm]:
    """The films that metrics name, of the first seed; missing files are left out.

    Of a sweep, whose page is in detail/: the first film of every setting, which is of the same scene, then the others
    of the first setting.
    """
    rows = metrics.get("detail", [])
    if not rows:
        return _films(out, metrics, metrics.get("films", {}))
    found = []
    for row in rows:
        # In a folder of its own beside the page, or the plain run's, above it.
        own = out / f"{row['detail']:g}"
        films = _films(own if own.is_dir() else out.parent, metrics, row.get("films", {}))
        found.append([replace(film, rule=f"detail {row['detail']:g}, {film.rule}") for film in films])
    return [film for films in found for film in films[:1]] + found[0][1:]


def _films(folder: Path, metrics: dict[str, Any], found: dict[str, Any]) -> list[WallFilm]:
    measured = folder / f"seed{metrics['seeds'][0]}" / "measured"
    return [
        WallFilm(found["task"], film["rule"], film["caption"], film["ahead_db"], film["frames"], path.read_bytes())
        for film in found.get("films", [])
        if (path := measured / film["file"]).is_file()
    ]


def render(metrics: dict[str, Any], found: dict[str, Figure], films: list[WallFilm]) -> str:
    """The page as HTML; `found` are the figures of metrics."""
    judge, score = Judge(found, list(metrics["by_seed"])), surprise_score(found)
    settings = [row["detail"] for row in metrics.get("detail", [])]
    pooled = {name: figure for name, figure in found.items() if "by_seed/" not in name}
    plain = {name: figure for name, figure in pooled.items() if not name.startswith("detail/")}
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
            tasks=_tasks(metrics["clip"]["tubelet_size"]),
            dial=dial(judge, settings, score),
            varied=settings,
            clean=any(name.endswith("forward/jepa/expected_clean_psnr") for name in found),
            tables=_tables(metrics, plain, score)
            | {
                "cost": tables.cost(found, list(metrics["by_seed"])),
                "seeds": headline_tables.seeds(found, list(metrics["by_seed"]), score),
                "details": headline_tables.details(pooled, settings, score),
                "times": tables.times(pooled, settings),
            },
            charts={
                "features": charts.features(plain),
                "pictures": charts.pictures(plain, metrics["clip"]["tubelet_size"]),
                "distances": charts.distances(plain),
                "rollouts": charts.rollouts(plain),
                "physics": charts.physics(plain),
                "surprise": charts.surprise(plain, score),
                "leads": charts.leads(pooled, score) if settings else [],
                "details": charts.details(pooled, score) if settings else [],
            },
            score=score,
            scores=SCORES,
            names=NAMES,
            settings=_yaml(metrics["config"] | {"only": ""}),
            configs={name: _yaml(config) for name, config in metrics["configs"].items()},
        )
    )


def _tables(metrics: dict[str, Any], found: dict[str, Figure], score: str) -> dict[str, Any]:
    pictures, physics = metrics.get("pictures", {}), metrics.get("physics", {})
    scores = [score, *(other for other in SCORES if other != score)]
    return {
        "probes": [tables.probes(found, task) for task in ("motion", "appearance")],
        "pictures": {t: tables.pictures(found, t, pictures["samples"]) for t in pictures.get("tasks", {})},
        "contexts": tables.contexts(found, metrics["clip"]["tubelet_size"]),
        "steps": tables.steps(found),
        "distances": tables.distances(found),
        "horizons": tables.horizons(found),
        "rollouts": tables.rollouts(found, metrics.get("rollout", {}).get("samples", 1)),
        "physics": [tables.physics(found, c, physics.get("samples", 1)) for c in ("permanence", "interaction")],
        "detector": tables.detector(found),
        "surprise": {name: tables.surprise(found, name) for name in scores},
        "real_pairs": tables.real_pairs(found),
        "counts": tables.counts(found),
    }


def _present(metrics: dict[str, Any]) -> set[str]:
    """The arms that anything was measured of."""
    pictures = metrics.get("pictures", {}).get("tasks", {})
    return {"masked_pixels", "random", "truth"} | {arm for rows in pictures.values() for arm in rows}


def _tasks(tubelet_size: int) -> dict[str, str]:
    """What each task shows; the least that can be shown is one tubelet."""
    frames = f"{tubelet_size} frames" if tubelet_size > 1 else "frame"
    return TASKS | {
        "animate": f"only the first {frames} of a clip {'are' if tubelet_size > 1 else 'is'} seen",
        "loop": f"only the first and the last {frames} are seen",
    }


def _yaml(settings: dict[str, Any]) -> str:
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def _column(name: str) -> tuple[str, str]:
    """Heading and remark of a column of films."""
    if name in SHOWN or name not in ARMS:
        return SHOWN.get(name, (name, ""))
    label = ARMS[name]
    return (label.name, "") if label.control else (label.letter, label.name)
