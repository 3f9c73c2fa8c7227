"""Who drives a socket: a thread of its own, or, without a change of threads, whoever waits for an answer."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType
from typing import Any, TypeVar

_STAND_BY_S, _STAND_BY_S_MAX = 0.002, 0.01  # how long the thread stands by before it looks whether anybody leads
_T = TypeVar("_T")


class Awaited(Future[_T]):
    """A future whose waiters lead: `lead` is told when to stop, and may stop before."""

    def __init__(self, lead: Callable[[Callable[[], bool]], None]) -> None:
        super().__init__()
        self._lead = lead

    def result(self, timeout: float | None = None) -> _T:
        """As of any future; without a timeout the caller does the work that the answer needs, if nobody else does."""
        if timeout is None and not self.done():
            self._lead(self.done)
        return super().result(timeout)


class Turns:
    """Has one thread at a time go round: wait for what happens on a socket, and deal with it.

    A thread of its own does so while nobody else does. Whoever waits for an answer may lead meanwhile: to hand an
    answer from thread to thread costs more than to read it. Those who come while somebody leads just wait; the leader
    deals with their answers too.

    Args:
        go_round: waits, for at most a second or until `wake` is called, and deals with what came.
        wake: ends that wait; called from any thread.
        end: called once, by the thread, after the last round.
        name: of the thread.
    """

    def __init__(
        self, go_round: Callable[[], None], *, wake: Callable[[], None], end: Callable[[], None], name: str
    ) -> None:
        self._go_round, self._wake, self._end = go_round, wake, end
        self._turn, self._leading = threading.Lock(), threading.Lock()
        self._resume = threading.Event()
        self.ending = False  # True once `close` was called
        self._led = self._others = False  # _led: the thread stands by; _others: somebody waits beside
        self._times = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, after the round that is under way."""
        self.ending = True
        self._resume.set()
        self._wake()
        self._thread.join()

    def lead(self, done: Callable[[], bool]) -> None:
        """Go round until `done`, unless somebody else leads; an interrupt comes through between two rounds."""
        with _Deferred(self._wake) as interrupt:
            if not self._leading.acquire(blocking=False):
                self._others = True
                return
            try:
                self._times += 1
                if not self._led:
                    self._led = True
                    self._wake()
                with self._turn:
                    while not (done() or interrupt.came or self.ending):
                        self._go_round()
            finally:
                self._leading.release()
                if self._others:
                    self._resume.set()

    def _run(self) -> None:
        while not self.ending:
            if self._led:
                self._stand_by()
            with self._turn:
                if not (self._led or self.ending):
                    self._go_round()
        with self._turn:
            self._end()

    def _stand_by(self) -> None:
        """Return when nobody has led for a while, or somebody waits whom nobody serves."""
        wait_s = _STAND_BY_S
        while not self.ending:
            seen = self._times
            self._resume.wait(wait_s)
            self._resume.clear()
            if not self._leading.acquire(blocking=False):
                wait_s = min(2 * wait_s, _STAND_BY_S_MAX)
                continue
            try:
                if self._times == seen or self._others:
                    self._led = self._others = False
                    return
                wait_s = _STAND_BY_S
            finally:
                self._leading.release()


class _Deferred:
    """An interrupt from the keyboard, kept until the end: it would cut a message or a table in two.

    Only the main thread is interrupted, so in others this does nothing.

    Attributes:
        came: True once there was one.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake, self.came = wake, False
        self._handler: Any = None

    def __enter__(self) -> _Deferred:
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            if callable(handler):
                self._handler = handler
                signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            if self.came:
                self._handler(signal.SIGINT, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        self._wake()
