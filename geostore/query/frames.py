"""Messages as bytes: a msgpack header frame, and the body of raw buffers behind it. No sockets here."""

from __future__ import annotations

import bisect
import itertools
import math
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypedDict, cast

import msgpack
import numpy as np

from geostore.errors import BadRequest, Overloaded
from geostore.query.messages import ARRAY_DTYPES, Array
from geostore.query.shelf import Shelf

INLINE_BYTES = 65_536  # a body up to this size rides with its header and needs no credit
REPLY_CHUNK_BYTES = 8 * 2**20  # largest chunk of a reply that is asked for, or sent: most replies are one message
FACTS_BYTES_MAX = 256 * 2**20  # largest `fields` + `arrays` that may travel in the body
ITEMS_MAX = 1_000_000  # items of one list or map
TEXT_MAX = 1_000_000  # characters of one string
FRAMES_MAX = 8  # buffer frames of one message
ARRAYS_MAX = 65_536
NDIM_MAX = 4
ALIGN = 8  # every array begins at a multiple of this in the body

Buffer = bytes | memoryview
Shape = tuple[np.dtype[Any], tuple[int, ...]]


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
_TYPES: dict[str, type] = {
    **dict.fromkeys(("type", "session", "verb", "status", "kind", "message"), str),
    **dict.fromkeys(("fields", "limits"), dict),
    "arrays": list,
}
_LITTLE = sys.byteorder == "little"
_CHECKS: dict[str, tuple[frozenset[str], dict[str, type]]] = {
    name: (frozenset(must), {field: _TYPES.get(field, int) for field in (*must, *may)})
    for name, (must, may) in FIELDS_OF.items()
}
_FIXMAP, _FIXMAP_PAIRS = 0x80, 15  # msgpack: a map of up to 15 pairs begins with one byte
_OWN = threading.local()


def pack(header: Header, content: Content | None = None) -> bytes:
    """The header frame of `header`, completed by `content`."""
    head: bytes = _packer().pack(header)
    if content is None:
        return head
    pairs = len(header) + content.pairs
    assert pairs <= _FIXMAP_PAIRS
    return b"%c%b%b" % (_FIXMAP | pairs, head[1:], content.tail)


def _packer() -> msgpack.Packer:
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
    header = _decode(frame)
    _check_message(header)
    return cast(Header, header)


def _check_message(header: dict[str, Any]) -> None:
    wanted, kinds = _CHECKS.get(str(header.get("type")), (frozenset(), {}))
    if not wanted:
        raise BadRequest(f"unknown message {str(header.get('type'))[:40]!r}; messages are {', '.join(FIELDS_OF)}")
    if not wanted <= header.keys():
        missing = next(n for n in FIELDS_OF[header["type"]][0] if n not in header)
        raise BadRequest(f"{header['type']}: field {missing!r} is missing; see docs/PROTOCOL.md")
    for name, value in header.items():
        kind = kinds.get(name)
        if type(value) is not kind:
            if kind is not None:
                raise BadRequest(f"header field {name!r} is {type(value).__name__}, wanted {kind.__name__}")
        elif kind is int and not 0 <= value < 9_007_199_254_740_992:  # type: ignore[operator]
            raise BadRequest(f"header field {name!r} = {value}; wanted 0 <= value < 2^53")
    if len(header.get("session", "")) > 64:
        raise BadRequest(f"session of {len(header['session'])} characters; at most 64")


def _decode(data: Buffer) -> dict[str, Any]:
    """One msgpack map with text keys, inside the limits; every fault is a BadRequest."""
    try:
        found = msgpack.unpackb(
            data,
            strict_map_key=True,
            max_array_len=ITEMS_MAX,
            max_map_len=ITEMS_MAX,
            max_str_len=TEXT_MAX,
            max_bin_len=0,
            max_ext_len=0,
        )
    except Exception as error:
        raise BadRequest(f"not a msgpack map within the limits: {type(error).__name__}") from error
    if not isinstance(found, dict):
        raise BadRequest(f"wanted a msgpack map, got {type(found).__name__}")
    return found


def _padding(nbytes: int) -> int:
    return -nbytes % ALIGN


