"""Validity masks as few bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import zstandard

from geostore.errors import Corrupt
from geostore.raster import Mask

_NONE, _ALL, _PLAIN, _ABOVE, _CONTEXT, _BLOCKS = (bytes([tag]) for tag in range(6))
_LEVEL, _QUICK_LEVEL = 19, 3
_QUICK_SHARE = 2  # no slow level halves what the quick one leaves
_BLOCK_MAX = 15
_PIXELS_MAX = 1 << 26  # larger masks are kept as formats 1 and 2 have them


def pack_mask(valid: Mask) -> bytes:
    """(height, width) bool -> bytes, a tag and what follows: the smallest of what `docs/FORMAT.md` knows.

    Tags: 0 nothing usable, 1 all usable, 2 and 3 as in `pack_rows`, 4 bits in context (`geostore.coding.bilevel`),
    5 the same of one pixel a block, where a mask is made of square blocks, as one of a coarser grid is.
    """
    if not valid.any() or valid.all() or valid.size > _PIXELS_MAX:
        return pack_rows(valid)
    from geostore.coding.bilevel import pack_bilevel  # what is compiled loads when it is needed

    found = [_CONTEXT + pack_bilevel(valid)]
    side, top, left = _blocks(valid)
    if side > 1:
        one = valid[np.ix_(_firsts(valid.shape[0], side, top), _firsts(valid.shape[1], side, left))]
        found.append(_BLOCKS + bytes((side, top << 4 | left)) + pack_bilevel(one))
    best = min(found, key=len)
    if len(_zstd(valid, _QUICK_LEVEL)) < _QUICK_SHARE * len(best):
        best = min(best, pack_rows(valid), key=len)
    return best


def pack_rows(valid: Mask) -> bytes:
    """(height, width) bool -> bytes as formats 1 and 2 have it; digests of referenced originals are made of these.

    Tags: 0 nothing usable, 1 all usable, then zstd of packed bits: 2 rows of bits (most significant first, each row
    padded to whole bytes), 3 the same with every row XORed with the one above. The smaller of 2 and 3 is taken.
    """
    if not valid.any():
        return _NONE
    return _ALL if valid.all() else _zstd(valid, _LEVEL)


def _zstd(valid: Mask, level: int) -> bytes:
    bits = np.packbits(valid, axis=1)
    above = bits.copy()
    above[1:] ^= bits[:-1]
    compressor = zstandard.ZstdCompressor(level=level, write_content_size=False)
    return min(_PLAIN + compressor.compress(bits.tobytes()), _ABOVE + compressor.compress(above.tobytes()), key=len)


def _blocks(valid: Mask) -> tuple[int, int, int]:
    """(side, top, left) of the largest square blocks that a mask is made of; `top` and `left` of the first are seen."""
    rows = 1 + np.flatnonzero((valid[1:] != valid[:-1]).any(axis=1))
    columns = 1 + np.flatnonzero((valid[:, 1:] != valid[:, :-1]).any(axis=0))
    for side in range(_BLOCK_MAX, 1, -1):
        if not np.ptp(rows % side if len(rows) else [0]) and not np.ptp(columns % side if len(columns) else [0]):
            return side, _first(rows, side), _first(columns, side)
    return 1, 1, 1


def _first(edges: npt.NDArray[np.intp], side: int) -> int:
    """How much of the first block is seen, 1 to `side`."""
    return int(edges[0] % side) or side if len(edges) else side


def _firsts(length: int, side: int, seen: int) -> npt.NDArray[np.intp]:
    """Where each block begins."""
    return np.concatenate([[0], np.arange(seen, length, side)])


def unpack_mask(data: bytes, shape: tuple[int, int]) -> Mask:
    """The inverse of `pack_mask` for a mask of `shape` (height, width).

    Raises:
        Corrupt: the bytes hold no mask of that shape.
    """
    tag = data[:1]
    if tag in (_NONE, _ALL) and len(data) == 1:
        return np.full(shape, tag == _ALL)
    if tag in (_CONTEXT, _BLOCKS):
        if not 0 < shape[0] * shape[1] <= _PIXELS_MAX:
            raise Corrupt(f"a mask of {shape[0]} x {shape[1]} pixels is not coded in context; run `geostore verify`")
        return _unpack_context(data[1:], shape) if tag == _CONTEXT else _unpack_blocks(data, shape)
    return _unpack_rows(data, shape)


def _unpack_context(data: bytes, shape: tuple[int, int]) -> Mask:
    from geostore.coding.bilevel import unpack_bilevel

    return unpack_bilevel(data, shape)


def _unpack_blocks(data: bytes, shape: tuple[int, int]) -> Mask:
    side, top, left = (data[1], data[2] >> 4, data[2] & 15) if len(data) > 2 else (0, 0, 0)
    if not (1 <= top <= side and 1 <= left <= side <= _BLOCK_MAX):
        raise Corrupt(
            f"a mask of {len(data)} bytes has blocks of {side}, {top} and {left} pixels for {shape[0]} x {shape[1]}; "
            "run `geostore verify`"
        )
    rows, columns = ((np.arange(n) + side - seen) // side for n, seen in zip(shape, (top, left), strict=True))
    return _unpack_context(data[3:], (int(rows[-1]) + 1, int(columns[-1]) + 1))[np.ix_(rows, columns)]


def _unpack_rows(data: bytes, shape: tuple[int, int]) -> Mask:
    tag = data[:1]
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
