"""Claims:
1. Clips are the same, bit for bit, decoded in a process of its own or not, with 0, 1 and 2 workers, forked or (slow)
   spawned.
2. A decoder that hangs, holding Python's lock, and one that crashes cost one file each, also within one batch: it is
   replaced and listed with the reason, the same samples come out whatever the number of workers, and no file is waited
   for twice by the same process.
3. The process ends with the one that started it, killed or not, even while it hangs; nothing stays when a loader or a
   dataset is gone or training has ended.
4. It is replaced after so many items, when it died idle, and in a process forked from its owner; an interrupted
   question is not answered later. What goes wrong on an item is that item's failure.
5. With the cache no process is started.
"""

import ctypes
import faulthandler
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import data.dataset
from data.config import DataConfig
from data.errors import DataError
from data.isolated import Failure, Isolated, Lost
from data.module import ClipDataModule
from data.reader import Video, open_video
from data.writer import write_video

linux = pytest.mark.skipif(
    not Path("/proc").is_dir(), reason="elsewhere processes are spawned, without what is patched"
)


def config(folder: Path, **settings: Any) -> DataConfig:
    base = DataConfig(train=str(folder), num_frames=4, size=[16, 16], batch_size=4, workers=0, val_fraction=0.0)
    return replace(base, max_bad_fraction=0.5, **settings)


def take(module: ClipDataModule, count: int) -> list[torch.Tensor]:
    loader = iter(module.train_dataloader())
    return [next(loader)["video"] for _ in range(count)]


def same(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return len(one) == len(two) and all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def descendants() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]


def comes(true: Callable[[], bool], seconds: float = 60) -> bool:
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.05)
    return true()


def hang() -> None:
    ctypes.PyDLL(None).pause()  # in C, without letting go of Python's lock


@pytest.mark.parametrize("backend", ["pyav", "auto"])
def test_clips_are_the_same(folder: Path, backend: str) -> None:
    plain = take(ClipDataModule(config(folder, timeout=0.0, backend=backend)), 4)
    for workers in (0, 1, 2):
        assert same(plain, take(ClipDataModule(config(folder, workers=workers, backend=backend)), 4))


@pytest.mark.slow  # each imports torch
def test_clips_are_the_same_where_processes_are_spawned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = take(ClipDataModule(config(folder, timeout=0.0)), 1)
    monkeypatch.setattr("data.isolated.sys.platform", "darwin")
    assert same(plain, take(ClipDataModule(config(folder)), 1))


