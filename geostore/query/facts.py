"""What a reply says of one stored raster, as a typed value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from geostore.certificate import Certificate, SpectralError
from geostore.errors import BadRequest
from geostore.keys import RasterKey
from geostore.query.messages import Array, Key
from geostore.raster import Band, Bands, Grid, Raster

_BAND_FIELDS = frozenset(f.name for f in fields(Band))
_GRID_FIELDS = tuple(f.name for f in fields(Grid))


@dataclass(frozen=True, kw_only=True)
class RasterInfo:
    """One stored raster without its pixels.

    Attributes:
        key: collection, geohash, group, time, platform.
        scene: the scene it was cut from.
        generation: of its codec; 0 is lossless as put.
        codec: the codec family's name.
        tier: where it stands: waiting (lossless, not fitted yet), embedding, residual, lossless, empty.
        layers: what its payload holds, joined by "+".
        bytes: of its payload; bytes_shared of what it shares with others, stored once; bytes_valid of its mask;
            bytes_lzw and bytes_jxl as LZW GeoTIFF and lossless JPEG XL.
        grid, bands: of the pixels it decodes to.
        exact: True if it decodes bit for bit to what was put.
        certificate: its measured errors; 0 where `exact`, `mae` and `p99` None where they were not measured.
    """

    key: RasterKey
    scene: str
    generation: int
    codec: str
    tier: str
    layers: str
    bytes: int
    bytes_shared: int
    bytes_valid: int
    bytes_lzw: int
    bytes_jxl: int
    grid: Grid
    bands: Bands
    exact: bool
    certificate: Certificate
    coarser: Mapping[str, Certificate] = field(default_factory=dict)

    @property
    def bytes_decoded(self) -> int:
        """Bytes of the stored values of all bands once decoded."""
        return len(self.bands) * self.grid.height * self.grid.width * self.bands.dtype.itemsize

    def to_key(self) -> Key:
        """Its key as a request names it."""
        k = self.key
        return Key(collection=k.collection, geohash=k.geohash, group=k.group, time_us=k.time_us, platform=k.platform)


def read_info(reply: Mapping[str, Any]) -> RasterInfo:
    """The raster a reply's fields describe; fields this version does not know are left out.

    Raises:
        BadRequest: a field is missing.
    """
    try:
        return RasterInfo(
            key=RasterKey(*(reply[k] for k in ("collection", "geohash", "group", "time_us", "platform"))),
            scene=reply["scene"],
            generation=reply["generation"],
            codec=reply["codec"],
            tier=reply["tier"],
            layers=reply["layers"],
            bytes=reply["bytes"],
            bytes_shared=reply.get("bytes_shared", 0),
            bytes_valid=reply.get("bytes_valid", 0),
            bytes_lzw=reply.get("bytes_lzw", 0),
            bytes_jxl=reply.get("bytes_jxl", 0),
            grid=Grid(**{name: reply["grid"][name] for name in _GRID_FIELDS}),
            bands=Bands(tuple(Band(**{k: v for k, v in b.items() if k in _BAND_FIELDS}) for b in reply["bands"])),
            exact=bool(reply["certificate"].get("exact", False)),
            certificate=read_certificate(reply["certificate"]),
            coarser={tier: read_certificate(errors) for tier, errors in reply.get("coarser", {}).items()},
        )
    except KeyError as error:
        raise BadRequest(
            f"the reply describes a raster without {error}; client and daemon differ, upgrade one"
        ) from error


def read_certificate(reply: Mapping[str, Any]) -> Certificate:
    """The certificate in a reply's fields."""
    indices = {n: SpectralError(e["mae"], e["p99"], e["max"]) for n, e in reply.get("indices", {}).items()}
    values = {name: reply.get(name) for name in ("mae", "p99")}
    return Certificate(reply["pixels"], reply["mse"], reply["max_error"], indices, **values)


def read_raster(reply: Mapping[str, Any], arrays: tuple[Array, ...]) -> tuple[RasterInfo, Raster]:
    """One decoded raster of a `decode` reply: its facts, which hold for the tier asked for, and its pixels."""
    info = read_info(reply)
    pixels, valid = arrays[reply["pixels"]], arrays[reply["valid"]]
    return info, Raster(pixels=pixels, valid=valid.astype(bool), bands=info.bands, grid=info.grid)
