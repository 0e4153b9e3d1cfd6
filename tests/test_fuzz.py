"""Whatever is in a file, the answer is a result or one clear sentence. Claims, over mutated files drawn by hypothesis:

- configs: `jepa pretrain`, up to where training would begin, takes a mutated YAML file or refuses it in one line that
  names the file or a key. So do the schemas of all commands.
- tables: `list_videos` gives videos that lie below the table's folder, or refuses in one line that names the table.
- checkpoints: `JEPA.load` gives a model, or refuses in one line that names the file; nothing in the file is run.
- videos: a damaged mp4 is reported on with either backend; nothing but a DataError ends the reading of it.

The fast suite tries fifty to a hundred of each, always the same; `make test-all` 250 of each. A hunt with other seeds:
`FUZZ=5000 python -m pytest tests/test_fuzz.py --hypothesis-seed=1`.
"""

import copy
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from safetensors.torch import save_file

import jepa.train
from data.check import FileReport, inspect_file
from data.dataset import list_videos
from data.errors import DataError, printable
from data.isolated import Failure, isolated_map
from data.writer import write_video
from jepa import JEPA, EncoderConfig, JEPAConfig, PredictorConfig, cli
from jepa.config import load_config, save_config
from jepa.errors import CheckpointError, ConfigError
from jepa.optim import rates
from jepa.train import PretrainConfig, pretrain

HOUSE = Path(__file__).resolve().parents[1]
HUNT = int(os.environ.get("FUZZ", 0))  # so many examples of each, drawn anew
VIDEOS_AT_ONCE = 25


def fuzz(count: int, each: int = 1, **strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """`given`, for `count` files, `each` to an example, that are written over from one example to the next."""
    chosen = settings(
        max_examples=(HUNT or count) // each,
        derandomize=not HUNT,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: chosen(given(**strategies)(test))


def sizes(few: int = 100, many: int = 250) -> Any:
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.slow)])


def refusal(run: Callable[[], object], *names: str) -> str:
    """What `run` refuses with, one line that has one of `names` in it; empty where it does not refuse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run()
        except (ConfigError, DataError, CheckpointError) as error:
            said = str(error)
            assert "\n" not in said and len(said) < 2000 and printable(said).isprintable(), repr(said)
            assert any(name in said for name in names), f"{said!r} names none of {names[:8]}"
            return said
    return ""


# ---------------------------------------------------------------------- mutations

SCALARS = st.one_of(
    st.sampled_from([
        *(0, 1, -1, 2, 7, 10**9, -(10**9), 10**30, 2**63, 0.5, -0.5, 1e-300, 1e300, True, False, None),
        *(float("inf"), float("nan"), float("-inf"), "???", "${oc.env:HOME}", "${nothing.here}", "${", "${out}"),
        *("${oc.decode:'[1]'}", "../../x", "/", "\x1b[31mred", "\0", "a" * 300, "true", "1e3", "0x10", "äöü"),
        *("", "auto", "none", "ddp", "[", "{}"),
    ]),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
)  # fmt: skip
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3),
    max_leaves=8,
)
WORDS = st.sampled_from(["data", "train", "size", "encoder", "depth", "out", "preset", "masks", "kind", "x", "1", ""])
CHANGES = st.lists(
    st.tuples(st.sampled_from(["set", "set", "set", "rename", "drop", "add"]), st.integers(0, 10**6), WORDS, JUNK),
    max_size=2,
)
SPLICES = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=6) | st.sampled_from([
        *(b": ", b"\t", b"- ", b"&a ", b"*a", b"!!python/object/apply:os.system [true] ", b"<<: ", b"{", b"[" * 3000),
        *(b"\n", b"%YAML 9\n", b"--- ", b"${", b"}", b"\xff\xfe", b"\0", b"? ", b"| ", b"!!binary ", b"2020-01-01 "),
    ])),
    max_size=2,
)  # fmt: skip


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every (table or list, key or place) of a nested config."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from places(tree[key])


def changed(tree: Any, changes: list[tuple[str, int, str, Any]]) -> Any:
    tree = copy.deepcopy(tree)
    for what, where, word, junk in changes:
        found = list(places(tree))
        if not found:
            break
        holder, key = found[where % len(found)]
        if what == "set":
            holder[key] = junk
        elif what == "add" and isinstance(holder, dict):
            holder[word] = junk
        elif what == "rename" and isinstance(holder, dict):
            holder[word] = holder.pop(key)
        else:
            del holder[key]
    return tree


def spliced(content: bytes, splices: list[tuple[float, int, bytes]]) -> bytes:
    for where, cut, new in splices:
        place = round(where * len(content))
        content = content[:place] + new + content[place + cut :]
    return content


# ---------------------------------------------------------------------- configs

TINY = """
seed: 3
masks_per_step: 1
data: {train: videos, val: videos/a.mp4, num_frames: 4, size: [16, 16], batch_size: 2, workers: 0, cache: false}
model:
  encoder: {embed_dim: 24, depth: 1, num_heads: 2, patch_size: 8}
  predictor: {embed_dim: 12, depth: 1, num_heads: 2, num_mask_tokens: 1}
