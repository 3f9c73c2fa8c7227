"""What is the same on every date: the place's mean image, as integers, and each date's gain and level on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from geostore.classical.bend import STEPS as LOG_STEPS
from geostore.classical.bend import Bend
from geostore.errors import Corrupt
from geostore.raster import Bands, Mask, Pixels
from geostore.vae.still import pack_still, unpack_still

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
_UNIT = 4096  # static integers per n1 unit
_BIAS = 1 << 15
GAIN_STEP, LEVEL_STEP = 1 / 32, 1 / 512
GAIN_LIMIT, LEVEL_LIMIT = 127, 2047
OCTANT = 8  # natural logarithms to a unit of the logarithm
Coding = Literal["wavelet", "av1"]  # of the mean image: a JPEG 2000 stream a band, or one AV1 picture


@dataclass(frozen=True)
class Units:
    """The working space of a codec: n1 without its clipping, so reflectance stays reflectance; or its logarithm.

    The logarithm is ln(1 + reflectance / bend) / OCTANT, whose slope is about 1 at reflectance 0.1.

    Attributes:
        mul, add: (B,) float64; unit value = stored * mul + add.
        scale, shift: (B,) float64; physical value = unit value * scale + shift.
        log: what takes the place of these four for the logarithm, or None.
    """

    mul: Doubles
    add: Doubles
    scale: Doubles
    shift: Doubles
    log: Bend | None = None

    @classmethod
    def of(cls, bands: Bands, bend: int = 0) -> Units:
        """Reflectance as it is, or with a `bend` (1/1000) its logarithm; other kinds with their range as 0..1."""
        mul, add, scale, shift = [], [], [], []
        for band in bands:
            low = band.valid_min * band.scale + band.offset
            width = (band.valid_max - band.valid_min) * band.scale
            low, width = (0.0, 1.0) if band.kind == "reflectance" else (low, width)
            mul.append(band.scale / width)
            add.append((band.offset - low) / width)
            scale.append(width)
            shift.append(low)
        log = Bend(bands, bend) if bend else None
        return cls(np.array(mul), np.array(add), np.array(scale), np.array(shift), log)

    def from_stored(self, stored: Pixels) -> Doubles:
        """(..., B, H, W) stored -> float64 units."""
        if self.log is not None:
            return self.log.forward(stored).astype(np.float64) / (LOG_STEPS * OCTANT)
        return np.asarray(stored.astype(np.float64) * self.mul[:, None, None] + self.add[:, None, None])

    def to_stored(self, units: Doubles, bands: Bands) -> Pixels:
        """(..., B, H, W) float64 units -> stored dtype, rounded and held in the valid range."""
        if self.log is not None:
            return self.log.inverse(np.floor(units * (LOG_STEPS * OCTANT) + 0.5).astype(np.int64))
        stored = (units - self.add[:, None, None]) / self.mul[:, None, None]
        low = np.array([b.valid_min for b in bands])[:, None, None]
        high = np.array([b.valid_max for b in bands])[:, None, None]
        held = np.clip(stored, low, high)
        return (held if bands.dtype.kind == "f" else np.rint(held)).astype(bands.dtype)

    def to_physical(self, units: Doubles) -> Doubles:
        """(B, ...) units -> physical values."""
        if self.log is not None:
            return np.asarray(self.log.per_mille / 1000 * np.expm1(units * OCTANT))
        wide = (-1, *(1,) * (units.ndim - 1))
        return np.asarray(units * self.scale.reshape(wide) + self.shift.reshape(wide))


@dataclass(frozen=True)
class Static:
    """The mean image of a place.

    Attributes:
        data: its coded bytes.
        image: (B, H, W) float64, exactly what `data` decodes to, units.
        centre: (B,) float64, its mean, units.
        spread: its standard deviation about the centres over all bands, units; at least 1e-3.
        coding: what `data` is.
    """

    data: bytes
    image: Doubles
    centre: Doubles
    spread: float
    coding: Coding = "wavelet"

    @classmethod
    def from_bytes(cls, data: bytes, shape: tuple[int, int, int], coding: Coding = "wavelet") -> Static:
        """Decode; every number that follows comes from integers, so it is the same on every machine."""
        planes = unpack_still(data, shape) if coding == "av1" else _decode_planes(data, shape).astype(np.int64)
        pixels = shape[1] * shape[2]
        centres = (planes.reshape(shape[0], -1).sum(axis=1) + pixels // 2) // pixels
        variance = int(((planes - centres[:, None, None]) ** 2).sum()) // planes.size
        return cls(data, planes / _UNIT, centres / _UNIT, max(math.isqrt(variance), 4) / _UNIT, coding)

    def maps(self, bits: int, padded: tuple[int, int]) -> tuple[Doubles, ...]:
        """(B, H, W) maps at full, 1/2, 1/4 and 1/8 resolution: (image - centre) / spread as integers / 2**bits."""
        level = np.floor((self.image - self.centre[:, None, None]) / self.spread * (1 << bits) + 0.5)
        level = np.clip(level, -(8 << bits), 8 << bits)
        rows, columns = padded[0] - level.shape[1], padded[1] - level.shape[2]
        out = [np.pad(level, ((0, 0), (0, rows), (0, columns)), mode="edge")]
        for _ in range(3):
            a = out[-1]
            out.append(np.floor((a[:, ::2, ::2] + a[:, 1::2, ::2] + a[:, ::2, 1::2] + a[:, 1::2, 1::2]) / 4))
        return tuple(out)

    def predict(self, gains: Ints, levels: Ints) -> Doubles:
        """(..., B) quantised gains and levels -> (..., B, H, W) units."""
        gain = 1.0 + gains[..., None, None] * GAIN_STEP
        level = levels[..., None, None] * LEVEL_STEP
        return np.asarray((self.image - self.centre[:, None, None]) * gain + (self.centre[:, None, None] + level))

    def fit_date(self, units: Doubles, valid: Mask) -> tuple[Ints, Ints]:
        """Least-squares gain and level of one date: (B,) int32 each, quantised; masked pixels weigh nothing."""
        if not valid.any():
            zero = np.zeros(len(units), np.int32)
            return zero, zero
        x = (self.image - self.centre[:, None, None])[:, valid]  # (B, H, W) -> (B, P)
        error = units[:, valid] - x - self.centre[:, None]
        x_mean, e_mean = x.mean(axis=1), error.mean(axis=1)
        spread = (x - x_mean[:, None]) ** 2
        slope = ((x - x_mean[:, None]) * (error - e_mean[:, None])).sum(axis=1) / (
            spread.sum(axis=1) + 1e-6 * x.shape[1]
        )
        gains = np.clip(np.rint(slope / GAIN_STEP), -GAIN_LIMIT, GAIN_LIMIT).astype(np.int32)
        level = e_mean + x_mean * (1 - (1 + gains * GAIN_STEP)) + 0.0
        return gains, np.clip(np.rint(level / LEVEL_STEP), -LEVEL_LIMIT, LEVEL_LIMIT).astype(np.int32)


def mean_image(pixels: Pixels, valid: Mask, units: Units) -> Doubles:
    """(B, H, W) mean over the valid dates of (T, B, H, W) stored values; never-valid pixels take the band's mean."""
    total = np.zeros(pixels.shape[1:], np.float64)
    for frame, mask in zip(pixels, valid, strict=True):
        total += units.from_stored(frame) * mask
    count = valid.sum(axis=0)
    image = total / np.maximum(count, 1)
    if (count > 0).any():
        image[:, count == 0] = image[:, count > 0].mean(axis=1)[:, None]
    return np.asarray(image)


