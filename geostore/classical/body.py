"""What a codec of components says of itself, as bytes: bands, policy, size, scale and transform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt
import zstandard

from geostore.classical.bend import Bend
from geostore.classical.klt import Klt
from geostore.collection import Policy
from geostore.errors import Corrupt, InvalidInput, UnsupportedFormat
from geostore.raster import Band, Bands, Mask, Pixels
from geostore.spectral import SpectralIndex, spectral_index


@dataclass(frozen=True, kw_only=True)
class Body:
    """What every family of components keeps of a fit; families add how they code.

    Attributes:
        policy: the bounds it was fitted for, and keeps by itself.
        indices: spectral indices measured for that.
        height, width: of a raster, pixels.
        klt: bands to components.
        weight: of an error that an index sees, beside 1 of others, see `error_weights`.
    """

    _bands: Bands
    policy: Policy
    indices: tuple[str, ...]
    height: int
    width: int
    klt: Klt
    weight: int

    @property
    def bands(self) -> Bands:
        """The bands it was fitted for, in order."""
        return self._bands

    def check(self, valid: Mask, pixels: Pixels | None = None) -> None:
        """Raise InvalidInput for a raster of other bands or another size."""
        want = (self.height, self.width)
        if valid.shape != want or (pixels is not None and pixels.shape != (len(self._bands), *want)):
            seen = valid.shape if pixels is None else pixels.shape
            raise InvalidInput(
                f"a raster of {seen} does not fit this codec of {len(self._bands)} bands on {want[0]} x {want[1]} "
                "pixels; place it in the codec's window first"
            )

    def pack(self, start: bytes, coding: Sequence[object]) -> bytes:
        """`start`, the magic and the version, then all of it with how the family codes: (weight, *coding)."""
        body = {
            "bands": [_differing(asdict(b), asdict(Band("", "", 0.0))) for b in self._bands],
            "policy": _differing(self.policy.to_fields(), Policy().to_fields()),
            "indices": self.indices,
            "shape": (self.height, self.width),
            "bend": self.klt.bend.per_mille,
            "basis": self.klt.basis.tobytes(),
            "offset": self.klt.offset.tobytes(),
            "coding": (self.weight, *coding),
        }
        frame = zstandard.ZstdCompressor(level=19, write_checksum=True).compress(msgpack.packb(body))
        return start + frame


def unpack(data: bytes, family: str, magic: bytes, newest: int, coding: Sequence[str]) -> dict[str, Any]:
    """The fields of the codec that `Body.pack` gave `data` for, how it codes under the names in `coding`.

    Raises:
        Corrupt: these are not such bytes.
        UnsupportedFormat: of a version above the `newest`.
    """
    body = _open(data, family, magic, newest)
    try:
        bands = Bands(tuple(Band(**item) for item in body["bands"]))
        weight, *values = body["coding"]
        height, width = body["shape"]
        indices = tuple(body["indices"])
        klt = Klt(
            bend=Bend(bands, body["bend"]),
            weights=error_weights(bands, indices, weight, log=body["bend"] > 0),
            basis=np.frombuffer(body["basis"], np.int32).reshape(len(bands), -1),
            offset=np.frombuffer(body["offset"], np.int64),
        )
        known = {"_bands": bands, "policy": Policy.from_fields(body["policy"]), "indices": indices, "height": height}
        return {**known, "width": width, "klt": klt, "weight": weight, **dict(zip(coding, values, strict=True))}
    except (KeyError, TypeError, ValueError, InvalidInput) as error:
        raise Corrupt(f"a {family} codec lacks or misstates {error}; restore the store or fit again") from error


def error_weights(bands: Bands, indices: tuple[str, ...], weight: int, *, log: bool) -> npt.NDArray[np.float64]:
    """(B, B) to multiply errors of bands by: `weight` along what one of `indices` sees, 1 along the rest.

    In logarithms a normalised difference sees its bands' difference alone: both may be off together. Any other index,
    and every one of values as stored, sees all its bands.
    """
    seen = [row for name in indices for row in _seen(bands, spectral_index(name), log=log)]
    if not seen or weight == 1:
        return np.eye(len(bands))
    _, sizes, rows = np.linalg.svd(np.stack(seen), full_matrices=False)
    kept = rows[sizes > 1e-9]
    return np.asarray(np.eye(len(bands)) + (weight - 1) * kept.T @ kept)


def _seen(bands: Bands, index: SpectralIndex, *, log: bool) -> npt.NDArray[np.float64]:
    """(N, B) directions."""
    axes = np.stack([np.eye(len(bands))[bands.index(name)] for name in index.bands])
    return axes[:1] - axes[1:] if log and index.is_difference else axes


def _differing(values: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k not in default or v != default[k]}


def _open(data: bytes, family: str, magic: bytes, newest: int) -> dict[str, Any]:
    at = len(magic)
    if not data.startswith(magic) or len(data) <= at:
        raise Corrupt(f"{data[:5]!r} is not how a {family} codec begins, {magic!r} is; restore the store or fit again")
    if data[at] > newest:
        raise UnsupportedFormat(f"{family} format {data[at]} is newer than {newest}; upgrade geostore")
    try:
        body: dict[str, Any] = msgpack.unpackb(zstandard.ZstdDecompressor().decompress(data[at + 1 :]))
    except (zstandard.ZstdError, ValueError, msgpack.UnpackException) as error:
        raise Corrupt(f"a {family} codec of {len(data)} bytes does not read: {error}; restore or fit again") from error
    return body
