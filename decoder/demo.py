"""`jepa demo`: from nothing to a page that shows what a JEPA predicts. A composition root.

    worlds -> pretrain -> probe -> train-decoder -> measure -> pictures -> out/report.html, out/metrics.json

Notable:
- Each stage is the function behind the command of that name, with the same YAML file: the page lists the commands.
- Run it again after an interruption and it goes on: finished stages are kept, an unfinished training resumes from its
  last checkpoint. Times are summed over all starts.
- Test clips meet nothing that learns or chooses: training and the choice of the best checkpoint use train and val.
"""

import json
import shlex
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from data.transforms import frame_size
from data.worlds import WorldConfig, generate
from decoder.findings import summary
from decoder.look import FPS, LookConfig, draw_pictures, measure, read_rows
from decoder.machine import commit, environment
from decoder.report import Command, Film, Page, write_html
from decoder.stages import Ledger, Stage, claim, run_stages
from decoder.train import DecoderTrainConfig, data_settings, train_decoder
from jepa import ConfigError, load_config
from jepa.files import write_text
from jepa.probe_run import REPRESENTATIONS, ProbeConfig, probe
from jepa.train import PretrainConfig, pretrain
from jepa.training import read_history

PROBED = ("motion", "appearance")  # tasks of the probe that the page is written for


@dataclass
class DemoConfig:
    """Everything `jepa demo` reads.

    budget          share of the clips and steps: 1 for the demo, a little for a trial of the machinery.
    worlds, pretrain, probe, decoder    YAML files of these commands; all that they write goes below `out`.
    tasks           drawn on the page: the first test clip shows the first, the first test clip of another motion the
                    second, and so on.
    clips           test clips, the first ones, on which predictions and pictures are measured.
    samples         drawings of each prediction.
    seed, workers   of every stage; null: as the YAML files say.
    """

    out: str = "runs/demo"
    budget: float = 1.0
    worlds: str = "configs/worlds/tiny.yaml"
    pretrain: str = "configs/pretrain/worlds_tiny.yaml"
    probe: str = "configs/probe/worlds_tiny.yaml"
    decoder: str = "configs/decoder/worlds_tiny.yaml"
    tasks: list[str] = field(default_factory=lambda: ["forward"] * 6 + ["animate", "infill"])
    clips: int = 256
    samples: int = 3
    seed: int | None = None
    workers: int | None = None
    progress: bool = True


