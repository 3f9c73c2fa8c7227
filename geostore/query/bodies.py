"""The bodies behind headers: arrays as raw buffers, cut into chunks and put together again. No sockets here."""

from __future__ import annotations

import bisect
import itertools
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgpack
import numpy as np

from geostore.errors import BadRequest, Overloaded
from geostore.query.frames import (
    ARRAYS,
    FIELDS,
    FIXMAP,
    FRAMES_MAX,
    INLINE_BYTES,
    Buffer,
    Content,
    Header,
    decode,
    decode_list,
    packer,
)
from geostore.query.messages import ARRAY_DTYPES, Array
from geostore.query.shelf import Shelf

FACTS_BYTES_MAX = 256 * 2**20  # largest `fields` + `arrays` that may travel in the body
ARRAYS_MAX = 65_536
NDIM_MAX = 4
ALIGN = 8  # every array begins at a multiple of this in the body

Shape = tuple[np.dtype[Any], tuple[int, ...]]
_LITTLE = sys.byteorder == "little"
_NO_ARRAYS: bytes = msgpack.packb([])


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
            size = len(part)
            if size:
                self._add(part, size)
                if size % ALIGN:
                    self._add(bytes(_padding(size)), _padding(size))

    def _add(self, part: Buffer, size: int) -> None:
        self._parts.append(part)
        self._starts.append(self.nbytes)
        self.nbytes += size

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


NO_BODY = Body(())


def outgoing(fields: dict[str, Any], arrays: Sequence[Array], *, bytes_max: int) -> tuple[Content, Body]:
    """`fields` and `arrays` as they travel; in the body what does not fit a header of `bytes_max` bytes.

    Raises:
        BadRequest: an array of a dtype that does not travel, or of more than NDIM_MAX dimensions.
    """
    packed: bytes = packer().pack(fields)
    if not arrays and len(packed) <= bytes_max // 2:
        return Content(packed, _NO_ARRAYS, 0), NO_BODY
    ready = [_wire_array(a) for a in arrays]
    views: list[Buffer] = [a.data.cast("B") if a.size else b"" for a in ready]
    shapes: bytes = packer().pack([(_NAMES[a.dtype.char], a.shape) for a in ready])
    if len(packed) + len(shapes) <= bytes_max // 2:
        body = Body(views)
        return Content(packed, shapes, body.nbytes), body
    facts = b"%c%b%b%b%b" % (FIXMAP | 2, FIELDS, packed, ARRAYS, shapes)
    body = Body([facts, *views])
    return Content(b"", b"", body.nbytes, len(facts)), body


def _wire_array(array: Array) -> Array:
    dtype = array.dtype
    if dtype.char in _NAMES and dtype.isnative and _LITTLE and array.ndim <= NDIM_MAX and array.flags.c_contiguous:
        return array
    if array.dtype.newbyteorder("=") not in ARRAY_DTYPES or array.ndim > NDIM_MAX:
        raise BadRequest(f"array of {array.dtype} with {array.ndim} dimensions does not travel; see docs/PROTOCOL.md")
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


class Inbox:
    """A body as it arrives: filled chunk by chunk, then read.

    Args:
        header: declares the body's length.
        bytes_max: of a body that is taken.
        shelf: memory to be used again, or None.
        said: fields and arrays, packed, of a message that came in a bundle; they are read with the body.
    """

    __slots__ = ("_header", "_said", "data", "filled", "nbytes")

    def __init__(
        self, header: Header, *, bytes_max: int, shelf: Shelf | None = None, said: Content | None = None
    ) -> None:
        self._header, self._said = header, said
        self.nbytes = header["bytes"]
        if self.nbytes > bytes_max:
            raise Overloaded(f"a body of {self.nbytes} bytes; at most {bytes_max} here (upload_bytes_max)")
        self.filled = 0
        try:
            if not self.nbytes:
                self.data = _NOTHING
            elif self.nbytes <= INLINE_BYTES:
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
        header = self._header
        if self._said is not None:
            arrays = [] if self._said.arrays == _NO_ARRAYS else decode_list(self._said.arrays)
            header = {"fields": decode(self._said.fields), "arrays": arrays}
        if not (self.nbytes or header.get("arrays")):
            return header.get("fields", {}), ()
        return read_body(header, Pieces([self.data]))


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
    facts = decode(body.cut(0, facts_bytes)) if facts_bytes else cast(dict[str, Any], header)
    fields, arrays = facts.get("fields", {}), facts.get("arrays", [])
    if not isinstance(fields, dict) or not isinstance(arrays, list):
        raise BadRequest("fields must be a map and arrays a list; see docs/PROTOCOL.md")
    if not (arrays or body.nbytes):
        return fields, ()
    return fields, _cut(arrays, body, facts_bytes + _padding(facts_bytes))


def read_inline(
    fields: dict[str, Any], arrays: list[Any], body: memoryview
) -> tuple[dict[str, Any], tuple[Array, ...]]:
    """`read_body` for a body without facts in one buffer, of which the arrays are copies."""
    if not (arrays or len(body)):
        return fields, ()
    own, places = bytearray(body), _places(arrays, 0, len(body))
    return fields, tuple([np.ndarray(shape, dtype, own, start) for shape, dtype, start, _ in places])


def _cut(arrays: list[Any], body: Pieces, start: int) -> tuple[Array, ...]:
    places = _places(arrays, start, body.nbytes)
    return tuple(
        [np.ndarray(shape, dtype, body.cut(low, high) if high > low else None) for shape, dtype, low, high in places]
    )


def _places(arrays: list[Any], start: int, end: int) -> list[tuple[tuple[int, ...], np.dtype[Any], int, int]]:
    """(shape, dtype, first byte, last byte + 1) of each array in a body of `end` bytes, from `start` on."""
    found = []
    for dtype, shape in check_shapes(arrays):
        stop = start + dtype.itemsize * math.prod(shape)
        if stop > end:
            raise BadRequest(f"arrays of more bytes than the {end} of the body; shape product != bytes")
        found.append((shape, dtype, start, stop))
        start = stop + _padding(stop)
    if start != end:
        raise BadRequest(f"arrays of {start} bytes in a body of {end}; shape product != bytes")
    return found


_NOTHING = memoryview(b"")


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


_NAMES = {c: np.dtype(c).name for c in np.typecodes["All"] if np.dtype(c) in ARRAY_DTYPES}  # "l" and "q" alike
_DTYPES: dict[str, np.dtype[Any]] = {d.name: d.newbyteorder("<") for d in ARRAY_DTYPES}
