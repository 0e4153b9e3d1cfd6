"""The `jepa` command. A composition root: it imports what a command needs when that command runs.

Every command takes an optional YAML file, then `key=value` words. Bad input is one sentence and exit code 2; a signal
to stop is one too, and 128 + its number: 130 for Ctrl-C.
"""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jepa.errors import CheckpointError, ConfigError, DivergedError, Interrupted


class Command(NamedTuple):
    """A line of help, the config it reads (imported when needed), and what to do with it."""

    help: str
    schema: Callable[[], type]
    run: Callable[[Any], object]
    first: str = ""  # the key that a first word without "=" is the value of


@dataclass
class CheckConfig:
    """Everything `jepa check-data` reads.

    path                    a folder (searched recursively), a table or a video.
    root                    folder that the paths of a table may not leave; empty: the table's own; "/": anywhere.
    num_frames, stride, fps the clips to count.
    workers, timeout        processes, and the seconds each file is given.
    out                     also write the report of every file here, as .csv or .json.
    """

    path: str = "???"
    root: str = ""
    num_frames: int = 16
    stride: int = 1
    fps: float | None = None
    backend: str = "auto"
    workers: int = 2
    timeout: float = 60.0
    out: str = ""
    progress: bool = True


def _check_data(config: Any) -> None:
    from data.check import check_folder, report_table, write_reports

    stride = None if config.fps else config.stride
    reports = check_folder(
        config.path,
        config.num_frames,
        stride,
        config.fps,
        config.backend,
        config.workers,
        config.timeout,
        config.progress,
        config.root,
    )
    print(report_table(reports, config.path))
    if config.out:
        write_reports(reports, config.out)


def _shard_schema() -> type:
    from data.tars_convert import ShardConfig

    return ShardConfig


def _shard(config: Any) -> None:
    from data.tars_convert import packed_report, shard_videos

    print(packed_report(shard_videos(config)))


def _worlds_schema() -> type:
    from data.worlds import WorldConfig

    return WorldConfig


def _worlds(config: Any) -> None:
    from data.worlds import generate

    print(f"wrote {generate(config)}")


def _pairs_schema() -> type:
    from data.worlds_pairs import PairsConfig

    return PairsConfig


def _pairs(config: Any) -> None:
    from data.worlds_pairs import generate_pairs

    print(f"wrote {generate_pairs(config)}")


def _pretrain_schema() -> type:
    from jepa.train import PretrainConfig

    return PretrainConfig


def _pretrain(config: Any) -> None:
    from jepa.train import pretrain

    print(f"best checkpoint: {pretrain(config)}")


def _health_schema() -> type:
    from decoder.health_page import HealthConfig

    return HealthConfig


def _health(config: Any) -> None:
    from decoder.health_page import health

    health(config)


def _import_schema() -> type:
    from jepa.exchange import ImportConfig

    return ImportConfig


def _import(config: Any) -> None:
    from jepa.exchange import import_model

    import_model(config)
    print(f"wrote {config.out}")


def _export_schema() -> type:
    from jepa.exchange import ExportConfig

    return ExportConfig


def _export(config: Any) -> None:
    from jepa.exchange import export_model

    print(f"wrote {export_model(config)}")


def _probe_schema() -> type:
    from jepa.probe_run import ProbeConfig

    return ProbeConfig


def _probe(config: Any) -> None:
    from jepa.probe_run import probe

    probe(config)


def _surprise_schema() -> type:
    from decoder.surprise_run import SurpriseConfig

    return SurpriseConfig


def _surprise(config: Any) -> None:
    from decoder.surprise_run import surprise

    surprise(config)


def _decoder_schema() -> type:
    from decoder.train import DecoderTrainConfig

    return DecoderTrainConfig


def _decoder(config: Any) -> None:
    from decoder.train import train_decoder

    print(f"decoder: {train_decoder(config)}")


def _pixels_schema() -> type:
    from decoder.train_opponents import PixelTrainConfig

    return PixelTrainConfig


def _pixels(config: Any) -> None:
    from decoder.train_opponents import train_pixels

    print(f"pixel model: {train_pixels(config)}")


def _futures_schema() -> type:
    from decoder.train_opponents import FuturesTrainConfig

    return FuturesTrainConfig


def _futures(config: Any) -> None:
    from decoder.train_opponents import train_futures

    print(f"futures: {train_futures(config)}")


def _render_schema() -> type:
    from decoder.render import RenderConfig

    return RenderConfig


def _render(config: Any) -> None:
    from decoder.render import render

    render(config)


def _demo_schema() -> type:
    from decoder.demo import DemoConfig

    return DemoConfig


def _demo(config: Any) -> None:
    from decoder.demo import demo

    demo(config)


def _compare_schema() -> type:
    from decoder.compare.plan import CompareConfig

    return CompareConfig


def _compare(config: Any) -> None:
    from decoder.compare.job import compare

    compare(config)


