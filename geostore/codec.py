"""What a codec is: fit on a partition's rasters, encode one, decode one; and the lossless `raw` codec."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from geostore.collection import Policy
from geostore.errors import Corrupt, InvalidInput
from geostore.fit_trace import FitTrace
from geostore.lossless import FAST, SMALL, pack_planes, unpack_planes
from geostore.raster import Bands, Mask, Pixels

Progress = Callable[[str, float], None]  # (what is being done, share done 0..1); may raise Cancelled
Int8 = npt.NDArray[np.int8]
T = TypeVar("T")


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

    @property
    def usable(self) -> npt.NDArray[np.int64]:
        """(N,) positions of the rasters with a pixel that may be used: of the others nothing is stored or learned."""
        return np.flatnonzero(self.valid.any(axis=(1, 2)))


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One raster as a codec stores it.

    Attributes:
        payload: the bytes that decoding needs besides the codec itself, the validity mask and `shared`.
        shared: bytes that the rasters of one group have in common, equal in each of them and stored once; empty for a
            raster that is coded alone.
        vector: (D,) int8, the raster's embedding: the codec's pooled latent; None for codecs that have none.
        layers: which layers the payload holds ("gain", "grid", "residual", "lossless"), for provenance.
    """

    payload: bytes
    shared: bytes = b""
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
        bytes_max: what a rival takes, everything counted: a family that sees it will take more may give up, and give
            the lossless codec back. None: nothing is known of rivals.
        network_share: which part of the bytes of a network that many series use counts against this one.
    """

    steps: int = 1500
    seconds: float | None = None
    seed: int = 0
    device: str = "auto"
    bytes_max: int | None = None
    network_share: float = 0.0


Member = tuple[bytes, Mask]  # a raster of a group: its payload, its (H, W) validity


@runtime_checkable
class Codec(Protocol):
    """One fitted encoder-decoder pair. Immutable; `to_bytes` holds all that decoding needs."""

    family: ClassVar[str]

    @property
    def bands(self) -> Bands:
        """The bands it was fitted for, in order."""
        ...

    def encode(self, pixels: Pixels, valid: Mask) -> Encoded:
        """Encode one raster alone, (B, H, W) stored values; masked pixels weigh nothing."""
        ...

    def encode_series(self, series: Series, progress: Progress = quiet) -> list[Encoded]:
        """Encode every raster of `series`, in its order; those coded together share bytes."""
        ...

    def decode(self, payload: bytes, valid: Mask, shared: bytes = b"") -> Pixels:
        """(B, H, W) stored values. Pixels outside (H, W) `valid` are unspecified but deterministic."""
        ...

    def decode_group(self, shared: bytes, members: Sequence[Member]) -> list[Pixels]:
        """What `decode` gives for each (payload, valid) in `members`, with the work on `shared` done once."""
        ...

    def to_bytes(self) -> bytes:
        """The codec itself: architecture, bands, normalisation, quantiser, entropy tables. No pickle."""
        ...


class Alone:
    """What the protocol asks about series and groups, for codecs that code each raster by itself."""

    def encode_series(self: Codec, series: Series, progress: Progress = quiet) -> list[Encoded]:
        """Encode raster after raster."""
        found = []
        for i in range(len(series)):
            found.append(self.encode(series.pixels[i], series.valid[i]))
            progress("encode", (i + 1) / len(series))
        return found

    def decode_group(self: Codec, shared: bytes, members: Sequence[Member]) -> list[Pixels]:
        """Decode raster after raster."""
        return [self.decode(payload, valid, shared) for payload, valid in members]


def decode_many(codec: Codec, items: Sequence[tuple[bytes, Member]]) -> list[Pixels]:
    """Decode (shared, (payload, valid)) rasters of one codec, those of a group together, in the order given."""
    return _by_group(codec.decode_group, items)


def decode_many_coarser(codec: Layered, tier: Coarser, items: Sequence[tuple[bytes, Member]]) -> list[Pixels | None]:
    """The same at a coarser tier; None where a raster has no such tier."""
    return _by_group(partial(codec.decode_coarser, tier), items)


def _by_group(
    decode: Callable[[bytes, Sequence[Member]], Sequence[T]], items: Sequence[tuple[bytes, Member]]
) -> list[T]:
    groups: dict[bytes, list[int]] = {}
    for i, (shared, _) in enumerate(items):
        groups.setdefault(shared, []).append(i)
    found: dict[int, T] = {}
    for shared, places in groups.items():
        found |= zip(places, decode(shared, [items[i][1] for i in places]), strict=True)
    return [found[i] for i in range(len(items))]


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


@runtime_checkable
class Foreseeing(Protocol):
    """A codec family that tells soon, in a few trials, what it would take of a series beside others of its kind."""

    def foresee(self, series: Series, policy: Policy) -> float | None:
        """About the bytes of `series`, or of a window of it that all such families try: for comparing them only.

        None where it fits no codec to such a series. Some pixel must be valid, and the policy must bound something.
        """
        ...


Lend = Callable[[str], bytes]  # the digest of a network that codecs share -> the network; raises NotFound


@runtime_checkable
class Borrower(Protocol):
    """A codec family whose codecs may lean on a network that a store holds once, under its digest."""

    def lent(self, lend: Lend) -> CodecFamily:
        """The same family, asking `lend` for networks that its package does not bring."""
        ...

    def networks(self, data: bytes) -> dict[str, bytes]:
        """By digest, the networks that a codec stored as `data` cannot be read without; a store keeps them with it."""
        ...


Coarser = Literal["preview", "embedding"]  # a few numbers alone; all but what was added to keep a bound
COARSER: tuple[Coarser, ...] = ("preview", "embedding")


@runtime_checkable
class Layered(Protocol):
    """A codec whose payloads hold layers, the first of which decode alone: sooner, and with larger errors."""

    def decode_coarser(self, tier: Coarser, shared: bytes, members: Sequence[Member]) -> list[Pixels | None]:
        """(B, H, W) stored values of each at a coarser tier than the whole payload; None where it has no such tier."""
        ...


@runtime_checkable
class Traced(Protocol):
    """A codec that can tell how its fit went. It is no part of `to_bytes`: whoever fits keeps it."""

    @property
    def trace(self) -> FitTrace | None:
        """The loss terms of the fit; None where nothing was optimised, or it was read from bytes."""
        ...


_RAW_MAGIC = b"GSRAW1"


@dataclass(frozen=True)
class RawCodec(Alone):
    """The lossless codec: band planes one below the other, as JPEG XL lossless (float32: zstd of the byte planes).

    The payload keeps every pixel bit for bit, masked or not; docs/FORMAT.md gives its layout. `effort` is FAST (what
    `put` can wait for) or SMALL; a reader does not need it. `trace` tells of the fit of a family that gave up after it.
    """

    _bands: Bands
    effort: int = FAST
    trace: FitTrace | None = field(default=None, compare=False)
    family: ClassVar[str] = "raw"

    @property
    def bands(self) -> Bands:
        """The bands it stores."""
        return self._bands

    def encode(self, pixels: Pixels, valid: Mask) -> Encoded:
        """Lossless; `valid` is not looked at."""
        return Encoded(payload=pack_planes(pixels, self.effort), layers=("lossless",))

    def decode(self, payload: bytes, valid: Mask, shared: bytes = b"") -> Pixels:
        """Bit for bit what was encoded."""
        height, width = valid.shape
        return unpack_planes(payload, (len(self._bands), height, width), self._bands.dtype)

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


@dataclass(frozen=True)
class Families:
    """The codec families at hand, by name."""

    items: dict[str, CodecFamily] = field(default_factory=dict)

    @classmethod
    def installed(cls, names: Sequence[str] = ()) -> Families:
        """Every family registered under `geostore.codecs`, or only `names`."""
        from geostore.plugins import load

        return cls(load("geostore.codecs", names))

    def lent(self, lend: Lend) -> Families:
        """The same, asking `lend` for networks that codecs share."""
        return Families({n: f.lent(lend) if isinstance(f, Borrower) else f for n, f in self.items.items()})

    def networks(self, family: str, data: bytes) -> dict[str, bytes]:
        """By digest, what must lie in the store beside a codec of `family`."""
        item = self.items.get(family)
        return item.networks(data) if isinstance(item, Borrower) else {}
