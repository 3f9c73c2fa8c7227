"""What a codec is: fit on a partition's rasters, encode one, decode one; and the lossless `raw` codec."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from geostore.collection import Policy
from geostore.errors import Corrupt, InvalidInput
from geostore.raster import Bands, Mask, Pixels

Progress = Callable[[str, float], None]  # (what is being done, share done 0..1); may raise Cancelled
Int8 = npt.NDArray[np.int8]


def quiet(what: str, share: float) -> None:
    """A Progress that shows nothing."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """All rasters of one partition, oldest first.

    Attributes:
        pixels: (T, B, H, W) stored dtype.
        valid: (T, H, W) bool, True where the pixel may be used.
        times_us: (T,) int64, UTC microseconds, ascending.
        bands: what each plane is.
        indices: spectral indices to keep, all computable from `bands`.
    """

    pixels: Pixels
    valid: Mask
    times_us: npt.NDArray[np.int64]
    bands: Bands
    indices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        t, b, h, w = self.pixels.shape
        if self.valid.shape != (t, h, w) or self.times_us.shape != (t,) or b != len(self.bands):
            raise InvalidInput(
                f"series pixels {self.pixels.shape}, valid {self.valid.shape}, times {self.times_us.shape} and "
                f"{len(self.bands)} bands do not belong together"
            )

    def __len__(self) -> int:
        return int(self.pixels.shape[0])


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One raster as a codec stores it.

    Attributes:
        payload: all bytes that decoding needs besides the codec itself and the validity mask.
        vector: (D,) int8, the raster's embedding: the codec's pooled latent; None for codecs that have none.
        layers: which layers the payload holds ("gain", "grid", "residual", "lossless"), for provenance.
    """

    payload: bytes
    vector: Int8 | None = None
    layers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard to fit.

    Attributes:
        steps: optimiser steps at most.
        seconds: wall-clock limit, or None.
        seed: everything random follows from it.
        device: "auto", "cpu" or "cuda".
    """

    steps: int = 1500
    seconds: float | None = None
    seed: int = 0
    device: str = "auto"


@runtime_checkable
class Codec(Protocol):
    """One fitted encoder-decoder pair. Immutable; `to_bytes` holds all that decoding needs."""

    family: ClassVar[str]

    @property
    def bands(self) -> Bands:
        """The bands it was fitted for, in order."""
        ...

    def encode(self, pixels: Pixels, valid: Mask) -> Encoded:
        """Encode (B, H, W) stored values; masked pixels weigh nothing."""
        ...

    def decode(self, payload: bytes, valid: Mask) -> Pixels:
        """(B, H, W) stored values. Pixels outside (H, W) `valid` are unspecified but deterministic."""
        ...

    def to_bytes(self) -> bytes:
        """The codec itself: architecture, bands, normalisation, quantiser, entropy tables. No pickle."""
        ...


class CodecFamily(Protocol):
    """How codecs of one family come to be; registered under the entry-point group `geostore.codecs`."""

    name: ClassVar[str]

    def fit(
        self, series: Series, *, policy: Policy, effort: Effort, progress: Progress, parent: Codec | None = None
    ) -> Codec:
        """Fit a codec to `series` that keeps `policy` at the fewest bytes it can; `parent` warm-starts it."""
        ...

    def from_bytes(self, data: bytes) -> Codec:
        """The inverse of `Codec.to_bytes`. Raises Corrupt or UnsupportedFormat."""
        ...


_RAW_MAGIC = b"GSRAW1"
FAST, SMALL = 1, 3  # JPEG XL efforts; on satellite planes 3 is as small as 7, and ten times faster


@dataclass(frozen=True)
class RawCodec:
    """The lossless codec: every band plane as JPEG XL lossless (float32: zstd of the byte planes).

    The payload keeps every pixel bit for bit, masked or not. `effort` (FAST or SMALL) is JPEG XL's; a reader does
    not need it.
    """

    _bands: Bands
    effort: int = FAST
    family: ClassVar[str] = "raw"

    @property
    def bands(self) -> Bands:
        """The bands it stores."""
        return self._bands

    def encode(self, pixels: Pixels, valid: Mask) -> Encoded:
        """Lossless; `valid` is not looked at."""
        planes = [_pack_plane(np.ascontiguousarray(p), self.effort) for p in pixels]
        sizes = np.array([len(p) for p in planes], "<u4").tobytes()
        return Encoded(payload=sizes + b"".join(planes), layers=("lossless",))

    def decode(self, payload: bytes, valid: Mask) -> Pixels:
        """Bit for bit what was encoded."""
        count = len(self._bands)
        sizes = np.frombuffer(payload[: 4 * count], "<u4")
        if len(sizes) != count or 4 * count + int(sizes.sum()) != len(payload):
            raise Corrupt(f"lossless payload of {len(payload)} bytes does not hold {count} planes; restore or rebuild")
        out = np.empty((count, *valid.shape), self._bands.dtype)
        start = 4 * count
        for i, size in enumerate(int(s) for s in sizes):
            out[i] = _unpack_plane(payload[start : start + size], out.dtype, valid.shape)
            start += size
        return out

    def to_bytes(self) -> bytes:
        """Bands only."""
        return _RAW_MAGIC + bands_to_json(self._bands)


class RawFamily:
    """Fitting a lossless codec is naming its bands."""

    name: ClassVar[str] = "raw"

    def fit(
        self, series: Series, *, policy: Policy, effort: Effort, progress: Progress, parent: Codec | None = None
    ) -> Codec:
        """The lossless codec of the series' bands."""
        return RawCodec(series.bands, effort=SMALL)

    def from_bytes(self, data: bytes) -> Codec:
        """The inverse of `RawCodec.to_bytes`."""
        if not data.startswith(_RAW_MAGIC):
            raise Corrupt("not a lossless codec: its first bytes are wrong; restore the store or rebuild")
        try:
            return RawCodec(bands_from_json(data[len(_RAW_MAGIC) :]))
        except (ValueError, TypeError) as error:
            raise Corrupt(f"a lossless codec's bands do not read: {error}; restore the store or rebuild") from error


