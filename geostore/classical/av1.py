"""Grey pictures as an AV1 stream and back: SVT-AV1 writes 10 bits, dav1d reads them, both through PyAV.

A stream is what AV1 calls its low-overhead format (a sequence header, then every frame as OBUs that state their size)
without temporal delimiters, which say nothing that the frames do not. With them put back (`with_delimiters`) any AV1
decoder reads it. AV1 defines decoding in whole numbers, so every decoder gives the same pictures; film grain, which
would be added to them, stays off.

References:
    AV1 Bitstream & Decoding Process Specification, sections 5.3 (OBU syntax), 5.9 (frame header) and 7.5 (ordering).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.errors import Corrupt, Unavailable

Planes = npt.NDArray[np.uint16]
LEVELS = 1 << 10  # of a sample
SIDE_MIN, SIDE_MAX = 64, 8192  # pixels a side that the encoder takes
CRF_MIN, CRF_MAX, CRF_STEP = 1.0, 70.0, 0.25
_DELIMITER = b"\x12\x00"
_FRAME_HEADER, _FRAME, _TEMPORAL_DELIMITER = 3, 6, 2
_FORMAT = "yuv420p10le"  # the encoder knows no grey: chroma is constant, which costs next to nothing
_PARAMETERS = ":".join(
    (
        *("tune=1", "scd=0", "lp=1"),  # for PSNR; key pictures where asked; one thread
        *("aq-mode=0", "film-grain=0", "enable-tf=0"),  # every block alike, nothing invented, no picture smoothed
        *("enable-cdef=0", "enable-restoration=0"),  # filters cost a third of a header, and gain less on such pictures
    )
)


def encode_frames(frames: Planes, *, crf: float, preset: int) -> bytes:
    """(T, H, W) samples below LEVELS as one stream with one key frame, the first.

    Args:
        frames: sides even, SIDE_MIN to SIDE_MAX pixels.
        crf: constant quality, CRF_MIN (fine) to CRF_MAX (coarse), by CRF_STEP.
        preset: of SVT-AV1, 0 (slow, small) to 10.
    """
    encoder = _encoder(frames.shape, crf, preset)
    packets = [bytes(p) for t, frame in enumerate(frames) for p in encoder.encode(_picture(frame, t))]
    packets += [bytes(p) for p in encoder.encode(None)]
    return b"".join(obu for packet in packets for kind, obu in _obus(packet) if kind != _TEMPORAL_DELIMITER)


def decode_frames(stream: bytes, count: int, shape: tuple[int, int]) -> Iterator[Planes]:
    """The first `count` pictures of a stream, (H, W) each, in order; only what they need is decoded.

    Raises:
        Corrupt: the stream holds no AV1, fewer pictures, or pictures of another shape.
    """
    decoder = _codec("libdav1d", "r")
    decoder.thread_count = 1
    seen = 0
    for unit in temporal_units(stream)[:count]:
        for frame in _decoded(decoder, unit):
            seen += 1
            yield _samples(frame, shape)
    for frame in _decoded(decoder, None):
        seen += 1
        yield _samples(frame, shape)
    if seen != count:
        raise Corrupt(f"an AV1 stream of {len(stream)} bytes holds {seen} pictures, wanted {count}; restore the raster")


def temporal_units(stream: bytes) -> list[bytes]:
    """The stream cut after every shown frame: a unit decodes to one picture."""
    units, start, end = [], 0, 0
    for kind, obu in _obus(stream):
        end += len(obu)
        if _is_shown(kind, obu):
            units.append(stream[start:end])
            start = end
    return units


def with_delimiters(stream: bytes) -> bytes:
    """The stream as an .obu file: a temporal delimiter before every unit."""
    return b"".join(_DELIMITER + unit for unit in temporal_units(stream))


def _obus(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, bytes) of every OBU, each of which states its size."""
    at = 0
    while at < len(data):
        header = data[at]
        start = at + 2 if header & 4 else at + 1
        if header & 0x82 != 2:  # the forbidden bit, or no size
            raise Corrupt(f"byte {at} of an AV1 stream begins no OBU with a size; restore the raster")
        size, start = _leb128(data, start)
        if start + size > len(data):
            raise Corrupt(f"an AV1 stream ends at byte {len(data)}, inside the OBU at byte {at}; restore the raster")
        yield header >> 3 & 15, data[at : start + size]
        at = start + size


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """(value, position after it) of a little-endian base-128 number."""
    value = 0
    for i in range(8):
        if at >= len(data):
            break
        value |= (data[at] & 127) << 7 * i
        at += 1
        if not data[at - 1] & 128:
            return value, at
    raise Corrupt("an AV1 stream ends inside a size; restore the raster")


