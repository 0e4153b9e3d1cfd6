"""The tables of a comparison's report: which figures stand where. Pure: figures in, tables out."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from decoder.compare.findings import final, last_length, resolution
from decoder.compare.grid import DASH, Cell, Figures, Row, Table, block, cell, grid, onto
from decoder.compare.headlines import has_detail
from decoder.compare.labels import (
    ARMS,
    CONDITIONS,
    ENCODER_PAIRS,
    ENCODERS,
    IN_LATENTS,
    IN_PIXELS,
    PAIRS,
    SETS,
    Format,
    Label,
    one,
    scaled,
    share,
    signed,
    significant,
    three,
    two,
    whole,
)
from decoder.findings import duration

WITH_PAIRS = ARMS | PAIRS
SURPRISED = ARMS | IN_PIXELS


def probes(figures: Figures, task: str) -> Table:
    """Accuracy by share of labels, and at the end of training."""
    shares = dict.fromkeys(n.split("/")[4] for n in figures if n.startswith(f"representation/labels/{task}/random/"))
    columns: dict[str, tuple[str, Format]] = {
        f"{100 * float(s):g}\u00a0% of the labels": (s, share) for s in sorted(shares, key=float)
    }
    columns["macro F1, all labels"] = ("macro_f1", three)

    def at(encoder: str, key: str) -> str:
        last = final(figures, task, encoder)
        if key == "macro_f1":
            return f"{last}/{key}"
        return last if float(key) == 1 else f"representation/labels/{task}/{encoder}/{key}"

    return grid(figures, task.capitalize(), ENCODERS | ENCODER_PAIRS, columns, at)


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
    if has_detail(figures):
        columns |= {"PSNR to the clean scene": ("clean_psnr", one),
                    "expected picture, to the clean scene": ("expected_clean_psnr", one)}  # fmt: skip
    at = lambda arm, key: f"pictures/tasks/{task}/{arm}/{key}"
    return grid(figures, f"Task {task}", WITH_PAIRS, columns, at, resolution(figures, "pictures"))


def contexts(figures: Figures, tubelet_size: int) -> Table:
    """PSNR by how much is visible."""
    begin = "pictures/contexts/context="
    known = dict.fromkeys(name.removeprefix(begin).split("/")[0] for name in figures if name.startswith(begin))
    columns = {f"{int(k) * tubelet_size} frames seen": (k, one) for k in sorted(known, key=int)}
    at = lambda arm, k: f"{begin}{k}/rows/{arm}/psnr"
    title = "PSNR in dB by how much is seen, task forward"
    return grid(figures, title, WITH_PAIRS, columns, at, resolution(figures, "pictures"))


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
        tables.append(grid(figures, f"{title}, by sampling steps", ARMS, columns, at, resolution(figures, "pictures")))
    return [table for table in tables if table.rows]


def distances(figures: Figures) -> Table:
    """Both distances between sets of clips."""
    columns: dict[str, tuple[str, Format]] = {"Fréchet": ("fvd", whole), "kernel": ("kvd", significant)}
    at = lambda arm, key: f"distance/rows/{arm}/{key}"
    return grid(
        figures, "Distance to true clips, lower is closer", SETS | PAIRS, columns, at, _against(figures, "distance")
    )


def horizons(figures: Figures) -> Table:
    """The same of predictions fed back, clip length by clip length."""
    begin = "distance/horizons/first="
    known = dict.fromkeys(name.removeprefix(begin).split("/")[0] for name in figures if name.startswith(begin))
    ordered = sorted(known, key=float)
    kinds: list[tuple[str, str, Format]] = [("Fréchet", "fvd", whole), ("kernel", "kvd", significant)]
    columns = {f"{title}, from frame {k}": (f"{k}/rows/ARM/{key}", form) for title, key, form in kinds for k in ordered}
    at = lambda arm, key: begin + key.replace("ARM", arm)
    note = _against(figures, f"distance/horizons/first={ordered[0]}") if ordered else ""
    return grid(figures, "The same of predictions fed back, by horizon", SETS | PAIRS, columns, at, note)


def _against(figures: Figures, part: str) -> str:
    """What clips are compared, and with how many true ones."""
    truth = figures.get(f"{part}/rows/jepa/n_truth")
    against = f"against {whole(truth.value)} true clips" if truth is not None and truth.value is not None else ""
    return ", ".join(text for text in (resolution(figures, part), against) if text)


ROLLOUT: dict[str, tuple[str, Format]] = {
    "error of place, px": ("error", two),
    "less than by chance, px": ("error_beyond", two),
    "found": ("found", share),
    "right colour": ("colour", share),
    "more than by chance": ("colour_beyond", share),
    "right shape": ("shape", share),
    "right count": ("count", share),
    "missing a frame": ("missing", two),
    "extra a frame": ("extra", two),
    "PSNR, dB": ("psnr", one),
}


def rollouts(figures: Figures, samples: float) -> Table:
    """Everything at the last clip length."""
    begin = last_length(figures)
    name = lambda prefix: lambda arm, key: f"rollout/rows/{arm}/{prefix}{key}/{begin}"
    return _of_samples(figures, "In the last clip length", ROLLOUT, name, samples)


PHYSICS: dict[str, dict[str, tuple[str, Format]]] = {
    "permanence": {
        "gone while hidden": ("hidden", share),
        "comes back": ("returned", share),
        "more than by chance": ("returned_beyond", share),
        "frames off": ("time", two),
        "px off": ("place", two),
        "right colour": ("colour", share),
        "of these, more than by chance": ("colour_beyond", share),
        "right shape": ("shape", share),
    },
    "interaction": {
        "found": ("found", share),
        "error, px a frame": ("error", two),
        "less than by chance": ("error_beyond", two),
        "angle off, °": ("angle", one),
        "response": ("response", two),
    },
}


def physics(figures: Figures, claim: str, samples: float) -> Table:
    """Every score of a claim."""
    name = lambda prefix: lambda arm, key: f"physics/{claim}/rows/{arm}/{prefix}{key}"
    return _of_samples(figures, claim.capitalize(), PHYSICS[claim], name, samples)


def _of_samples(
    figures: Figures,
    title: str,
    columns: Mapping[str, tuple[str, Format]],
    name: Callable[[str], Callable[[str, str], str]],
    samples: float,
) -> Table:
    """Mean over samples, and the best of them where there are several; name(prefix)(arm, key) is a figure."""
    mean = grid(figures, title, WITH_PAIRS, columns, name(""))
    best = grid(figures, title, WITH_PAIRS, columns, name("best_"))
    if not best.rows:
        return mean
    rows = block("Mean over samples", onto(mean, mean.columns))
    rows += block(f"Best of {samples:.0f} samples", onto(best, mean.columns))
    return Table(title, "", mean.columns, rows)


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
    """Concepts down, arms and their differences across, a block for each condition; untrained encoders as a range over
    their seeds."""
    root = "surprise/rows/"
    paths = [name.removeprefix(root).split("/") for name in figures if name.startswith(root)]
    paths = [path for path in paths if len(path) == 4 and path[1] == score]
    arms, pairs = ([arm for arm in of if any(path[0] == arm for path in paths)] for of in (SURPRISED, PAIRS))
    untrained = sorted({path[0] for path in paths if path[0].startswith("random_")})
    conditions = sorted({path[3] for path in paths}, key=lambda c: (c != "all", c == "behind"))
    concepts = sorted(dict.fromkeys(path[2] for path in paths), key=lambda concept: (concept != "all", "+" in concept))
    titles = {"all": "In sight and behind a bar"} | {key: title.capitalize() for key, title in CONDITIONS.items()}
    rows = []
    for condition in conditions:
        at = lambda arm, concept, condition=condition: f"{root}{arm}/{score}/{concept}/{condition}"
        group = []
        for concept in concepts:
            cells = [_heat(figures, at(arm, concept)) for arm in arms]
            cells += [_range(figures, [at(arm, concept) for arm in untrained])] if untrained else []
            cells += [_heat(figures, at(pair, concept), 0.0, signed(share)) for pair in pairs]
            if any(c.text != DASH for c in cells):
                group.append(Row("all concepts" if concept == "all" else concept, cells))
        rows += block(titles.get(condition, condition), group)
    heads = arms + ["random"] * bool(untrained)
    columns = [SURPRISED[arm].letter + "\u202f†" * (arm in IN_LATENTS) for arm in heads]
    columns += [PAIRS[pair].letter for pair in pairs]
    return Table(f"Score “{score}”", "", columns, rows)


def real_pairs(figures: Figures) -> Table:
    """The same for pairs of real videos, of which nothing is known but which one is possible."""
    root = "surprise/real/rows/"
    untrained = sorted({name.split("/")[3] for name in figures if name.startswith(f"{root}random_")})
    arms = SURPRISED | dict.fromkeys(untrained, ARMS["random"])
    columns = {f"score “{score}”": (score, share) for score in ("mean", "max")}
    return grid(figures, "Pairs of real videos", arms, columns, lambda arm, score: f"{root}{arm}/{score}/all/all")


def _heat(figures: Figures, name: str, middle: float = 0.5, form: Format = share) -> Cell:
    """A cell that tells by its colour how far it lies from `middle`, where nothing is known."""
    found = cell(figures, name, form)
    if found.text == DASH:
        return found
    figure = figures[name]
    low, high = (middle if bound is None else bound for bound in (figure.low, figure.high))
    warmth = max(-1.0, min(1.0, 2 * ((figure.value or 0.0) - middle)))
    return Cell(found.text, found.interval, name, found.n, warmth, low > middle or high < middle)


def _range(figures: Figures, names: Iterable[str]) -> Cell:
    """From the lowest to the highest of several seeds."""
    known = [figures[name] for name in names if name in figures and figures[name].value is not None]
    if not known:
        return Cell(DASH)
    low, high = (pick(known, key=lambda figure: figure.value or 0) for pick in (min, max))
    text = f"{share(low.value or 0)} to {share(high.value or 0)}" if low.value != high.value else share(low.value or 0)
    return Cell(text, f"{len(known)} seeds", ", ".join(figure.name for figure in known), known[0].n)


def cost(figures: Figures, seeds: Sequence[str] = ()) -> Table:
    """What each arm takes; rates and trainings begun again stand by seed where the seeds differ."""
    tera, giga = scaled(1e12), scaled(1e9)
    columns: dict[str, tuple[str, Format]] = {
        "parameters": ("parameters", whole),
        "of the denoiser": ("denoiser_parameters", whole),
        "pretraining, TFLOP": ("pretraining_operations", tera),
        "training, TFLOP": ("training_operations", tera),
        "its latents, TFLOP": ("latent_operations", tera),
        "drawing a clip, GFLOP": ("drawing/operations", giga),
        "ms a clip": ("drawing/seconds", scaled(1e-3)),
        "memory a batch adds, MB": ("drawing/peak_bytes", scaled(1e6)),
        "steps": ("drawing/steps", whole),
    }
    columns = {head: (f"cost/rows/ARM/{key}", form) for head, (key, form) in columns.items()}
    trainings: dict[str, tuple[str, Format]] = {
        "rate of pretraining": ("pretraining/lr", significant),
        "pretrainings that diverged before": ("pretraining/diverged", whole),
        "rate of training": ("training/lr", significant),
        "trainings that diverged before": ("training/diverged", whole),
    }
    for head, (key, form) in trainings.items():
        at = {f"{head}, seed {seed}": f"by_seed/{seed}/cost/rows/ARM/{key}" for seed in seeds}
        alike = all(len({_value(figures, place.replace("ARM", arm)) for place in at.values()}) < 2 for arm in ARMS)
        places = {head: f"cost/rows/ARM/{key}"} if alike else at
        columns |= {named: (place, form) for named, place in places.items()}
    batch = figures.get("cost/batch")
    note = f"drawn in batches of {whole(batch.value)} clips" if batch is not None and batch.value else ""
    return grid(figures, "What each arm costs", ARMS, columns, lambda arm, place: place.replace("ARM", arm), note)


def _value(figures: Figures, name: str) -> float | None:
    return figures[name].value if name in figures else None


def times(figures: Figures, dial: Sequence[float]) -> Table:
    """How long each stage took, at every setting of the detail where it was varied."""
    columns = {f"detail {value:g}": f"detail/detail={value:g}/seconds/" for value in dial} or {"time": "seconds/"}
    begins = tuple(columns.values())
    stages = dict.fromkeys(
        n.removeprefix(b) for n in figures if n.startswith(begins) for b in begins if n.startswith(b)
    )
    names = sorted(stages, key=lambda stage: stage == "total")
    rows = [Row(stage, [cell(figures, begin + stage, duration) for begin in begins]) for stage in names]
    return Table("Time", "Stage", list(columns), rows)


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