class Body:
    """The buffers behind one header, cut into chunks.

    The body is the facts (when they are too large for the header) and the arrays in order, each beginning at a
    multiple of ALIGN. Chunks follow one another without gaps; only the last is shorter.
    """

    __slots__ = ("_parts", "_starts", "nbytes")

    def __init__(self, parts: Iterable[Buffer]) -> None:
        self._parts: list[Buffer] = []
        self._starts: list[int] = []
        self.nbytes = 0
        for part in parts:
            if not len(part):
                continue
            self._add(part)
            if padding := _padding(len(part)):
                self._add(bytes(padding))

    def _add(self, part: Buffer) -> None:
        self._parts.append(part)
        self._starts.append(self.nbytes)
        self.nbytes += len(part)

    def frames(self, start: int, stop: int) -> list[Buffer]:
        """Buffers that hold bytes start to stop; views where they are large, one copy where they are many."""
        if start == 0 and stop >= self.nbytes and len(self._parts) <= FRAMES_MAX:
            return list(self._parts)
        stop = min(stop, self.nbytes)
        found: list[Buffer] = []
        first = bisect.bisect_right(self._starts, start) - 1
        for i in range(max(first, 0), len(self._parts)):
            low, high = max(start - self._starts[i], 0), min(stop - self._starts[i], len(self._parts[i]))
            if high <= 0:
                break
            if high > low:
                part = self._parts[i]
                found.append(part if high - low == len(part) else memoryview(part)[low:high])
        return found if len(found) <= FRAMES_MAX else [b"".join(found)]

    def close(self) -> None:
        """Let go of the buffers."""
        self._parts, self._starts = [], []


class Content(NamedTuple):
    """What a header says of its fields and its body, packed once: the pairs that end it, and how many they are."""

    tail: bytes
    pairs: int


def outgoing(fields: dict[str, Any], arrays: Sequence[Array], *, bytes_max: int) -> tuple[Content, Body]:
    """`fields` and `arrays` as they travel; in the body what does not fit a header of `bytes_max` bytes.

    Raises:
        BadRequest: an array of a dtype that does not travel, or of more than NDIM_MAX dimensions.
    """
    ready = [_wire_array(a) for a in arrays]
    views: list[Buffer] = [a.data.cast("B") if a.size else b"" for a in ready]
    pack_one = _packer().pack
    facts: bytes = _FIELDS + pack_one(fields) + _ARRAYS + pack_one([[_NAMES[a.dtype], a.shape] for a in ready])
    if len(facts) <= bytes_max // 2:
        body = Body(views)
        return Content(facts + _BYTES + pack_one(body.nbytes), 3), body
    facts = b"%c%b" % (_FIXMAP | 2, facts)
    body = Body([facts, *views])
    return Content(_FACTS_BYTES + pack_one(len(facts)) + _BYTES + pack_one(body.nbytes), 2), body


_FIELDS, _ARRAYS, _BYTES, _FACTS_BYTES = (msgpack.packb(n) for n in ("fields", "arrays", "bytes", "facts_bytes"))


def _wire_array(array: Array) -> Array:
    if array.dtype in ARRAY_DTYPES and array.ndim <= NDIM_MAX and _LITTLE and array.flags.c_contiguous:
        return array
    if array.dtype.newbyteorder("=") not in ARRAY_DTYPES or array.ndim > NDIM_MAX:
        raise BadRequest(f"array of {array.dtype} with {array.ndim} dimensions does not travel; see docs/PROTOCOL.md")
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


class Inbox:
    """A body as it arrives: filled chunk by chunk, then read."""

    __slots__ = ("_header", "data", "filled", "nbytes")

    def __init__(self, header: Header, *, bytes_max: int, shelf: Shelf | None = None) -> None:
        self._header = header
        self.nbytes = header["bytes"]
        if self.nbytes > bytes_max:
            raise Overloaded(f"a body of {self.nbytes} bytes; at most {bytes_max} here (upload_bytes_max)")
        self.filled = 0
        try:
            if self.nbytes <= INLINE_BYTES:
                self.data = memoryview(bytearray(self.nbytes))
            else:
                self.data = shelf.take(self.nbytes) if shelf is not None else _untouched(self.nbytes)
        except MemoryError as error:
            raise Overloaded(f"no memory for a body of {self.nbytes} bytes; ask for less at once") from error

    @property
    def complete(self) -> bool:
        """True when every declared byte is here."""
        return self.filled == self.nbytes

    def add(self, frames: Iterable[Buffer]) -> None:
        """Append the buffers of one message. Raises BadRequest past the declared size."""
        for frame in frames:
            stop = self.filled + len(frame)
            if stop > self.nbytes:
                raise BadRequest(f"body of {stop} bytes or more; its header declared {self.nbytes}")
            self.data[self.filled : stop] = frame
            self.filled = stop

    def read(self) -> tuple[dict[str, Any], tuple[Array, ...]]:
        """(fields, arrays) of the complete body; see `read_body`."""
        if not self.complete:
            raise BadRequest(f"body of {self.filled} bytes; its header declared {self.nbytes}")
        return read_body(self._header, Pieces([self.data]))