trainer: {max_steps: 2, val_every: 1, accelerator: cpu, devices: "1", precision: 32-true, progress: false, threads: 1}
"""  # over worlds_tiny.yaml, so that a model is built in no time
KEYS = sorted({key for command in cli.COMMANDS.values() for key in command.schema().__dataclass_fields__})


def tiny_pretraining() -> dict[str, Any]:
    whole = yaml.safe_load((HOUSE / "configs/pretrain/worlds_tiny.yaml").read_text())
    for key, value in yaml.safe_load(TINY).items():
        whole[key] = value | {"encoder": value["encoder"]} if key == "model" else value
    return whole


def keys_of(schema: type, prefix: str = "") -> set[str]:
    return set(jepa.config._all_keys(schema, prefix))


def up_to_training(trainer: Any, module: Any, data: Any, resume: bool, out: Any, settings: Any) -> None:
    """What `fit` does before the first step: videos are listed, the optimizer is made, the settings are written."""
    if data.config.workers > 4 or data.config.max_bad_fraction < 0:
        return
    data.setup()
    module.configure_optimizers()
    for step in range(3):
        rates(module.optim, step, module.max_steps)
    save_config(settings, Path(out) / "config.yaml")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with two videos."""
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        write_video(tmp_path / "videos" / f"{name}.mp4", np.zeros((6, 16, 16, 3), np.uint8), fps=8)
    return tmp_path


@sizes(few=40)
def test_configs(count: int, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jepa.train, "fit", up_to_training)
    base, file = tiny_pretraining(), place / "config.yaml"
    last_keys = [key.rpartition(".")[2] for key in keys_of(PretrainConfig)]
    threads = torch.get_num_threads()
    taken = 0

    @fuzz(count, mutation=st.tuples(CHANGES, st.just([])) | st.tuples(st.just([]), SPLICES))
    def run(mutation: Any) -> None:
        nonlocal taken
        tree = changed(base, mutation[0])
        file.write_bytes(spliced(yaml.safe_dump(tree, allow_unicode=True).encode(), mutation[1]))
        values = [str(holder[key]) for holder, key in places(tree) if holder[key] not in ("", None)]
        said = refusal(lambda: pretrain(load_config(PretrainConfig, file)), str(file), *last_keys, *values)
        torch.set_num_threads(threads)
        for left in ("runs", "videos/.cache"):  # of an example that was taken: the next one begins as it did
            shutil.rmtree(place / left, ignore_errors=True)
        taken += not said

    run()
    assert 0 < taken < count or HUNT


@sizes(few=10)
def test_configs_of_all_commands(count: int, place: Path) -> None:
    schemas = [command.schema() for command in cli.COMMANDS.values()]
    file = place / "config.yaml"

    @fuzz(count, which=st.sampled_from(schemas), changes=CHANGES, splices=SPLICES)
    def run(which: type, changes: Any, splices: Any) -> None:
        base = yaml.safe_load(OmegaConf.to_yaml(OmegaConf.structured(which)))
        file.write_bytes(spliced(yaml.safe_dump(changed(base, changes), allow_unicode=True).encode(), splices))
        keys = [key.rpartition(".")[2] for key in keys_of(which)]
        refusal(lambda: load_config(which, file), str(file), *keys)

    run()


