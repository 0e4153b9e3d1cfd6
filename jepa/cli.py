"""The `jepa` command. A composition root: it imports what a command needs when that command runs.

Every command takes an optional YAML file, then `key=value` words. Bad input is one sentence and exit code 2; Ctrl-C is 130.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jepa.config import ConfigError, load_config


class Command(NamedTuple):
    """A line of help, the config it reads (imported when needed), and what to do with it."""

    help: str
    schema: Callable[[], type]
    run: Callable[[Any], object]


def _worlds_schema() -> type:
    from data.worlds import WorldConfig

    return WorldConfig


def _worlds(config: Any) -> None:
    from data.worlds import generate

    print(f"wrote {generate(config)}")


def _pretrain_schema() -> type:
    from jepa.train import PretrainConfig

    return PretrainConfig


def _pretrain(config: Any) -> None:
    from jepa.train import pretrain

    print(f"best checkpoint: {pretrain(config)}")


def _probe_schema() -> type:
    from jepa.probe_run import ProbeConfig

    return ProbeConfig


def _probe(config: Any) -> None:
    from jepa.probe_run import probe

    probe(config)


def _decoder_schema() -> type:
    from decoder.train import DecoderTrainConfig

    return DecoderTrainConfig


def _decoder(config: Any) -> None:
    from decoder.train import train_decoder

    print(f"decoder: {train_decoder(config)}")


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


COMMANDS = {
    "worlds": Command("write procedural physics videos and their ground truth", _worlds_schema, _worlds),
    "pretrain": Command("train a JEPA on a folder of videos", _pretrain_schema, _pretrain),
    "probe": Command("ask what frozen features know, beside random features and pixels", _probe_schema, _probe),
    "train-decoder": Command("train the decoder of a JEPA's latents", _decoder_schema, _decoder),
    "render": Command("show what a JEPA predicts for a video", _render_schema, _render),
    "demo": Command("all of the above on a small world, and a report", _demo_schema, _demo),
}


def _check_data(words: list[str]) -> int:
    from data.check import main

    return main(words)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jepa", description="Predict video in latent space, and look at the prediction.")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=command.help,
            description=f"{command.help}. Settings: an optional YAML file, then key=value words; --keys lists them all.",
        )
        sub.add_argument("words", nargs="*", metavar="config.yaml | key=value")
        sub.add_argument("--keys", action="store_true", help="print every key with its default and stop")
        if name in ("pretrain", "train-decoder"):
            sub.add_argument("--resume", action="store_true", help="go on with the run in out=, where it stopped")
    check = commands.add_parser("check-data", help="say which videos can be read, which cannot, and why", add_help=False)
    check.add_argument("words", nargs=argparse.REMAINDER)
    return parser


def run(arguments: list[str]) -> int:
    """Run one command; raises what it raises."""
    chosen = build_parser().parse_args(arguments)
    if chosen.command == "check-data":
        return _check_data(chosen.words)
    command, words = COMMANDS[chosen.command], list(chosen.words)
    schema = command.schema()
    if chosen.keys:
        from omegaconf import OmegaConf

        print(OmegaConf.to_yaml(OmegaConf.structured(schema)), end="")
        return 0
    path = words.pop(0) if words and Path(words[0]).suffix in (".yaml", ".yml") and "=" not in words[0] else None
    if getattr(chosen, "resume", False):
        words.append("resume=true")
    command.run(load_config(schema, path, words))
    return 0


def main() -> None:
    """Entry point: exceptions a user can act on become one sentence."""
    for noise in ("ignore:.*does not have many workers.*", "ignore:.*`isinstance.treespec.*", "ignore:.*tensorboardX.*"):
        warnings.filterwarnings(*noise.split(":"))  # type: ignore[arg-type]
    from data.errors import DataError
    from jepa.checkpoints import CheckpointError

    try:
        code = run(sys.argv[1:])
    except (ConfigError, DataError, CheckpointError) as error:
        print(f"jepa: {error}", file=sys.stderr)
        code = 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"jepa: {where}{error.strerror or error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("jepa: interrupted", file=sys.stderr)
        code = 130
    sys.stdout.flush()
    sys.stderr.flush()
    # Worker processes of an interrupted loader may still hold pipes; there is nothing left to clean up but them.
    os._exit(code) if code == 130 else sys.exit(code)


if __name__ == "__main__":
    main()
