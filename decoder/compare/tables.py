"""The tables of a comparison's report: which figures stand where. Pure: figures in, tables out."""

from collections.abc import Iterable, Sequence

from decoder.compare.findings import final, last_length
from decoder.compare.grid import DASH, Cell, Figures, Row, Table, block, cell, grid, onto
from decoder.compare.labels import (
    ARMS,
    ENCODERS,
    IN_LATENTS,
    SETS,
    Format,
    Label,
    one,
    scaled,
    share,
    significant,
    three,
    two,
    whole,
)
from decoder.findings import duration


def probes(figures: Figures, task: str) -> Table:
    """Accuracy by share of labels, and at the end of training."""
    shares = dict.fromkeys(n.split("/")[4] for n in figures if n.startswith(f"representation/labels/{task}/random/"))
    columns = {f"{100 * float(s):g}\u00a0% of the labels": (s, share) for s in sorted(shares, key=float)}
    at = lambda encoder, s: (
        final(figures, task, encoder) if float(s) == 1 else f"representation/labels/{task}/{encoder}/{s}"
    )
    table = grid(figures, task.capitalize(), ENCODERS, columns, at)
    last = lambda encoder, key: f"{final(figures, task, encoder)}/{key}"
    f1 = grid(figures, "", ENCODERS, {"macro F1, all labels": ("macro_f1", three)}, last)
    both = [Row(a.label, a.cells + b.cells, a.colour) for a, b in zip(table.rows, f1.rows, strict=True)]
    return Table(table.title, "Features", table.columns + f1.columns, both)


def pictures(figures: Figures, task: str, samples: float) -> Table:
    """Every measure of one task."""
    columns: dict[str, tuple[str, Format]] = {
        "PSNR, dB": ("psnr", one),
        f"best of {samples:.0f}": ("best_psnr", one),
        "mean picture": ("mean_picture_psnr", one),
        "SSIM": ("ssim", three),
        f"SSIM, best of {samples:.0f}": ("best_ssim", three),
        "LPIPS": ("lpips", three),
        f"LPIPS, best of {samples:.0f}": ("best_lpips", three),
    }
    return grid(figures, f"Task {task}", ARMS, columns, lambda arm, key: f"pictures/tasks/{task}/{arm}/{key}")


def contexts(figures: Figures, tubelet_size: int) -> Table:
    """PSNR by how much is visible."""
    begin = "pictures/contexts/context="
    known = dict.fromkeys(name.removeprefix(begin).split("/")[0] for name in figures if name.startswith(begin))
    columns = {f"{int(k) * tubelet_size} frames seen": (k, one) for k in sorted(known, key=int)}
    at = lambda arm, k: f"{begin}{k}/rows/{arm}/psnr"
    return grid(figures, "PSNR in dB by how much is seen, task forward", ARMS, columns, at)


def steps(figures: Figures) -> list[Table]:
    """Quality and time by sampling steps: a table for each measure."""
    known = dict.fromkeys(
        name.split("/")[3].removeprefix("steps=") for name in figures if name.startswith("cost/steps/jepa/")
    )
    ordered = sorted(known, key=int)
    tables = []
    kinds: list[tuple[str, str, Format]] = [
        ("PSNR, dB", "psnr", one),
        ("LPIPS", "lpips", three),
        ("Milliseconds a clip", "seconds_per_clip", scaled(1e-3)),
    ]
    for title, key, form in kinds:
        columns = {f"{k} step{'s' if k != '1' else ''}": (k, form) for k in ordered}
        at = lambda arm, k, key=key: f"cost/steps/{arm}/steps={k}/{key}"
        tables.append(grid(figures, f"{title}, by sampling steps", ARMS, columns, at))
    return [table for table in tables if table.rows]


def distances(figures: Figures) -> Table:
    """Both distances between sets of clips."""
    columns: dict[str, tuple[str, Format]] = {"Fréchet": ("fvd", one), "kernel": ("kvd", significant)}
    at = lambda arm, key: f"distance/rows/{arm}/{key}"
    return grid(figures, "Distance to true clips, lower is closer", SETS, columns, at)


ROLLOUT: dict[str, tuple[str, Format]] = {
    "error of place, px": ("error", two),
    "found": ("found", share),
    "right colour": ("colour", share),
    "right shape": ("shape", share),
    "right count": ("count", share),
    "missing a frame": ("missing", two),
    "extra a frame": ("extra", two),
    "PSNR, dB": ("psnr", one),
}


def rollouts(figures: Figures) -> Table:
    """Everything at the last clip length."""
    begin = last_length(figures)
    at = lambda arm, key: f"rollout/rows/{arm}/{key}/{begin}"
    return grid(figures, "In the last clip length", ARMS, ROLLOUT, at)