# ---------------------------------------------------------------------- tables

TABLES = [
    b"path,label\nvideos/a.mp4,1\nvideos/b.mp4,2\n",
    b'path,label,kind\n"videos/a, b.mp4",left,x\nvideos/b.mp4,right,y\n',
    b"videos/a.mp4 1\nvideos/with space.mp4 0\n",
    b"\xef\xbb\xbfpath\nvideos/a.mp4\n",
]
CELLS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 9), st.binary(max_size=6) | st.sampled_from([
        *(b'"', b"'", b",", b"\n", b"\r", b"\0", b"\xff", b"../", b"/", b"../../etc/passwd", b"\x1b[2J", b";", b"\t"),
        *("\u0663".encode(), "\u00b2".encode(), b"-", b"9" * 400, b"1e9", b"\x1c", "\u2028".encode(), b"a" * 140_000),
    ])),
    max_size=4,
)  # fmt: skip


@sizes()
def test_tables(count: int, place: Path) -> None:
    file, taken = place / "table.csv", 0

    @fuzz(count, base=st.sampled_from(TABLES), splices=CELLS, labels=st.sampled_from(["auto", "none", "folder"]))
    def run(base: bytes, splices: Any, labels: str) -> None:
        nonlocal taken
        file.write_bytes(spliced(base, splices))

        def listed() -> None:
            found = list_videos(file, labels)
            assert len(found.paths) == len(found.labels) > 0
            assert all(Path(path).is_relative_to(place) and ".." not in Path(path).parts for path in found.paths)
            assert max(found.labels) < len(found.classes) or not found.classes

        taken += not refusal(listed, str(file))

    run()
    assert 0 < taken < count or HUNT


# ---------------------------------------------------------------------- checkpoints

FORMS = ("run", "shared")
TENSORS = st.sampled_from([
    torch.zeros(()), torch.zeros(0), torch.zeros(3, 5), torch.zeros(24, dtype=torch.int8),
    torch.zeros(24, dtype=torch.bool), torch.zeros(24, dtype=torch.complex64), torch.zeros(24, dtype=torch.half),
    torch.zeros(24, device="meta"),
    torch.eye(24).to_sparse(), "text", None, 3, {"a": 1}, [torch.zeros(24)],
])  # fmt: skip
EDITS = st.lists(
    st.tuples(st.sampled_from(["top", "config", "weight", "key", "drop"]), st.integers(0, 10**6), TENSORS, JUNK),
    max_size=2,
)
BYTES = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from([0, 1, 1, 1, 7, 300]), st.binary(min_size=0, max_size=8)), max_size=3
)
ENDS = st.sampled_from(["anywhere", "beginning", "end", "cut"])


def edited(content: bytes, splices: Any, where: str) -> bytes:
    """Splices at the beginning, where a header is, at the end, where a zip has its table, or anywhere; or cut short."""
    if where == "cut":
        return content[: round(len(content) * (splices[0][0] if splices else 0.5))]
    if where == "beginning":
        return spliced(content[:2000], splices) + content[2000:]
    if where == "end":
        return content[:-2000] + spliced(content[-2000:], splices)
    return spliced(content, splices)


