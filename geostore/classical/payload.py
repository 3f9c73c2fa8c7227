"""One raster's payload: the check of its picture, where that lies, and a residual on it where a bound needs one."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from geostore.classical.stretch import ONE
from geostore.errors import Corrupt

DIGEST = 2  # bytes of the SHA-256 over a raster's components
_PICTURE, _CORRECTED = 0, 1


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a payload says.

    Attributes:
        check: of the components that its picture decodes to.
        place: in the group's stream; None for a raster with a stream of its own.
        stream: its own; empty in a group.
        layer: a residual over the picture; empty where there is none.
        stretch: of the picture in its group, see `geostore.classical.stretch`.
    """

    check: bytes
    place: int | None = None
    stream: bytes = b""
    layer: bytes = b""
    stretch: int = ONE

    def to_bytes(self, *, layered: bool) -> bytes:
        """As it is stored; a codec that is not `layered` knows no residual, and its payloads no kind."""
        if not layered:
            return self.check + (self.stream if self.place is None else _pack_place(self.place, self.stretch))
        number = len(self.stream) if self.place is None else self.place
        kind = _CORRECTED if self.layer else _PICTURE
        return bytes([kind]) + self.check + _pack(number) + self.stream + self.layer

    @classmethod
    def read(cls, payload: bytes, *, layered: bool, grouped: bool) -> Part:
        """The inverse of `to_bytes`, told whether there is a group. Raises Corrupt."""
        if not layered:
            check, rest = payload[:DIGEST], payload[DIGEST:]
            if not grouped:
                return cls(check=check, stream=rest)
            place, stretch = _unpack_place(rest)
            return cls(check=check, place=place, stretch=stretch)
        kind, check = payload[0], payload[1 : 1 + DIGEST]
        number, at = _unpack(payload, 1 + DIGEST)
        size = 0 if grouped else number
        stream, layer = payload[at : at + size], payload[at + size :]
        if kind > _CORRECTED or len(stream) < size or bool(layer) != (kind == _CORRECTED):
            raise Corrupt(f"a payload of kind {kind} and {len(payload)} bytes holds no picture; restore the raster")
        return cls(check=check, place=number if grouped else None, stream=stream, layer=layer)


def _pack_place(place: int, stretch: int) -> bytes:
    where = bytes([place]) if place < 255 else b"\xff" + struct.pack("<H", place)
    return where if stretch == ONE else where + bytes([stretch])


def _unpack_place(data: bytes) -> tuple[int, int]:
    """(place, stretch)."""
    size = 3 if data[:1] == b"\xff" else 1
    stretch = data[size] if len(data) > size else ONE
    if not size <= len(data) <= size + 1 or not stretch:
        raise Corrupt(f"a payload of {len(data) + DIGEST} bytes names no place in its group; restore the raster")
    return int.from_bytes(data[1:3], "little") if size == 3 else data[0], stretch


def _pack(number: int) -> bytes:
    """7 bits a byte, low first, the highest bit set if another follows."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _unpack(data: bytes, at: int) -> tuple[int, int]:
    """(number, position after it)."""
    number = 0
    for i, byte in enumerate(data[at : at + 5]):
        number |= (byte & 127) << 7 * i
        if byte < 128:
            return number, at + i + 1
    raise Corrupt(f"a payload of {len(data)} bytes ends inside a number; restore the raster")
