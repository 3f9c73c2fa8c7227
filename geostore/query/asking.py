"""One request of a client under way: what was asked, what is sent, what has arrived. No sockets here."""

from __future__ import annotations

import secrets
from concurrent.futures import Future

from geostore.errors import DeadlineExpired, Forbidden, GeostoreError, Unreachable
from geostore.query.bodies import Body, Inbox
from geostore.query.bundle import asked_entry
from geostore.query.frames import INLINE_BYTES, REPLY_CHUNK_BYTES, Buffer, Content, Header, pack
from geostore.query.messages import PROTOCOL_VERSION, Reply
from geostore.settings import Settings


class Asking:
    """One request under way: what was asked, and what has arrived of the answer."""

    attempt = 0
    sent = granted = ungranted = 0
    chunk_bytes = INLINE_BYTES
    inbox: Inbox | None = None
    reply: Header | None = None

    def __init__(
        self,
        shared: Header,
        number: int,
        verb: str,
        said: tuple[Content, Body],
        asked_s: float,
        deadline_s: float,
        future: Future[Reply],
    ) -> None:
        self.shared, self.id, self.verb = shared, number, verb  # shared: what every request of the client says
        self.content, self.body = said
        self.asked_s, self.deadline_s = asked_s, deadline_s
        self.future = future

    def again(self) -> None:
        """As if nothing had been sent, for the next attempt."""
        self.attempt += 1
        self.sent, self.granted, self.ungranted, self.chunk_bytes = 0, 0, 0, INLINE_BYTES
        self.inbox = self.reply = None

    @property
    def inline(self) -> bool:
        """True if its body rides with its header."""
        return self.body.nbytes <= INLINE_BYTES

    @property
    def fits_bundle(self) -> bool:
        """True if it may be one of several in a frame."""
        return self.body.nbytes <= INLINE_BYTES and not self.content.facts_bytes

    def inline_frames(self) -> list[Buffer]:
        """The body, if it rides with its header."""
        return self.body.frames(0, INLINE_BYTES) if 0 < self.body.nbytes <= INLINE_BYTES else []

    def request(self, now_s: float) -> bytes:
        """The header frame that asks, at its attempt."""
        own: Header = {"id": self.id, "attempt": self.attempt, "verb": self.verb, "deadline_ms": self._left_ms(now_s)}
        return pack({**self.shared, **own}, self.content)

    def entry(self, now_s: float) -> bytes:
        """The same in a bundle."""
        return asked_entry(self.id, self.attempt, self.verb, self._left_ms(now_s), self.content)

    def _left_ms(self, now_s: float) -> int:
        return max(1, int((self.deadline_s - now_s) * 1000))

    def chunk(self) -> list[Buffer]:
        """The next message of the upload."""
        head = self.head("chunk")
        head["seq"] = self.sent // self.chunk_bytes
        return [pack(head), *self.body.frames(self.sent, self.sent + self.chunk_bytes)]

    def late(self, address: str) -> DeadlineExpired:
        """What is told when its deadline passed."""
        seconds = self.deadline_s - self.asked_s
        return DeadlineExpired(f"{self.verb}: no answer from {address} in {seconds:.3g} s; allow more")

    def head(self, kind: str) -> Header:
        """The header of a further message about this request."""
        said = self.shared
        return {"v": said["v"], "type": kind, "id": self.id, "attempt": self.attempt, "session": said["session"]}


def shared_header(settings: Settings) -> Header:
    """What every request of one client says."""
    return {
        "v": PROTOCOL_VERSION,
        "type": "request",
        "session": secrets.token_hex(8),
        "credit": settings.credit,
        "chunk_bytes": REPLY_CHUNK_BYTES,
    }


def misfit(address: str) -> GeostoreError:
    """What is told when somebody is there, and cuts the handshake off."""
    return Forbidden(f"{address} answers, but the keys do not fit; check --client-key and --server-key")


def absent(address: str) -> GeostoreError:
    """What is told when nobody is there."""
    return Unreachable(f"no daemon answers at {address}; start one with `geostore-node --store ...`")
