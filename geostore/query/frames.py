"""Headers as bytes: one msgpack map, checked field by field. No sockets here."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple, TypedDict, cast

import msgpack

from geostore.errors import BadRequest

INLINE_BYTES = 65_536  # a body up to this size rides with its header and needs no credit
REPLY_CHUNK_BYTES = 8 * 2**20  # largest chunk of a reply that is asked for, or sent: most replies are one message
ITEMS_MAX = 1_000_000  # items of one list or map
TEXT_MAX = 1_000_000  # characters of one string
SESSION_CHARACTERS_MAX = 64
FRAMES_MAX = 8  # buffer frames of one message

Buffer = bytes | memoryview


class Header(TypedDict, total=False):
    """Every field a header may carry; `FIELDS_OF` says which message has which."""

    v: int
    type: str
    id: int
    attempt: int
    session: str
    verb: str
    deadline_ms: int
    credit: int
    bytes: int
    fields: dict[str, Any]
    arrays: list[Any]
    facts_bytes: int
    seq: int
    chunks: int
    chunk_bytes: int
    status: str
    kind: str
    message: str
    version: int
    limits: dict[str, Any]


# message -> the fields it must carry, and the fields it may carry
FIELDS_OF: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "request": (
        ("v", "type", "id", "attempt", "session", "verb", "bytes"),
        ("deadline_ms", "credit", "chunk_bytes", "fields", "arrays", "facts_bytes"),
    ),
    "reply": (
        ("v", "type", "id", "attempt", "status", "bytes"),
        ("kind", "message", "fields", "arrays", "facts_bytes", "version", "limits"),
    ),
    "chunk": (("v", "type", "id", "attempt", "seq"), ("session",)),
    "grant": (("v", "type", "id", "attempt", "chunks"), ("session", "chunk_bytes")),
    "drop": (("v", "type", "id"), ("session",)),
}
TYPES: dict[str, type] = {  # of header fields; the others are whole numbers
    **dict.fromkeys(("type", "session", "verb", "status", "kind", "message"), str),
    **dict.fromkeys(("fields", "limits"), dict),
    "arrays": list,
}
_CHECKS: dict[str, tuple[tuple[str, ...], dict[str, type]]] = {
    name: (must, {field: TYPES.get(field, int) for field in (*must, *may)}) for name, (must, may) in FIELDS_OF.items()
}
FIXMAP, _FIXMAP_PAIRS = 0x80, 15  # msgpack: a map of up to 15 pairs begins with one byte
_OWN = threading.local()


def pack(header: Header, content: Content | None = None) -> bytes:
    """The header frame of `header`, completed by `content`."""
    head: bytes = packer().pack(header)
    if content is None:
        return head
    pairs = len(header) + content.pairs
    assert pairs <= _FIXMAP_PAIRS
    return b"%c%b%b" % (FIXMAP | pairs, head[1:], content.tail)


def packer() -> msgpack.Packer:
    """This thread's packer: making one costs more than a header."""
    try:
        return cast(msgpack.Packer, _OWN.packer)
    except AttributeError:
        _OWN.packer = msgpack.Packer()
        return _OWN.packer


def unpack(frame: Buffer, *, bytes_max: int) -> Header:
    """The header in `frame`. Unknown fields pass; whatever is wrong with the rest is refused.

    Raises:
        BadRequest: more than `bytes_max` bytes, not msgpack, unknown message, or a missing or mistyped field.
    """
    if len(frame) > bytes_max:
        raise BadRequest(f"header frame of {len(frame)} bytes; at most {bytes_max}, send larger fields in the body")
    header = decode(frame)
    _check_message(header)
    return cast(Header, header)


def _check_message(header: dict[str, Any]) -> None:
    wanted, kinds = _CHECKS.get(str(header.get("type")), ((), {}))
    if not wanted:
        raise BadRequest(f"unknown message {str(header.get('type'))[:40]!r}; messages are {', '.join(FIELDS_OF)}")
    if missing := [name for name in wanted if name not in header]:
        raise BadRequest(f"{header.get('type')}: field {min(missing)!r} is missing; see docs/PROTOCOL.md")
    for name, value in header.items():
        kind = kinds.get(name)
        if type(value) is not kind:
            if kind is not None:
                raise BadRequest(f"header field {name!r} is {type(value).__name__}, wanted {kind.__name__}")
        elif kind is int and not 0 <= value < 9_007_199_254_740_992:  # type: ignore[operator]
            raise BadRequest(f"header field {name!r} = {value}; wanted 0 <= value < 2^53")
    if len(header.get("session", "")) > SESSION_CHARACTERS_MAX:
        raise BadRequest(f"session of {len(header['session'])} characters; at most {SESSION_CHARACTERS_MAX}")


def decode(data: Buffer) -> dict[str, Any]:
    """One msgpack map with text keys, inside the limits; every fault is a BadRequest."""
    found = _value(data)
    if not isinstance(found, dict):
        raise BadRequest(f"wanted a msgpack map, got {type(found).__name__}")
    return found


def decode_list(data: Buffer) -> list[Any]:
    """One msgpack list, as `decode`."""
    found = _value(data)
    if not isinstance(found, list):
        raise BadRequest(f"wanted a msgpack list, got {type(found).__name__}")
    return found


def _value(data: Buffer) -> object:
    try:
        return msgpack.unpackb(
            data,
            strict_map_key=True,
            max_array_len=ITEMS_MAX,
            max_map_len=ITEMS_MAX,
            max_str_len=TEXT_MAX,
            max_bin_len=0,
            max_ext_len=0,
        )
    except Exception as error:
        raise BadRequest(f"not msgpack within the limits: {type(error).__name__}") from error


class Content(NamedTuple):
    """What a message says of its fields and its body, packed once.

    Attributes:
        fields, arrays: packed; b"" where they lie in the body.
        nbytes: of the body.
        facts_bytes: of `fields` and `arrays` in the body, or 0.
    """

    fields: bytes
    arrays: bytes
    nbytes: int
    facts_bytes: int = 0

    @property
    def pairs(self) -> int:
        """How many pairs of a header `tail` is."""
        return 2 if self.facts_bytes else 3

    @property
    def tail(self) -> bytes:
        """The end of a header."""
        size = packer().pack(self.nbytes)
        if self.facts_bytes:
            return b"%b%b%b%b" % (_FACTS_BYTES, packer().pack(self.facts_bytes), _BYTES, size)
        return b"%b%b%b%b%b%b" % (FIELDS, self.fields, ARRAYS, self.arrays, _BYTES, size)


FIELDS, ARRAYS, _BYTES, _FACTS_BYTES = (msgpack.packb(n) for n in ("fields", "arrays", "bytes", "facts_bytes"))
