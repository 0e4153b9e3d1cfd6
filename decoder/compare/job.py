"""`jepa compare`: JEPA against pixels, trained alike, measured on one table. A composition root.

    worlds -> A jepa, C masked pixels, decoder, B pixels, B+ pixels_plus, D futures -> measure -> report

Notable:
- What is trained is in `decoder.compare.plan`, what is measured in `decoder.compare.stages`.
- Every stage leaves a file when it is done; started again, finished stages are kept and an unfinished training resumes.
- A training that diverges is begun again at half its rate: `decoder.compare.again`.
- `only=evaluate` measures again what is trained, and trains nothing; killed and given again, it goes on.
- What was measured with other settings than those asked for is measured again. Every result says by which commit.
- A sweep is a comparison for each setting, each in a folder of its own.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from data.transforms import frame_size
from data.worlds import WorldConfig, generate
from data.worlds_pairs import PairsConfig, generate_pairs
from decoder.compare.again import train
from decoder.compare.bench import Bench
from decoder.compare.page import write_page
from decoder.compare.plan import CompareConfig, Trained, check, trained
from decoder.compare.stages import STAGES
from decoder.machine import commit, environment
from decoder.metric_weights import missing_weights
from decoder.stages import PLAN, Ledger, Stage, claim, run_stages
from decoder.train import train_decoder
from decoder.train_opponents import train_futures, train_pixels
from jepa.config import ConfigError, load_config
from jepa.files import write_text
from jepa.train import pretrain
from jepa.weights import read_json

WORLDS = ("worlds", "long", "hidden", "pairs")
TRAININGS = (*WORLDS, "jepa", "masked_pixels", "decoder", "pixels", "pixels_plus", "futures")


def compare(config: CompareConfig) -> Path:
    """Run what is still to be run; the path of report.html, beside metrics.json, metrics.csv and report.md in `out`."""
    check(config)
    if config.sweep:
        return sweep(config)
    report = _report(Path(config.out), measured(config))
    Todo(Path(config.out)).end()
    return report


def sweep(config: CompareConfig) -> Path:
    """The comparison at each setting of the worlds' unpredictable detail, and one page over all of them.

    Settings are in out/detail/D, and the page beside them. What a plain comparison in `out` has trained is not trained
    again: it stands for its own setting, and its page is written again, with what is measured now.
    """
    out = Path(config.out)
    rows: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    folders: list[Path] = []
    plain = load_config(WorldConfig, config.worlds, config.world).detail
    for detail in config.detail:
        print(f"\ndetail {detail:g}", flush=True)
        folder = out / "detail" / f"{detail:g}"
        if detail == plain and (out / PLAN).is_file() and not folder.exists():
            folder, part = out, replace(config, sweep="")
        else:
            part = replace(config, sweep="", out=str(folder), world=[*config.world, f"detail={detail:g}"])
        metrics = measured(part)
        if folder != out:  # whose name would be a bare number
            metrics["setting"] = f"{out.name}, detail {detail:g}"
        _report(folder, metrics)
        folders.append(folder)
        found.append(metrics)
        sections = {key: metrics[key] for key in (*STAGES, "by_seed", "seconds", "measured")}
        rows.append({"detail": detail, **sections})
    total = sum(metrics["seconds"]["total"] for metrics in found)
    by = {f"{row['detail']:g}/{stage}": at for row in rows for stage, at in row["measured"].items()}
    report = _report(out / "detail", {**found[0], "setting": out.name, "measured": by, "config": asdict(config),
                                      "seconds": found[0]["seconds"] | {"total": total}, "detail": rows})  # fmt: skip
    for folder in folders:  # not before: killed, a round goes on where it was, with none of its settings again
        Todo(folder).end()
    return report


def measured(config: CompareConfig) -> dict[str, Any]:
    """Train and measure what is still to be; everything that metrics.json holds of it."""
    out = Path(config.out)
    arms = [trained(config, seed) for seed in config.seeds]
    stages = plan(config, arms)
    training = [stage for stage in stages if _base(stage) in TRAININGS]
    # What is measured may change; what is trained may not. A seed's folder says itself how: it may go elsewhere.
    claim(out, [stage for stage in training if _base(stage) in WORLDS])
    for seed, found in zip(config.seeds, arms, strict=True):
        own = [stage for stage in training if stage.name == _named(_base(stage), seed)]
        if any(stage.done for stage in own) and not (found.folder / PLAN).is_file():
            raise ConfigError(f"{found.folder} holds trainings, and no {PLAN} that says how they were made: bring that "
                              "file too, or delete the folder")  # fmt: skip
        claim(found.folder, own)
    ledger, again = Ledger(out / "stages.json"), Todo(out)
    measuring = [stage for stage in stages if stage not in training]
    if config.only == "evaluate":
        missing = [stage.title for stage in training if not stage.done]
        if missing:
            raise ConfigError(f"only=evaluate, and {out} still lacks: {'; '.join(missing)}. Leave `only` out")
        again.begin([stage.name for stage in measuring])
    for stage in measuring:
        if stage.name in again.names or _measured_otherwise(stage):
            if stage.done:
                ledger.forget(stage.name)
            stage.result.unlink(missing_ok=True)
    run_stages([replace(stage, run=again.done_by(stage)) if stage in measuring else stage for stage in stages], ledger)
    return gather(config, arms, stages, ledger)


class Todo:
    """What `only=evaluate` has still to measure again, in a file of the comparison's folder: killed and started again,
    it goes on from there. The file stays until the page is written, for it also says what this round has done."""

    def __init__(self, out: Path) -> None:
        self.file = out / "evaluate.json"
        found = read_json(self.file) if self.file.is_file() else {"round": [], "left": []}
        self.round: list[str] = found["round"]
        self.names: list[str] = found["left"]

    def begin(self, names: list[str]) -> None:
        """Note those that this round has not seen yet: all of them, unless one was never finished."""
        fresh = [name for name in names if name not in self.round]
        self.round = [*self.round, *fresh]
        self._write([*self.names, *fresh])

    def done_by(self, stage: Stage) -> Callable[[], object]:
        """Run a stage, and strike it off."""

        def run() -> None:
            stage.run()
            if stage.name in self.names:
                self._write([name for name in self.names if name != stage.name])

        return run

    def end(self) -> None:
        """Everything is measured."""
        self.file.unlink(missing_ok=True)

    def _write(self, names: list[str]) -> None:
        self.names = names
        write_text(self.file, json.dumps({"round": self.round, "left": names}, indent=2) + "\n")


def _measured_otherwise(stage: Stage) -> bool:
    """Whether there is a result, and of other settings."""
    return stage.done and read_json(stage.result).get("measured", {}).get("settings") != stage.config


def _report(out: Path, metrics: dict[str, Any]) -> Path:
    write_text(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    report = write_page(out, metrics)
    print(f"\nreport: {report}")
    return report


# ---------------------------------------------------------------------- the plan


def plan(config: CompareConfig, arms: Sequence[Trained]) -> list[Stage]:
    """All stages with their settings; ConfigError where those cannot be meant."""
    out, stages = Path(config.out), []
    world = load_config(WorldConfig, config.worlds, [*config.world, f"out={out}/worlds"])
    if config.budget != 1:
        world.clips = max(120, round(world.clips * config.budget))
        for key in ("val_fraction", "test_fraction"):
            setattr(world, key, max(getattr(world, key), 24 / world.clips))
    data = arms[0].jepa.data
    clip, share = data.num_frames * (data.stride or 1), min(1.0, config.budget * 4)
    # Every sprite stays in the picture, however long: walls throw all of them back.
    long = replace(world, out=f"{out}/long", clips=max(8, round(config.rollout_clips * share)),
                   num_frames=clip * config.rollout_lengths, bounce=1.0, val_fraction=0.0, test_fraction=0.0,
                   seed=world.seed + 1)  # fmt: skip
    hidden = replace(world, out=f"{out}/hidden", clips=max(24, round(config.hidden_clips * share)), val_fraction=0.0,
                     test_fraction=0.0, occluder_probability=1.0, seed=world.seed + 2)  # fmt: skip
    looks = [f"{key}={json.dumps(getattr(world, key))}" for key in ("texture", "detail", "objects_max", "crf")]
    pairs = load_config(PairsConfig, config.pairs, [f"out={out}/pairs", *looks])
    if config.budget < 1:
        pairs.pairs = max(2, round(pairs.pairs * config.budget))
    show = config.progress
    stages += [
        Stage("worlds", f"Worlds: {world.clips:,} videos", world, "", out / "worlds" / "world.json",
              lambda: generate(world, show)),
        Stage("long", f"Long worlds: {long.clips:,} videos of {long.num_frames} frames", long, "",
              out / "long" / "world.json", lambda: generate(long, show)),
        Stage("hidden", f"Worlds with a bar in every scene: {hidden.clips:,} videos", hidden, "",
              out / "hidden" / "world.json", lambda: generate(hidden, show)),
        Stage("pairs", f"Pairs: {pairs.pairs} of each concept", pairs, "", out / "pairs" / "world.json",
              lambda: generate_pairs(pairs, show)),
    ]  # fmt: skip
    for seed, found in zip(config.seeds, arms, strict=True):
        stages += list(_trainings(config, seed, found))
    for seed, found in zip(config.seeds, arms, strict=True):
        bench = Bench(config, found)
        for name, measurement in STAGES.items():
            result = bench.trained.folder / "measured" / f"{name}.json"
            settings = {key: getattr(config, key) for key in measurement.settings}
            settings |= {"weights": not missing_weights()} if measurement.weighed else {}
            run = _measuring(measurement.run, settings, bench, result)
            stages.append(Stage(_named(name, seed), measurement.title, settings, "", result, run))
    return stages


def _measuring(
    run: Callable[[Bench], dict[str, Any]], settings: dict[str, Any], bench: Bench, result: Path
) -> Callable[[], object]:
    def measure() -> None:
        found = {"measured": {"commit": commit(), "settings": settings}, **run(bench)}
        write_text(result, json.dumps(_strict(found), indent=2, allow_nan=False) + "\n")

    return measure


def _strict(found: Any) -> Any:
    """Numbers that JSON does not know (NaN, infinities) become null: they stand for what could not be measured."""
    if isinstance(found, dict):
        return {str(key): _strict(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_strict(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found


def _trainings(config: CompareConfig, seed: int, found: Trained) -> Iterator[Stage]:
    """A, C, the decoder, B, B+ and D."""
    steps = lambda settings: f"{settings.trainer.max_steps:,} steps"
    jobs: list[tuple[str, str, Callable[[Any], object]]] = [
        ("jepa", "A  JEPA: pretrain", pretrain),
        ("masked_pixels", "C  Masked pixels: pretrain", pretrain),
        ("decoder", "A  Decoder of predicted latents", train_decoder),
        ("pixels", "B  Pixels from visible pixels", train_pixels),
        ("pixels_plus", "B+ Pixels, with the operations of the pretraining too", train_pixels),
        ("futures", "D  Samples of latents", train_futures),
    ]
    for name, title, run in jobs:
        settings = getattr(found, name)
        if name == "pixels_plus" and not config.plus:
            continue
        result = found.folder / name / "summary.json"
        yield Stage(
            _named(name, seed), f"{title}, {steps(settings)}", settings, "", result, partial(train, run, settings)
        )


def _named(name: str, seed: int) -> str:
    return f"{name}/{seed}"


def _base(stage: Stage) -> str:
    return stage.name.split("/")[0]


# ---------------------------------------------------------------------- what was found


def gather(config: CompareConfig, arms: Sequence[Trained], stages: list[Stage], ledger: Ledger) -> dict[str, Any]:
    """All figures of finished stages, as metrics.json holds them."""
    out = Path(config.out)
    seeds = {
        seed: {name: json.loads((found.folder / "measured" / f"{name}.json").read_text()) for name in STAGES}
        for seed, found in zip(config.seeds, arms, strict=True)
    }
    jepa = arms[0].jepa
    encoder, data = jepa.model.encoder, jepa.data
    height, width = frame_size(data.size)
    called = lambda stage: stage.name if len(seeds) > 1 else _base(stage)
    by = {
        _named(name, seed): found.pop("measured", {}).get("commit", "")
        for seed, sections in seeds.items() for name, found in sections.items()
    }  # fmt: skip
    seconds = {called(stage): ledger.seconds(stage.name) for stage in stages}
    return {
        "setting": out.name,
        "budget": config.budget,
        "commit": commit(),
        "measured": {called(stage): by[stage.name] for stage in stages if stage.name in by},
        "environment": environment(jepa.trainer),
        "seconds": {"total": sum(seconds.values()), **seconds},
        "seeds": config.seeds,
        "clip": {"frames": data.num_frames, "height": height, "width": width, "stride": data.stride,
                 "tubelet_size": encoder.tubelet_size, "patch_size": encoder.patch_size},
        **seeds[config.seeds[0]],
        "by_seed": seeds if len(seeds) > 1 else {},
        "configs": {called(stage): _plain(stage.config) for stage in stages if _base(stage) in TRAININGS},
        "config": asdict(config),
    }  # fmt: skip


def _plain(settings: Any) -> dict[str, Any]:
    return settings if isinstance(settings, dict) else asdict(settings)
