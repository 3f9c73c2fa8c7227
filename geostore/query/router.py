"""The answering end of the wire: one thread owns the sockets, handlers run in a pool of threads."""

from __future__ import annotations

import contextlib
import logging
import socket as sockets
import threading
import time
from collections import OrderedDict, deque
from typing import cast

import zmq

from geostore.errors import (
    BadRequest,
    Forbidden,
    GeostoreError,
    InvalidInput,
    Overloaded,
    Unavailable,
    UnsupportedFormat,
)
from geostore.query.auth import Keys, Zap, allows, check_listen, secure_server
from geostore.query.calls import Call, CallKey, Peer, Uploads, Window
from geostore.query.frames import FRAMES_MAX, INLINE_BYTES, Buffer, Header, Inbox, pack, unpack
from geostore.query.handlers import Handle, Observer, Pool, Silent, refusal
from geostore.query.messages import PROTOCOL_VERSION, VERBS, Role
from geostore.query.multipart import receive, send
from geostore.query.spool import Source, Spool
from geostore.settings import Settings

DEADLINE_S_MAX = 86_400.0
_BATCH = 256  # messages taken in one turn of the loop
_TICK_S = 0.25
LOST_S = 30.0  # an answer is kept this long for a client whose connection broke
_log = logging.getLogger(__name__)
Frames = list[zmq.Frame]


