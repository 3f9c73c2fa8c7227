"""The two kinds of socket of the wire, set up: limits, heartbeats, keys."""

from __future__ import annotations

import contextlib
import socket

import zmq

from geostore.errors import InvalidInput
from geostore.query.auth import KeyPair, Keys, check_port, secure_client, secure_server
from geostore.query.frames import INLINE_BYTES
from geostore.settings import Settings

CHUNK_BYTES_MAX = 64 * 2**20  # largest frame taken from a daemon
_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
)
Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]


def listening(context: Context, settings: Settings, keys: Keys | None) -> Socket:
    """A ROUTER bound to `settings.listen`.

    Raises:
        InvalidInput: it cannot be bound; the context is closed then.
    """
    router = context.socket(zmq.ROUTER)
    router.linger = 0
    router.router_mandatory = True
    router.setsockopt(zmq.ROUTER_HANDOVER, 0)
    router.maxmsgsize = max(settings.chunk_bytes, settings.header_bytes_max, INLINE_BYTES)
    router.sndhwm, router.rcvhwm = 64, 64  # messages per connection
    router.handshake_ivl = 10_000
    _beat(router)
    if keys is not None:
        secure_server(router, keys)
    try:
        router.bind(settings.listen)
    except zmq.ZMQError as error:
        context.destroy(linger=0)
        raise InvalidInput(f"cannot listen on {settings.listen}: {error}; choose another address") from error
    return router


def connecting(context: Context, address: str, pair: KeyPair | None, server_key: str) -> tuple[Socket, Socket]:
    """A DEALER on its way to `address`, and a socket that tells how it fares: up, refused, gone.

    Raises:
        InvalidInput: the address is none; the context is closed then.
    """
    try:
        check_port(address)
    except InvalidInput:
        context.destroy(linger=0)
        raise
    dealer = context.socket(zmq.DEALER)
    dealer.linger = 0
    dealer.immediate = True  # nothing queues for a connection that is not there
    dealer.maxmsgsize = CHUNK_BYTES_MAX
    dealer.reconnect_ivl, dealer.reconnect_ivl_max = 50, 1000
    dealer.sndhwm, dealer.rcvhwm = 64, 64
    _beat(dealer)
    if pair is not None:
        secure_client(dealer, pair, server_key)
    monitor = dealer.get_monitor_socket(_EVENTS)
    try:
        dealer.connect(address)
    except zmq.ZMQError as error:
        dealer.disable_monitor()
        context.destroy(linger=0)
        raise InvalidInput(f"{address!r} is no address ({error}); use tcp://host:port") from error
    return dealer, monitor


def _beat(either: Socket) -> None:
    either.heartbeat_ivl, either.heartbeat_timeout, either.heartbeat_ttl = 5_000, 15_000, 30_000


class Waker:
    """Wakes the one thread that polls it, from any other: one byte, however often it is asked for."""

    def __init__(self) -> None:
        self._out, self._in = socket.socketpair()
        self._out.setblocking(False)
        self._in.setblocking(False)
        self._asked = False

    def fileno(self) -> int:
        """What is polled."""
        return self._in.fileno()

    def wake(self, *, force: bool = False) -> None:
        """Have the thread go round once more."""
        if force or not self._asked:
            self._asked = True
            with contextlib.suppress(OSError):  # full: a wake-up is already on its way; closed: nobody to wake
                self._out.send(b"\0")

    def rearm(self, ready: dict[object, int]) -> None:
        """The thread is awake, with what `ready` says: what comes from here on wakes it again."""
        if self.fileno() in ready:
            self._in.recv(4096)
        self._asked = False

    def close(self) -> None:
        """Nobody polls it any more."""
        self._in.close()
        self._out.close()
