"""Small messages in one frame: what they share is said once, and a socket's work is done once. No sockets here."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgpack
import msgspec

from geostore.errors import BadRequest
from geostore.query.frames import FIXMAP, INLINE_BYTES, SESSION_CHARACTERS_MAX, Buffer, Content, Header, packer
from geostore.query.messages import PROTOCOL_VERSION

BUNDLE_BYTES_MAX = 262_144  # largest bundle that is made; whoever reads one goes by what the socket lets through
_MARK = 0xC1  # no msgpack value begins with it, so no header does
_PREFIX = struct.Struct("<B3xI")  # the mark, and the bytes of what is said before the bodies
_ALIGN = 8  # bodies begin here, so that their arrays are where a processor wants them
_FIXARRAY = 0x90  # msgpack: a list of up to 15 items begins with one byte
_MESSAGES: bytes = msgpack.packb("messages")
_LIST_BYTES = 5  # of the largest list's beginning
_REPLIES: Header = {"v": PROTOCOL_VERSION, "type": "reply"}
_Number = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
_Inline = Annotated[int, msgspec.Meta(ge=0, le=INLINE_BYTES)]


class _Asked(msgspec.Struct, array_like=True, gc=False):
    """A request as a bundle holds it."""

    id: _Number
    attempt: _Number
    bytes: _Inline
    verb: str
    deadline_ms: _Number
    fields: msgspec.Raw
    arrays: msgspec.Raw


class Told(msgspec.Struct, array_like=True, gc=False):
    """A reply as a bundle holds it: `fields` by name, `arrays` as descriptors, `bytes` of its body."""

    id: _Number
    attempt: _Number
    bytes: _Inline
    fields: dict[str, Any]
    arrays: list[Any]


class _Requests(msgspec.Struct, gc=False):
    """What the requests of a bundle share, and they."""

    v: _Number
    type: Literal["request"]
    session: Annotated[str, msgspec.Meta(max_length=SESSION_CHARACTERS_MAX)]
    messages: Annotated[list[_Asked], msgspec.Meta(min_length=1)]
    credit: _Number = 1
    chunk_bytes: _Number = 0


class _Replies(msgspec.Struct, gc=False):
    """What the replies of a bundle share, and they."""

    v: _Number
    type: Literal["reply"]
    messages: Annotated[list[Told], msgspec.Meta(min_length=1)]


_Shared = TypeVar("_Shared", _Requests, _Replies)
_REQUESTS_IN = msgspec.msgpack.Decoder(_Requests)
_REPLIES_IN = msgspec.msgpack.Decoder(_Replies)


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


def requests_in(frame: memoryview) -> Iterator[tuple[Header, Content, memoryview]]:
    """(header without fields and arrays, these as they came, body) of each request in a bundle, bodies as views of it.

    Raises:
        BadRequest: it is none; where a body is missing, what came before is good.
    """
    shared, at = _open(frame, _REQUESTS_IN)
    for one, body in zip(shared.messages, _bodies(frame, at, shared.messages), strict=True):
        header: Header = {
            "v": shared.v,
            "type": "request",
            "session": shared.session,
            "credit": shared.credit,
            "chunk_bytes": shared.chunk_bytes,
            "id": one.id,
            "attempt": one.attempt,
            "verb": one.verb,
            "deadline_ms": one.deadline_ms,
            "bytes": one.bytes,
        }
        yield header, Content(bytes(one.fields), bytes(one.arrays), one.bytes), body


def replies_in(frame: memoryview) -> Iterator[tuple[Told, memoryview]]:
    """(reply, body) of each reply in a bundle; errors as `requests_in`."""
    shared, at = _open(frame, _REPLIES_IN)
    return zip(shared.messages, _bodies(frame, at, shared.messages), strict=True)


def _open(frame: memoryview, decoder: msgspec.msgpack.Decoder[_Shared]) -> tuple[_Shared, int]:
    """What is said before the bodies, and where they begin."""
    if len(frame) < _PREFIX.size:
        raise BadRequest(f"a bundle of {len(frame)} bytes; see docs/PROTOCOL.md")
    stop = _PREFIX.size + _PREFIX.unpack_from(frame)[1]
    if stop > len(frame):
        raise BadRequest(f"bundle: {len(frame)} bytes, {stop} of them said to come before the bodies")
    try:
        return decoder.decode(frame[_PREFIX.size : stop]), stop + -stop % _ALIGN
    except Exception as error:
        raise BadRequest(f"bundle: {str(error)[:200]}; see docs/PROTOCOL.md") from error


def _bodies(frame: memoryview, at: int, messages: Sequence[_Asked | Told]) -> Iterator[memoryview]:
    for one in messages:
        if at + one.bytes > len(frame):
            raise BadRequest(f"bundle: a body of {one.bytes} bytes, {max(len(frame) - at, 0)} are left")
        yield frame[at : at + one.bytes]
        at += one.bytes
    if at < len(frame):
        raise BadRequest(f"bundle: {len(frame) - at} bytes after the last body; see docs/PROTOCOL.md")