@pytest.fixture
def treacherous(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """10 good videos, one on which the decoder hangs and one on which it crashes."""

    def opened(path: str, backend: str) -> Video:
        if Path(path).name == "hangs.mp4":
            hang()
        if Path(path).name == "crashes.mp4":
            faulthandler.disable()  # pytest's, which would print a traceback
            os.kill(os.getpid(), signal.SIGSEGV)
        return open_video(path, backend)

    monkeypatch.setattr(data.dataset, "open_video", opened)
    for i, source in enumerate(sorted(folder.rglob("*.mp4"))):
        name = {0: "hangs.mp4", 5: "crashes.mp4"}.get(i, f"{i:02d}.mp4")
        (tmp_path / name).symlink_to(source)
    return tmp_path


@linux
def test_hangs_and_crashes_cost_one_file_each(treacherous: Path) -> None:
    found = []
    for workers in (0, 1, 2):
        module = ClipDataModule(config(treacherous, workers=workers, batch_size=12, timeout=3))
        found.append(take(module, 4))  # an epoch is a batch: both files are met in each
        reasons = {Path(skip.path).name: (skip.reason, skip.bad) for skip in module.skipped.values()}
        assert reasons == {
            "hangs.mp4": (f"{treacherous / 'hangs.mp4'}: not decoded within 3 s", True),
            "crashes.mp4": (f"{treacherous / 'crashes.mp4'}: the decoder crashed (signal 11)", True),
        }
    assert same(found[0], found[1]) and same(found[0], found[2])


@linux
def test_no_file_is_waited_for_twice(treacherous: Path) -> None:
    module = ClipDataModule(config(treacherous, timeout=3))
    module.setup()
    clips = module.train_set
    assert clips is not None
    where = clips.videos.paths.index(str(treacherous / "hangs.mp4"))
    began = time.monotonic()
    samples = clips.__getitems__([(where, seed) for seed in range(6)])
    samples += [clips[where, seed] for seed in range(6, 12)]
    assert 3 < time.monotonic() - began < 12 * 3
    assert all(Path(sample["skipped"][0].path).name == "hangs.mp4" for sample in samples)


def test_nothing_stays(folder: Path, tmp_path: Path) -> None:
    before = set(descendants())
    module = ClipDataModule(config(folder))
    take(module, 1)
    assert len(set(descendants()) - before) == 1
    module.teardown()
    assert set(descendants()) == before
    take(module, 1)  # starts again
    del module
    assert comes(lambda: set(descendants()) <= before)
    loader = iter(ClipDataModule(config(folder, workers=2)).train_dataloader())
    next(loader)
    assert comes(lambda: len(set(descendants()) - before) == 4)  # each worker has a decoder
    loader.close()
    del loader
    assert comes(lambda: set(descendants()) <= before)
    cached = ClipDataModule(config(folder, cache=True, cache_dir=str(tmp_path)))
    take(cached, 1)
    assert set(descendants()) <= before


@linux
def test_a_killed_worker_takes_its_decoder_along(folder: Path) -> None:
    before = set(descendants())
    loader = iter(ClipDataModule(config(folder, workers=1, prefetch=1)).train_dataloader())
    next(loader)
    (worker,) = (p for p in psutil.Process().children() if p not in before)
    (decoder,) = worker.children()
    worker.kill()
    with pytest.raises(DataError, match=r"a process that reads videos died.*data\.workers"):
        for _ in range(10):
            next(loader)
    assert comes(lambda: not decoder.is_running())


def hangs(item: tuple[str]) -> None:
    hang()


def _owner() -> None:
    Isolated(hangs).map([("a",)])


@linux
def test_a_decoder_that_hangs_ends_with_its_owner() -> None:
    owner = multiprocessing.get_context("fork").Process(target=_owner)
    owner.start()
    seen = psutil.Process(owner.pid)
    assert comes(lambda: len(seen.children()) == 1)
    (decoder,) = seen.children()
    time.sleep(0.5)
    assert decoder.is_running()
    owner.kill()
    owner.join()
    assert comes(lambda: not decoder.is_running())


def whoami(item: tuple[str]) -> int:
    if item[0] == "slow":
        time.sleep(1)
    if item[0] == "exit":
        os._exit(3)
    if item[0] == "bad":
        raise DataError("a.mp4 is bad")
    if item[0] == "wrong":
        raise KeyError("a bug")
    return os.getpid()


def test_failures_belong_to_items() -> None:
    isolated = Isolated(whoami)
    first, bad, wrong, gone, last, again = isolated.map([(x,) for x in ("a", "bad", "wrong", "exit", "b", "exit")])
    assert first not in (last, os.getpid()) and (bad, wrong) == ("a.mp4 is bad", "KeyError: 'a bug'")
    assert gone == again == "the decoder crashed (exit code 3)" and isinstance(gone, Lost)
    assert isinstance(bad, Failure) and not isinstance(bad, Lost)
    assert isolated.map([("b",)]) == [last] and isolated.map([]) == []


def test_the_process_is_replaced_where_it_must_be() -> None:
    isolated = Isolated(whoami, recycle=4)
    pids = [isolated.map([("a",), ("b",)])[1] for _ in range(6)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4] == pids[5]
    os.kill(pids[5], signal.SIGKILL)  # while it has nothing to do: that is nobody's fault
    assert comes(lambda: not psutil.pid_exists(pids[5]) or psutil.Process(pids[5]).status() == psutil.STATUS_ZOMBIE)
    (pid,) = isolated.map([("a",)])
    assert isinstance(pid, int) and pid != pids[5]


@linux
def test_a_fork_has_its_own_process() -> None:
    isolated = Isolated(whoami)
    (mine,) = isolated.map([("a",)])
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=lambda: answers.put(isolated.map([("a",)])))
    child.start()
    (its,) = answers.get(timeout=30)
    child.join()
    assert isinstance(its, int) and its != mine and isolated.map([("a",)]) == [mine]


@linux
def test_an_interrupted_question_is_not_answered_later() -> None:
    isolated = Isolated(whoami)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            isolated.map([("slow",), ("slow",)])
    finally:
        signal.signal(signal.SIGALRM, before)
    assert isolated.map([("bad",)]) == ["a.mp4 is bad"]


def test_a_spoilt_video_is_said_as_without_a_process(tmp_path: Path, folder: Path) -> None:
    for i, source in enumerate(sorted(folder.rglob("*.mp4"))):
        (tmp_path / f"{i:02d}.mp4").symlink_to(source)
    (tmp_path / "bad.mp4").write_text("no video")
    write_video(tmp_path / "short.mp4", torch.zeros(3, 16, 16, 3, dtype=torch.uint8).numpy(), fps=8)
    heard = []
    for timeout in (0.0, 60.0):
        module = ClipDataModule(config(tmp_path, timeout=timeout))
        take(module, 4)
        heard.append(module.skipped)
    assert heard[0] == heard[1] and len(heard[0]) == 2
