"""The asking end of the wire: one thread owns the socket, any thread may ask."""

from __future__ import annotations

import contextlib
import itertools
import logging
import secrets
import socket as sockets
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError

import zmq
from zmq.utils.monitor import recv_monitor_message

from geostore.errors import (
    BadRequest,
    Cancelled,
    DeadlineExpired,
    Forbidden,
    GeostoreError,
    InvalidInput,
    Unreachable,
    from_kind,
)
from geostore.query.asking import Asking
from geostore.query.auth import KeyPair, secure_client
from geostore.query.frames import INLINE_BYTES, Header, Inbox, Shelf, outgoing, pack, unpack
from geostore.query.messages import PROTOCOL_VERSION, Array, Hello, Progress, Reply, Request
from geostore.query.multipart import receive_some, send
from geostore.settings import Settings

CHUNK_BYTES_MAX = 64 * 2**20  # largest frame taken from a daemon
HEADER_BYTES_MAX = 2**20
_TICK_S = 0.05
_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
)
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
        self._session = secrets.token_hex(8)
        self._ids = itertools.count(1)
        self._asked: deque[Asking] = deque()
        self._unsent: deque[Asking] = deque()
        self._calls: dict[int, Asking] = {}
        self._uploading: dict[int, Asking] = {}  # have credit, and more to send
        self._owed: dict[int, Asking] = {}  # chunks came that are not granted back yet
        self._words: deque[bytes] = deque()  # grants and drops to be sent
        self._shelf, self._inflight_max = Shelf(), self._settings.inflight_max
        self._connected, self._closing, self._awake = False, False, False
        self._down_s, self._connect_s = time.monotonic(), connect_s
        self._refused: GeostoreError | None = None
        self._suspected: GeostoreError | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._wake_out, self._wake_in = sockets.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._socket = self._open(pair, server_key)
        self._monitor = self._socket.get_monitor_socket(_EVENTS)
        self._connect()
        self._thread = threading.Thread(target=self._run, name="geostore-dealer", daemon=True)
        self._thread.start()

    def hello(self) -> Header:
        """Ask who answers and agree on a version; returns the reply's header.

        Raises:
            Unreachable, Forbidden, UnsupportedFormat: no daemon, no admission, no common version.
        """
        call = self._call(Hello(versions=(PROTOCOL_VERSION, PROTOCOL_VERSION)), (), None)
        self._submit(call)
        self._result(call.future)
        assert call.reply is not None
        self._inflight_max = min(self._inflight_max, call.reply.get("limits", {}).get("inflight_max", 1))
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
        if not self._closing:
            self._closing = True
            self._wake(force=True)
            self._thread.join()

    def __enter__(self) -> Dealer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, request: Request, arrays: Sequence[Array], deadline_s: float | None) -> Asking:
        seconds = self._settings.deadline_s if deadline_s is None else deadline_s
        header: Header = {
            "v": PROTOCOL_VERSION,
            "type": "request",
            "id": next(self._ids),
            "session": self._session,
            "verb": request.verb,
            "credit": self._settings.credit,
        }
        fields = request.model_dump(exclude_defaults=True)
        header, body = outgoing(header, fields, arrays, bytes_max=self._settings.header_bytes_max)
        now_s = time.monotonic()
        return Asking(header, body, now_s, now_s + seconds)

    def _submit(self, call: Asking) -> None:
        if self._closing:
            raise Unreachable(f"the connection to {self.address} is closed; connect again")
        self._asked.append(call)
        self._wake()

    def _result(self, future: Future[Reply]) -> Reply:
        try:
            return future.result()
        except CancelledError as error:
            raise Cancelled("the request was given up") from error
        except BaseException:
            future.cancel()  # an interrupt while waiting: the daemon is told to drop it
            raise

    def _wake(self, *, force: bool = False) -> None:
        if force or not self._awake:
            self._awake = True
            with contextlib.suppress(OSError):  # full: a wake-up is already on its way; closed: nobody to wake
                self._wake_out.send(b"\0")

    # --- the thread that owns the socket ---------------------------------------------------------------------------

    def _open(self, pair: KeyPair | None, server_key: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.immediate = True  # nothing queues for a connection that is not there
        socket.maxmsgsize = CHUNK_BYTES_MAX
        socket.reconnect_ivl, socket.reconnect_ivl_max = 50, 1000
        socket.heartbeat_ivl, socket.heartbeat_timeout, socket.heartbeat_ttl = 5_000, 15_000, 30_000
        socket.sndhwm, socket.rcvhwm = 64, 64
        if pair is not None:
            secure_client(socket, pair, server_key)
        return socket

    def _connect(self) -> None:
        try:
            self._socket.connect(self.address)
        except zmq.ZMQError as error:
            self._socket.disable_monitor()
            self._context.destroy(linger=0)
            self._wake_in.close()
            self._wake_out.close()
            raise InvalidInput(f"{self.address!r} is no address ({error}); use tcp://host:port") from error

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        poller.register(self._wake_in.fileno(), zmq.POLLIN)
        ticked_s = 0.0
        while not self._closing:
            busy = self._calls or self._unsent
            ready = dict(poller.poll(int(_TICK_S * 1000) if busy else 1000))
            if self._wake_in.fileno() in ready:
                self._wake_in.recv(4096)
            if self._monitor in ready:
                self._notice()
            if self._socket in ready:
                self._receive()
            self._awake = False
            while self._asked:
                self._unsent.append(self._asked.popleft())
            self._send_waiting()
            if (now_s := time.monotonic()) - ticked_s >= _TICK_S:
                ticked_s = now_s
                self._expire(now_s)
        self._shut()

    def _shut(self) -> None:
        closed = Unreachable(f"the connection to {self.address} was closed before the answer came")
        for call in (*self._calls.values(), *self._unsent, *self._asked):
            self._fail(call, closed)
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)
        self._context.term()
        self._wake_in.close()
        self._wake_out.close()

    def _notice(self) -> None:
        """Follow the connection: up, lost, or refused."""
        event = recv_monitor_message(self._monitor)["event"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._connected, self._refused, self._suspected = True, None, None
            self._socket.getsockopt(zmq.EVENTS)  # lets go of the old connection's pipe before anything is sent
        elif event == zmq.EVENT_DISCONNECTED:
            if self._connected:
                self._down_s = time.monotonic()
            self._connected = False
            self._again()
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._refused = Forbidden(f"{self.address} does not know this client's key; ask its operator to let it in")
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self._refused = self._misfit()
        else:  # cut off without a word: a wrong server key, or a daemon that is just stopping
            self._suspected = self._misfit()

    def _again(self) -> None:
        """Everything under way was lost with the connection: ask it again."""
        for call in self._calls.values():
            call.attempt += 1
            call.reset()
            self._unsent.append(call)
        self._calls.clear()
        self._uploading.clear()
        self._owed.clear()
        self._words.clear()

    def _send_waiting(self) -> None:
        if not self._connected:  # the socket may still take messages for a connection that is just gone
            return
        while self._words and self._send([self._words[0]]):
            self._words.popleft()
        for call in list(self._uploading.values()):
            self._upload(call)
        while self._unsent and len(self._calls) < self._inflight_max:
            call = self._unsent[0]
            if call.future.cancelled():
                self._unsent.popleft()
            elif self._send_request(call):
                self._calls[call.header["id"]] = self._unsent.popleft()
            else:
                return

    def _send_request(self, call: Asking) -> bool:
        left_ms = max(1, int((call.deadline_s - time.monotonic()) * 1000))
        head = pack({**call.header, "attempt": call.attempt, "deadline_ms": left_ms})
        inline = call.body.nbytes <= INLINE_BYTES
        return self._send([head, *(call.body.frames(0, call.body.nbytes) if inline else ())])

    def _send(self, frames: Sequence[bytes | memoryview]) -> bool:
        try:
            send(self._socket, frames)
        except zmq.Again:
            return False
        return True

    def _receive(self) -> None:
        """Take what is there, then grant back all chunks among it, in one message a request."""
        for frames in receive_some(self._socket, messages=256, nbytes=INLINE_BYTES):
            try:
                header = unpack(frames[0].buffer, bytes_max=HEADER_BYTES_MAX)
                call = self._calls.get(header["id"])
                if call is not None and header.get("attempt") == call.attempt:
                    self._take(call, header, frames)
                elif header["id"] == 0:
                    _log.warning("%s refused a message: %s", self.address, header.get("message"))
            except GeostoreError as error:
                _log.warning("a message from %s was not understood: %s", self.address, error)
        for call in self._owed.values():
            head = call.head("grant")
            head["chunks"], call.ungranted = call.ungranted, 0
            self._words.append(pack(head))
        self._owed.clear()

    def _take(self, call: Asking, header: Header, frames: list[zmq.Frame]) -> None:
        try:
            if header["type"] == "grant":
                call.granted += header["chunks"]
                call.chunk_bytes = min(self._settings.chunk_bytes, header.get("chunk_bytes", INLINE_BYTES))
                self._upload(call)
            elif header["type"] in ("reply", "chunk"):
                self._fill(call, header, frames)
        except GeostoreError as error:
            self._drop(call, error)

    def _upload(self, call: Asking) -> None:
        """Send as many chunks as were granted, and the socket takes."""
        self._uploading[call.header["id"]] = call
        while call.granted and call.sent < call.body.nbytes:
            head = call.head("chunk")
            head["seq"] = call.sent // call.chunk_bytes
            if not self._send([pack(head), *call.body.frames(call.sent, call.sent + call.chunk_bytes)]):
                return
            call.granted -= 1
            call.sent += call.chunk_bytes
        del self._uploading[call.header["id"]]

    def _fill(self, call: Asking, header: Header, frames: list[zmq.Frame]) -> None:
        """Take what arrived of the answer; complete, hand it over."""
        if header["type"] == "reply":
            call.reply, call.inbox = header, Inbox(header, bytes_max=2**40, shelf=self._shelf)
        if call.reply is None or call.inbox is None:
            raise BadRequest(f"{self.address} sent a chunk before its reply")
        call.inbox.add(f.buffer for f in frames[1:])
        if call.inbox.nbytes > INLINE_BYTES:
            call.ungranted += 1
            self._owed[call.header["id"]] = call
        if not call.inbox.complete:
            return
        if call.reply["status"] != "ok":
            self._drop(call, from_kind(call.reply.get("kind", ""), call.reply.get("message", "")), tell=False)
            return
        fields, arrays = call.inbox.read()
        del self._calls[call.header["id"]]
        with contextlib.suppress(InvalidStateError):
            call.future.set_result(Reply(fields, arrays))

    def _expire(self, now_s: float) -> None:
        for call in list(self._calls.values()):
            if call.future.cancelled():
                self._drop(call, Cancelled("the request was given up"))
            elif now_s > call.deadline_s:
                self._drop(call, self._late(call))
        for call in list(self._unsent):
            waited_s = now_s - max(call.asked_s, self._down_s)
            if now_s > call.deadline_s or (not self._connected and (self._refused or waited_s > self._connect_s)):
                self._unsent.remove(call)
                self._fail(call, self._late(call) if self._connected else self._refused or self._absent())

    def _late(self, call: Asking) -> GeostoreError:
        seconds = call.deadline_s - call.asked_s
        return DeadlineExpired(f"{call.header['verb']}: no answer from {self.address} in {seconds:.3g} s; allow more")

    def _misfit(self) -> GeostoreError:
        return Forbidden(f"{self.address} answers, but the keys do not fit; check --client-key and --server-key")

    def _absent(self) -> GeostoreError:
        return self._suspected or Unreachable(
            f"no daemon answers at {self.address}; start one with `geostore-node --store ...`"
        )

    def _drop(self, call: Asking, error: GeostoreError, *, tell: bool = True) -> None:
        self._calls.pop(call.header["id"], None)
        self._uploading.pop(call.header["id"], None)
        if tell:
            self._words.append(pack(call.head("drop")))
        self._fail(call, error)

    def _fail(self, call: Asking, error: GeostoreError) -> None:
        with contextlib.suppress(InvalidStateError):
            call.future.set_exception(error)
