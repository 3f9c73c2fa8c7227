"""Worker processes that do not run the script again that called us."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_lock = threading.Lock()


class Workers(ProcessPoolExecutor):
    """A pool of spawned processes for work that can be imported, as all of ours can.

    A spawned process runs the main script first, to have what it defines. A script that asks for work at its top level,
    as most do, would ask for it again in every worker; so workers are started as if there were no script. They take no
    notice of Ctrl-C from their first moment on, which a terminal sends to all: who asked for the work ends them, and
    when that one was killed they end by themselves. Each computes on one thread.
    """

    def __init__(
        self, count: int, *, initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = ()
    ) -> None:
        spawned = multiprocessing.get_context("spawn")
        super().__init__(count, spawned, initializer=_begin, initargs=(initializer, initargs))

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As `ProcessPoolExecutor.submit`, which is where processes start."""
        with _without_main(), _one_thread(), _uninterrupted():
            return super().submit(fn, *args, **kwargs)

    def end(self, *, now: bool) -> None:
        """Wait for the work that is left; or, `now`, kill those at it: nothing they hold was acknowledged."""
        processes = list((self._processes or {}).values()) if now else []  # no public way to stop work
        self.shutdown(wait=not now, cancel_futures=True)
        for process in processes:
            process.kill()


def _begin(initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def _end_with_parent() -> None:
    """A parent that was killed cannot stop its workers: they watch it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _without_main() -> Iterator[None]:
    """While inside, no script is known."""
    with _lock:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


@contextmanager
def _one_thread() -> Iterator[None]:
    """While inside, processes started are told to compute on one thread, which libraries read as they are loaded."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """While inside, a SIGINT waits; processes started inside never see one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