PHYSICS: dict[str, dict[str, tuple[str, Format]]] = {
    "permanence": {
        "gone while hidden": ("hidden", share),
        "comes back": ("returned", share),
        "frames off": ("time", two),
        "px off": ("place", two),
        "right colour": ("colour", share),
        "right shape": ("shape", share),
    },
    "interaction": {
        "found": ("found", share),
        "error, px a frame": ("error", two),
        "angle off, °": ("angle", one),
        "response": ("response", two),
    },
}


def physics(figures: Figures, claim: str, samples: float) -> Table:
    """Mean over samples, and the best of them."""
    name = lambda prefix: lambda arm, key: f"physics/{claim}/rows/{arm}/{prefix}{key}"
    mean = grid(figures, "", ARMS, PHYSICS[claim], name(""))
    best = grid(figures, "", ARMS, PHYSICS[claim], name("best_"))
    rows = block("Mean over samples", onto(mean, mean.columns))
    rows += block(f"Best of {samples:.0f} samples", onto(best, mean.columns))
    return Table(claim.capitalize(), "", mean.columns, rows)


def detector(figures: Figures) -> Table:
    """How well sprites are found in true pictures."""
    kinds = {
        "main": Label("", "main object, in full sight", ""),
        "partial": Label("", "main object, partly hidden", ""),
        "distractors": Label("", "other objects", ""),
    }
    columns: dict[str, tuple[str, Format]] = {
        "objects": ("sprites", whole),
        "found": ("found", share),
        "error, px": ("mean", two),
        "95th percentile": ("p95", two),
        "right colour": ("colour", share),
        "right shape": ("shape", share),
    }
    at = lambda kind, key: f"physics/detector/{kind}/{key}"
    return grid(figures, "The detector, on true pictures", kinds, columns, at)


def surprise(figures: Figures, score: str) -> Table:
    """Concepts down, arms across, a block for each condition; untrained encoders as a range over their seeds."""
    root = "surprise/rows/"
    paths = [name.removeprefix(root).split("/") for name in figures if name.startswith(root)]
    paths = [path for path in paths if len(path) == 4 and path[1] == score]
    arms = [arm for arm in ARMS if any(path[0] == arm for path in paths)]
    untrained = sorted({path[0] for path in paths if path[0].startswith("random_")})
    conditions = sorted({path[3] for path in paths}, key=lambda c: (c != "all", c == "behind"))
    concepts = sorted(dict.fromkeys(path[2] for path in paths), key=lambda concept: (concept != "all", "+" in concept))
    titles = {"all": "In sight and behind a bar", "sight": "In sight", "behind": "Behind a bar"}
    rows = []
    for condition in conditions:
        at = lambda arm, concept, condition=condition: f"{root}{arm}/{score}/{concept}/{condition}"
        group = []
        for concept in concepts:
            cells = [_heat(figures, at(arm, concept)) for arm in arms]
            cells += [_range(figures, [at(arm, concept) for arm in untrained])] if untrained else []
            if any(c.text != DASH for c in cells):
                group.append(Row("all concepts" if concept == "all" else concept, cells))
        rows += block(titles.get(condition, condition), group)
    heads = arms + ["random"] * bool(untrained)
    columns = [ARMS[arm].letter + "\u202f†" * (arm in IN_LATENTS) for arm in heads]
    return Table(f"Score “{score}”", "", columns, rows)


def real_pairs(figures: Figures) -> Table:
    """The same for pairs of real videos, of which nothing is known but which one is possible."""
    root = "surprise/real/rows/"
    untrained = sorted({name.split("/")[3] for name in figures if name.startswith(f"{root}random_")})
    arms = ARMS | dict.fromkeys(untrained, ARMS["random"])
    columns = {f"score “{score}”": (score, share) for score in ("mean", "max")}
    return grid(figures, "Pairs of real videos", arms, columns, lambda arm, score: f"{root}{arm}/{score}/all/all")


def _heat(figures: Figures, name: str) -> Cell:
    found = cell(figures, name, share)
    if found.text == DASH:
        return found
    figure = figures[name]
    certain = (figure.low or 0) > 0.5 or (1 if figure.high is None else figure.high) < 0.5
    return Cell(found.text, found.interval, name, found.n, 2 * (figure.value or 0) - 1, certain)


