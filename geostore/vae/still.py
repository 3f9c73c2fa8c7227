"""A mean image as one AV1 picture of its principal components, which decodes to whole numbers on every machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geostore.classical.av1 import LEVELS, Planes, decode_frames, encode_frames
from geostore.classical.mosaic import Mosaic
from geostore.errors import Corrupt, InvalidInput, Unavailable

Doubles = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
_SHIFT = 10  # fraction bits of the transform
_CRF = (4, 66)  # finest and coarsest quality tried
_SLOW, _FAST = 4, 6  # presets
_SMALL = 1 << 17  # samples that are worth the slow one
_NEGLIGIBLE = 0.05  # share of the error that components left out may make up


@dataclass(frozen=True)
class Still:
    """An image of B planes as K components, and back by value = (basis @ component + offset) >> 10.

    Attributes:
        basis: (B, K) int16, in 2^-10 for one level of a component.
        offset: (B,) int32, in 2^-10, half a whole number included.
    """

    basis: npt.NDArray[np.int16]
    offset: npt.NDArray[np.int32]

    @classmethod
    def of(cls, values: Doubles, limits: Doubles) -> Still | None:
        """The transform of (B, H, W) `values` whose errors weigh by (B,) `limits`; None beyond its numbers' range."""
        weights = np.sqrt(limits.min() / limits)
        samples = values.reshape(len(values), -1) * weights[:, None]  # (B, H, W) -> (B, P)
        mean = samples.mean(axis=1)
        variances, vectors = np.linalg.eigh(np.atleast_2d(np.cov(samples, bias=True)))
        left_out = np.cumsum(variances) < _NEGLIGIBLE * limits.min() * len(values)
        left_out[-1] = False
        vectors = vectors[:, ~left_out][:, ::-1]
        components = vectors.T @ (samples - mean[:, None])
        low, high = components.min(axis=1), components.max(axis=1)
        step = max(float((high - low).max()) / (LEVELS - 1), 1 / 64)
        basis = np.rint(vectors * step / weights[:, None] * 2**_SHIFT)
        centre = (mean + vectors @ ((low + high) / 2)) / weights
        offset = np.rint(centre * 2**_SHIFT) - basis.sum(axis=1) * (LEVELS // 2) + 2 ** (_SHIFT - 1)
        if np.abs(basis).max() > 32767 or np.abs(offset).max() >= 2**31:
            return None
        return cls(basis.astype(np.int16), offset.astype(np.int32))

    def forward(self, values: Doubles) -> Planes:
        """(B, H, W) -> (K, H, W) levels."""
        exact = self.basis.astype(np.float64) / 2**_SHIFT
        shift = (self.offset - 2.0 ** (_SHIFT - 1)) / 2**_SHIFT
        levels = np.tensordot(np.linalg.pinv(exact), values - shift[:, None, None], 1)
        return np.asarray(np.clip(np.rint(levels), 0, LEVELS - 1), np.uint16)

    def inverse(self, components: Planes) -> Longs:
        """(K, H, W) levels -> (B, H, W) whole numbers."""
        flat = components.reshape(len(components), -1).astype(np.int64)
        values = self.basis.astype(np.int64) @ flat + self.offset[:, None]
        return (values >> _SHIFT).reshape(len(self.offset), *components.shape[1:])

    def to_bytes(self) -> bytes:
        """K in one byte, basis, offset."""
        head = bytes([self.basis.shape[1]])
        return head + self.basis.astype("<i2").tobytes() + self.offset.astype("<i4").tobytes()

    @classmethod
    def split(cls, data: bytes, bands: int) -> tuple[Still, bytes]:
        """The inverse of `to_bytes`, and what follows it."""
        count = data[0]
        if not count:
            raise ValueError("it has no components")
        size = 1 + 2 * bands * count
        basis = np.frombuffer(data, "<i2", bands * count, 1).reshape(bands, count).astype(np.int16)
        offset = np.frombuffer(data, "<i4", bands, size).astype(np.int32)
        return cls(basis, offset), data[size + 4 * bands :]


def pack_still(values: Doubles, limits: Doubles) -> bytes | None:
    """(B, H, W) values at the fewest bytes found whose squared errors over (B,) `limits` are 1 in the mean, or less.

    None where AV1 cannot: no encoder, too large a picture, too tight a limit.
    """
    still = Still.of(values, limits)
    if still is None:
        return None
    try:
        mosaic = Mosaic(still.basis.shape[1], *values.shape[1:])
        picture = mosaic.join(still.forward(values)[None])
        stream = _coarsest(picture, values, limits, still, mosaic)
    except (InvalidInput, Unavailable):
        return None
    return None if stream is None else still.to_bytes() + stream


def _coarsest(picture: Planes, values: Doubles, limits: Doubles, still: Still, mosaic: Mosaic) -> bytes | None:
    preset = _SLOW if picture.size <= _SMALL else _FAST
    low, high = _CRF
    best: bytes | None = None
    while low <= high:
        crf = (low + high) // 2
        stream = encode_frames(picture, crf=float(crf), preset=preset)
        error = ((_decoded(stream, still, mosaic) - values) ** 2).mean(axis=(1, 2))
        if float((error / limits).mean()) <= 1:
            best, low = stream, crf + 1
        else:
            high = crf - 1
    return best


def unpack_still(data: bytes, shape: tuple[int, int, int]) -> Longs:
    """(B, H, W) whole numbers of what `pack_still` gave.

    Raises:
        Corrupt: it is something else, where that can be noticed.
    """
    try:
        still, stream = Still.split(data, shape[0])
        return _decoded(stream, still, Mosaic(still.basis.shape[1], *shape[1:]))
    except (ValueError, IndexError) as error:
        raise Corrupt(f"a static image of {len(data)} bytes does not open: {error}; restore the store") from error


def _decoded(stream: bytes, still: Still, mosaic: Mosaic) -> Longs:
    (picture,) = decode_frames(stream, 1, mosaic.shape)
    return still.inverse(mosaic.split(picture))
