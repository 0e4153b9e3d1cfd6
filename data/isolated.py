"""Run a function on items in processes that may crash or hang without taking the caller along.

Video decoders are C code fed with foreign bytes. A process that dies or passes its time limit is replaced, and its item
is reported as lost; `concurrent.futures` would declare the whole pool broken instead.

Notable: the caller may be a worker of a DataLoader. The processes started here end with it, whatever ends it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.util import Finalize
from typing import Any

import torch

from .errors import DataError

__all__ = ["Failure", "Isolated", "Lost", "isolated_map", "leave_signals_to_main"]


class Failure(str):
    """Why an item has no result."""


class Lost(Failure):
    """Why an item has no result, where it took the process that worked on it along."""


def leave_signals_to_main() -> None:
    """Outlive what asks a run to stop: it reaches every process of a terminal or of a job, the main one decides when to
    stop, and needs its batches until then. Only the SIGTERM of the process that started this one ends it."""
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # handlers are not told who sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, args=(os.getppid(),), daemon=True).start()


def _end_when_told(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def attempt(function: Callable[[Any], Any], item: Any) -> Any:
    """function(item), or what its DataError says, as a Failure."""
    try:
        return function(item)
    except DataError as error:
        return Failure(error)


class Isolated:
    """`function` in a process of its own, which is started when it is first needed and replaced when it is lost.

    Items are tuples that begin with the name of a file; a file that was lost once is not tried again. `timeout` seconds
    are given to each item. After about `recycle` items the process is replaced by a fresh one, and what the libraries
    in it have leaked is gone; 0: never.
    """

    def __init__(self, function: Callable[[Any], Any], timeout: float = 60.0, recycle: int = 0) -> None:
        self.function, self.timeout, self.recycle = function, timeout, recycle
        self._lost: dict[str, Lost] = {}
        self._worker: _Worker | None = None
        self._end: Callable[[], Any] = lambda: None

    def __reduce__(self) -> tuple[type[Isolated], tuple[Any, ...]]:
        return Isolated, (self.function, self.timeout, self.recycle)  # the process belongs to the one that started it

    def map(self, items: Sequence[tuple[Any, ...]]) -> list[Any]:
        """function(item) for each of them, in order; a Failure where it raised an error, Lost after a crash or hang."""
        found: dict[int, Any] = {}
        try:
            while left := [i for i, (file, *_) in enumerate(items) if i not in found and file not in self._lost]:
                worker = self._ready()
                worker.give([items[i] for i in left])
                for i in left:
                    found[i] = worker.result()
                    if isinstance(found[i], Lost):
                        self._lost[items[i][0]] = found[i]
                        break
        except BaseException:
            self.close()  # the answers still to come would be taken for those to the next question
            raise
        return [found[i] if i in found else self._lost[file] for i, (file, *_) in enumerate(items)]

    def close(self) -> None:
        """End the process; the next call would start another."""
        self._end()
        self._worker = None

    def _ready(self) -> _Worker:
        worker = self._worker
        if worker is None or not worker.running or 0 < self.recycle <= worker.given:
            self.close()
            worker = self._worker = _Worker(self.function, self.timeout)
            # Also when nobody holds this any more, and before a process that ends waits for its children.
            self._end = Finalize(self, worker.stop, exitpriority=10)
        return worker


def isolated_map(
    function: Callable[[Any], Any], items: Iterable[Any], workers: int = 2, timeout: float = 60.0
) -> Iterator[tuple[Any, Any]]:
    """Yield (item, function(item)) as they finish, or (item, Failure) after a crash or `timeout` seconds.

    `function` is a top-level function; what it raises becomes a Failure too.
    """
    waiting = iter(items)
    busy: dict[_Worker, Any] = {}  # the item each works on

    def feed(worker: _Worker | None) -> None:
        for item in waiting:
            worker = worker or _Worker(function, timeout)
            busy[worker] = item
            worker.give([item])
            return
        if worker is not None:
            worker.stop()

    try:
        for _ in range(max(1, workers)):
            feed(None)
        while busy:
            soonest = min(worker.deadline for worker in busy) - time.monotonic()
            ready = wait([worker.pipe for worker in busy], timeout=max(0.0, soonest))
            for worker in list(busy):
                if worker.pipe in ready or time.monotonic() >= worker.deadline:
                    item, result = busy[worker], worker.result()
                    del busy[worker]
                    feed(worker if worker.running else None)
                    yield item, result
    finally:
        for worker in busy:
            worker.stop()


class _Worker:
    """A process that runs `function` on what it is given, and is stopped here where an item takes it too long."""

    def __init__(self, function: Callable[[Any], Any], timeout: float) -> None:
        # A DataLoader's workers are daemons, which may have no children lest they leave them behind: these do not stay.
        multiprocessing.current_process().daemon = False
        # Forking is quick and needs no importable __main__; macOS and Windows cannot be trusted with it.
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        self.timeout, self.given, self.deadline = timeout, 0, float("inf")
        self.pipe, child = context.Pipe()
        self._owner = os.getpid()
        self._process = context.Process(target=_serve, args=(function, child, self._owner), daemon=True)
        self._process.start()
        child.close()

    @property
    def running(self) -> bool:
        """False after it was stopped or lost, and in a process that was forked from its owner."""
        return self._owner == os.getpid() and not self.pipe.closed and self._process.is_alive()

    def give(self, items: Sequence[Any]) -> None:
        """Items to work on in turn; `result` is then called once for each."""
        self.given += len(items)
        self.deadline = time.monotonic() + self.timeout
        with contextlib.suppress(BrokenPipeError):  # `result` finds out
            self.pipe.send(items)

    def result(self) -> Any:
        """Wait for what became of the next item. Lost: and the process with it."""
        try:
            if self.pipe.poll(max(0.0, self.deadline - time.monotonic())):
                result = self.pipe.recv()
                self.deadline = time.monotonic() + self.timeout
                return result
            reason = f"not decoded within {self.timeout:g} s"
        except (EOFError, OSError):
            self._process.join(1)
            code = self._process.exitcode or 0
            reason = f"the decoder crashed ({f'signal {-code}' if code < 0 else f'exit code {code}'})"
        self.stop()
        return Lost(reason)

    def stop(self) -> None:
        if self._owner == os.getpid() and not self.pipe.closed:
            self._process.kill()
            self._process.join()
        self.pipe.close()


def _serve(function: Callable[[Any], Any], pipe: Connection, owner: int) -> None:
    # A decoder that hangs cannot look whether its owner still lives. Without effect but on Linux, where a forked
    # sibling's copy of the pipe would keep it open; elsewhere the pipe closes.
    if sys.platform == "linux":
        torch.multiprocessing._prctl_pr_set_pdeathsig(signal.SIGKILL)  # type: ignore[attr-defined]
    if os.getppid() != owner:
        return
    leave_signals_to_main()
    torch.set_num_threads(1)  # threads of OpenMP do not survive a fork
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what decoders print about broken files would tear up a progress bar
    while True:
        try:
            items = pipe.recv()
        except (EOFError, OSError):
            return
        for item in items:
            try:
                result = attempt(function, item)
            except Exception as error:  # the border of the process: whatever happened belongs to this item
                result = Failure(f"{type(error).__name__}: {error}")
            pipe.send(result)
