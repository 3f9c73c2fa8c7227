"""A fitted codec as bytes and back: a safetensors table inside one zstd frame, with a version and a digest."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from geostore.errors import Corrupt, UnsupportedFormat

MAGIC = b"GSVAE"
VERSION = 3  # 1: entropy tables alone; 2: a prior, rasters that lean on one another; 3: the static image in AV1
_HEAD = struct.Struct("<5sBQ")  # magic, version, xxh3-64 of what follows
Tensors = Mapping[str, npt.NDArray[np.generic]]


def pack_codec(header: Mapping[str, Any], tensors: Tensors, version: int = VERSION) -> bytes:
    """`header` (JSON) and named arrays as bytes, marked with the oldest `version` that reads them."""
    import imagecodecs
    from safetensors.numpy import save

    table = save(
        {k: np.ascontiguousarray(v) for k, v in tensors.items()}, {"geostore": json.dumps(header, sort_keys=True)}
    )
    body = bytes(imagecodecs.zstd_encode(table, level=19))
    return _HEAD.pack(MAGIC, version, xxhash.xxh3_64_intdigest(body)) + body


def unpack_codec(data: bytes) -> tuple[dict[str, Any], dict[str, npt.NDArray[np.generic]]]:
    """The inverse of `pack_codec`.

    Raises:
        Corrupt: the bytes are damaged or something else.
        UnsupportedFormat: a newer version wrote them.
    """
    if len(data) < _HEAD.size or not data.startswith(MAGIC):
        raise Corrupt(f"{data[:5]!r} is not how a fitted codec begins, {MAGIC!r} is; restore the store or fit again")
    _, version, digest = _HEAD.unpack_from(data)
    if version > VERSION:
        raise UnsupportedFormat(
            f"codec format {version} is newer than {VERSION}, the newest read here; upgrade geostore"
        )
    body = data[_HEAD.size :]
    if xxhash.xxh3_64_intdigest(body) != digest:
        raise Corrupt(f"a fitted codec of {len(data)} bytes does not match its digest; restore the store or fit again")
    return _open(body)


def _open(body: bytes) -> tuple[dict[str, Any], dict[str, npt.NDArray[np.generic]]]:
    import imagecodecs
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        table = bytes(imagecodecs.zstd_decode(body))
        size = int.from_bytes(table[:8], "little")
        header = json.loads(json.loads(table[8 : 8 + size])["__metadata__"]["geostore"])
        return header, load(table)
    except (RuntimeError, SafetensorError, ValueError, KeyError) as error:  # zstd's own errors are RuntimeErrors
        raise Corrupt(f"a fitted codec does not open: {error}; restore the store or fit again") from error
