"""The threads that answer requests, away from the thread that owns the sockets."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

from geostore.errors import BadRequest, DeadlineExpired, GeostoreError, UnsupportedFormat
from geostore.query.bodies import NO_BODY, outgoing
from geostore.query.bundle import BUNDLE_BYTES_MAX
from geostore.query.calls import Call
from geostore.query.frames import Content, Header
from geostore.query.messages import PROTOCOL_VERSION, Array, Hello, Reply, Request, Role, parse
from geostore.query.spool import Source, Spool
from geostore.settings import Settings

_AHEAD = 32  # requests given to the threads before the last are done
_log = logging.getLogger(__name__)


class Asked(NamedTuple):
    """A request as it reached the daemon.

    Attributes:
        request, arrays: what is asked.
        user: the client's public key, "" on a connection without CURVE.
        role: what that key may do.
        ticket: the same for every retry of one request, different for any two requests.
    """

    request: Request
    arrays: tuple[Array, ...]
    user: str
    role: Role
    ticket: str


Handle = Callable[[Asked], Reply]
Finished = Callable[[Call, Header, Content | None, Source], None]


class Observer(Protocol):
    """Who counts what happens; called from several threads."""

    def answered(self, verb: str, outcome: str, seconds: float) -> None:
        """A request was answered: "ok" or the kind of its error."""
        ...

    def recalled(self) -> None:
        """A request was answered with an answer that was kept."""
        ...

    def moved(self, way: str, nbytes: int) -> None:
        """Bytes of bodies came "in" or went "out"."""
        ...

    def stalled(self) -> None:
        """A reply had to wait for its reader's credit."""
        ...


class Silent:
    """An Observer that counts nothing."""

    def answered(self, verb: str, outcome: str, seconds: float) -> None:
        """Nothing."""

    def recalled(self) -> None:
        """Nothing."""

    def moved(self, way: str, nbytes: int) -> None:
        """Nothing."""

    def stalled(self) -> None:
        """Nothing."""


class Pool:
    """Handler threads. `finished` is called in them, with the reply's header and body."""

    def __init__(
        self, handle: Handle, settings: Settings, *, spool: Spool, observer: Observer, finished: Finished
    ) -> None:
        self._handle, self._settings, self._spool = handle, settings, spool
        self._observer, self._finished = observer, finished
        self._work: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._arrived: deque[Call] = deque()
        self._threads = [
            threading.Thread(target=self._serve, name=f"geostore-handler-{i}", daemon=True)
            for i in range(settings.threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queued(self) -> int:
        """Requests that wait for a thread."""
        return self._work.qsize() + len(self._arrived)

    def put(self, call: Call) -> None:
        """Have the complete `call` answered, from the next `wake` on."""
        call.working = True
        self._arrived.append(call)

    def wake(self) -> None:
        """Begin what was put, at most _AHEAD at a time: threads that run out let the socket's thread send its share."""
        while self._arrived and self._work.qsize() < _AHEAD:
            self._work.put(self._arrived.popleft())

    def close(self) -> None:
        """End each thread after what it is at."""
        for _ in self._threads:
            self._work.put(None)

    def _serve(self) -> None:
        while (call := self._work.get()) is not None:
            outcome, content, body = "ok", None, cast(Source, NO_BODY)
            try:
                header, content, body = self._answer(call)
            except GeostoreError as error:
                outcome, header = error.kind, refusal(call.header, error)
            except Exception:  # noqa: BLE001  one fault must not end the thread
                _log.exception("fault while answering %s", call.verb)
                fault = GeostoreError(f"{call.verb}: a fault in the daemon; its log says more")
                outcome, header = fault.kind, refusal(call.header, fault)
            self._observer.answered(call.verb, outcome, time.monotonic() - call.began_s)
            self._observer.moved("in", call.inbox.nbytes)
            self._finished(call, header, content, body)
            del call, header, content, body  # a waiting thread holds no reply

    def _answer(self, call: Call) -> tuple[Header, Content, Source]:
        if call.dropped or time.monotonic() > call.deadline_s:
            raise DeadlineExpired(f"{call.verb}: the deadline passed while the request waited; allow more time")
        fields, arrays = call.inbox.read()
        request = parse(call.verb, fields)
        head: Header = answered(call.header, "ok")
        if isinstance(request, Hello):
            head = {**head, "version": agree(request.versions), "limits": limits(self._settings)}
        user, session, number = call.key
        reply = self._handle(Asked(request, arrays, user, call.role, f"{user}:{session}:{number}"))
        content, body = outgoing(reply.fields, reply.arrays, bytes_max=self._settings.header_bytes_max)
        return head, content, self._spool.keep(body)


def agree(versions: tuple[int, int]) -> int:
    """The newest protocol version both sides speak.

    Raises:
        BadRequest: not a range.
        UnsupportedFormat: there is none.
    """
    oldest, newest = versions
    if not 1 <= oldest <= newest:
        raise BadRequest(f"hello: versions {oldest} to {newest}; wanted the oldest and the newest the client speaks")
    if oldest > PROTOCOL_VERSION:
        raise UnsupportedFormat(f"the client speaks {oldest} to {newest}, this daemon 1 to {PROTOCOL_VERSION}; upgrade")
    return min(newest, PROTOCOL_VERSION)


def limits(settings: Settings) -> dict[str, int]:
    """What a client must keep to."""
    names = ("header_bytes_max", "chunk_bytes", "credit", "upload_bytes_max", "inflight_max")
    bundle_bytes = min(settings.chunk_bytes, BUNDLE_BYTES_MAX)
    return {**{name: getattr(settings, name) for name in names}, "bundle_bytes": bundle_bytes}


def refusal(asked: Header, error: GeostoreError) -> Header:
    """The header of an error reply to the request with header `asked`, as far as that could be read."""
    return {**answered(asked, "error"), "kind": error.kind, "message": str(error)[:4096], "bytes": 0}


def answered(asked: Header, status: str) -> Header:
    """The header that every reply to the request with header `asked` begins with."""
    return {
        "v": PROTOCOL_VERSION,
        "type": "reply",
        "id": asked.get("id", 0),
        "attempt": asked.get("attempt", 0),
        "status": status,
    }