def bands_to_json(bands: Bands) -> bytes:
    """Bands as compact JSON bytes, for codec headers."""
    import dataclasses
    import json

    return json.dumps([dataclasses.asdict(b) for b in bands], separators=(",", ":")).encode()


def bands_from_json(data: bytes) -> Bands:
    """The inverse of `bands_to_json`."""
    import json

    from geostore.raster import Band

    return Bands(tuple(Band(**item) for item in json.loads(data)))


def _pack_plane(plane: Pixels, effort: int) -> bytes:
    import imagecodecs

    if plane.dtype in (np.uint8, np.uint16):
        return bytes(imagecodecs.jpegxl_encode(plane, lossless=True, effort=effort, numthreads=1))
    if plane.dtype in (np.int8, np.int16):  # the same bits shifted to unsigned keep neighbours near
        unsigned = np.dtype(f"u{plane.dtype.itemsize}")
        bias = 1 << (8 * plane.dtype.itemsize - 1)
        return _pack_plane((plane.astype(np.int32) + bias).astype(unsigned), effort)
    shuffled = np.ascontiguousarray(plane).view(np.uint8).reshape(plane.size, plane.dtype.itemsize).T
    return bytes(imagecodecs.zstd_encode(np.ascontiguousarray(shuffled).tobytes(), level=12))


def _unpack_plane(data: bytes, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Pixels:
    import imagecodecs

    try:
        if dtype in (np.dtype("u1"), np.dtype("u2")):
            plane = np.asarray(imagecodecs.jpegxl_decode(data, numthreads=1))
        elif dtype in (np.dtype("i1"), np.dtype("i2")):
            unsigned = np.dtype(f"u{dtype.itemsize}")
            plane = (_unpack_plane(data, unsigned, shape).astype(np.int32) - (1 << (8 * dtype.itemsize - 1))).astype(
                dtype
            )
        else:
            raw = np.frombuffer(imagecodecs.zstd_decode(data), np.uint8)
            plane = np.ascontiguousarray(raw.reshape(dtype.itemsize, -1).T).view(dtype).reshape(shape)
    except (RuntimeError, ValueError) as error:  # JPEG XL's and zstd's own errors are RuntimeErrors
        raise Corrupt(f"a lossless plane of {len(data)} bytes does not decode: {error}") from error
    if plane.shape != shape or plane.dtype != dtype:
        raise Corrupt(f"a lossless plane decodes to {plane.shape} {plane.dtype}, wanted {shape} {dtype}")
    return plane


@dataclass(frozen=True)
class Families:
    """The codec families at hand, by name."""

    items: dict[str, CodecFamily] = field(default_factory=dict)

    @classmethod
    def installed(cls, names: Sequence[str] = ()) -> Families:
        """Every family registered under `geostore.codecs`, or only `names`."""
        from geostore.plugins import load

        return cls(load("geostore.codecs", names))