def code_static(image: Doubles, mse: Doubles) -> Static:
    """Code a mean image (B, H, W) at few bytes, its squared error within (B,) `mse`: one AV1 picture where that can.

    The shares of `mse` that the bands use up are 1 in the mean at most.
    """
    shape = (image.shape[0], image.shape[1], image.shape[2])
    return _coded(shape, np.ascontiguousarray(image).tobytes(), tuple(mse.tolist()))


@lru_cache(maxsize=8)  # the codecs of a place that are compared begin with the same image
def _coded(shape: tuple[int, int, int], image: bytes, mse: tuple[float, ...]) -> Static:
    values, limits = np.frombuffer(image).reshape(shape), np.array(mse)
    stream = pack_still(values * _UNIT, limits * _UNIT**2)
    return code_wavelet(values, limits) if stream is None else Static.from_bytes(stream, shape, "av1")


def code_wavelet(image: Doubles, mse: Doubles) -> Static:
    """The same without AV1, each band within its own share of (B,) `mse`.

    Each band is predicted from the bands before it, as they decode, by integer arithmetic, and what is left is
    coded with the integer wavelet of JPEG 2000, so that every machine decodes the same integers.
    """
    target = np.clip(np.rint(image * _UNIT), -_BIAS // 2, _BIAS - 1).astype(np.int64)
    done: list[npt.NDArray[np.int64]] = []
    blocks = []
    for plane, limit in zip(target, mse * _UNIT**2, strict=True):
        weights = _weights(plane, done)
        left = plane - _mix(weights, done, plane.shape)
        stream, decoded = _code_plane(left, float(limit))
        blocks.append(weights.astype("<i2").tobytes() + len(stream).to_bytes(4, "little") + stream)
        done.append(_mix(weights, done, plane.shape) + decoded)
    return Static.from_bytes(b"".join(blocks), (image.shape[0], image.shape[1], image.shape[2]))


def _weights(plane: npt.NDArray[np.int64], done: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Least-squares weights (1/1024) of the two bands before and a constant, as integers."""
    basis = [p.reshape(-1).astype(np.float64) for p in done[-2:]]
    basis.append(np.full(plane.size, 1024.0))
    solved = np.linalg.lstsq(np.stack(basis, axis=1), plane.reshape(-1).astype(np.float64), rcond=1e-6)[0]
    out = np.rint(solved * 1024)
    return np.clip(out, -32768, 32767).astype(np.int64)


def _mix(
    weights: npt.NDArray[np.int64], done: list[npt.NDArray[np.int64]], shape: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    mixed = np.full(shape, int(weights[-1]) * 1024, np.int64)
    for weight, plane in zip(weights[:-1], done[-2:], strict=True):
        mixed += int(weight) * plane
    return np.asarray(mixed >> 10)


def _code_plane(plane: npt.NDArray[np.int64], mse: float) -> tuple[bytes, npt.NDArray[np.int64]]:
    """The shortest JPEG 2000 stream of `plane` within `mse`, and what it decodes to."""
    import imagecodecs

    shifted = np.clip(plane + _BIAS, 0, 2 * _BIAS - 1).astype(np.uint16)
    low, high = 20, 96  # dB below a peak of 65535; 96 is finer than one integer
    best: tuple[bytes, npt.NDArray[np.int64]] | None = None
    while low <= high:
        middle = (low + high) // 2
        stream = bytes(imagecodecs.jpeg2k_encode(shifted, level=middle, codecformat="j2k", reversible=True))
        decoded = imagecodecs.jpeg2k_decode(stream).astype(np.int64) - _BIAS
        if float(np.mean((decoded - plane) ** 2)) <= mse:
            best, high = (stream, decoded), middle - 1
        else:
            low = middle + 1
    if best is None:
        stream = bytes(imagecodecs.jpeg2k_encode(shifted, level=0, codecformat="j2k", reversible=True))
        best = stream, imagecodecs.jpeg2k_decode(stream).astype(np.int64) - _BIAS
    return best


def _decode_planes(data: bytes, shape: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    import imagecodecs

    done: list[npt.NDArray[np.int64]] = []
    at = 0
    try:
        for b in range(shape[0]):
            count = min(b, 2) + 1
            weights = np.frombuffer(data, "<i2", count, at).astype(np.int64)
            at += 2 * count
            size = int.from_bytes(data[at : at + 4], "little")
            plane = imagecodecs.jpeg2k_decode(data[at + 4 : at + 4 + size]).astype(np.int64) - _BIAS
            at += 4 + size
            done.append(_mix(weights, done, shape[1:]) + plane.reshape(shape[1:]))
    except (RuntimeError, ValueError, IndexError) as error:  # JPEG 2000's own errors are RuntimeErrors
        raise Corrupt(f"the static image of {len(data)} bytes does not decode: {error}; restore the store") from error
    return np.stack(done)
