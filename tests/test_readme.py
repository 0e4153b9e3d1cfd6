"""The README keeps its promises. Claims:

- every line of its shell blocks is a command this test knows how to hold to account, none is passed over: `jepa` lines
  parse (the command and its keys exist, types are right, YAML files are there), `make` lines name targets.
- its Python blocks run, on untrained models in place of the trained ones.
- every file its tree names exists, every link inside the repository leads somewhere, and no figure is still to be
  filled in.
- the tables of the small comparison and of the sweep are those of their measurements, which the repository keeps.
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
from decoder.compare.figures import figures
from decoder.compare.headlines import headlines
from decoder.compare.labels import share
from decoder.decoder import DecoderConfig
from decoder.dit import VideoDiTConfig
from jepa import JEPA, ConfigError, EncoderConfig, JEPAConfig, PredictorConfig

HOUSE = Path(__file__).resolve().parents[1]
README = (HOUSE / "README.md").read_text()
SMALL = HOUSE / "notebooks" / "results" / "compare_small"
SWEPT = HOUSE / "notebooks" / "results" / "compare_tiny" / "detail"
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


def test_the_small_setting_is_told_as_it_was_measured() -> None:
    """Both of its tables: of every arm the figures of all seeds, and the differences in each with their intervals."""
    seeds = {
        folder.name[4:]: figures({file.stem: json.loads(file.read_text()) for file in folder.glob("measured/*.json")})
        for folder in sorted(SMALL.glob("seed*"))
    }
    names = {"PSNR": ("pictures/tasks/forward/{}/psnr", 1), "LPIPS": ("pictures/tasks/forward/{}/lpips", 1),
             "Fréchet": ("distance/rows/{}/fvd", 1), "place": ("rollout/rows/{}/error_beyond/first=112", 1),
             "object": ("rollout/rows/{}/colour_beyond/first=112", 100),
             "comes back": ("physics/permanence/rows/{}/returned_beyond", 100),
             "surprise in sight": ("surprise/rows/{}/event/all/sight", 100),
             "behind": ("surprise/rows/{}/event/all/behind", 100),
             "A latents": ("representation/labels/{}/jepa/1", 1),
             "C masked": ("representation/labels/{}/masked_pixels/1", 1),
             "untrained": ("representation/labels/{}/random/1", 1),
             "raw pixels": ("representation/labels/{}/pixels/1", 1),
             "A − C": ("representation/labels/{}/jepa-masked_pixels/1", 1)}  # fmt: skip
    kinds = {"**A** JEPA": "jepa", "D JEPA": "futures", "**B** pixels": "pixels", "B+ pixels": "pixels_plus",
             "last frame": "copy", "decode(target)": "target", "A − B,": "jepa-pixels",
             "A − B+,": "jepa-pixels_plus", "motion": "motion", "shape": "appearance"}  # fmt: skip
    section = README.partition("### The small setting")[2].partition("\n### ")[0]
    tables = re.findall(r"(?:^\|.*\|\n)+", section, re.M)
    assert len(seeds) > 2 and [table.count("\n") for table in tables] == [2 + 6 + 2 * len(seeds) - 1, 2 + 2]
    for head, _, *rows in ([line.strip("|").split("|") for line in table.splitlines()] for table in tables):
        for first, *cells in rows:
            kind = next(kind for title, kind in kinds.items() if first.strip().startswith(title))
            for title, text in zip(head[1:], cells, strict=True):
                name, scale = next(told for begin, told in names.items() if title.strip().startswith(begin))
                one = re.search(r"seed (\d)", first + title)
                of = [seeds[one[1]]] if one else list(seeds.values())
                found = [figure for figure in (figures.get(name.format(kind)) for figures in of) if figure]
                if not found:
                    assert text.strip() == "–", (first, title)
                    continue
                values = [
                    getattr(figure, key) for figure in found for key in ("value", "low", "high")[: 3 if one else 1]
                ]
                told = re.findall(r"−?[\d.]+", text)
                assert len(told) == len(values), (first, title)
                for number, value in zip(told, values, strict=True):
                    half = 0.5 * 10.0 ** -len(number.partition(".")[2])
                    assert abs(float(number.replace("−", "-")) - scale * value) <= half + 1e-9, (first, title, number)


def test_the_sweep_is_told_as_it_was_measured() -> None:
    """Every row of its table, against the figures that the repository keeps of it."""
    rows = [
        {"detail": float(folder.name), "by_seed": {},
         **{file.stem: json.loads(file.read_text()) for file in folder.glob("seed0/measured/*.json")}}
        for folder in sorted(SWEPT.iterdir()) if folder.is_dir()
    ]  # fmt: skip
    found = figures({**rows[0], "detail": rows})
    known = {f"{headline.title}: {label.letter}": (headline.at(pair), 100 if headline.form is share else 1)
             for headline in headlines(found, "event") for pair, label in headline.pairs.items()}  # fmt: skip
    section = README.partition("### Unpredictable detail")[2]
    table = section[section.index("\n|") :].partition("\n\n")[0].strip()
    head, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    assert [title.split()[-1] for title in head[1:]] == ["0", "0.25", "0.5", "1", "change"] and len(lines) > 8
    for title, *cells in lines:
        name, scale = known[title]
        for place, text in zip(head[1:], cells, strict=True):
            figure = found[f"detail/{'change' if place == 'change' else place.replace(' ', '=')}/{name}"]
            values = [value for value in (figure.value, figure.low, figure.high) if value is not None]
            told = re.findall(r"[+−]?[\d.]+", text)
            assert len(told) == len(values) == 3, (title, place)
            for number, value in zip(told, values, strict=True):
                half = 0.5 * 10.0 ** -len(number.partition(".")[2])
                assert abs(float(number.replace("−", "-")) - scale * value) <= half + 1e-9, (title, place, number)
