"""The lossless codec gives back every bit, from the payloads it writes and from those written before."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from geostore.codec import RawCodec
from geostore.errors import Corrupt
from geostore.lossless import FAST, SMALL
from geostore.testing.codecs import reflectance_bands

SHAPE = (5, 23, 31)


def planes(dtype: str, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Smooth planes with noise over the whole range of `dtype`."""
    rng = np.random.default_rng(4)
    if dtype == "float32":
        return rng.normal(size=shape).astype("f4")
    info = np.iinfo(dtype)
    slope = np.linspace(info.min, info.max, shape[1] * shape[2]).reshape(shape[1:])
    return np.clip(slope + rng.normal(0, 3, shape), info.min, info.max).astype(dtype)


@pytest.mark.parametrize("effort", [FAST, SMALL])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
@pytest.mark.parametrize("shape", [SHAPE, (3, 70_000, 1), (1, 1, 1), (2, 210, 200)])
def test_every_bit_comes_back(dtype: str, shape: tuple[int, int, int], effort: int) -> None:
    """Each dtype at both efforts, in one frame and, where the planes are too tall to share one, in several."""
    codec, pixels = RawCodec(reflectance_bands(shape[0], dtype), effort=effort), planes(dtype, shape)
    valid = np.ones(shape[1:], bool)
    payload = codec.encode(pixels, valid).payload
    assert payload[:4] == bytes([1 if shape[1] == 70_000 else shape[0], 0, 0, 255])
    decoded = codec.decode(payload, valid)
    assert decoded.dtype == pixels.dtype
    assert np.array_equal(decoded.view(np.uint8), pixels.view(np.uint8))


def test_payloads_of_one_frame_a_plane_are_read() -> None:
    """The layout of the first stores: a size for each plane, then a JPEG XL image for each."""
    pixels = planes("uint16")
    images = [imagecodecs.jpegxl_encode(p, lossless=True, effort=1) for p in pixels]
    payload = np.array([len(i) for i in images], "<u4").tobytes() + b"".join(images)
    codec = RawCodec(reflectance_bands(len(pixels)))
    assert np.array_equal(codec.decode(payload, np.ones(SHAPE[1:], bool)), pixels)


@pytest.mark.parametrize("head", [b"", b"\5\0\0", b"\0\0\0\377", b"\2\0\0\377", b"\5\0\0\377", b"\377" * 4, b"\0" * 20])
def test_a_payload_of_other_frames_is_refused(head: bytes) -> None:
    """No frames, frames of no planes, sizes beyond the end: each is Corrupt."""
    with pytest.raises(Corrupt):
        RawCodec(reflectance_bands(5)).decode(head, np.ones(SHAPE[1:], bool))


def test_a_payload_of_another_shape_is_refused() -> None:
    """A frame with other rows or planes than the raster's is Corrupt, never pixels."""
    codec, pixels = RawCodec(reflectance_bands(5)), planes("uint16")
    payload = codec.encode(pixels, np.ones(SHAPE[1:], bool)).payload
    for other, valid in ((5, np.ones((24, 31), bool)), (4, np.ones(SHAPE[1:], bool))):
        with pytest.raises(Corrupt):
            RawCodec(reflectance_bands(other)).decode(payload, valid)
