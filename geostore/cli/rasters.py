"""geostore rasters: what is stored of a place, raster by raster, with certificates."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geostore.amounts import number, size
from geostore.cli import options, show
from geostore.cli.decode import read_time
from geostore.cli.session import Session

if TYPE_CHECKING:
    from geostore.client import RasterInfo


def rasters(
    session: Session,
    geohash: Annotated[str | None, typer.Argument(help="A cell or prefix; all, if left out.")] = None,
    time: options.Time = None,
    collection: options.Collection = None,
    group: options.Group = None,
) -> None:
    """Facts and certificates of rasters, without their pixels."""
    with session.reader() as client:
        found = client.rasters(geohash, collection=collection, group=group, time=read_time(time))
    errors = (">MSE n1", ">mean error", ">max error", ">NDVI mean")
    columns = ("raster", "tier", "codec", ">bytes", ">LZW", *errors, "scene")
    session.answer(
        {"rasters": [raster_fields(i) for i in found]},
        lambda out: out.print(show.table("Rasters", columns, [_row(i) for i in found])),
    )


def raster_fields(info: RasterInfo) -> dict[str, Any]:
    """One raster as JSON says it; `psnr_db` is null where it is exact."""
    certificate = {**dataclasses.asdict(info.certificate), "psnr_db": info.certificate.psnr_db}
    return {**dataclasses.asdict(info), "bands": list(info.bands.names), "certificate": certificate}


def _row(info: RasterInfo) -> tuple[Any, ...]:
    ndvi = info.certificate.indices.get("NDVI")
    return (
        str(info.key),
        info.tier,
        f"{info.codec} {info.generation}",
        size(info.bytes),
        size(info.bytes_lzw),
        "exact" if info.exact else number(info.certificate.mse, ".2e"),
        "exact" if info.exact else number(info.certificate.mae),
        "exact" if info.exact else number(info.certificate.max_error),
        number(ndvi.mae if ndvi else None, ".4f"),
        info.scene,
    )
