"""Requests on their way through a daemon: what each has received, sent, and may still send. No sockets here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from geostore.query.bodies import Inbox
from geostore.query.bundle import told_entry
from geostore.query.frames import INLINE_BYTES, Buffer, Content, Header, pack
from geostore.query.messages import PROTOCOL_VERSION, Role
from geostore.query.spool import Source

CallKey = tuple[str, str, int]  # user, session, id: the same for every retry of one request


@dataclass(eq=False)
class Peer:
    """One connection. `under_way` is bytes sent to it and not yet granted back."""

    route: bytes
    calls: int = 0
    under_way: int = 0


@dataclass(eq=False, slots=True)
class Call:
    """One request. It receives its body, works, then sends its reply as credit comes back."""

    key: CallKey
    peer: Peer
    header: Header
    role: Role
    began_s: float
    deadline_s: float
    inbox: Inbox
    credit: int
    name: bytes = b""  # its answer may be kept under, for the store's `state` when it came
    state: int | None = None
    bundled: bool = False  # it came in a bundle, so its reply may leave in one
    granted: bool = False
    working: bool = False
    dropped: bool = False
    grants_owed: int = 0
    chunk_seq: int = 0
    reply: Header | None = None
    content: Content | None = None
    source: Source | None = None
    sent: int = 0
    headed: bool = False
    stalled: bool = False
    under_way: deque[int] = field(default_factory=deque)

    @property
    def attempt(self) -> int:
        """The retry this call answers now."""
        return self.header["attempt"]

    @property
    def verb(self) -> str:
        """Its verb."""
        return self.header["verb"]

    @property
    def acknowledged(self) -> bool:
        """True if chunks of the reply must be granted back."""
        return self.source is not None and self.source.nbytes > INLINE_BYTES

    @property
    def fits_bundle(self) -> bool:
        """True if the whole reply may leave in a bundle."""
        if not self.bundled or self.headed or self.content is None or self.content.facts_bytes:
            return False
        if self.reply is not None and "limits" in self.reply:  # it says more than a bundle holds
            return False
        return self.source is not None and self.source.nbytes <= INLINE_BYTES

    @property
    def all_sent(self) -> bool:
        """True once the header and every byte of the reply were handed to the socket."""
        return self.headed and self.source is not None and self.sent >= self.source.nbytes

    @property
    def done(self) -> bool:
        """True once nothing of it is under way any more."""
        return self.all_sent and not self.under_way

    def retry(self, peer: Peer, header: Header) -> None:
        """Begin sending again, to `peer`: the client lost the connection and asks once more with the same id."""
        self.peer, self.header = peer, header
        self.under_way.clear()
        self.sent, self.chunk_seq, self.headed, self.stalled = 0, 0, False, False

    def grant(self, chunk_bytes: int) -> Header:
        """The message that asks for the chunks owed."""
        return {**self._head("grant"), "chunks": self.grants_owed, "chunk_bytes": chunk_bytes}

    def entry(self) -> tuple[bytes, list[Buffer]]:
        """The whole reply, as one of several in a bundle."""
        assert self.content is not None
        assert self.source is not None
        size = self.source.nbytes
        return told_entry(self.key[2], self.attempt, self.content), self.source.frames(0, size) if size else []

    def next_message(self, size: int) -> list[Buffer]:
        """The next message of the reply, with `size` bytes of body; `note_sent` must follow if it was sent."""
        assert self.source is not None
        frames = self.source.frames(self.sent, self.sent + size) if size else []
        if self.headed:
            return [pack({**self._head("chunk"), "seq": self.chunk_seq}), *frames]
        assert self.reply is not None
        self.reply["attempt"] = self.attempt
        return [pack(self.reply, self.content), *frames]

    def _head(self, kind: str) -> Header:
        return {"v": PROTOCOL_VERSION, "type": kind, "id": self.key[2], "attempt": self.attempt}

    def note_sent(self, size: int) -> int:
        """Count a message as sent; returns the bytes now under way because of it."""
        self.headed = True
        self.sent += size
        self.chunk_seq += 1
        if not self.acknowledged:
            return 0
        self.under_way.append(size)
        return size

    def note_granted(self, chunks: int) -> int:
        """Count `chunks` as received by the reader; returns the bytes no longer under way."""
        return sum(self.under_way.popleft() for _ in range(min(chunks, len(self.under_way))))


class Window:
    """Bytes under way to all readers together, so that many slow readers cost a bounded amount.

    Below the limit a call may use its whole credit; above it every connection may still have one chunk under way,
    so that no reader is shut out by others.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.under_way = 0

    def admits(self, call: Call, size: int) -> bool:
        """True if `call` may send `size` more bytes now."""
        if not call.acknowledged or call.peer.under_way == 0:
            return True
        return len(call.under_way) < call.credit and self.has_room(size)

    def has_room(self, size: int) -> bool:
        """True if `size` more bytes stay below the limit."""
        return self.under_way + size <= self.bytes_max

    def add(self, call: Call, size: int) -> None:
        """`size` more bytes are under way (fewer, if negative)."""
        self.under_way += size
        call.peer.under_way += size

    def forget(self, call: Call) -> None:
        """Nothing of `call` is under way any more."""
        self.add(call, -sum(call.under_way))
        call.under_way.clear()


class Uploads:
    """Bodies on their way in: together they keep to `bytes_max`; those that do not fit wait, oldest first."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._waiting: deque[Call] = deque()
        self._bytes = 0

    def add(self, call: Call) -> None:
        """`call` wants to upload its body."""
        self._waiting.append(call)

    def admit(self) -> Iterator[Call]:
        """The calls that may begin now; one alone may always."""
        while self._waiting:
            size = self._waiting[0].inbox.nbytes
            if self._bytes and self._bytes + size > self._bytes_max:
                return
            self._bytes += size
            call = self._waiting.popleft()
            call.granted = True
            yield call

    def end(self, call: Call) -> None:
        """`call` has its body, or gives up."""
        if call.granted:
            call.granted = False
            self._bytes -= call.inbox.nbytes
        elif call in self._waiting:
            self._waiting.remove(call)
