"""Band planes as lossless frames and back: JPEG XL for whole numbers, ZSTD of byte planes for float32."""

from __future__ import annotations

import numpy as np

from geostore.errors import Corrupt
from geostore.raster import Pixels

FAST, SMALL = 0, 1  # how hard packing tries
_STACKED = 0xFF  # fourth byte of a payload whose planes share frames; one frame a plane would need 4 GB to have it
_FRAME_ROWS_MAX, _FRAME_VALUES_MAX = 1 << 17, 1 << 24  # JPEG XL's level 5 ends at 2^18 rows and 2^28 values
_FEW, _SEVERAL = 1 << 15, 1 << 17  # values of a frame: so few that trying harder costs no time that counts


def pack_planes(pixels: Pixels, effort: int) -> bytes:
    """(B, H, W) pixels, bit for bit; `effort` is FAST or SMALL, and a reader does not need it."""
    count, height, width = pixels.shape
    together = min(count, max(1, min(_FRAME_ROWS_MAX // height, _FRAME_VALUES_MAX // (height * width))))
    stacks = [pixels[i : i + together].reshape(-1, width) for i in range(0, count, together)]
    frames = [_pack_frame(np.ascontiguousarray(s), effort) for s in stacks]
    return np.array([together | _STACKED << 24, *map(len, frames[:-1])], "<u4").tobytes() + b"".join(frames)


def unpack_planes(payload: bytes, shape: tuple[int, int, int], dtype: np.dtype[np.generic]) -> Pixels:
    """(B, H, W) pixels of that `shape`. Raises Corrupt where `payload` does not hold them."""
    out = np.empty(shape, dtype)
    planes = 0
    for together, frame in _frames(payload, len(out)):
        part = out[planes : planes + together]
        part[:] = _unpack_frame(frame, out.dtype, (len(part) * shape[1], shape[2])).reshape(part.shape)
        planes += together
    return out


def _frames(payload: bytes, count: int) -> list[tuple[int, bytes]]:
    """(planes in it, bytes) of each frame of a lossless payload of `count` planes.

    Raises:
        Corrupt: the payload is not made of that many planes.
    """
    stacked = payload[3:4] == bytes([_STACKED])
    together = int.from_bytes(payload[:3], "little") if stacked else 1
    number = -(-count // together) if together else 0
    told = np.frombuffer(payload[4 : 4 * number] if stacked else payload[: 4 * number], "<u1")
    sizes = told[: len(told) // 4 * 4].view("<u4").astype(np.int64).tolist()
    start = 4 * number
    if stacked:
        sizes.append(len(payload) - start - sum(sizes))
    if len(sizes) != number or not number or min(sizes) < 0 or start + sum(sizes) != len(payload):
        raise Corrupt(f"lossless payload of {len(payload)} bytes does not hold {count} planes; restore or rebuild")
    ends = start + np.cumsum(sizes)
    return [(together, payload[end - size : end]) for end, size in zip(ends.tolist(), sizes, strict=True)]


def _pack_frame(frame: Pixels, effort: int) -> bytes:
    """(rows, columns) of one dtype, losslessly; JPEG XL's own efforts measured on satellite planes."""
    if frame.dtype in (np.uint8, np.uint16):
        small = (2, 3) if frame.size < _SEVERAL else (3,)
        tried = small if effort == SMALL else (2,) if frame.size < _FEW else (1,)
        return min((_jpegxl(frame, e) for e in tried), key=len)
    if frame.dtype in (np.int8, np.int16):  # the same bits shifted to unsigned keep neighbours near
        return _pack_frame(_unsigned(frame), effort)
    return _zstd_planes(frame)


def _jpegxl(frame: Pixels, effort: int) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.jpegxl_encode(frame, lossless=True, effort=effort, numthreads=1))


def _unsigned(frame: Pixels) -> Pixels:
    bias = 1 << (8 * frame.dtype.itemsize - 1)
    return (frame.astype(np.int32) + bias).astype(f"u{frame.dtype.itemsize}")


def _zstd_planes(frame: Pixels) -> bytes:
    import imagecodecs

    shuffled = frame.view(np.uint8).reshape(frame.size, frame.dtype.itemsize).T
    return bytes(imagecodecs.zstd_encode(np.ascontiguousarray(shuffled).tobytes(), level=12))


def _unpack_frame(data: bytes, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Pixels:
    import imagecodecs

    try:
        if dtype in (np.dtype("u1"), np.dtype("u2")):
            frame = np.asarray(imagecodecs.jpegxl_decode(data, numthreads=1))
        elif dtype in (np.dtype("i1"), np.dtype("i2")):
            unsigned = _unpack_frame(data, np.dtype(f"u{dtype.itemsize}"), shape).astype(np.int32)
            frame = (unsigned - (1 << (8 * dtype.itemsize - 1))).astype(dtype)
        else:
            raw = np.frombuffer(imagecodecs.zstd_decode(data), np.uint8)
            frame = np.ascontiguousarray(raw.reshape(dtype.itemsize, -1).T).view(dtype).reshape(shape)
    except (RuntimeError, ValueError) as error:  # JPEG XL's and zstd's own errors are RuntimeErrors
        raise Corrupt(f"a lossless frame of {len(data)} bytes does not decode: {error}") from error
    if frame.shape != shape or frame.dtype != dtype:
        raise Corrupt(f"a lossless frame decodes to {frame.shape} {frame.dtype}, wanted {shape} {dtype}")
    return frame
