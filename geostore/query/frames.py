"""Messages as bytes: a msgpack header frame, and the body of raw buffers behind it. No sockets here."""

from __future__ import annotations

import bisect
import math
import sys
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypedDict, cast

import msgpack
import numpy as np

from geostore.errors import BadRequest, Overloaded
from geostore.query.messages import ARRAY_DTYPES, Array

INLINE_BYTES = 65_536  # a body up to this size rides with its header and needs no credit
SHELF_BYTES_MAX = 32 * 2**20  # memory a client keeps to receive the next large replies in
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
        ("deadline_ms", "credit", "fields", "arrays", "facts_bytes"),
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
_INT_MAX = 2**53
_LITTLE = sys.byteorder == "little"
_CHECKS: dict[str, tuple[tuple[str, ...], dict[str, type]]] = {
    name: (must, {field: _TYPES.get(field, int) for field in (*must, *may)}) for name, (must, may) in FIELDS_OF.items()
}
_SCALARS = (int, float, bool, type(None))


def pack(header: Header) -> bytes:
    """The header frame of `header`."""
    return bytes(msgpack.packb(header))


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
    wanted, known = _CHECKS.get(str(header.get("type")), ((), {}))
    if not wanted:
        raise BadRequest(f"unknown message {str(header.get('type'))[:40]!r}; messages are {', '.join(FIELDS_OF)}")
    for name in wanted:
        if name not in header:
            raise BadRequest(f"{header['type']}: field {name!r} is missing; see docs/PROTOCOL.md")
    for name, value in header.items():
        kind = known.get(name)
        if kind is None:
            continue
        if type(value) is not kind:
            raise BadRequest(f"header field {name!r} is {type(value).__name__}, wanted {kind.__name__}")
        if isinstance(value, int) and not 0 <= value < _INT_MAX:
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


def outgoing(header: Header, fields: dict[str, Any], arrays: Sequence[Array], *, bytes_max: int) -> tuple[Header, Body]:
    """`header` completed for `fields` and `arrays`, and the body that carries what does not fit in it.

    Raises:
        BadRequest: an array of a dtype that does not travel, or of more than NDIM_MAX dimensions.
    """
    ready = [_wire_array(a) for a in arrays]
    shapes = [[_NAMES[a.dtype], list(a.shape)] for a in ready]
    views: list[Buffer] = [a.data.cast("B") if a.size else b"" for a in ready]
    if not _is_short(fields, shapes):
        facts = bytes(msgpack.packb({"fields": fields, "arrays": shapes}))
        if len(facts) > bytes_max // 2:
            body = Body([facts, *views])
            return {**header, "facts_bytes": len(facts), "bytes": body.nbytes}, body
    body = Body(views)
    return {**header, "fields": fields, "arrays": shapes, "bytes": body.nbytes}, body


def _is_short(fields: dict[str, Any], shapes: list[Any]) -> bool:
    """True if they surely fit a header, without packing them."""
    return (
        len(fields) <= 16
        and len(shapes) <= 16
        and all(isinstance(v, _SCALARS) or (isinstance(v, str) and len(v) < 256) for v in fields.values())
    )


def _wire_array(array: Array) -> Array:
    if array.dtype in ARRAY_DTYPES and array.ndim <= NDIM_MAX and _LITTLE and array.flags.c_contiguous:
        return array
    if array.dtype.newbyteorder("=") not in ARRAY_DTYPES or array.ndim > NDIM_MAX:
        raise BadRequest(f"array of {array.dtype} with {array.ndim} dimensions does not travel; see docs/PROTOCOL.md")
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


