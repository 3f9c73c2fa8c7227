"""Named arrays in one file: written whole or not at all, with checksums, read through a memory map.

Layout: 8 bytes `GSINDEX1`; the header's length and its xxh3-64, both uint64; the header, JSON with `facts` and `arrays`
(name, dtype, shape, offset, xxh3-64); then the arrays, little-endian, C order, each at a multiple of 64 bytes.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from geostore.durable import write_whole
from geostore.errors import Corrupt, NotFound

MAGIC = b"GSINDEX1"
ALIGN = 64
_PREFIX = struct.Struct("<8sQQ")
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class ArrayFile:
    """An opened file.

    Attributes:
        path: where it lies.
        facts: what the writer noted, JSON values.
        arrays: read-only views of the memory map, by name.
        checks: xxh3-64 of each array's bytes, by name.
    """

    path: Path
    facts: Mapping[str, Any]
    arrays: Arrays
    checks: Mapping[str, int]

    def verify(self) -> None:
        """Read every byte. Raises Corrupt where an array does not match its checksum."""
        for name, array in self.arrays.items():
            if _check(array) != self.checks[name]:
                raise Corrupt(f"{self.path}: array {name!r} fails its checksum; delete the index and build it again")


def write_arrays(path: Path, arrays: Arrays, facts: Mapping[str, Any]) -> None:
    """Write durably: a temporary file, flushed, renamed, and its folder flushed.

    Raises:
        StorageFull: there is no room; nothing is left behind.
    """
    packed = {n: np.ascontiguousarray(a, a.dtype.newbyteorder("<")) for n, a in arrays.items()}
    entries = [
        {"name": n, "dtype": a.dtype.str, "shape": a.shape, "offset": 0, "check": _check(a)} for n, a in packed.items()
    ]
    header = _placed(entries, packed, facts)
    prefix = _PREFIX.pack(MAGIC, len(header), xxhash.xxh3_64_intdigest(header))

    def pieces(stream: Any) -> None:
        stream.write(prefix + header)
        for entry, array in zip(json.loads(header)["arrays"], packed.values(), strict=True):
            stream.write(b"\0" * (entry["offset"] - stream.tell()))
            stream.write(array.data)

    write_whole(path, pieces)


def _placed(entries: list[dict[str, Any]], packed: Arrays, facts: Mapping[str, Any]) -> bytes:
    """The header with offsets that leave room for itself."""
    room = len(_header(entries, facts)) + 20 * len(entries)  # an offset has at most 20 digits
    at = _PREFIX.size + room
    for entry, array in zip(entries, packed.values(), strict=True):
        at = -(-at // ALIGN) * ALIGN
        entry["offset"] = at
        at += array.nbytes
    return _header(entries, facts)


def _header(entries: list[dict[str, Any]], facts: Mapping[str, Any]) -> bytes:
    return json.dumps({"facts": dict(facts), "arrays": entries}, separators=(",", ":")).encode()


def open_arrays(path: Path) -> ArrayFile:
    """Map a file that `write_arrays` wrote; only its header is read.

    Raises:
        NotFound: it is not there. Corrupt: the header fails its checksum, or the file is too short.
    """
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size < _PREFIX.size:
                raise Corrupt(f"{path} has {size} bytes; delete the index and build it again")
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise NotFound(f"no index file {path}; build the index again") from error
    found = _read_header(path, mapped)
    arrays, checks = {}, {}
    for entry in found["arrays"]:
        dtype, count = np.dtype(entry["dtype"]), int(np.prod(entry["shape"], dtype=np.int64))
        if entry["offset"] + count * dtype.itemsize > size:
            raise Corrupt(f"{path} ends within array {entry['name']!r}; delete the index and build it again")
        flat = np.frombuffer(mapped, dtype, count, entry["offset"])
        arrays[entry["name"]] = flat.reshape(entry["shape"])
        checks[entry["name"]] = int(entry["check"])
    return ArrayFile(path, found["facts"], arrays, checks)


def _read_header(path: Path, mapped: mmap.mmap) -> dict[str, Any]:
    magic, length, check = _PREFIX.unpack(mapped[: _PREFIX.size])
    header = mapped[_PREFIX.size : _PREFIX.size + min(length, len(mapped))]
    if magic != MAGIC or xxhash.xxh3_64_intdigest(header) != check:
        raise Corrupt(f"{path} is no index file, or its header fails its checksum; delete the index and build it again")
    found: dict[str, Any] = json.loads(header)
    return found


def _check(array: npt.NDArray[Any]) -> int:
    return xxhash.xxh3_64_intdigest(array.data if array.size else b"")