@sizes(few=40)
@pytest.mark.filterwarnings("ignore")
def test_checkpoints(count: int, place: Path) -> None:
    config = JEPAConfig(EncoderConfig(24, 1, 2, patch_size=8), PredictorConfig(12, 1, 2))
    whole = JEPA(config)
    weights = {f"jepa.{key}": value for key, value in whole.state_dict().items()}
    run_file, folder, sprung = place / "best.ckpt", place / "shared", place / "sprung"
    taken = 0

    @fuzz(
        count, form=st.sampled_from(FORMS), edits=EDITS, splices=st.just([]) | BYTES, where=ENDS, trap=st.integers(0, 9)
    )
    def run(form: str, edits: Any, splices: Any, where: str, trap: int) -> None:
        nonlocal taken
        settings_, state, top = asdict(config), dict(weights), {}
        for what, number, tensor, junk in edits:
            key = sorted(state)[number % len(state)] if state else "jepa.x"
            if what == "top":
                top[("kind", "config", "state_dict", "x")[number % 4]] = junk
            elif what == "config":
                settings_ = changed(settings_, [("set", number, "x", junk)])
            elif what == "weight":
                state[key] = tensor
            elif what == "key":
                state[str(junk)[:20]] = state.pop(key, torch.zeros(1))
            else:
                state.pop(key, None)
        if trap == 0:
            top["x"] = Trap(sprung)
        if form == "run":
            torch.save({"kind": "jepa", "config": settings_, "state_dict": state} | top, run_file)
            content = run_file.read_bytes()
            run_file.write_bytes(edited(content, splices, where) if splices or where == "cut" else content)
            source = run_file
        else:
            whole.save_pretrained(folder)
            plain = {k.removeprefix("jepa."): v for k, v in state.items() if isinstance(v, torch.Tensor)}
            plain = {
                k: v.contiguous() for k, v in plain.items() if v.layout == torch.strided and v.device.type == "cpu"
            }
            target = folder / ("config.json" if trap < 3 else "model.safetensors")
            (folder / "config.json").write_text(json.dumps(top.get("config", settings_), default=str))
            save_file({k: v.clone() for k, v in plain.items()}, folder / "model.safetensors")
            if splices or where == "cut":
                target.write_bytes(edited(target.read_bytes(), splices, where))
            source = folder
        taken += not refusal(lambda: JEPA.load(source), str(source))
        assert not sprung.exists()

    run()
    assert 0 < taken < count or HUNT