class Router:
    """Answers requests at one address.

    Args:
        handle: answers one request; called in up to `settings.threads` threads; raises GeostoreError.
        settings: limits, and the address (`listen`; port 0 takes a free one).
        keys: the keys folder, or None: then only loopback and ipc addresses are served, unless `insecure`.
        observer: who counts, or None.

    Raises:
        InvalidInput: an address that needs keys, or that cannot be bound.
    """

    def __init__(
        self, handle: Handle, settings: Settings, *, keys: Keys | None = None, observer: Observer | None = None
    ) -> None:
        check_listen(settings.listen, insecure=settings.insecure, has_keys=keys is not None)
        self._settings, self._keys = settings, keys
        self._observer = observer or Silent()
        self._calls: dict[CallKey, Call] = {}
        self._peers: dict[bytes, Peer] = {}
        self._blocked: dict[CallKey, Call] = {}  # wait for room in the socket
        self._held: OrderedDict[CallKey, Call] = OrderedDict()  # wait for room in the window, oldest first
        self._uploads = Uploads(settings.upload_bytes_max)
        self._window = Window(settings.reply_bytes_max)
        self.spool = Spool(memory_bytes_max=settings.reply_bytes_max, disk_bytes_max=settings.spool_bytes_max)
        self._finished: deque[tuple[Call, Header, Source]] = deque()
        self._accepting, self._stopping, self._awake = True, False, False
        self._idle = threading.Event()
        self._wake_out, self._wake_in = sockets.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._zap = Zap(self._context, keys) if keys is not None else None
        self._socket = self._bind()
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._pool = Pool(handle, settings, spool=self.spool, observer=self._observer, finished=self._hand_over)
        self._thread = threading.Thread(target=self._run, name="geostore-router", daemon=True)
        self._thread.start()

    @property
    def in_flight(self) -> int:
        """Requests received and not yet fully answered."""
        return len(self._calls)

    @property
    def queued(self) -> int:
        """Requests that wait for a handler thread."""
        return self._pool.queued

    @property
    def refused(self) -> int:
        """Connections refused for their key."""
        return self._zap.refused if self._zap is not None else 0

    @property
    def alive(self) -> bool:
        """True while the thread that owns the sockets runs."""
        return self._thread.is_alive()

    def drain(self, seconds: float) -> bool:
        """Refuse new requests and wait until the accepted ones are answered; False if `seconds` were not enough."""
        self._accepting = False
        self._wake()
        return self._idle.wait(seconds)

    def close(self) -> None:
        """Stop at once: threads end, the address is free again."""
        self._stopping = True
        self._wake()
        self._pool.close()
        self._thread.join()

    def __enter__(self) -> Router:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the thread that owns the sockets ------------------------------------------------------------------------

    def _bind(self) -> zmq.Socket[bytes]:
        settings, socket = self._settings, self._context.socket(zmq.ROUTER)
        socket.linger = 0
        socket.router_mandatory = True
        socket.setsockopt(zmq.ROUTER_HANDOVER, 0)
        socket.maxmsgsize = max(settings.chunk_bytes, settings.header_bytes_max, INLINE_BYTES)
        socket.sndhwm, socket.rcvhwm = 64, 64  # messages per connection
        socket.heartbeat_ivl, socket.heartbeat_timeout, socket.heartbeat_ttl = 5_000, 15_000, 30_000
        socket.handshake_ivl = 10_000
        if self._keys is not None:
            secure_server(socket, self._keys)
        try:
            socket.bind(settings.listen)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            self._wake_in.close()
            self._wake_out.close()
            raise InvalidInput(f"cannot listen on {settings.listen}: {error}; choose another address") from error
        return socket

    def _hand_over(self, call: Call, reply: Header, source: Source) -> None:
        """Called by handler threads."""
        self._finished.append((call, reply, source))
        self._wake()

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            with contextlib.suppress(OSError):  # full: a wake-up is already on its way; closed: nobody to wake
                self._wake_out.send(b"\0")

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_in.fileno(), zmq.POLLIN)
        if self._zap is not None:
            poller.register(self._zap.socket, zmq.POLLIN)
        ticked_s = time.monotonic()
        while not self._stopping:
            ready = dict(poller.poll(5 if self._blocked else int(_TICK_S * 1000)))
            try:
                self._turn(ready)
                if time.monotonic() - ticked_s >= _TICK_S:
                    ticked_s = time.monotonic()
                    self._expire(ticked_s)
            except Exception:  # noqa: BLE001  one fault must not end the service
                _log.exception("fault in the router")
            if not self._accepting and not self._calls:
                self._idle.set()
        self._shut()

    def _turn(self, ready: dict[object, int]) -> None:
        if self._wake_in.fileno() in ready:
            self._wake_in.recv(4096)
        if self._zap is not None and self._zap.socket in ready:
            self._zap.answer()
        if self._socket in ready:
            self._receive()
        self._pool.wake()
        self._awake = False
        while self._finished:
            self._finish(*self._finished.popleft())
        for call in list(self._blocked.values()):
            self._push(call)

    def _shut(self) -> None:
        for call in list(self._calls.values()):
            self._release(call)
        self._socket.close(linger=1000)
        if self._zap is not None:
            self._zap.socket.close()
        self._context.term()
        self._wake_in.close()
        self._wake_out.close()

    def _receive(self) -> None:
        for _ in range(_BATCH):
            try:
                first, *frames = receive(self._socket)
            except zmq.Again:
                return
            route, header = first.bytes, Header()
            try:
                if not 1 <= len(frames) <= 1 + FRAMES_MAX:
                    raise BadRequest(f"a message of {len(frames)} frames; wanted a header and at most {FRAMES_MAX}")
                header = unpack(frames[0].buffer, bytes_max=self._settings.header_bytes_max)
                self._take(route, frames, header)
            except GeostoreError as error:
                self._refuse(route, header, error)

    def _take(self, route: bytes, frames: Frames, header: Header) -> None:
        user = cast(str, frames[0].get("User-Id")) if self._keys is not None else ""
        key = (user, header.get("session", ""), header["id"])
        call = self._calls.get(key)
        if header["type"] == "request":
            self._take_request(key, call, route, frames, header)
        elif call is None or header.get("attempt", call.attempt) != call.attempt:
            return  # late word on a request that is over
        elif header["type"] == "chunk":
            self._take_chunk(call, frames)
        elif header["type"] == "grant":
            self._window.add(call, -call.note_granted(header["chunks"]))
            self._push(call)
            if self._held:
                self._push(self._held.popitem(last=False)[1])
        elif header["type"] == "drop":
            self._release(call)

    def _take_request(self, key: CallKey, call: Call | None, route: bytes, frames: Frames, header: Header) -> None:
        if not 1 <= header["v"] <= PROTOCOL_VERSION:
            raise UnsupportedFormat(f"protocol version {header['v']}; this daemon speaks 1 to {PROTOCOL_VERSION}")
        peer = self._peers.get(route) or Peer(route)
        if call is not None:
            self._retry(call, peer, header)
            return
        role = self._admit(key[0], peer, header)
        now_s = time.monotonic()
        seconds = min(header.get("deadline_ms", self._settings.deadline_s * 1000) / 1000, DEADLINE_S_MAX)
        inbox = Inbox(header, bytes_max=self._settings.upload_bytes_max)
        credit = max(1, min(header.get("credit", 1), self._settings.credit))
        call = Call(key, peer, header, role, now_s, now_s + seconds, inbox, credit)
        self._begin(call, frames)
        self._calls[key] = call
        self._peers[peer.route] = peer
        peer.calls += 1

    def _admit(self, user: str, peer: Peer, header: Header) -> Role:
        """The role of `user`, if the request may be taken at all."""
        if not self._accepting:
            raise Unavailable("this daemon is stopping; ask again in a moment")
        verb = VERBS.get(header["verb"])
        if verb is None:
            raise BadRequest(f"unknown verb {header['verb'][:40]!r}; this version answers {', '.join(sorted(VERBS))}")
        role: Role | None = "admin" if self._keys is None else self._keys.role_of(user)
        if role is None or not allows(role, verb.role):
            raise Forbidden(f"{header['verb']} needs role {verb.role}, this key has {role or 'none'}; ask its operator")
        if peer.calls >= self._settings.inflight_max:
            raise Overloaded(f"{peer.calls} requests under way; at most {self._settings.inflight_max} (inflight_max)")
        if len(self._calls) >= self._settings.queue_max:
            raise Overloaded(f"{len(self._calls)} requests wait here; at most {self._settings.queue_max} (queue_max)")
        return role

    def _begin(self, call: Call, frames: Frames) -> None:
        """Take the body that rides with the header, or ask for it in chunks."""
        if call.inbox.nbytes <= INLINE_BYTES:
            call.inbox.add(f.buffer for f in frames[1:])
            if not call.inbox.complete:
                raise BadRequest(f"body of {call.inbox.filled} bytes; its header declared {call.inbox.nbytes}")
            self._pool.put(call)
        elif len(frames) > 1:
            raise BadRequest(f"a body above {INLINE_BYTES} bytes travels in chunks, after a grant")
        else:
            self._uploads.add(call)
            self._grant_uploads()

    def _grant_uploads(self) -> None:
        for call in self._uploads.admit():
            call.grants_owed += self._settings.credit
            self._push(call)

    def _take_chunk(self, call: Call, frames: Frames) -> None:
        if call.working or not call.granted:
            return
        try:
            call.inbox.add(f.buffer for f in frames[1:])
        except BadRequest:
            self._release(call)
            raise
        if call.inbox.complete:
            self._pool.put(call)
        else:
            call.grants_owed += 1
            self._push(call)

    def _retry(self, call: Call, peer: Peer, header: Header) -> None:
        """The client lost its connection and asks again: go on for the new one, without doing the work twice."""
        self._window.forget(call)
        self._leave(call.peer)
        call.retry(peer, header)
        self._peers[peer.route] = peer
        peer.calls += 1
        if call.reply is not None:
            self._push(call)
        elif not call.working and call.granted:
            call.inbox.filled = 0
            call.grants_owed = self._settings.credit
            self._push(call)

    def _finish(self, call: Call, reply: Header, source: Source) -> None:
        call.working = False
        self._end_upload(call)
        call.reply, call.source = reply, source
        if call.dropped:
            self._release(call)
        else:
            self._push(call)

    def _push(self, call: Call) -> None:
        """Send what `call` may send now."""
        self._blocked.pop(call.key, None)
        self._held.pop(call.key, None)
        try:
            self._send_all(call)
        except zmq.Again:
            self._blocked[call.key] = call
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._window.forget(call)  # kept for a while: the client may come back and ask again
            call.deadline_s = min(call.deadline_s, time.monotonic() + LOST_S)

    def _send_all(self, call: Call) -> None:
        if call.grants_owed:
            self._send(call.peer.route, [pack(call.grant(self._settings.chunk_bytes))])
            call.grants_owed = 0
        while call.source is not None and not call.all_sent:
            size = min(self._settings.chunk_bytes, call.source.nbytes - call.sent)
            if not self._window.admits(call, size):
                self._hold(call)
                return
            self._send(call.peer.route, call.next_message(size))
            self._window.add(call, call.note_sent(size))
            self._observer.moved("out", size)
        if call.done:
            self._release(call)

    def _hold(self, call: Call) -> None:
        if len(call.under_way) < call.credit:
            self._held[call.key] = call
        if not call.stalled:
            call.stalled = True
            self._observer.stalled()

    def _send(self, route: bytes, frames: list[Buffer]) -> None:
        send(self._socket, [route, *frames])

    def _refuse(self, route: bytes, header: Header, error: GeostoreError) -> None:
        """Say what was wrong with a message; to a peer that does not read, nothing is kept for it."""
        self._observer.answered("", error.kind, 0.0)
        try:
            self._send(route, [pack(refusal(header, error))])
        except zmq.ZMQError as unsent:
            _log.debug("a refusal was not sent: %s", unsent)

    def _release(self, call: Call) -> None:
        """Forget `call`; one that is being worked on is forgotten when the work ends."""
        if call.working:
            call.dropped = True
            return
        self._blocked.pop(call.key, None)
        self._held.pop(call.key, None)
        if self._calls.pop(call.key, None) is None:
            return
        self._window.forget(call)
        self._leave(call.peer)
        if call.source is not None:
            call.source.close()
        self._end_upload(call)

    def _leave(self, peer: Peer) -> None:
        peer.calls -= 1
        if not peer.calls:
            self._peers.pop(peer.route, None)

    def _end_upload(self, call: Call) -> None:
        if call.inbox.nbytes > INLINE_BYTES:
            self._uploads.end(call)
            self._grant_uploads()

    def _expire(self, now_s: float) -> None:
        for call in list(self._calls.values()):
            if call.deadline_s < now_s:
                self._release(call)
