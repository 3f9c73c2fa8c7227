"""Small replies on their way out: those to one connection leave in one frame. No sockets here."""

from __future__ import annotations

from collections.abc import Callable

import zmq

from geostore.query.bundle import Bundle, replies
from geostore.query.calls import Call

_TOGETHER = 32  # replies in a frame at most: the reader begins with them while the next are made


class Outbox:
    """Gathers replies until they are flushed, or enough for a frame.

    Args:
        send: hands a frame to a connection.
        sent: told of the calls whose replies are with the socket.
        unsent: told of each call whose reply the socket did not take, and why.
    """

    def __init__(
        self,
        send: Callable[[bytes, bytes], None],
        sent: Callable[[list[Call]], None],
        unsent: Callable[[Call, zmq.ZMQError], None],
    ) -> None:
        self._send, self._sent, self._unsent = send, sent, unsent
        self._boxes: dict[bytes, tuple[Bundle, list[Call]]] = {}

    def add(self, call: Call) -> bool:
        """Take the whole reply of `call`; False if it is too large for a bundle."""
        assert call.source is not None
        route, size = call.peer.route, call.source.nbytes
        entry, body = call.entry()
        box = self._boxes.get(route)
        if box is None or not box[0].add(entry, body, size):
            self._flush(route)
            box = (replies(), [])
            if not box[0].add(entry, body, size):
                return False
            self._boxes[route] = box
        box[1].append(call)
        if len(box[1]) == _TOGETHER:
            self._flush(route)
        return True

    def flush(self) -> None:
        """Send what was gathered."""
        for route in list(self._boxes):
            self._flush(route)

    def _flush(self, route: bytes) -> None:
        bundle, calls = self._boxes.pop(route, (None, []))
        if bundle is None:
            return
        try:
            self._send(route, bundle.frame())
        except zmq.ZMQError as error:
            for call in calls:
                self._unsent(call, error)
        else:
            self._sent(calls)
