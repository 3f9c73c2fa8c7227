"""Small messages in one frame: what they share is said once, and a socket's work is done once. No sockets here."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, cast

import msgpack

from geostore.errors import BadRequest
from geostore.query.frames import FIXMAP, INLINE_BYTES, TYPES, Buffer, Content, Header, check_fields, decode, packer
from geostore.query.messages import PROTOCOL_VERSION

BUNDLE_BYTES_MAX = 262_144  # largest bundle that is made; whoever reads one goes by what the socket lets through
_MARK = 0xC1  # no msgpack value begins with it, so no header does
_PREFIX = struct.Struct("<B3xI")  # the mark, and the bytes of what is said before the bodies
_ALIGN = 8  # bodies begin here, so that their arrays are where a processor wants them
_FIXARRAY = 0x90  # msgpack: a list of up to 15 items begins with one byte
_MESSAGES: bytes = msgpack.packb("messages")
_LIST_BYTES = 5  # of the largest list's beginning
_NUMBER_MAX = 2**53
_REPLIES: Header = {"v": PROTOCOL_VERSION, "type": "reply"}
_ASKED = ("id", "attempt", "bytes", "verb", "deadline_ms", "fields", "arrays")  # what a request's entry holds
_TOLD = ("id", "attempt", "bytes", "fields", "arrays")  # and a reply's
_SHARED = {"request": ("v", "type", "session", "messages"), "reply": ("v", "type", "messages")}
_KINDS = {"messages": list} | {
    name: TYPES.get(name, int) for name in (*_ASKED, "v", "type", "session", "credit", "chunk_bytes")
}
_ITEMS = {"request": tuple(_KINDS[n] for n in _ASKED), "reply": tuple(_KINDS[n] for n in _TOLD)}


def is_bundle(frame: Buffer) -> bool:
    """True if `frame` is no header but a bundle."""
    return len(frame) > 0 and frame[0] == _MARK


class Bundle:
    """Messages gathered for one frame.

    Args:
        shared: what all of them say: version, type, and for requests session, credit and chunk_bytes.
        bytes_max: of the frame.
    """

    __slots__ = ("_bodies", "_bytes_max", "_entries", "_shared", "count", "nbytes")

    def __init__(self, shared: Header, bytes_max: int = BUNDLE_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        pairs: bytes = packer().pack(shared)
        self._shared = b"%c%b%b" % (FIXMAP | len(shared) + 1, pairs[1:], _MESSAGES)
        self._entries: list[bytes] = []
        self._bodies: list[Buffer] = []
        self.count, self.nbytes = 0, _PREFIX.size + len(self._shared) + _LIST_BYTES + _ALIGN

    def add(self, entry: bytes, body: list[Buffer], body_bytes: int) -> bool:
        """Append a message, body in pieces; False if there is no room for it. `nbytes` is at most so much too large."""
        nbytes = self.nbytes + len(entry) + body_bytes
        if nbytes > self._bytes_max:
            return False
        self._entries.append(entry)
        if body_bytes:
            self._bodies += body
        self.count, self.nbytes = self.count + 1, nbytes
        return True

    def frame(self) -> bytes:
        """The frame."""
        head = b"".join((self._shared, packer().pack_array_header(self.count), *self._entries))
        padding = -(_PREFIX.size + len(head)) % _ALIGN
        return b"".join((_PREFIX.pack(_MARK, len(head)), head, bytes(padding), *self._bodies))


def replies() -> Bundle:
    """A bundle for replies."""
    return Bundle(_REPLIES)


def asked_entry(number: int, attempt: int, verb: str, deadline_ms: int, content: Content) -> bytes:
    """A request as a bundle holds it."""
    return _entry((number, attempt, content.nbytes, verb, deadline_ms), content)


def told_entry(number: int, attempt: int, content: Content) -> bytes:
    """A reply whose status is ok as a bundle holds it."""
    return _entry((number, attempt, content.nbytes), content)


def _entry(items: tuple[int | str, ...], content: Content) -> bytes:
    return b"%c%b%b%b" % (_FIXARRAY | len(items) + 2, packer().pack(items)[1:], content.fields, content.arrays)


def requests_in(frame: memoryview) -> Iterator[tuple[Header, memoryview]]:
    """(header, body) of each request in a bundle, bodies as views of it.

    Raises:
        BadRequest: it is none; what came before is good.
    """
    shared, entries = _open(frame, "request")
    for entry, body in entries:
        header = cast(Header, shared.copy())
        (
            header["id"],
            header["attempt"],
            header["bytes"],
            header["verb"],
            header["deadline_ms"],
            header["fields"],
            header["arrays"],
            *_,
        ) = entry
        yield header, body


def replies_in(frame: memoryview) -> Iterator[tuple[list[Any], memoryview]]:
    """([id, attempt, bytes, fields, arrays, ...], body) of each reply in a bundle; errors as `requests_in`."""
    return _open(frame, "reply")[1]


def _open(frame: memoryview, kind: str) -> tuple[dict[str, Any], Iterator[tuple[list[Any], memoryview]]]:
    """What the messages share, and each with its body."""
    if len(frame) < _PREFIX.size:
        raise BadRequest(f"a bundle of {len(frame)} bytes; see docs/PROTOCOL.md")
    stop = _PREFIX.size + _PREFIX.unpack_from(frame)[1]
    if stop > len(frame):
        raise BadRequest(f"bundle: {len(frame)} bytes, {stop} of them said to come before the bodies")
    shared = decode(frame[_PREFIX.size : stop])
    if shared.get("type") != kind:
        raise BadRequest(f"a bundle of {str(shared.get('type'))[:40]!r}; wanted {kind}")
    check_fields(shared, _SHARED[kind], _KINDS)
    if not shared["messages"]:
        raise BadRequest("an empty bundle; see docs/PROTOCOL.md")
    entries = shared.pop("messages")
    return shared, _entries(entries, _ITEMS[kind], frame, stop + -stop % _ALIGN)


def _entries(
    entries: list[Any], kinds: tuple[type, ...], frame: memoryview, at: int
) -> Iterator[tuple[list[Any], memoryview]]:
    for entry in entries:
        if type(entry) is not list or tuple(map(type, entry[: len(kinds)])) != kinds:
            raise BadRequest(f"bundle: a message is {str(entry)[:80]}; wanted {[k.__name__ for k in kinds]}")
        number, attempt, nbytes = entry[:3]
        if not (0 <= number < _NUMBER_MAX and 0 <= attempt < _NUMBER_MAX and 0 <= nbytes <= INLINE_BYTES):
            raise BadRequest(f"bundle: message {number}, attempt {attempt}, {nbytes} bytes; see docs/PROTOCOL.md")
        if at + nbytes > len(frame):
            raise BadRequest(f"bundle: a body of {nbytes} bytes, {max(len(frame) - at, 0)} are left")
        yield entry, frame[at : at + nbytes]
        at += nbytes
    if at < len(frame):
        raise BadRequest(f"bundle: {len(frame) - at} bytes after the last body; see docs/PROTOCOL.md")