COMMANDS = {
    "worlds": Command("write procedural physics videos and their ground truth", _worlds_schema, _worlds),
    "pairs": Command("write pairs of possible and impossible videos of the worlds", _pairs_schema, _pairs),
    "pretrain": Command("train a JEPA on a folder of videos", _pretrain_schema, _pretrain),
    "health": Command(
        "say whether a pretraining is healthy, since when not, and draw it", _health_schema, _health, "run"
    ),
    "import": Command(
        "bring in an official V-JEPA, of Meta or of transformers", _import_schema, _import, first="source"
    ),
    "export": Command("write a model in their format", _export_schema, _export, first="model"),
    "probe": Command("ask what frozen features know, beside random features and pixels", _probe_schema, _probe),
    "surprise": Command("ask whether a model finds impossible videos more surprising", _surprise_schema, _surprise),
    "train-decoder": Command("train the decoder of a JEPA's latents", _decoder_schema, _decoder),
    "train-pixels": Command("train the decoder's opponent, which draws from visible pixels", _pixels_schema, _pixels),
    "train-futures": Command("train a head that samples a JEPA's latents", _futures_schema, _futures),
    "render": Command("show what a JEPA predicts for a video", _render_schema, _render),
    "demo": Command("all of the above on a small world, and a report", _demo_schema, _demo),
    "compare": Command("JEPA against pixels: train all arms, measure them, and a report", _compare_schema, _compare),
    "check-data": Command(
        "say which videos can be read, which cannot, and why", lambda: CheckConfig, _check_data, first="path"
    ),
    "shard": Command("pack videos into tar shards, to train on many", _shard_schema, _shard, first="path"),
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jepa", description="Predict video in latent space, and see the prediction.")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, command in COMMANDS.items():
        settings = "an optional YAML file, then key=value words; --keys lists them all"
        sub = commands.add_parser(name, help=command.help, description=f"{command.help}. Settings: {settings}.")
        words = f"[{command.first}] [config.yaml] [key=value ...]" if command.first else "[config.yaml] [key=value ...]"
        sub.add_argument("words", nargs="*", metavar=words)
        sub.add_argument("--keys", action="store_true", help="print every key with its default and stop")
        if name == "pretrain" or name.startswith("train-"):
            sub.add_argument("--resume", action="store_true", help="go on with the run in out=, where it stopped")
        if name == "compare":
            sub.add_argument("--only", choices=["evaluate"], help="measure again what is trained, train nothing")
    return parser


def run(arguments: list[str]) -> None:
    """Run one command; raises what it raises."""
    parser = build_parser()
    chosen, rest = parser.parse_known_args(arguments)  # words after an option: argparse leaves them over
    if any(word.startswith("-") for word in rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    command, words = COMMANDS[chosen.command], [*chosen.words, *rest]
    schema = command.schema()
    from omegaconf import OmegaConf

    from jepa.config import load_config

    if chosen.keys:
        print(OmegaConf.to_yaml(OmegaConf.structured(schema)), end="")
        return
    path = words.pop(0) if words and Path(words[0]).suffix in (".yaml", ".yml") and "=" not in words[0] else None
    if command.first and words and "=" not in words[0]:
        words[0] = f"{command.first}={words[0]}"
    if getattr(chosen, "resume", False):
        words.append("resume=true")
    if getattr(chosen, "only", None):
        words.append(f"only={chosen.only}")
    command.run(load_config(schema, path, words))


def _hush() -> None:
    """Silence what Lightning says of itself; warnings about a user's own settings stay."""
    logging.disable(logging.INFO)  # a level set on Lightning's loggers would be set back when it is imported
    own = ("does not have many workers", "`isinstance.treespec", "tensorboardX", "Checkpoint directory .* exists")
    for noise in own:
        warnings.filterwarnings("ignore", f".*{noise}")


def main() -> None:
    """Entry point: exceptions a user can act on become one sentence."""
    _hush()
    from data.errors import DataError, printable, worker_death

    code = 0
    try:
        run(sys.argv[1:])
    except (ConfigError, DataError, CheckpointError, DivergedError) as error:
        print(f"jepa: {printable(str(error))}", file=sys.stderr)
        code = 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"jepa: {printable(f'{where}{error.strerror or error}')}", file=sys.stderr)
        code = 2
    except RuntimeError as error:
        if (death := worker_death(error)) is None:
            raise
        print(f"jepa: {death}", file=sys.stderr)
        code = 2
    except Interrupted as stop:
        print(f"jepa: {stop}", file=sys.stderr)
        code = 128 + stop.number
    except KeyboardInterrupt:
        print("jepa: interrupted", file=sys.stderr)
        code = 130
    sys.stdout.flush()
    sys.stderr.flush()
    # Worker processes of an interrupted loader may still hold pipes; there is nothing left to clean up but them.
    os._exit(code) if code > 128 else sys.exit(code)


if __name__ == "__main__":
    main()
