"""Reads `jepa ...` lines as the command line does, without running them."""

import shlex
from typing import Any
from unittest.mock import patch

from jepa import cli


def parse_command(line: str) -> tuple[str, Any]:
    """(command, its settings) of a line that begins with `jepa`. Raises what the command would: ConfigError for keys,
    types and missing files, SystemExit for a command or option that does not exist."""
    first, *words = shlex.split(line, comments=True)
    assert first == "jepa", line
    taken: list[Any] = []
    commands = {name: command._replace(run=taken.append) for name, command in cli.COMMANDS.items()}
    with patch.object(cli, "COMMANDS", commands):
        cli.run(words)
    return words[0], taken[0] if taken else None
