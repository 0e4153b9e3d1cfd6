"""The `jepa` command on bad input. Claims:

- an unknown key, a wrong type, a missing or broken file, an empty folder, a folder of texts, one-frame and audio-only
  videos, clips too short, frames that do not divide, foreign and broken checkpoints, a table that leads out of its
  folder, a full disk, a folder that is read-only or a file: the reason, the key or file by name and what to do on
  stderr, exit code 2, no traceback, and nothing already written lost or half-written; names are shown escaped.
- Ctrl-C ends with 130 and one line; a run it met can be resumed.
- a mistake in the program is not hidden: it keeps its traceback. Lightning's own chatter is hidden, warnings are not.
- words may come before and after options; a first word of check-data is its path; `--keys` prints what can be set.
"""

import contextlib
import errno
import fractions
import logging
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from data.writer import write_video
from jepa import JEPA, cli
from jepa.train import PretrainConfig

TINY = [
    "data={num_frames: 4, size: [16, 16], batch_size: 2, workers: 0, val_fraction: 0.34}",
    "model.encoder={embed_dim: 24, depth: 1, num_heads: 2, patch_size: 8}",
    "model.predictor={embed_dim: 12, depth: 1, num_heads: 2}",
    "masks=[{kind: tube, ratio: 0.5}]",
    "trainer={max_steps: 2, val_every: 1, accelerator: cpu, precision: 32-true, progress: false}",
]
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def jepa_command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs `jepa` with some words: (exit code, what it wrote to stderr)."""

    def leave(code: int) -> None:
        raise SystemExit(code)

    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["jepa", *map(str, words)])
        monkeypatch.setattr(os, "_exit", leave)
        monkeypatch.setattr(logging.root.manager, "disable", 0)  # what `main` sets ends with the test
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), capfd.readouterr().err

    return run


def refused(result: tuple[int, str], *names: object) -> str:
    """The sentence of a command that failed as it should: exit code 2, no traceback, all of `names` in it."""
    code, err = result
    said = [line for line in err.splitlines() if line.startswith("jepa: ")]
    assert code == 2 and len(said) == 1 and "Traceback" not in err, err
    sentence = err[err.index("jepa: ") :]
    for name in names:
        assert str(name) in sentence, sentence
    assert len(sentence) < 1000
    return sentence


def videos(folder: Path, count: int = 3, frames: int = 6, size: tuple[int, int] = (16, 16)) -> Path:
    for i in range(count):
        picture = np.random.default_rng(i).integers(0, 255, (frames, *size, 3), np.uint8)
        write_video(folder / f"{i}.mp4", picture, fps=8)
    return folder


def sound(path: Path) -> Path:
    """An mp4 that holds a second of silence and no picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        for start in range(0, 16_000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, start, fractions.Fraction(1, 16_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["pretrain", "data.trian=x"], ["data.trian", "did you mean data.train?"]),
        (["pretrain", "trainer.max_steps=many"], ["trainer.max_steps", "many"]),
        (["pretrain", "data.size=64"], ["data.size"]),
        (["pretrain", "nowhere.yaml"], ["nowhere.yaml: no such config file"]),
        (["pretrain", "out"], ["'out' is not of the form key=value"]),
        (["pretrain", "model.encoder.num_heads=7", "data.train=x"], ["embed_dim 384", "num_heads 7"]),
        (["pretrain", "trainer.accelerator=abacus", "data.train=x"], ["trainer", "abacus"]),
        (["probe"], ["checkpoint must be given, as checkpoint="]),
        (["probe", "checkpoint=nowhere.ckpt", "data.val=x"], ["nowhere.ckpt: no such checkpoint"]),
        (["train-decoder", "jepa=nowhere.ckpt"], ["nowhere.ckpt: no such checkpoint"]),
        (["render", "jepa=x", "decoder=y"], ["video must be given, as video="]),
        (["render", "jepa=x", "decoder=y", "video="], ["video is empty: it must be given, as video="]),
        (["worlds", "size=31"], ["size=31"]),
        (["check-data"], ["path must be given"]),
        (["check-data", "/nowhere"], ["/nowhere does not exist"]),
        (["pretrain", "data.train=/nowhere"], ["/nowhere does not exist: name a folder of videos"]),
        (["pretrain"], ["data.train is empty"]),
    ],
    ids=" ".join,
)
def test_what_is_wrong_is_named(
    words: list[str], names: list[str], jepa_command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(jepa_command(*words), *names)


def pretrain(jepa_command: Run, source: Path, out: Path, *more: str) -> tuple[int, str]:
    return jepa_command("pretrain", *TINY, f"data.train={source}", f"out={out}", *more)


def test_folders_that_hold_no_videos(jepa_command: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(pretrain(jepa_command, tmp_path / "empty", tmp_path / "run"), tmp_path / "empty", "it is empty")
    (tmp_path / "texts").mkdir()
    for name in ("notes.txt", "list.md"):
        (tmp_path / "texts" / name).write_text("no video")
    said = refused(pretrain(jepa_command, tmp_path / "texts", tmp_path / "run"), tmp_path / "texts", "2 other files")
    assert "notes.txt" in said or "list.md" in said


def test_videos_that_cannot_give_a_clip(jepa_command: Run, tmp_path: Path) -> None:
    one = videos(tmp_path / "one", frames=1)
    refused(pretrain(jepa_command, one, tmp_path / "run"), one, "1 frames and a clip needs 4", "data.short")
    short = videos(tmp_path / "short", frames=3)
    refused(pretrain(jepa_command, short, tmp_path / "run"), short, "3 frames and a clip needs 4", "data.short")
    code, err = pretrain(jepa_command, short, tmp_path / "padded", "data.short=pad")
    assert code == 0, err
    silent = sound(tmp_path / "silent" / "a.mp4").parent
    sound(silent / "b.mp4")
    said = refused(pretrain(jepa_command, silent, tmp_path / "run"), silent)
    assert "a.mp4" in said or "b.mp4" in said


def test_frames_that_do_not_divide(jepa_command: Run, tmp_path: Path) -> None:
    folder = videos(tmp_path / "videos")
    words = ("data.size=[20, 16]", "height 20", "patch_size 8: choose 16")
    refused(pretrain(jepa_command, folder, tmp_path / "run", words[0]), *words[1:])
    refused(pretrain(jepa_command, folder, tmp_path / "run", "data.num_frames=5"), "frames 5", "tubelet_size 2")
    assert not (tmp_path / "run").exists(), "nothing was begun"


def test_checkpoints_that_do_not_fit(jepa_command: Run, tmp_path: Path) -> None:
    folder, run = videos(tmp_path / "videos"), tmp_path / "run"
    assert pretrain(jepa_command, folder, run)[0] == 0
    kept = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    deeper = pretrain(jepa_command, folder, run, "model.encoder.depth=2", "resume=true")
    refused(deeper, run / "config.yaml", "model.encoder.depth was 1 and is 2", "another out=")
    (run / "config.yaml").rename(tmp_path / "config.yaml")
    deeper = pretrain(jepa_command, folder, run, "model.encoder.depth=2", "resume=true")
    said = refused(deeper, run / "last.ckpt", "another architecture")
    assert "missing jepa.context_encoder.blocks.1" in said
    (tmp_path / "config.yaml").rename(run / "config.yaml")
    refused(pretrain(jepa_command, folder, run), run, "already holds a run", "resume=true")
    assert {name: (run / name).read_bytes() for name in kept} == kept, "a refused run changes nothing"
    other = torch.load(run / "best.ckpt", weights_only=True) | {"kind": "decoder"}
    torch.save(other, tmp_path / "decoder.ckpt")
    (tmp_path / "code.ckpt").write_bytes(pickle.dumps(print))
    (tmp_path / "half.ckpt").write_bytes(kept["best.ckpt"][:2000])
    for name, why in (
        ("decoder.ckpt", "is the checkpoint of a decoder, and a jepa is needed"),
        ("code.ckpt", "read safely"),
        ("half.ckpt", "damaged"),
    ):
        words = (f"checkpoint={tmp_path / name}", f"data.train={folder}", f"data.val={folder}")
        refused(jepa_command("probe", *words), tmp_path / name, why)
    refused(jepa_command("train-decoder", f"jepa={tmp_path / 'half.ckpt'}"), tmp_path / "half.ckpt", "damaged")
    renders = (f"jepa={run / 'best.ckpt'}", f"decoder={run / 'best.ckpt'}", f"video={folder / '0.mp4'}")
    refused(jepa_command("render", *renders), run / "best.ckpt", "is the checkpoint of a jepa, and a decoder is needed")


def test_a_full_disk(jepa_command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, run = videos(tmp_path / "videos"), tmp_path / "run"
    assert pretrain(jepa_command, folder, run)[0] == 0
    kept = {name: (run / name).read_bytes() for name in ("best.ckpt", "last.ckpt")}

    def full(descriptor: int) -> None:
        os.ftruncate(descriptor, 1000)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    said = refused(pretrain(jepa_command, folder, run, "resume=true", "trainer.max_steps=4"), run / "last.ckpt")
    assert said.strip() == f"jepa: {run / 'last.ckpt'}: No space left on device"
    assert {name: (run / name).read_bytes() for name in kept} == kept
    assert not [path for path in run.iterdir() if path.name.startswith(".")], "nothing half-written stays"


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be written below `folder`; root, whom no permission stops, is somebody else meanwhile."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has no read-only folders")
    parts = [folder, *(path for path in folder.rglob("*"))]
    before = {path: path.stat().st_mode for path in parts}
    for path in parts:
        path.chmod(0o555 if path.is_dir() else 0o444)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(me)
        for path, mode in before.items():
            path.chmod(mode)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody can look into, as those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="jepa-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_folder_that_cannot_be_written(jepa_command: Run, public: Path) -> None:
    folder, run = videos(public / "videos"), public / "run"
    check = ("check-data", folder, "num_frames=4", "progress=false")
    assert pretrain(jepa_command, folder, run)[0] == 0 and jepa_command(*check)[0] == 0
    kept = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with read_only(public):
        refused(pretrain(jepa_command, folder, public / "new"), public / "new", "Permission denied")
        again = pretrain(jepa_command, folder, run, "resume=true", "trainer.max_steps=4")
        refused(again, run, "Permission denied")
        cached = ("data.cache=true", f"data.cache_dir={public / 'cache'}")
        refused(pretrain(jepa_command, folder, public / "new", *cached), public, "Permission denied")
        refused(jepa_command(*check, f"out={public / 'report.csv'}"), public / "report.csv", "Permission denied")
        refused(jepa_command("worlds", f"out={public / 'worlds'}", "clips=12"), public / "worlds", "Permission denied")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == kept
    resumed = pretrain(jepa_command, folder, run, "resume=true", "trainer.max_steps=4")
    assert resumed[0] == 0, resumed[1]


def test_a_cache_folder_that_cannot_be_written(jepa_command: Run, public: Path, tmp_path: Path) -> None:
    folder, cache = videos(tmp_path / "videos"), public / "cache"
    cache.write_text("a file")
    told = pretrain(jepa_command, folder, tmp_path / "run", "data.cache=true", f"data.cache_dir={cache}")
    refused(told, cache)
    assert cache.read_text() == "a file"


def test_out_is_a_file(jepa_command: Run, tmp_path: Path) -> None:
    folder, taken = videos(tmp_path / "videos"), tmp_path / "taken"
    taken.write_text("precious")
    for out in (taken, taken / "below"):
        refused(pretrain(jepa_command, folder, out), taken)
        refused(jepa_command("worlds", f"out={out}", "clips=12"), taken)
        refused(jepa_command("pairs", f"out={out}", "pairs=2"), taken)
    assert taken.read_text() == "precious"


def test_a_table_that_leads_elsewhere(jepa_command: Run, tmp_path: Path) -> None:
    folder, table = videos(tmp_path / "videos"), tmp_path / "tables" / "train.csv"
    table.parent.mkdir()
    table.write_text("".join(f"{path} 0\n" for path in sorted(folder.glob("*.mp4"))))
    said = refused(pretrain(jepa_command, table, tmp_path / "run"), table, "3 of 3 videos outside", "add data.root=/")
    assert "0.mp4" in said
    for root in ("/", str(tmp_path)):
        code, err = pretrain(jepa_command, table, tmp_path / f"run-{len(root)}", f"data.root={root}")
        assert code == 0, err
    refused(jepa_command("check-data", table, "progress=false"), table, "root=/")
    assert jepa_command("check-data", table, "root=/", "num_frames=4", "progress=false")[0] == 0


def test_names_that_would_steer_the_terminal(jepa_command: Run, tmp_path: Path) -> None:
    name = "\x1b[2J\x07.mp4"
    said = refused(pretrain(jepa_command, tmp_path / name, tmp_path / "run"), "\\x1b[2J\\x07.mp4")
    assert "\x1b" not in said
    folder = videos(tmp_path / "videos", 2)
    (folder / name).write_bytes(b"no video")
    code, err = pretrain(jepa_command, folder, tmp_path / "run", "data.max_bad_fraction=0.0", "data.cache=true")
    assert code == 2 and "\\x1b[2J\\x07.mp4" in err and "\x1b[2J\x07" not in err


def test_control_c(jepa_command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, run = videos(tmp_path / "videos"), tmp_path / "run"
    forward, calls = JEPA.forward, []

    def interrupted(self: JEPA, *inputs: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(self, *inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(JEPA, "forward", interrupted)
    code, err = pretrain(jepa_command, folder, run, "trainer.max_steps=4", "trainer.val_every=100")
    assert code == 130 and err.splitlines()[-1] == "jepa: interrupted" and "Traceback" not in err
    assert torch.load(run / "last.ckpt", weights_only=True)["global_step"] == 2
    resumed = pretrain(jepa_command, folder, run, "trainer.max_steps=4", "trainer.val_every=100", "--resume")
    assert resumed[0] == 0, resumed[1]
    assert torch.load(run / "last.ckpt", weights_only=True)["global_step"] == 4


def test_a_mistake_in_the_program_is_not_hidden(jepa_command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(config: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setitem(cli.COMMANDS, "pretrain", cli.COMMANDS["pretrain"]._replace(run=wrong))
    monkeypatch.setattr(sys, "argv", ["jepa", "pretrain"])
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main()


def test_lightning_is_quiet_and_warnings_are_not(jepa_command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def talk(config: object) -> None:
        lightning = logging.getLogger("pytorch_lightning")
        lightning.setLevel(logging.INFO)  # as Lightning does when it is imported
        lightning.info("GPU available")
        logging.getLogger("data.module").warning("3 video files were skipped")

    monkeypatch.setitem(cli.COMMANDS, "pretrain", cli.COMMANDS["pretrain"]._replace(run=talk))
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    for name in ("pytorch_lightning", "data.module"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [handler])
    assert jepa_command("pretrain")[0] == 0 and heard == ["3 video files were skipped"]


def test_words_and_options_in_any_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 3\n")
    taken: list[PretrainConfig] = []
    monkeypatch.setitem(cli.COMMANDS, "pretrain", cli.COMMANDS["pretrain"]._replace(run=taken.append))
    for words in (["--resume", str(tmp_path / "a.yaml"), "out=x"], [str(tmp_path / "a.yaml"), "--resume", "out=x"]):
        cli.run(["pretrain", *words])
        assert (taken[-1].seed, taken[-1].out, taken[-1].resume) == (3, "x", True)
    with pytest.raises(SystemExit) as end:
        cli.run(["pretrain", "--again", "out=x"])
    assert end.value.code == 2


def test_check_data_reports_on_a_folder(jepa_command: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = videos(tmp_path / "videos", 2)
    (folder / "broken.mp4").write_bytes(b"no video")
    cli.run(["check-data", str(folder), "num_frames=4", "progress=false", f"out={tmp_path / 'report.csv'}"])
    printed = capfd.readouterr().out
    assert "2 of 3 files can be read" in printed and "broken.mp4" in printed
    assert len((tmp_path / "report.csv").read_text().splitlines()) == 4


def test_keys_lists_what_can_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    for name, command in cli.COMMANDS.items():
        cli.run([name, "--keys"])
        printed = capsys.readouterr().out
        assert all(key in printed for key in command.schema().__dataclass_fields__), name
