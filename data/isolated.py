"""Run a function on many items in worker processes that may crash or hang without taking the caller along.

Video decoders are C code fed with foreign bytes. A worker that dies or passes its time limit is replaced, and its item
is reported as failed; `concurrent.futures` would declare the whole pool broken instead.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

__all__ = ["Failure", "isolated_map"]


class Failure(str):
    """Why an item has no result."""


class _Worker:
    def __init__(self, context: Any, function: Callable[[Any], Any]) -> None:
        self.pipe, child = context.Pipe()
        self.process = context.Process(target=_serve, args=(function, child), daemon=True)
        self.process.start()
        child.close()
        self.item: Any = None
        self.deadline = float("inf")

    def give(self, item: Any, timeout: float) -> None:
        self.item, self.deadline = item, time.monotonic() + timeout
        self.pipe.send(item)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(function: Callable[[Any], Any], pipe: Connection) -> None:
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)  # what decoders print about broken files would tear up the progress bar
    parent = os.getppid()
    while True:
        try:
            while not pipe.poll(5):
                if os.getppid() != parent:  # killed: a sibling's copy of the pipe keeps it from closing
                    return
            item = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            result = function(item)
        except Exception as error:  # the border of the process: whatever happened belongs to this item
            result = Failure(f"{type(error).__name__}: {error}")
        pipe.send(result)


def isolated_map(
    function: Callable[[Any], Any], items: Iterable[Any], workers: int = 2, timeout: float = 60.0
) -> Iterator[tuple[Any, Any]]:
    """Yield (item, function(item)) as they finish, or (item, Failure) after a crash or `timeout` seconds.

    `function` is a top-level function; what it raises becomes a Failure too.
    """
    # Forking is quick and needs no importable __main__; macOS and Windows cannot be trusted with it.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    waiting = iter(items)
    pool: list[_Worker] = []

    def feed(worker: _Worker) -> bool:
        for item in waiting:
            worker.give(item, timeout)
            return True
        return False

    try:
        for _ in range(max(1, workers)):
            worker = _Worker(context, function)
            pool.append(worker)
            if not feed(worker):
                pool.pop().stop()
                break
        while pool:
            soonest = min(worker.deadline for worker in pool) - time.monotonic()
            ready = wait([worker.pipe for worker in pool], timeout=max(0.0, soonest))
            for worker in list(pool):
                item, lost = worker.item, True
                if worker.pipe in ready:
                    try:
                        result, lost = worker.pipe.recv(), False
                    except EOFError:
                        worker.process.join(1)
                        result = Failure(f"the decoder crashed (exit code {worker.process.exitcode})")
                elif time.monotonic() >= worker.deadline:
                    result = Failure(f"not decoded within {timeout:g} s")
                else:
                    continue
                if lost:
                    worker.stop()
                    pool.remove(worker)
                    worker = _Worker(context, function)
                    pool.append(worker)
                yield item, result
                if not feed(worker):
                    pool.remove(worker)
                    worker.stop()
    finally:
        for worker in pool:
            worker.stop()