def demo(config: DemoConfig) -> Path:
    """Run what is still to be run, write `out/metrics.json` and `out/report.html`; the path of the report."""
    begun = time.perf_counter()
    out = Path(config.out)
    stages = plan(config)
    claim(out, stages)
    ledger = Ledger(out / "stages.json")
    spent = run_stages(stages, ledger)
    metrics = gather(config, stages)
    seconds = {stage.name: ledger.seconds(stage.name) for stage in stages}
    seconds["other"] = time.perf_counter() - begun - spent
    metrics["seconds"] = {"total": sum(seconds.values()), **seconds}
    metrics["starts"] = {stage.name: ledger.starts(stage.name) for stage in stages}
    write_text(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    report = out / "report.html"
    write_text(report, write_html(_page(config, stages, metrics)))
    print(f"\n{summary(metrics)}\n\nreport: {report}")
    return report


# ---------------------------------------------------------------------- the plan


def plan(config: DemoConfig) -> list[Stage]:
    """All stages with their settings; ConfigError where those cannot be meant."""
    if config.budget <= 0:
        raise ConfigError(f"budget is {config.budget:g}: give a share of the demo's clips and steps, such as 0.1")
    if not config.tasks or config.clips < 1 or config.samples < 1:
        raise ConfigError("tasks must name at least one task, and clips and samples must be at least 1")
    out = Path(config.out)
    worlds, best = out / "worlds", out / "pretrain" / "best.ckpt"
    common = [] if config.seed is None else [f"seed={config.seed}"]
    common += [] if config.workers is None else [f"data.workers={config.workers}"]
    stream = [] if config.seed is None else [f"data.seed={config.seed}"]  # the decoder takes it from the JEPA's run
    quiet = [] if config.progress else ["trainer.progress=false"]
    sets = [f"data.train={worlds}/train.csv", f"data.val={worlds}/val.csv"]

    world = _world(config, worlds)
    first = _training("pretrain", PretrainConfig, config, [f"out={out}/pretrain", *sets, *common, *stream, *quiet])
    asked = _probe(config, [f"checkpoint={best}", f"out={out}/probe", sets[0], f"data.val={worlds}/test.csv", *common])
    second = _training("decoder", DecoderTrainConfig, config, [f"jepa={best}", f"out={out}/decoder", *common, *quiet])
    sampling = second.config.sampling
    look = LookConfig(str(best), f"{out}/decoder/decoder", str(worlds), config.clips, config.samples, sampling.steps,
                      sampling.method, list(config.tasks), config.progress)  # fmt: skip
    measured, drawn = out / "measure" / "measure.json", out / "pictures" / "pictures.json"
    return [
        Stage("worlds", f"Worlds: simulate {world.config.clips:,} videos", *world, worlds / "world.json",
              lambda: generate(world.config, config.progress)),
        Stage("pretrain", f"Pretrain: {first.config.trainer.max_steps:,} steps of {first.config.data.batch_size} clips",
              *first, out / "pretrain" / "summary.json", _resuming(pretrain, first.config)),
        Stage("probe", "Probe: ask what the frozen features know", *asked, out / "probe" / "probe.json",
              lambda: probe(asked.config)),
        Stage("decoder", f"Decoder: {second.config.trainer.max_steps:,} steps", *second,
              out / "decoder" / "summary.json", _resuming(train_decoder, second.config)),
        Stage("measure", "Measure: predictions and pictures of test clips", look, "", measured,
              lambda: write_text(measured, json.dumps(measure(look), indent=2) + "\n")),
        Stage("pictures", f"Pictures: draw {len(config.tasks)} test clips", look, "", drawn,
              lambda: draw_pictures(look, drawn)),
    ]  # fmt: skip


class _Settings(NamedTuple):
    """What a stage reads, and the line for the shell that reads the same."""

    config: Any
    command: str


def _settings(command: str, schema: type, path: str, words: list[str]) -> _Settings:
    config: Any = load_config(schema, path, words)
    return _Settings(config, shlex.join(["jepa", command, path, *words]))


def _world(config: DemoConfig, out: Path) -> _Settings:
    """The worlds; of a smaller budget at least five clips of each motion, one of them to choose and one to test."""
    words = [f"out={out}"]
    words += [] if config.seed is None else [f"seed={config.seed}"]
    words += [] if config.workers is None else [f"workers={max(1, config.workers)}"]
    if config.budget != 1:
        full = load_config(WorldConfig, config.worlds, words)
        clips = max(40, round(full.clips * config.budget))
        shares = {key: max(getattr(full, key), 8 / clips) for key in ("val_fraction", "test_fraction")}
        words += [f"clips={clips}", *(f"{key}={share:.4g}" for key, share in shares.items())]
    return _settings("worlds", WorldConfig, config.worlds, words)


def _training(stage: str, schema: type, config: DemoConfig, words: list[str]) -> _Settings:
    """A training; a smaller budget has fewer steps, at least three, and every period shrinks with them."""
    path, command = getattr(config, stage), {"pretrain": "pretrain", "decoder": "train-decoder"}[stage]
    if config.budget != 1:
        full: Any = load_config(schema, path, words)
        least = {"trainer.max_steps": 3, "trainer.val_every": 3, "trainer.log_every": 1, "optim.warmup_steps": 1}
        for key, low in least.items():
            room, name = key.split(".")
            words = [*words, f"{key}={max(low, round(getattr(getattr(full, room), name) * config.budget))}"]
        if hasattr(full, "latent_clips"):
            words = [*words, f"latent_clips={max(64, round(full.latent_clips * config.budget))}"]
    return _settings(command, schema, path, words)


def _probe(config: DemoConfig, words: list[str]) -> _Settings:
    found = _settings("probe", ProbeConfig, config.probe, words + ([] if config.progress else ["progress=false"]))
    asked = found.config
    named = {task.name for task in asked.tasks}
    if not set(PROBED) <= named or "linear" not in asked.probes or 1.0 not in asked.label_fractions:
        raise ConfigError(f"{config.probe}: a demo needs linear probes of motion and appearance, on all labels (1.0)")
    return found


def _resuming(run: Callable[[Any], object], config: Any) -> Callable[[], object]:
    return lambda: run(replace(config, resume=(Path(config.out) / "last.ckpt").is_file()))


# ---------------------------------------------------------------------- what was found


def gather(config: DemoConfig, stages: list[Stage]) -> dict[str, Any]:
    """All figures of finished stages, as metrics.json holds them (times are added by the caller)."""
    settings = {stage.name: stage.config for stage in stages}
    read = {stage.name: json.loads(stage.result.read_text()) for stage in stages}
    world, first, asked, second = (settings[name] for name in ("worlds", "pretrain", "probe", "decoder"))
    rows = {split: read_rows(Path(world.out) / f"{split}.csv") for split in ("train", "val", "test")}
    linear: dict[str, dict[str, Any]] = {}
    for task in (task for task in asked.tasks if task.name in PROBED):
        answers = Counter(row[task.column] for row in rows["test"])
        linear[task.name] = {name: read["probe"][task.name][name]["linear"]["1"] for name in REPRESENTATIONS}
        linear[task.name] |= {"chance": answers.most_common(1)[0][1] / answers.total(), "classes": sorted(answers)}
    height, width = frame_size(first.data.size)
    clip = f"{first.data.num_frames} frames of {height} × {width} pixels"
    files = f"{world.num_frames} frames of {world.size} × {world.size} pixels"
    batch = data_settings(second.jepa, second.data).batch_size
    return {
        "budget": config.budget,
        "data_wait_fraction": read["pretrain"]["data_wait_fraction"],
        "data_wait_fraction_decoder": read["decoder"]["data_wait_fraction"],
        "health": read["measure"]["health"] | {"at_end": read["pretrain"]["health"]},
        "probe": linear,
        "probes": read["probe"],
        "skill": read["measure"]["skill"],
        "decode": read["measure"]["decode"],
        "pretrain": read["pretrain"] | {"embed_dim": first.model.encoder.embed_dim},
        "decoder": read["decoder"] | {"clips_seen": read["decoder"]["steps"] * batch},
        "world": {split: len(found) for split, found in rows.items()} | {"clip": clip, "files": files},
        "environment": environment(first.trainer),
        "commit": commit(),
        "seeds": {name: found.seed for name, found in settings.items() if hasattr(found, "seed")},
        "commands": {stage.name: stage.command for stage in stages if stage.command},
        "configs": {name: asdict(found) for name, found in settings.items()},
    }


def _page(config: DemoConfig, stages: list[Stage], metrics: dict[str, Any]) -> Page:
    index = next(stage.result for stage in stages if stage.name == "pictures")
    found = json.loads(index.read_text())
    read = lambda name: (index.parent / name).read_bytes()
    return Page(
        metrics=metrics,
        curves={name: read_history(Path(config.out) / name) for name in ("pretrain", "decoder")},
        films=[Film(film["task"], film["caption"], read(film["file"]), film["frames"]) for film in found["films"]],
        columns=found["columns"],
        fps=FPS,
        strip=read("strip.png"),
        strip_of=found["strip_of"],
        samples=[(sample["caption"], read(sample["file"])) for sample in found["samples"]],
        reproduce=[Command(stage.title, stage.command) for stage in stages if stage.command],
        go_on=go_on(config),
    )


def go_on(config: DemoConfig) -> list[Command]:
    """What a person may want to type next; the paths of this demo quoted where they need it."""
    out, mine = shlex.quote(config.out), "runs/mine"
    trained = f"jepa pretrain configs/pretrain/videos_tiny.yaml data.train=/my/videos out={mine}"
    pair = f"jepa={mine}/best.ckpt decoder={mine}/decoder/decoder"
    return [
        Command(
            "Another prediction of this demo’s model",
            f"jepa render jepa={out}/pretrain/best.ckpt decoder={out}/decoder/decoder "
            f"video={out}/worlds/videos/000000.mp4 task=backward out=prediction.mp4",
        ),
        Command("Which of your videos can be read?", "jepa check-data /my/videos"),
        Command("Pretrain on them, a tenth held out; for more than a first try add trainer.max_steps=20000", trained),
        Command("Go on after an interruption, exactly where it stopped", f"{trained} --resume"),
        Command(
            "Probe, where you have labels: tables with the columns path and label",
            f"jepa probe configs/probe/videos_tiny.yaml checkpoint={mine}/best.ckpt "
            f"data.train=/my/train.csv data.val=/my/test.csv out={mine}/probe",
        ),
        Command(
            "Train a decoder for it, on the same videos",
            f"jepa train-decoder configs/decoder/videos_tiny.yaml jepa={mine}/best.ckpt out={mine}/decoder",
        ),
        Command("See what it predicts", f"jepa render {pair} video=/my/videos/one.mp4 out=prediction.mp4"),
    ]