class Inbox:
    """A body as it arrives: filled chunk by chunk, then read."""

    __slots__ = ("_data", "_header", "filled", "nbytes")

    def __init__(self, header: Header, *, bytes_max: int, shelf: Shelf | None = None) -> None:
        self._header = header
        self.nbytes = header["bytes"]
        if self.nbytes > bytes_max:
            raise Overloaded(f"a body of {self.nbytes} bytes; at most {bytes_max} here (upload_bytes_max)")
        self.filled = 0
        try:
            if self.nbytes <= INLINE_BYTES:
                self._data = memoryview(bytearray(self.nbytes))
            else:
                self._data = shelf.take(self.nbytes) if shelf is not None else _untouched(self.nbytes)
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
            self._data[self.filled : stop] = frame
            self.filled = stop

    def read(self) -> tuple[dict[str, Any], tuple[Array, ...]]:
        """(fields, arrays) of the complete body; arrays are views into it, little-endian.

        Raises:
            BadRequest: incomplete, or descriptors and bytes do not agree.
        """
        if not self.complete:
            raise BadRequest(f"body of {self.filled} bytes; its header declared {self.nbytes}")
        facts_bytes = self._header.get("facts_bytes", 0)
        if facts_bytes > min(self.nbytes, FACTS_BYTES_MAX):
            raise BadRequest(f"facts of {facts_bytes} bytes in a body of {self.nbytes}; at most {FACTS_BYTES_MAX}")
        facts = _decode(self._data[:facts_bytes]) if facts_bytes else cast(dict[str, Any], self._header)
        fields, arrays = facts.get("fields", {}), facts.get("arrays", [])
        if not isinstance(fields, dict) or not isinstance(arrays, list):
            raise BadRequest("fields must be a map and arrays a list; see docs/PROTOCOL.md")
        return fields, self._cut(check_shapes(arrays), facts_bytes + _padding(facts_bytes))

    def _cut(self, shapes: list[Shape], start: int) -> tuple[Array, ...]:
        found = []
        for dtype, shape in shapes:
            count = math.prod(shape)
            nbytes = dtype.itemsize * count
            if start + nbytes > self.nbytes:
                raise BadRequest(f"arrays of more bytes than the {self.nbytes} of the body; shape product != bytes")
            flat = np.frombuffer(self._data, dtype, count, start) if count else np.empty(0, dtype)
            found.append(flat.reshape(shape))
            start += nbytes + _padding(nbytes)
        if start != self.nbytes:
            raise BadRequest(f"arrays of {start} bytes in a body of {self.nbytes}; shape product != bytes")
        return tuple(found)


def counts_are_exact() -> bool:
    """True if a reference count tells whether anybody else looks at an object: under CPython's lock, not without it."""
    running: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return sys.implementation.name == "cpython" and running() and not sysconfig.get_config_var("Py_GIL_DISABLED")


class Shelf:
    """Memory of bodies that nobody looks at any more, used again: fresh pages cost more than filling them.

    Not for several threads. What it keeps stays below SHELF_BYTES_MAX. Whether anybody looks is told by reference
    counts, so where these are not exact, as in a free-threaded Python, nothing is used again.
    """

    def __init__(self, *, reuses: bool | None = None) -> None:
        self._kept: list[Array] = []
        self._reuses = counts_are_exact() if reuses is None else reuses

    def take(self, nbytes: int) -> memoryview:
        """Memory for `nbytes`, with anything in it."""
        if not self._reuses:
            return np.empty(nbytes, np.uint8).data
        for memory, references in _referenced(self._kept):
            if memory.nbytes >= nbytes and references == _UNSEEN:
                return memory.data[:nbytes]
        memory = np.empty(nbytes, np.uint8)
        if nbytes <= SHELF_BYTES_MAX:
            self._kept.append(memory)
            while sum(m.nbytes for m in self._kept) > SHELF_BYTES_MAX:
                self._kept.pop(0)
        return memory.data


def _referenced(kept: list[Array]) -> list[tuple[Array, int]]:
    """Each array, and how many references to it there are; _UNSEEN where only the list has one."""
    return [(memory, sys.getrefcount(memory)) for memory in kept]


_UNSEEN = _referenced([np.empty(1, np.uint8)])[0][1]  # it differs between interpreters


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
        if len(dims) > NDIM_MAX or not all(type(n) is int and 0 <= n < 2**40 for n in dims):
            raise BadRequest(f"array dimensions must be at most {NDIM_MAX} sizes below 2^40")
        found.append((_DTYPES[name], tuple(dims)))
    return found


_NAMES = {dtype: name for d in ARRAY_DTYPES for name in [d.name] for dtype in (d, d.newbyteorder("<"))}
_DTYPES: dict[str, np.dtype[Any]] = {d.name: d.newbyteorder("<") for d in ARRAY_DTYPES}
