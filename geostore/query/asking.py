"""One request of a client under way: what was asked, what is sent, what has arrived. No sockets here."""

from __future__ import annotations

from concurrent.futures import Future

from geostore.errors import DeadlineExpired, Forbidden, GeostoreError, Unreachable
from geostore.query.frames import INLINE_BYTES, Body, Buffer, Content, Header, Inbox, pack
from geostore.query.messages import PROTOCOL_VERSION, Reply


class Asking:
    """One request under way: what was asked, and what has arrived of the answer."""

    __slots__ = (
        "asked_s",
        "attempt",
        "body",
        "chunk_bytes",
        "content",
        "deadline_s",
        "future",
        "granted",
        "header",
        "inbox",
        "reply",
        "sent",
        "ungranted",
    )

    def __init__(self, header: Header, content: Content, body: Body, asked_s: float, deadline_s: float) -> None:
        self.header, self.content, self.body = header, content, body
        self.asked_s, self.deadline_s = asked_s, deadline_s
        self.future: Future[Reply] = Future()
        self.attempt = 0
        self.reset()

    def reset(self) -> None:
        """As if nothing had been sent."""
        self.sent, self.granted, self.ungranted, self.chunk_bytes = 0, 0, 0, INLINE_BYTES
        self.inbox: Inbox | None = None
        self.reply: Header | None = None

    @property
    def inline(self) -> bool:
        """True if its body rides with its header."""
        return self.body.nbytes <= INLINE_BYTES

    def inline_frames(self) -> list[Buffer]:
        """The body, if it rides with its header."""
        return self.body.frames(0, INLINE_BYTES) if self.inline else []

    def request(self, now_s: float) -> bytes:
        """The header frame that asks, at its attempt."""
        self.header["attempt"] = self.attempt
        self.header["deadline_ms"] = max(1, int((self.deadline_s - now_s) * 1000))
        return pack(self.header, self.content)

    def chunk(self) -> list[Buffer]:
        """The next message of the upload."""
        head = self.head("chunk")
        head["seq"] = self.sent // self.chunk_bytes
        return [pack(head), *self.body.frames(self.sent, self.sent + self.chunk_bytes)]

    def late(self, address: str) -> DeadlineExpired:
        """What is told when its deadline passed."""
        seconds = self.deadline_s - self.asked_s
        return DeadlineExpired(f"{self.header['verb']}: no answer from {address} in {seconds:.3g} s; allow more")

    def head(self, kind: str) -> Header:
        """The header of a further message about this request."""
        asked = self.header
        return {
            "v": PROTOCOL_VERSION,
            "type": kind,
            "id": asked["id"],
            "attempt": self.attempt,
            "session": asked["session"],
        }


def misfit(address: str) -> GeostoreError:
    """What is told when somebody is there, and cuts the handshake off."""
    return Forbidden(f"{address} answers, but the keys do not fit; check --client-key and --server-key")


def absent(address: str) -> GeostoreError:
    """What is told when nobody is there."""
    return Unreachable(f"no daemon answers at {address}; start one with `geostore-node --store ...`")
