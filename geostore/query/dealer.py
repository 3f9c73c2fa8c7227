"""The asking end of the wire: any thread may ask, one at a time has the socket."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from geostore.errors import (
    BadRequest,
    Cancelled,
    Forbidden,
    GeostoreError,
    InvalidInput,
    Unreachable,
    from_kind,
)
from geostore.query.asking import Asking, absent, misfit, shared_header
from geostore.query.auth import KeyPair
from geostore.query.bodies import Inbox, Pieces, outgoing, read_body, read_inline
from geostore.query.bundle import BUNDLE_BYTES_MAX, Bundle, Told, is_bundle, replies_in
from geostore.query.frames import INLINE_BYTES, Header, pack, unpack
from geostore.query.messages import PROTOCOL_VERSION, Array, Hello, Progress, Reply, Request
from geostore.query.multipart import receive_some, try_send
from geostore.query.shelf import Shelf
from geostore.query.sockets import Waker, connecting
from geostore.query.turns import Awaited, Turns
from geostore.settings import Settings

HEADER_BYTES_MAX = 2**20
_TICK_S = 0.05
_log = logging.getLogger(__name__)


class Dealer:
    """Asks one daemon.

    A request is sent again with the same id when the connection breaks, until its deadline; verbs are idempotent,
    and a daemon that still works on the first one answers both with one piece of work.

    Args:
        address: tcp://host:port or ipc://path.
        settings: limits and the default deadline.
        pair, server_key: the client's keys and the daemon's public key; None and "" without CURVE.
        connect_s: how long nobody may answer at the address before it counts as unreachable.
    """

    def __init__(
        self,
        address: str,
        settings: Settings | None = None,
        *,
        pair: KeyPair | None = None,
        server_key: str = "",
        connect_s: float = 5.0,
    ) -> None:
        self.address, self._settings = address, settings or Settings()
        self._shared = shared_header(self._settings)
        self._ids = itertools.count(1)
        self._asked: deque[Asking] = deque()
        self._unsent: deque[Asking] = deque()
        self._calls: dict[int, Asking] = {}
        self._uploading: dict[int, Asking] = {}  # have credit, and more to send
        self._owed: dict[int, Asking] = {}  # chunks came that are not granted back yet
        self._words: deque[bytes] = deque()  # grants and drops to be sent
        self._shelf, self._inflight_max = Shelf(), self._settings.inflight_max
        self._greeted, self._bundle_bytes = False, 0  # bundles are sent once the daemon said that it takes them
        self._connected = False
        self._down_s, self._connect_s = time.monotonic(), connect_s
        self._refused: GeostoreError | None = None
        self._suspected: GeostoreError | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._waker = Waker()
        try:
            self._socket, self._monitor = connecting(self._context, address, pair, server_key)
        except InvalidInput:
            self._waker.close()
            raise
        self._poller = zmq.Poller()
        for readable in (self._socket, self._monitor, self._waker.fileno()):
            self._poller.register(readable, zmq.POLLIN)
        self._ticked_s = 0.0
        wake = functools.partial(self._waker.wake, force=True)
        self._turns = Turns(self._go_round, wake=wake, end=self._shut, name="geostore-dealer")
        self._turns.start()

    def hello(self) -> Header:
        """Ask who answers and agree on a version; returns the reply's header.

        Raises:
            Unreachable, Forbidden, UnsupportedFormat: no daemon, no admission, no common version.
        """
        call = self._call(Hello(versions=(PROTOCOL_VERSION, PROTOCOL_VERSION)), (), None)
        self._submit(call)
        self._result(call.future)
        assert call.reply is not None
        return call.reply

    def submit(
        self,
        request: Request,
        arrays: Sequence[Array] = (),
        progress: Progress | None = None,
        *,
        deadline_s: float | None = None,
    ) -> Future[Reply]:
        """Ask without waiting; the future holds the reply or a GeostoreError. `progress` as in `ask`."""
        call = self._call(request, arrays, deadline_s)
        self._submit(call)
        return call.future

    def ask(
        self,
        request: Request,
        arrays: Sequence[Array] = (),
        progress: Progress | None = None,
        *,
        deadline_s: float | None = None,
    ) -> Reply:
        """Ask and wait. `progress` is not called: long work is a job, whose progress the client asks for.

        Raises:
            GeostoreError: of the kind the daemon named; Unreachable, Forbidden or DeadlineExpired from this side.
        """
        return self._result(self.submit(request, arrays, deadline_s=deadline_s))

    def close(self) -> None:
        """Give up what is under way, and the connection."""
        if not self._turns.ending:
            self._turns.close()

    def __enter__(self) -> Dealer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, request: Request, arrays: Sequence[Array], deadline_s: float | None) -> Asking:
        seconds = self._settings.deadline_s if deadline_s is None else deadline_s
        fields = request.__pydantic_serializer__.to_python(request, exclude_defaults=True)
        said = outgoing(fields, arrays, bytes_max=self._settings.header_bytes_max)
        now_s = time.monotonic()
        future: Awaited[Reply] = Awaited(self._turns.lead)
        return Asking(self._shared, next(self._ids), request.verb, said, now_s, now_s + seconds, future)

    def _submit(self, call: Asking) -> None:
        if self._turns.ending:
            raise Unreachable(f"the connection to {self.address} is closed; connect again")
        self._asked.append(call)
        self._waker.wake()

    def _result(self, future: Future[Reply]) -> Reply:
        try:
            return future.result()
        except CancelledError as error:
            raise Cancelled("the request was given up") from error
        except BaseException:
            future.cancel()  # an interrupt while waiting: the daemon is told to drop it
            raise

    # --- by whoever has the turn ------------------------------------------------------------------------------------

    def _go_round(self) -> None:
        """Wait until something happens, and deal with it."""
        ready = dict(self._poller.poll(int(_TICK_S * 1000) if self._calls or self._unsent else 1000))
        if self._monitor in ready:
            self._notice()
        if self._socket in ready:
            self._receive()
        self._waker.rearm(ready)
        while self._asked:
            self._unsent.append(self._asked.popleft())
        self._send_waiting()
        if (now_s := time.monotonic()) - self._ticked_s >= _TICK_S:
            self._ticked_s = now_s
            self._expire(now_s)

    def _shut(self) -> None:
        closed = Unreachable(f"the connection to {self.address} was closed before the answer came")
        for call in (*self._calls.values(), *self._unsent, *self._asked):
            self._fail(call, closed)
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)
        self._context.term()
        self._waker.close()

    def _notice(self) -> None:
        """Follow the connection: up, lost, or refused."""
        event = recv_monitor_message(self._monitor)["event"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._connected, self._refused, self._suspected = True, None, None
            self._socket.getsockopt(zmq.EVENTS)  # lets go of the old connection's pipe before anything is sent
            if self._greeted:  # another daemon may answer now
                self._unsent.appendleft(self._call(Hello(versions=(PROTOCOL_VERSION, PROTOCOL_VERSION)), (), None))
        elif event == zmq.EVENT_DISCONNECTED:
            if self._connected:
                self._down_s = time.monotonic()
            self._connected = False
            self._again()
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._refused = Forbidden(f"{self.address} does not know this client's key; ask its operator to let it in")
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self._refused = misfit(self.address)
        else:  # cut off without a word: a wrong server key, or a daemon that is just stopping
            self._suspected = misfit(self.address)

    def _again(self) -> None:
        """Everything under way was lost with the connection: ask it again."""
        for call in self._calls.values():
            call.again()
            self._unsent.append(call)
        self._calls.clear()
        self._uploading.clear()
        self._owed.clear()
        self._words.clear()
        self._bundle_bytes = 0

    def _send_waiting(self) -> None:
        if not self._connected:  # the socket may still take messages for a connection that is just gone
            return
        while self._words and try_send(self._socket, [self._words[0]]):
            self._words.popleft()
        for call in list(self._uploading.values()):
            self._upload(call)
        while self._unsent and len(self._calls) < self._inflight_max:
            if not self._send_requests():
                return

    def _send_requests(self) -> bool:
        """Send the oldest ones: those that fit in one bundle, or one by itself; False if the socket takes no more."""
        now_s, bundle, count = time.monotonic(), Bundle(self._shared, self._bundle_bytes), 0
        room = self._inflight_max - len(self._calls)
        for call in itertools.islice(self._unsent, room):
            if not (call.fits_bundle and bundle.add(call.entry(now_s), call.inline_frames(), call.body.nbytes)):
                break
            count += 1
        alone = self._unsent[0]
        if not try_send(self._socket, [bundle.frame()] if count else [alone.request(now_s), *alone.inline_frames()]):
            return False
        for _ in range(max(count, 1)):
            call = self._unsent.popleft()
            self._calls[call.id] = call
        return True

    def _receive(self) -> None:
        """Take what is there, then grant back all chunks among it, in one message a request."""
        for frames in receive_some(self._socket, messages=256, nbytes=INLINE_BYTES):
            head, *body = (f.buffer for f in frames)
            try:
                if is_bundle(head):
                    for told, rest in replies_in(head):
                        self._settle(told, rest)
                else:
                    self._hear(head, body)
            except GeostoreError as error:
                _log.warning("a message from %s was not understood: %s", self.address, error)
        for call in self._owed.values():
            grant = call.head("grant")
            grant["chunks"], call.ungranted = call.ungranted, 0
            self._words.append(pack(grant))
        self._owed.clear()

    def _hear(self, head: memoryview, body: Sequence[memoryview]) -> None:
        header = unpack(head, bytes_max=HEADER_BYTES_MAX)
        call = self._calls.get(header["id"])
        if call is not None and header.get("attempt") == call.attempt:
            self._take(call, header, body)
        elif header["id"] == 0:
            _log.warning("%s refused a message: %s", self.address, header.get("message"))

    def _settle(self, told: Told, body: memoryview) -> None:
        """Hand over a reply that came in a bundle."""
        call = self._calls.get(told.id)
        if call is None or told.attempt != call.attempt:
            return
        try:
            found = read_inline(told.fields, told.arrays, body)
        except GeostoreError as error:
            self._drop(call, error)
        else:
            self._answer(call, Reply(*found))

    def _take(self, call: Asking, header: Header, body: Sequence[memoryview]) -> None:
        try:
            if header["type"] == "grant":
                call.granted += header["chunks"]
                call.chunk_bytes = min(self._settings.chunk_bytes, header.get("chunk_bytes", INLINE_BYTES))
                self._upload(call)
            elif header["type"] in ("reply", "chunk"):
                self._fill(call, header, body)
        except GeostoreError as error:
            self._drop(call, error)

    def _upload(self, call: Asking) -> None:
        """Send as many chunks as were granted, and the socket takes."""
        self._uploading[call.id] = call
        while call.granted and call.sent < call.body.nbytes:
            if not try_send(self._socket, call.chunk()):
                return
            call.granted -= 1
            call.sent += call.chunk_bytes
        del self._uploading[call.id]

    def _fill(self, call: Asking, header: Header, body: Sequence[memoryview]) -> None:
        """Take what arrived of the answer; complete, hand it over."""
        if header["type"] == "reply":
            call.reply = header
            if header["bytes"] <= INLINE_BYTES:
                self._finish(call, header, Pieces((memoryview(bytearray().join(body)),)))
                return
            whole = Pieces(body)
            if whole.nbytes == header["bytes"]:
                self._owe(call)
                self._finish(call, header, whole)
                return
            call.inbox = Inbox(header, bytes_max=2**40, shelf=self._shelf)
        if call.reply is None or call.inbox is None:
            raise BadRequest(f"{self.address} sent a chunk before its reply")
        call.inbox.add(body)
        self._owe(call)
        if call.inbox.complete:
            self._finish(call, call.reply, Pieces((call.inbox.data,)))

    def _owe(self, call: Asking) -> None:
        call.ungranted += 1
        self._owed[call.id] = call

    def _finish(self, call: Asking, reply: Header, body: Pieces) -> None:
        if body.nbytes != reply["bytes"]:
            raise BadRequest(f"{self.address} sent a body of {body.nbytes} bytes and declared {reply['bytes']}")
        if reply["status"] != "ok":
            self._drop(call, from_kind(reply.get("kind", ""), reply.get("message", "")), tell=False)
            return
        found = read_body(reply, body)
        if "limits" in reply:
            self._agree(reply["limits"])
        self._answer(call, Reply(*found))

    def _answer(self, call: Asking, reply: Reply) -> None:
        del self._calls[call.id]
        try:  # noqa: SIM105  a context manager costs as much as the rest
            call.future.set_result(reply)
        except InvalidStateError:
            pass

    def _agree(self, limits: dict[str, Any]) -> None:
        """Keep to what the daemon said in its answer to a hello."""
        said = {name: value for name, value in limits.items() if type(value) is int}
        self._greeted = True
        self._inflight_max = max(1, min(self._settings.inflight_max, said.get("inflight_max", 1)))
        self._bundle_bytes = min(BUNDLE_BYTES_MAX, said.get("bundle_bytes", 0))

    def _expire(self, now_s: float) -> None:
        for call in list(self._calls.values()):
            if call.future.cancelled():
                self._drop(call, Cancelled("the request was given up"))
            elif now_s > call.deadline_s:
                self._drop(call, call.late(self.address))
        for call in list(self._unsent):
            error = self._hopeless(call, now_s)
            if error is not None:
                self._unsent.remove(call)
                self._fail(call, error)

    def _hopeless(self, call: Asking, now_s: float) -> GeostoreError | None:
        """Why a call that waits to be sent waits in vain."""
        if call.future.cancelled():
            return Cancelled("the request was given up")
        late = now_s > call.deadline_s
        if self._connected:
            return call.late(self.address) if late else None
        gone = late or now_s - max(call.asked_s, self._down_s) > self._connect_s
        return self._refused or (self._suspected or absent(self.address) if gone else None)

    def _drop(self, call: Asking, error: GeostoreError, *, tell: bool = True) -> None:
        self._calls.pop(call.id, None)
        self._uploading.pop(call.id, None)
        if tell:
            self._words.append(pack(call.head("drop")))
        self._fail(call, error)

    def _fail(self, call: Asking, error: GeostoreError) -> None:
        with contextlib.suppress(InvalidStateError):
            call.future.set_exception(error)
