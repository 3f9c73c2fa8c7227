"""The answering end of the wire: one thread owns the sockets, handlers run in a pool of threads."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
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
from geostore.query.answers import Answers
from geostore.query.auth import Keys, Zap, allows, check_listen
from geostore.query.bodies import Inbox
from geostore.query.bundle import is_bundle, requests_in
from geostore.query.calls import Call, CallKey, Peer, Uploads
from geostore.query.delivery import Delivery
from geostore.query.frames import FRAMES_MAX, INLINE_BYTES, Buffer, Content, Header, pack, unpack
from geostore.query.handlers import Handle, Observer, Pool, Silent, answered, refusal
from geostore.query.messages import PROTOCOL_VERSION, VERBS, Role
from geostore.query.multipart import receive, send
from geostore.query.sockets import Waker, listening
from geostore.query.spool import Source, Spool
from geostore.settings import Settings

DEADLINE_S_MAX = 86_400.0
_BATCH = 256  # messages taken in one turn of the loop
_TICK_S = 0.25
_log = logging.getLogger(__name__)
Who = tuple[bytes, str]  # a connection's routing id, and its user


class Router:
    """Answers requests at one address.

    Args:
        handle: answers one request; called in up to `settings.threads` threads; raises GeostoreError.
        settings: limits, and the address (`listen`; port 0 takes a free one).
        keys: the keys folder, or None: then only loopback and ipc addresses are served, unless `insecure`.
        observer: who counts, or None.
        answers: keeps small answers to be given again, or None.

    Raises:
        InvalidInput: an address that needs keys, or that cannot be bound.
    """

    def __init__(
        self,
        handle: Handle,
        settings: Settings,
        *,
        keys: Keys | None = None,
        observer: Observer | None = None,
        answers: Answers | None = None,
    ) -> None:
        check_listen(settings.listen, insecure=settings.insecure, has_keys=keys is not None)
        self._settings, self._keys = settings, keys
        self._observer, self._answers = observer or Silent(), answers
        self._calls: dict[CallKey, Call] = {}
        self._peers: dict[bytes, Peer] = {}
        self._uploads = Uploads(settings.upload_bytes_max)
        self.spool = Spool(memory_bytes_max=settings.reply_bytes_max, disk_bytes_max=settings.spool_bytes_max)
        self._finished: deque[tuple[Call, Header, Content | None, Source]] = deque()
        self._delivery = Delivery(self._send, settings, self._observer, done=self._release, enter=self._enter)
        self._accepting, self._stopping = True, False
        self._idle = threading.Event()
        self._waker = Waker()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._zap = Zap(self._context, keys) if keys is not None else None
        try:
            self._socket = listening(self._context, settings, keys)
        except InvalidInput:
            self._waker.close()
            raise
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
        self._waker.wake()
        return self._idle.wait(seconds)

    def close(self) -> None:
        """Stop at once: threads end, the address is free again."""
        self._stopping = True
        self._waker.wake()
        self._pool.close()
        self._thread.join()

    def __enter__(self) -> Router:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the thread that owns the sockets ------------------------------------------------------------------------

    def _hand_over(self, call: Call, reply: Header, content: Content | None, source: Source) -> None:
        """Called by handler threads."""
        if call.name and content is not None and self._answers is not None:
            self._answers.keep(call.name, call.state, content, source)
        self._finished.append((call, reply, content, source))
        self._waker.wake()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._waker.fileno(), zmq.POLLIN)
        if self._zap is not None:
            poller.register(self._zap.socket, zmq.POLLIN)
        ticked_s = time.monotonic()
        while not self._stopping:
            ready = dict(poller.poll(5 if self._delivery.blocked else int(_TICK_S * 1000)))
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
        if self._zap is not None and self._zap.socket in ready:
            self._zap.answer()
        if self._socket in ready:
            self._receive()
        self._waker.rearm(ready)
        self._pool.wake()
        while self._finished:
            self._finish(*self._finished.popleft())
        self._delivery.flush()

    def _shut(self) -> None:
        for call in list(self._calls.values()):
            self._release(call)
        self._socket.close(linger=1000)
        if self._zap is not None:
            self._zap.socket.close()
        self._context.term()
        self._waker.close()

    def _receive(self) -> None:
        for _ in range(_BATCH):
            try:
                first, *frames = receive(self._socket)
            except zmq.Again:
                return
            user = cast(str, frames[0].get("User-Id")) if self._keys is not None and frames else ""
            who, buffers = (first.bytes, user), [f.buffer for f in frames]
            if len(buffers) == 1 and is_bundle(buffers[0]):
                self._open(who, buffers[0])
            else:
                self._read(who, buffers)

    def _open(self, who: Who, bundle: memoryview) -> None:
        try:
            for header, said, body in requests_in(bundle):
                try:
                    self._take(who, header, [body] if body else [], said)
                except GeostoreError as error:
                    self._refuse(who[0], header, error)
        except BadRequest as error:
            self._refuse(who[0], Header(), error)

    def _read(self, who: Who, frames: list[memoryview]) -> None:
        header = Header()
        try:
            if not 1 <= len(frames) <= 1 + FRAMES_MAX:
                raise BadRequest(f"a message of {len(frames)} frames; wanted a header and at most {FRAMES_MAX}")
            header = unpack(frames[0], bytes_max=self._settings.header_bytes_max)
            self._take(who, header, frames[1:], None)
        except GeostoreError as error:
            self._refuse(who[0], header, error)

    def _take(self, who: Who, header: Header, body: list[memoryview], said: Content | None) -> None:
        """Take a message; `said` is what one that came in a bundle says beside its header."""
        route, user = who
        key = (user, header.get("session", ""), header["id"])
        call = self._calls.get(key)
        if header["type"] == "request":
            self._take_request(key, call, route, header, body, said)
        elif call is None or header.get("attempt", call.attempt) != call.attempt:
            return  # late word on a request that is over
        elif header["type"] == "chunk":
            self._take_chunk(call, body)
        elif header["type"] == "grant":
            self._delivery.granted(call, header["chunks"])
        elif header["type"] == "drop":
            self._release(call)

    def _take_request(
        self,
        key: CallKey,
        call: Call | None,
        route: bytes,
        header: Header,
        body: list[memoryview],
        said: Content | None,
    ) -> None:
        if not 1 <= header["v"] <= PROTOCOL_VERSION:
            raise UnsupportedFormat(f"protocol version {header['v']}; this daemon speaks 1 to {PROTOCOL_VERSION}")
        peer = self._peers.get(route) or Peer(route)
        if call is not None:
            self._retry(call, peer, header)
            return
        role = self._admit(key[0], peer, header)
        now_s = time.monotonic()
        seconds = min(header.get("deadline_ms", self._settings.deadline_s * 1000) / 1000, DEADLINE_S_MAX)
        inbox = Inbox(header, bytes_max=self._settings.upload_bytes_max, said=said)
        credit = max(1, min(header.get("credit", 1), self._settings.credit))
        call = Call(key, peer, header, role, now_s, now_s + seconds, inbox, credit, bundled=said is not None)
        if said is not None and self._recall(call, said):
            return
        self._begin(call, body)
        self._enter(call)

    def _enter(self, call: Call) -> None:
        if call.key in self._calls:
            return
        self._calls[call.key] = call
        self._peers[call.peer.route] = call.peer
        call.peer.calls += 1

    def _recall(self, call: Call, said: Content) -> bool:
        """Answer with what was answered before, if that still holds."""
        if self._answers is None:
            return False
        call.name, call.state = self._answers.name(call.verb, said), self._answers.state()
        kept = self._answers.recall(call.name, call.state)
        if kept is None:
            return False
        call.reply, call.content, call.source = answered(call.header, "ok"), kept.content, kept.body
        self._observer.recalled()
        return call.fits_bundle and self._delivery.enclose(call)

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

    def _begin(self, call: Call, body: list[memoryview]) -> None:
        """Take the body that rides with the header, or ask for it in chunks."""
        if call.inbox.nbytes <= INLINE_BYTES:
            call.inbox.add(body)
            if not call.inbox.complete:
                raise BadRequest(f"body of {call.inbox.filled} bytes; its header declared {call.inbox.nbytes}")
            self._pool.put(call)
        elif any(len(b) for b in body):
            raise BadRequest(f"a body above {INLINE_BYTES} bytes travels in chunks, after a grant")
        else:
            self._uploads.add(call)
            self._grant_uploads()

    def _grant_uploads(self) -> None:
        for call in self._uploads.admit():
            call.grants_owed += self._settings.credit
            self._delivery.push(call)

    def _take_chunk(self, call: Call, body: list[memoryview]) -> None:
        if call.working or not call.granted:
            return
        try:
            call.inbox.add(body)
        except BadRequest:
            self._release(call)
            raise
        if call.inbox.complete:
            self._pool.put(call)
        else:
            call.grants_owed += 1
            self._delivery.push(call)

    def _retry(self, call: Call, peer: Peer, header: Header) -> None:
        """The client lost its connection and asks again: go on for the new one, without doing the work twice."""
        self._delivery.forget(call)
        self._leave(call.peer)
        call.retry(peer, header)
        self._peers[peer.route] = peer
        peer.calls += 1
        if call.reply is not None:
            self._delivery.push(call)
        elif not call.working and call.granted:
            call.inbox.filled = 0
            call.grants_owed = self._settings.credit
            self._delivery.push(call)

    def _finish(self, call: Call, reply: Header, content: Content | None, source: Source) -> None:
        call.working = False
        self._end_upload(call)
        call.reply, call.content, call.source = reply, content, source
        if call.dropped:
            self._release(call)
        else:
            self._delivery.push(call)

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
        if self._calls.pop(call.key, None) is None:
            return
        self._delivery.forget(call)
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
