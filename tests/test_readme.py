"""The README keeps its promises. Claims:

- every line of its shell blocks is a command this test knows how to hold to account, none is passed over: `jepa` lines
  parse (the command and its keys exist, types are right, YAML files are there), `make` lines name targets.
- its Python blocks run, on untrained models in place of the trained ones.
- every file its tree names exists, every link inside the repository leads somewhere, and no figure is still to be
  filled in.
- the tables of both comparisons and of the sweep are, to the letter, those that `jepa compare` writes of what was
  measured, which the repository keeps.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jepa_commands import parse_command

from data.writer import write_video
from decoder import Decoder, LatentSource
from decoder.compare.brief import markdown
from decoder.compare.figures import figures
from decoder.compare.headline_tables import features, leads, overview
from decoder.decoder import DecoderConfig
from decoder.dit import VideoDiTConfig
from jepa import JEPA, ConfigError, EncoderConfig, JEPAConfig, PredictorConfig

HOUSE = Path(__file__).resolve().parents[1]
README = (HOUSE / "README.md").read_text()
RESULTS = HOUSE / "notebooks" / "results"
KNOWN = ("cd", "git", "source", "python", "python3", "pip")  # not ours to check


def blocks(text: str, *languages: str) -> list[str]:
    return [body for language, body in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S) if language in languages]


def shell_lines(text: str) -> list[str]:
    """Commands of the shell blocks and those in backticks, continued lines joined, comments left out."""
    lines = []
    for block in blocks(text, "bash", "sh", "console", "shell"):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.removeprefix("$ ").strip()
            if line and not line.startswith("#"):
                lines.append(line)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    lines += [found for found in re.findall(r"`((?:jepa|make) [^`]+)`", prose) if "..." not in found]
    return lines


def hold_to_account(line: str) -> None:
    """AssertionError, or what the command would raise, unless a line would do what it says."""
    word = line.split()[0]
    if word == "jepa":
        parse_command(line)
    elif word == "make":
        targets = re.findall(r"^([a-z-]+):", (HOUSE / "Makefile").read_text(), re.M)
        for target in line.partition("#")[0].split()[1:]:
            assert target in targets, f"{line}: the Makefile has no {target}"
    else:
        assert word in KNOWN, f"{line}: the README shows a command that nothing checks"


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HOUSE)


def test_every_command_would_do_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shell_lines(README)
    shown = {line.split()[1] for line in lines if line.startswith("jepa")}
    assert shown >= {"check-data", "pretrain", "probe", "train-decoder", "render"}
    for line in lines:
        try:
            hold_to_account(line)
        except (ConfigError, SystemExit) as error:
            pytest.fail(f"the README says {line!r}: {error} {capsys.readouterr().err}")


@pytest.mark.parametrize(
    "line",
    [
        "jepa pretrain configs/pretrain/nowhere.yaml",
        "jepa pretrain data.trian=x",
        "jepa pretrain trainer.max_steps=many",
        "jepa train data.train=x",
        "jepa pretrain --again",
        "jepa render jepa=x",
        "make tea",
        "conda install everything",
    ],
)
def test_the_check_finds_what_it_is_for(line: str) -> None:
    with pytest.raises((ConfigError, SystemExit, AssertionError)):
        hold_to_account(line)
    text = f"Say `{line}`.\n\n```bash\n$ cd x  # there\n{line} \\\n  out=y\n```\n"
    found = shell_lines(text)
    assert found[0] == "cd x  # there" and found[1].split() == [*line.split(), "out=y"]
    assert found[2:] == ([line] if line.startswith(("jepa", "make")) else [])


def test_python_blocks_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    encoder = EncoderConfig(embed_dim=24, depth=1, num_heads=2, patch_size=8)
    jepa = JEPA(JEPAConfig(encoder, PredictorConfig(12, 1, 2))).eval()
    dit = VideoDiTConfig(width=24, depth=1, num_heads=2, patch_size=8, condition_dim=24)
    decoder = Decoder(DecoderConfig(dit, jepa=LatentSource(jepa).fingerprint)).eval()
    monkeypatch.setattr(JEPA, "load", lambda path: jepa)
    monkeypatch.setattr(Decoder, "load", lambda path: decoder)
    code = "\n".join(blocks(README, "python"))
    monkeypatch.chdir(tmp_path)
    for video in re.findall(r'open_video\("([^"]+)"\)', code):
        write_video(video, np.zeros((16, 32, 32, 3), np.uint8), fps=8)
    names: dict[str, Any] = {}
    exec(compile(code, "the Python of README.md", "exec"), names)
    assert names["drawn"].shape == names["video"].shape and names["predicted"].shape[-1] == 24


def test_what_the_tree_names_exists() -> None:
    tree = next(block for block in blocks(README, "") if "jepa/" in block and "decoder/" in block)
    room, missing, count = "", [], 0
    for line in tree.splitlines():
        heading = re.match(r"((?:\w+/)+)", line)
        room = heading[1] if heading else room
        for name in re.findall(r"\b\w+\.py\b", line):
            count += 1
            if not (HOUSE / room / name).is_file():
                missing.append(f"{room}{name}")
    assert count > 30 and not missing


def test_nothing_is_still_to_be_filled_in() -> None:
    assert re.findall(r"@[A-Z_]+@|TODO|XXX", README) == []


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", README)
    assert links and [link for link in links if not (HOUSE / link).exists()] == []


def measured(folder: Path) -> dict[str, Any]:
    """What the repository keeps of a comparison, as its metrics.json had it."""
    seeds = {
        place.name[4:]: {file.stem: json.loads(file.read_text()) for file in place.glob("measured/*.json")}
        for place in sorted(folder.glob("seed*"))
    }
    return {**next(iter(seeds.values())), "by_seed": seeds if len(seeds) > 1 else {}}


def tables_under(heading: str) -> list[str]:
    section = README.partition(f"\n### {heading}")[2].partition("\n## ")[0].partition("\n### ")[0]
    return [table.strip() for table in re.findall(r"(?:^\|.*\|\n)+", section, re.M)]


@pytest.mark.parametrize(
    ("heading", "name"), [("The tiny setting", "compare_tiny"), ("The small setting", "compare_small")]
)
def test_comparisons_are_told_as_they_were_measured(heading: str, name: str) -> None:
    """All of their tables, of three seeds, to the letter: those of report.md."""
    metrics = measured(RESULTS / name)
    found, seeds = figures(metrics), list(metrics["by_seed"])
    expected = [overview(found, "event"), features(found), leads(found, seeds, [], "event")]
    assert len(seeds) == 3 and tables_under(heading) == [markdown(table) for table in expected if table]


def test_the_sweeps_are_told_as_they_were_measured() -> None:
    """The same of the settings of the detail: the plain comparison is the first of them."""
    expected = []
    for name, count in (("compare_tiny", 4), ("compare_small", 2)):
        folders = {0.0: RESULTS / name, **{float(at.name): at for at in (RESULTS / name / "detail").glob("[0-9]*")}}
        rows = [{**measured(folders[detail]), "detail": detail} for detail in sorted(folders)]
        found, settings = figures({**rows[0], "detail": rows}), [row["detail"] for row in rows]
        table = leads(found, [], settings, "event")
        assert table and len(settings) == count
        expected.append(markdown(table))
    assert tables_under("Unpredictable detail") == expected