def _range(figures: Figures, names: Iterable[str]) -> Cell:
    """From the lowest to the highest of several seeds."""
    known = [figures[name] for name in names if name in figures and figures[name].value is not None]
    if not known:
        return Cell(DASH)
    low, high = (pick(known, key=lambda figure: figure.value or 0) for pick in (min, max))
    text = f"{share(low.value or 0)} to {share(high.value or 0)}" if low.value != high.value else share(low.value or 0)
    return Cell(text, f"{len(known)} seeds", ", ".join(figure.name for figure in known), known[0].n)


def cost(figures: Figures) -> Table:
    """What each arm takes."""
    tera, giga = scaled(1e12), scaled(1e9)
    columns: dict[str, tuple[str, Format]] = {
        "parameters": ("parameters", whole),
        "of the denoiser": ("denoiser_parameters", whole),
        "pretraining, TFLOP": ("pretraining_operations", tera),
        "training, TFLOP": ("training_operations", tera),
        "its latents, TFLOP": ("latent_operations", tera),
        "drawing a clip, GFLOP": ("drawing/operations", giga),
        "ms a clip": ("drawing/seconds", scaled(1e-3)),
        "steps": ("drawing/steps", whole),
    }
    return grid(figures, "What each arm costs", ARMS, columns, lambda arm, key: f"cost/rows/{arm}/{key}")


def times(figures: Figures) -> Table:
    """How long each stage took."""
    names = [name for name in figures if name.startswith("seconds/")]
    names.sort(key=lambda name: name == "seconds/total")
    rows = [Row(name.removeprefix("seconds/"), [cell(figures, name, duration)]) for name in names]
    return Table("Time", "Stage", ["time"], rows)


def counts(figures: Figures) -> Table:
    """How many of everything."""
    wanted = {
        "clips that probes learn from": "representation/train_clips",
        "test clips for probes": "representation/test_clips",
        "test clips drawn": "pictures/clips",
        "samples of each": "pictures/samples",
        "test clips for distances": "distance/clips",
        "long clips": "rollout/clips",
        "frames of each": "rollout/frames",
        "clips with something hidden": "physics/permanence/clips",
        "test clips with a collision": "physics/interaction/clips",
        "pairs of possible and impossible videos": "surprise/pairs",
        "samples for surprise": "surprise/samples",
        "clip frames between windows": "surprise/windows",
    }
    rows = [Row(label, [cell(figures, name, whole)]) for label, name in wanted.items() if name in figures]
    return Table("How many of everything", "", ["number"], rows)


def headlines(figures: Figures, score: str) -> dict[str, tuple[str, Format]]:
    """What a reader compares across seeds: {title: (name, format)}."""
    begin = last_length(figures)
    found: dict[str, tuple[str, Format]] = {}
    for task in ("motion", "appearance"):
        for encoder in ("jepa", "masked_pixels"):
            found[f"{ENCODERS[encoder].letter}\u2002{task}"] = (final(figures, task, encoder), share)
    kinds: list[tuple[str, str, Format]] = [
        ("PSNR, dB", "pictures/tasks/forward/{}/psnr", one),
        ("LPIPS", "pictures/tasks/forward/{}/lpips", three),
        ("Fréchet distance", "distance/rows/{}/fvd", one),
        ("error of place at the end, px", f"rollout/rows/{{}}/error/{begin}", two),
        ("comes back", "physics/permanence/rows/{}/returned", share),
        ("error after a hit", "physics/interaction/rows/{}/error", two),
        (f"surprise, {score}", f"surprise/rows/{{}}/{score}/all/all", share),
    ]
    for title, name, form in kinds:
        for arm in ("jepa", "pixels"):
            found[f"{ARMS[arm].letter}\u2002{title}"] = (name.format(arm), form)
    return {title: (name, form) for title, (name, form) in found.items() if name in figures}


def seeds(figures: Figures, names: Sequence[str], score: str) -> Table | None:
    """The headline figures, a column for each model seed; None where there is one."""
    if len(names) < 2:
        return None
    rows = [
        Row(title, [cell(figures, f"by_seed/{seed}/{name}", form) for seed in names])
        for title, (name, form) in headlines(figures, score).items()
    ]
    return Table("The headline figures, seed by seed", "", [f"seed {seed}" for seed in names], rows)


def details(figures: Figures, values: Sequence[float], score: str) -> Table | None:
    """Some of the headline figures at each setting of the worlds' detail; None where it was not varied."""
    if not values:
        return None
    columns = {f"detail {value:g}": f"detail/detail={value:g}/" for value in values}
    rows = [
        Row(title, [cell(figures, prefix + name, form) for prefix in columns.values()])
        for title, (name, form) in headlines(figures, score).items()
    ]
    kept = [row for row in rows if any(c.text != DASH for c in row.cells)]
    return Table("By the worlds’ unpredictable detail", "", list(columns), kept)
