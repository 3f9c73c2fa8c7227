"""Validity masks as few bytes."""

from __future__ import annotations

import numpy as np
import zstandard

from geostore.errors import Corrupt
from geostore.raster import Mask

_NONE, _ALL, _PLAIN, _ABOVE = b"\0", b"\1", b"\2", b"\3"
_LEVEL = 19


def pack_mask(valid: Mask) -> bytes:
    """(height, width) bool -> bytes: a tag, then zstd of the packed bits.

    Tags: 0 nothing usable, 1 all usable, 2 rows of bits (most significant first, each row padded to whole bytes),
    3 the same with every row XORed with the one above. The smaller of 2 and 3 is taken.
    """
    if not valid.any():
        return _NONE
    if valid.all():
        return _ALL
    bits = np.packbits(valid, axis=1)
    above = bits.copy()
    above[1:] ^= bits[:-1]
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=False)
    return min(_PLAIN + compressor.compress(bits.tobytes()), _ABOVE + compressor.compress(above.tobytes()), key=len)


def unpack_mask(data: bytes, shape: tuple[int, int]) -> Mask:
    """The inverse of `pack_mask` for a mask of `shape` (height, width).

    Raises:
        Corrupt: the bytes hold no mask of that shape.
    """
    tag = data[:1]
    if tag in (_NONE, _ALL) and len(data) == 1:
        return np.full(shape, tag == _ALL)
    height, stride = shape[0], (shape[1] + 7) // 8
    try:
        raw = zstandard.ZstdDecompressor().decompress(data[1:], max_output_size=height * stride)
    except zstandard.ZstdError as error:
        raise Corrupt(f"a mask of {len(data)} bytes does not decompress ({error}); run `geostore verify`") from error
    if tag not in (_PLAIN, _ABOVE) or len(raw) != height * stride:
        raise Corrupt(
            f"a mask of {len(data)} bytes does not hold {shape[0]} x {shape[1]} pixels; run `geostore verify`"
        )
    bits = np.frombuffer(raw, np.uint8).reshape(height, stride)
    if tag == _ABOVE:
        bits = np.bitwise_xor.accumulate(bits, axis=0)
    return np.unpackbits(bits, axis=1, count=shape[1]).astype(bool)