def _is_shown(kind: int, obu: bytes) -> bool:
    """True if this OBU shows a picture: one coded before (a frame header's bit 7), or its own (a frame's bit 4)."""
    if kind not in (_FRAME, _FRAME_HEADER):
        return False
    _, at = _leb128(obu, 2 if obu[0] & 4 else 1)
    return at < len(obu) and bool(obu[at] & (0x10 if kind == _FRAME else 0x80))


def _encoder(shape: Sequence[int], crf: float, preset: int) -> Any:
    encoder = _codec("libsvtav1", "w")
    encoder.height, encoder.width, encoder.pix_fmt = shape[1], shape[2], _FORMAT
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    # the parameter overrules the option, and knows quarters and values beyond 63
    encoder.options = {"preset": str(preset), "g": "-1", "svtav1-params": f"{_PARAMETERS}:crf={crf:.2f}"}
    with usual_priority():
        encoder.open()
    return encoder


@contextlib.contextmanager
def usual_priority() -> Iterator[None]:
    """Undo what SVT-AV1 does when root runs it: it makes the caller and its own threads real-time; all else waits."""
    if sys.platform != "linux":
        yield
        return
    before, policy, priority = _threads(), os.sched_getscheduler(0), os.sched_getparam(0)
    yield
    for thread in {0} | _threads() - before:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.sched_setscheduler(thread, policy, priority)


def _threads() -> set[int]:
    """This process's threads."""
    return {int(t.name) for t in Path("/proc/self/task").iterdir()}


def _codec(name: str, mode: str) -> Any:
    os.environ.setdefault("SVT_LOG", "1")  # else SVT-AV1 writes its settings to stderr
    import av

    try:
        return av.CodecContext.create(name, mode)
    except ValueError as error:  # PyAV's UnknownCodecError
        raise Unavailable(f"this build of PyAV has no {name}: {error}; install av from PyPI, 18 or newer") from error


def _picture(samples: Planes, number: int) -> Any:
    import av

    frame = av.VideoFrame(samples.shape[1], samples.shape[0], _FORMAT)
    for plane in frame.planes[1:]:
        np.frombuffer(plane, np.uint16)[:] = LEVELS // 2
    _rows(frame.planes[0])[:] = samples
    frame.pts = number
    return frame


def _rows(plane: Any) -> Planes:
    """(H, W) view of the samples of a plane, without what pads its lines."""
    lines: Planes = np.frombuffer(plane, np.uint16).reshape(plane.height, plane.line_size // 2)
    return lines[:, : plane.width]


def _decoded(decoder: Any, unit: bytes | None) -> list[Any]:
    import av

    try:
        return list(decoder.decode(None if unit is None else av.Packet(unit)))
    except (av.FFmpegError, ValueError) as error:
        raise Corrupt(f"an AV1 stream does not decode: {error}; restore the raster") from error


def _samples(frame: Any, shape: tuple[int, int]) -> Planes:
    plane = frame.planes[0]
    if (plane.height, plane.width) != shape or not frame.format.name.endswith("10le"):
        raise Corrupt(
            f"an AV1 stream holds {plane.height} x {plane.width} {frame.format.name}, wanted {shape[0]} x {shape[1]} "
            "of 10 bits; restore the raster"
        )
    return _rows(plane).copy()