class Trap:
    """A pickle of this makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


# ---------------------------------------------------------------------- videos

HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["beginning", "end", "moov"]),
        st.lists(
            st.tuples(st.floats(0, 1), st.sampled_from([0, 1, 1, 1, 4]), st.binary(max_size=4)), min_size=1, max_size=4
        ),
    ),
    min_size=VIDEOS_AT_ONCE,
    max_size=VIDEOS_AT_ONCE,
)


@sizes()
@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_videos(backend: str, count: int, place: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (10, 32, 64, 3), np.uint8)  # a width that decord reads
    content = write_video(place / "whole.mp4", noise, fps=8, crf=40).read_bytes()
    moov = content.index(b"moov")
    inspect = partial(inspect_file, num_frames=4, stride=1, fps=None, backend=backend)
    good = bad = crashed = 0

    @fuzz(count, each=2 * VIDEOS_AT_ONCE, headers=HEADERS)  # two backends
    def run(headers: Any) -> None:
        nonlocal good, bad, crashed
        files = []
        for number, (where, splices) in enumerate(headers):
            files.append(place / f"{number}.mp4")
            if where == "moov":
                files[-1].write_bytes(
                    content[:moov] + spliced(content[moov : moov + 600], splices) + content[moov + 600 :]
                )
            else:
                files[-1].write_bytes(edited(content, splices, where))
        for path, report in isolated_map(inspect, map(str, files), workers=2, timeout=20):
            if isinstance(report, Failure):  # which `jepa check-data` reports like any other
                assert "crashed" in report or "not decoded within" in report, (path, report)
                crashed += 1
                continue
            assert isinstance(report, FileReport)
            good, bad = good + report.ok, bad + (not report.ok)
            assert report.ok or (Path(path).name in report.reason and "\n" not in report.reason), report

    run()
    print(f"{backend}: {good} read, {bad} refused, {crashed} crashed or hung")
    assert good and bad


# ---------------------------------------------------------------------- what was found, one by one


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("model.encoder.embed_dim=1000000000", ["encoder.embed_dim is 1000000000: give 1 to 100000"]),
        ("model.encoder.depth=1000000000", ["encoder.depth is 1000000000"]),
        ("model.encoder.num_heads=0", ["encoder.num_heads is 0"]),
        ("model.predictor.num_heads=-3", ["predictor.num_heads is -3"]),
        ("model.predictor.num_mask_tokens=1000000000", ["num_mask_tokens is 1000000000"]),
        ("model.encoder={embed_dim: 99996, depth: 40, num_heads: 6}", ["weights, more than this machine's memory"]),
        ("model.encoder.mlp_ratio=.nan", ["model.encoder.mlp_ratio is nan: give a finite number"]),
        ("optim.lr=.inf", ["optim.lr is inf"]),
        ("optim.betas=[-1.0, 0.9]", ["optim.betas is [-1.0, 0.9]"]),
        ("optim.betas=[{a: 1}, 0.9]", ["optim.betas", "a list of plain values"]),
        ("optim.start_lr=-1.0", ["optim gives a lr of -1.0 at the start"]),
        ("data.size=[[1], [2]]", ["data.size", "a list of plain values"]),
        ("data.num_frames=1000000000", ["1000000000 frames of 16 x 16 are 2000000000 tokens"]),
        ("data.num_frames=-4", ["frames -4 is not a multiple"]),
        ("data.batch_size=1000000000000", ["data.batch_size=1000000000000", "this machine's memory"]),
        ("trainer.threads=1000000000", ["trainer.threads is 1000000000"]),
    ],
)
def test_settings_that_were_found_to_crash(
    words: str, names: list[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jepa.train, "fit", up_to_training)
    file = place / "config.yaml"
    file.write_text(yaml.safe_dump(tiny_pretraining()))
    said = refusal(lambda: pretrain(load_config(PretrainConfig, file, [words])), *names)
    assert all(name in said for name in names), said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("out: " + "[" * 1200 + "]" * 1200, "nested too deeply"),
        ("a: &a [x, x]\nb: [*a, *a]\n", r"repeats a part by \*name"),
        ("out: !!int x\n", "is not valid YAML"),
        ("seed: " + "9" * 5000, "is not valid YAML"),
        ("out: \x00", "is not valid YAML"),
    ],
)
def test_files_that_were_found_to_crash(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"config\.yaml .*{why}"):
        load_config(PretrainConfig, tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("path,label\na.mp4,999999999\n", "has a label 999999999: number the classes"),
        ("path,label\na.mp4," + "9" * 5000 + "\n", "has a label 9{40}: number the classes"),
        ("a.mp4 -7\n", "has a label -7"),
        ("a.mp4 \u00b2\n", "neither a CSV"),  # a superscript is a digit to str.isdigit, and none to int
        ('path,label\n"' + "a" * 140_000 + ",1\n", "not a readable CSV table"),
        ("path\na\0b.mp4\n", "zero byte"),
    ],
)
def test_tables_that_were_found_to_crash(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=rf"t\.csv .*{why}"):
        list_videos(tmp_path / "t.csv")


def test_checkpoints_that_were_found_to_crash(tmp_path: Path) -> None:
    config = JEPAConfig(EncoderConfig(24, 1, 2, patch_size=8), PredictorConfig(12, 1, 2))
    state = {f"jepa.{key}": value for key, value in JEPA(config).state_dict().items()}
    bias = "jepa.predictor.predictor_proj.bias"
    huge = asdict(config) | {"encoder": asdict(config.encoder) | {"embed_dim": 96_000, "depth": 1000}}
    for change, why in (
        ({"config": 3}, "holds no config"),
        ({"config": huge}, "another architecture: missing context_encoder.blocks.1"),
        ({"state_dict": None}, "lacks its config or its weights"),
        ({"state_dict": state | {bias: "text"}}, "holds no table of weights"),
        ({"state_dict": state | {bias: torch.zeros(24, dtype=torch.int8)}}, "is of torch.int8 there"),
        ({"state_dict": state | {bias: torch.zeros(24, device="meta")}}, "cannot be taken over"),
    ):
        torch.save({"kind": "jepa", "config": asdict(config), "state_dict": state} | change, tmp_path / "best.ckpt")
        assert why in refusal(lambda: JEPA.load(tmp_path / "best.ckpt"), "best.ckpt"), why
