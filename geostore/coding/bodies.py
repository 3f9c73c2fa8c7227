"""What a fitted codec says of itself in few bytes: told beside names and numbers that nearly all of them say alike.

A partition has a codec of its own, and where it has few rasters, names of bands would be a large part of its bytes.

References:
    RFC 8878, section 5: ZSTD frames that refer to a dictionary, here one of raw content.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import msgpack
import zstandard

from geostore.errors import Corrupt

_TABLE = Path(__file__).parent / "bodies.json"  # bands of the presets and others; part of the format, never changed
_LEVEL = 19
_MOST = 1 << 20  # bytes that a frame may say it holds


def shorter(frame: bytes) -> bytes:
    """A ZSTD frame as one that refers to the dictionary, with a checksum."""
    plain = zstandard.ZstdDecompressor().decompress(frame)
    told = zstandard.ZstdCompressionParameters.from_level(_LEVEL, write_checksum=True, write_dict_id=False)
    return zstandard.ZstdCompressor(dict_data=dictionary(), compression_params=told).compress(plain)


def longer(frame: bytes) -> bytes:
    """The inverse of `shorter`: a ZSTD frame that any reader takes.

    Raises:
        Corrupt: it is damaged, or none.
    """
    try:
        size = zstandard.frame_content_size(frame)
        if not 0 < size <= _MOST:
            raise Corrupt(f"a codec says it holds {size} bytes, not 1 to {_MOST}; restore the store or fit again")
        plain = zstandard.ZstdDecompressor(dict_data=dictionary()).decompress(frame)
    except zstandard.ZstdError as error:
        raise Corrupt(f"a codec of {len(frame)} bytes does not read: {error}; restore or fit again") from error
    return zstandard.ZstdCompressor(write_checksum=True).compress(plain)


@lru_cache(maxsize=1)
def dictionary() -> zstandard.ZstdCompressionDict:
    """Items of the table one after the other: maps as MessagePack, strings as bytes in hexadecimal."""
    items = json.loads(_TABLE.read_text())
    parts = (bytes.fromhex(item) if isinstance(item, str) else msgpack.packb(item) for item in items)
    return zstandard.ZstdCompressionDict(b"".join(parts), zstandard.DICT_TYPE_RAWCONTENT)
