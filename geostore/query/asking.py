"""One request of a client under way: what was asked, what is sent, what has arrived. No sockets here."""

from __future__ import annotations

from concurrent.futures import Future

from geostore.query.frames import INLINE_BYTES, Body, Header, Inbox
from geostore.query.messages import PROTOCOL_VERSION, Reply


class Asking:
    """One request under way: what was asked, and what has arrived of the answer."""

    __slots__ = (
        "asked_s",
        "attempt",
        "body",
        "chunk_bytes",
        "deadline_s",
        "future",
        "granted",
        "header",
        "inbox",
        "reply",
        "sent",
        "ungranted",
    )

    def __init__(self, header: Header, body: Body, asked_s: float, deadline_s: float) -> None:
        self.header, self.body = header, body
        self.asked_s, self.deadline_s = asked_s, deadline_s
        self.future: Future[Reply] = Future()
        self.attempt = 0
        self.reset()

    def reset(self) -> None:
        """As if nothing had been sent."""
        self.sent, self.granted, self.ungranted, self.chunk_bytes = 0, 0, 0, INLINE_BYTES
        self.inbox: Inbox | None = None
        self.reply: Header | None = None

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
