"""One store as a service: requests from the wire to the node, long work to the jobs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from geostore.daemon.jobs import Jobs
from geostore.daemon.metrics import Metrics, Page
from geostore.errors import Forbidden, GeostoreError
from geostore.node import Node
from geostore.node.search.warming import warm
from geostore.query import messages
from geostore.query.answers import Answers
from geostore.query.auth import Keys, allows
from geostore.query.handlers import Asked
from geostore.query.messages import Array, Progress, Reply, Request
from geostore.query.router import Router
from geostore.settings import Settings
from geostore.storage import JobRow

_log = logging.getLogger(__name__)


class Service:
    """A node behind a router, with jobs, counters and the loopback page. It owns them all.

    Raises:
        InvalidInput: an address that cannot be served. NotFound, StoreLocked, ...: as `Node.open`.
    """

    def __init__(self, settings: Settings, *, readonly: bool = False, create: bool = False) -> None:
        keys = Keys(settings.keys) if settings.keys is not None else None
        self.settings = settings
        self.node = Node.open(settings.store, settings=settings, readonly=readonly, create=create)
        self._state = State()
        self._warming = threading.Thread(target=self._warm, name="geostore-warm", daemon=True)
        try:
            self.metrics = Metrics()
            self.jobs = Jobs(self._work, self._save, self._remembered(), _now_us)
            self._ready = True
            answers = None if readonly else Answers(self._state.now, bytes_max=settings.answers_bytes_max)
            self.router = Router(self._answer, settings, keys=keys, observer=self.metrics, answers=answers)
        except BaseException:
            self.node.close()
            raise
        try:
            self.page = Page(settings.http, self.metrics, live=lambda: self.router.alive, ready=lambda: self._ready)
        except BaseException:
            self.router.close()
            self.node.close()
            raise
        self._show()

    def warm(self) -> None:
        """Load in the background what the first search would wait for; questions are answered meanwhile."""
        self._warming.start()

    def _warm(self) -> None:
        begun = time.monotonic()
        try:
            asked = warm(self.node, lambda: not self._ready)
        except (GeostoreError, OSError) as error:  # the question itself will tell
            _log.info("index not warmed", extra={"reason": str(error)})
            return
        if asked:
            _log.info("index warmed", extra={"questions": asked, "seconds": round(time.monotonic() - begun, 2)})

    def _show(self) -> None:
        router, spool = self.router, self.router.spool
        self.metrics.gauge("in_flight", "Requests received and not fully answered", lambda: router.in_flight)
        self.metrics.gauge("queued", "Requests that wait for a handler", lambda: router.queued)
        self.metrics.gauge("reply_memory_bytes", "Replies waiting in memory", lambda: spool.memory_bytes)
        self.metrics.gauge("reply_spooled_bytes", "Replies waiting in files", lambda: spool.disk_bytes)
        self.metrics.gauge("keys_refused", "Connections refused for their key", lambda: router.refused)
        self.metrics.jobs(self.jobs.counts)

    def close(self, drain_s: float = 0.0) -> bool:
        """Refuse new requests, let what runs come to an end within `drain_s`, stop; False if that was not enough."""
        self._ready = False
        until_s = time.monotonic() + drain_s
        calm = self.router.drain(drain_s)
        calm = self.jobs.stop(max(0.0, until_s - time.monotonic())) and calm
        if self._warming.ident is not None:
            self._warming.join()  # ends before its next question
        self.page.close()
        self.router.close()
        self.node.close()
        return calm

    def _answer(self, asked: Asked) -> Reply:
        """One request; called in the router's handler threads."""
        request = asked.request
        if isinstance(request, messages.Jobs):
            return self.jobs.list(request.id)
        if isinstance(request, messages.Cancel | messages.Resume):
            wanted = self.jobs.verb_of(request.id)
            if not allows(asked.role, wanted.role):
                raise Forbidden(f"job {request.id} is a {wanted.verb}, which needs role {wanted.role}")
            return self.jobs.resume(request.id) if request.job else self.jobs.cancel(request.id)
        if request.job:
            return self.jobs.start(request, asked.ticket)
        return self._carry_out(request, asked.arrays)

    def _work(self, request: Request, progress: Progress) -> Reply:
        return self._carry_out(request, (), progress)

    def _carry_out(self, request: Request, arrays: tuple[Array, ...], progress: Progress | None = None) -> Reply:
        if request.role == "read":
            return self.node.answer(request, arrays, progress)
        with self._state.changing():
            return self.node.answer(request, arrays, progress)

    def _remembered(self) -> list[JobRow]:
        return list(self.node.store.jobs())

    def _save(self, row: JobRow) -> None:
        if not self.node.store.readonly:
            with self.node.changing:
                self.node.store.commit([row])


class State:
    """Which state of the store answers hold for: a new one from the beginning of any change, and none until its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number, self._changes = 0, 0

    def now(self) -> int | None:
        """The state; None while something is being changed."""
        return None if self._changes else self._number

    @contextmanager
    def changing(self) -> Iterator[None]:
        """While inside, the store may change."""
        with self._lock:
            self._changes += 1
            self._number += 1
        try:
            yield
        finally:
            with self._lock:
                self._changes -= 1


def _now_us() -> int:
    return time.time_ns() // 1000