class Pieces:
    """A whole body as the buffers it came in."""

    __slots__ = ("_parts", "_starts", "nbytes")

    def __init__(self, parts: Iterable[memoryview]) -> None:
        self._parts = [part for part in parts if len(part)]
        self._starts = [0, *itertools.accumulate(map(len, self._parts))]
        self.nbytes = self._starts[-1]

    def cut(self, start: int, stop: int) -> memoryview:
        """Bytes start to stop: a view where one buffer holds them all, else a copy."""
        if len(self._parts) == 1:
            return self._parts[0][start:stop]
        first = bisect.bisect_right(self._starts, start) - 1
        if stop <= self._starts[first + 1]:
            return self._parts[first][start - self._starts[first] : stop - self._starts[first]]
        last = bisect.bisect_left(self._starts, stop)
        whole = bytearray().join(self._parts[first:last])
        return memoryview(whole)[start - self._starts[first] : stop - self._starts[first]]


def read_body(header: Header, body: Pieces) -> tuple[dict[str, Any], tuple[Array, ...]]:
    """(fields, arrays) of a message with the whole `body`; arrays are views into it where they can be, little-endian.

    Raises:
        BadRequest: descriptors and bytes do not agree.
    """
    facts_bytes = header.get("facts_bytes", 0)
    if facts_bytes > min(body.nbytes, FACTS_BYTES_MAX):
        raise BadRequest(f"facts of {facts_bytes} bytes in a body of {body.nbytes}; at most {FACTS_BYTES_MAX}")
    facts = _decode(body.cut(0, facts_bytes)) if facts_bytes else cast(dict[str, Any], header)
    fields, arrays = facts.get("fields", {}), facts.get("arrays", [])
    if not isinstance(fields, dict) or not isinstance(arrays, list):
        raise BadRequest("fields must be a map and arrays a list; see docs/PROTOCOL.md")
    if not (arrays or body.nbytes):
        return fields, ()
    return fields, _cut(check_shapes(arrays), body, facts_bytes + _padding(facts_bytes))


def _cut(shapes: list[Shape], body: Pieces, start: int) -> tuple[Array, ...]:
    found = []
    for dtype, shape in shapes:
        count = math.prod(shape)
        nbytes = dtype.itemsize * count
        if start + nbytes > body.nbytes:
            raise BadRequest(f"arrays of more bytes than the {body.nbytes} of the body; shape product != bytes")
        found.append(np.ndarray(shape, dtype, body.cut(start, start + nbytes) if count else None))
        start += nbytes + _padding(nbytes)
    if start != body.nbytes:
        raise BadRequest(f"arrays of {start} bytes in a body of {body.nbytes}; shape product != bytes")
    return tuple(found)


def _untouched(nbytes: int) -> memoryview:
    """Memory whose pages cost nothing until bytes arrive."""
    return np.empty(nbytes, np.uint8).data


def check_shapes(arrays: list[Any]) -> list[Shape]:
    """Array descriptors [dtype name, [dims]] as (dtype, shape).

    Raises:
        BadRequest: too many, a dtype outside ARRAY_DTYPES, or dimensions that are not sizes.
    """
    if len(arrays) > ARRAYS_MAX:
        raise BadRequest(f"{len(arrays)} arrays in one message; at most {ARRAYS_MAX}")
    found: list[Shape] = []
    for item in arrays:
        if not (isinstance(item, list) and len(item) == 2 and isinstance(item[1], list)):
            raise BadRequest("an array is described as [dtype, [dims]]; see docs/PROTOCOL.md")
        name, dims = item
        if not isinstance(name, str) or name not in _DTYPES:
            raise BadRequest(f"array dtype {str(name)[:40]!r} does not travel; use one of {', '.join(sorted(_DTYPES))}")
        if len(dims) > NDIM_MAX:
            raise BadRequest(f"array of {len(dims)} dimensions; at most {NDIM_MAX}")
        for n in dims:
            if type(n) is not int or not 0 <= n < 2**40:
                raise BadRequest(f"array dimension {str(n)[:40]}; wanted a size below 2^40")
        found.append((_DTYPES[name], tuple(dims)))
    return found


_NAMES = {dtype: name for d in ARRAY_DTYPES for name in [d.name] for dtype in (d, d.newbyteorder("<"))}
_DTYPES: dict[str, np.dtype[Any]] = {d.name: d.newbyteorder("<") for d in ARRAY_DTYPES}
