"""What calls have to say, on its way out as far as credit, window and socket allow."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import zmq

from geostore.query.calls import Call, CallKey, Window
from geostore.query.frames import REPLY_CHUNK_BYTES, Buffer, pack
from geostore.query.handlers import Observer
from geostore.query.outbox import Outbox
from geostore.settings import Settings

LOST_S = 30.0  # an answer is kept this long for a client whose connection broke


class Delivery:
    """Sends grants and replies; what cannot leave now is tried again.

    Args:
        send: hands a message to a connection; raises zmq.ZMQError.
        settings: the size of a chunk, and the bytes that may be under way.
        observer: who counts.
        done: told of each call with nothing left to say.
        enter: makes sure that a call whose reply could not leave is not forgotten.
    """

    def __init__(
        self,
        send: Callable[[bytes, list[Buffer]], None],
        settings: Settings,
        observer: Observer,
        *,
        done: Callable[[Call], None],
        enter: Callable[[Call], None],
    ) -> None:
        self._send, self._settings, self._observer = send, settings, observer
        self._done, self._enter = done, enter
        self._blocked: dict[CallKey, Call] = {}  # wait for room in the socket
        self._held: OrderedDict[CallKey, Call] = OrderedDict()  # wait for room in the window, oldest first
        self._window = Window(settings.reply_bytes_max)
        self._outbox = Outbox(lambda route, frame: send(route, [frame]), self._sent, self._not_taken)

    @property
    def blocked(self) -> bool:
        """True while something waits for room in the socket."""
        return bool(self._blocked)

    def push(self, call: Call) -> None:
        """Send what `call` may send now."""
        self._blocked.pop(call.key, None)
        self._held.pop(call.key, None)
        try:
            self._send_all(call)
        except zmq.ZMQError as error:
            self._not_sent(call, error)

    def enclose(self, call: Call) -> bool:
        """Send the reply of `call` with the next flush, whole; False if it is too large for that."""
        return self._outbox.add(call)

    def granted(self, call: Call, chunks: int) -> None:
        """The reader has `chunks` of the reply: go on with it, and with the one that waits the longest."""
        self._window.add(call, -call.note_granted(chunks))
        self.push(call)
        if self._held:
            self.push(self._held.popitem(last=False)[1])

    def flush(self) -> None:
        """Send what the socket did not take before, and what was gathered."""
        for call in list(self._blocked.values()):
            self.push(call)
        self._outbox.flush()

    def forget(self, call: Call) -> None:
        """Nothing of `call` is under way any more."""
        self._blocked.pop(call.key, None)
        self._held.pop(call.key, None)
        if call.under_way:
            self._window.forget(call)

    def _send_all(self, call: Call) -> None:
        if call.grants_owed:
            self._send(call.peer.route, [pack(call.grant(self._settings.chunk_bytes))])
            call.grants_owed = 0
        if call.fits_bundle and self.enclose(call):
            return
        while call.source is not None and not call.all_sent:
            size = self._chunk(call, call.source.nbytes - call.sent)
            if not self._window.admits(call, size):
                self._hold(call)
                return
            self._send(call.peer.route, call.next_message(size))
            self._window.add(call, call.note_sent(size))
            self._observer.moved("out", size)
        if call.done:
            self._done(call)

    def _chunk(self, call: Call, left: int) -> int:
        """Bytes of the next chunk: what the reader takes at once, while there is room for much under way."""
        large = min(call.header.get("chunk_bytes", 0), REPLY_CHUNK_BYTES, left)
        if large > self._settings.chunk_bytes and self._window.has_room(large):
            return large
        return min(self._settings.chunk_bytes, left)

    def _hold(self, call: Call) -> None:
        if len(call.under_way) < call.credit:
            self._held[call.key] = call
        if not call.stalled:
            call.stalled = True
            self._observer.stalled()

    def _sent(self, calls: list[Call]) -> None:
        """The socket took their whole replies."""
        for call in calls:
            self._done(call)
        self._observer.moved("out", sum(call.source.nbytes for call in calls if call.source is not None))

    def _not_taken(self, call: Call, error: zmq.ZMQError) -> None:
        self._enter(call)
        self._not_sent(call, error)

    def _not_sent(self, call: Call, error: zmq.ZMQError) -> None:
        """The socket did not take what `call` had to say."""
        if error.errno == zmq.EAGAIN:
            self._blocked[call.key] = call
        elif error.errno == zmq.EHOSTUNREACH:
            self._window.forget(call)  # kept for a while: the client may come back and ask again
            call.deadline_s = min(call.deadline_s, time.monotonic() + LOST_S)
        else:
            raise error
