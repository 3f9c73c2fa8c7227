"""One partition on the page: original, decoded and error of a few dates, NDVI likewise, errors over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from geostore.amounts import counted, number
from geostore.certificate import Certificate
from geostore.keys import PartitionKey
from geostore.raster import Mask, Raster
from geostore.report import charts, loss_terms, page, pictures
from geostore.report.gather import Facts, Shown

Picture = npt.NDArray[np.uint8]  # (H, W, 4)
Paint = Callable[[Raster], Picture]
ERROR_FLOOR = 0.001  # upper end of an error scale at least, physical units


def place(facts: Facts, partition: PartitionKey, images: Path) -> str:
    """The section of one partition."""
    name = "-".join((partition.collection, partition.geohash, partition.group))
    infos = facts.rasters[partition]
    policy = facts.collections[partition.collection].policy
    over_time = charts.errors_over_time(images, f"errors-{name}", str(partition), infos, policy)
    parts = [page.chart(over_time, f"Errors of {counted(len(infos), 'date')}.")] if len(infos) > 1 else []
    fits = loss_terms.fits_of(facts.status, partition.geohash, partition.group)
    terms = loss_terms.terms_over_steps(images, f"loss-terms-{name}", str(partition), fits)
    parts += [page.chart(terms, _about(fits))] if terms else []
    for position, shown in enumerate(facts.shown[partition]):
        parts += _date(shown, f"{name}-{position}", images)
    return page.heading(f"Place {partition}") + page.card(*parts)


def _about(fits: Sequence[loss_terms.Fit]) -> str:
    dropped = not all(fit["kept"] for _, fit in fits)
    why = "; dotted: what was fitted is not kept, another codec took fewer bytes" if dropped else ""
    return f"Loss terms of its fits; dashed: what a term was steered to{why}."


def _date(shown: Shown, name: str, images: Path) -> list[str]:
    when = f"{shown.info.key.time:%Y-%m-%d %H:%M} UTC"
    parts = [page.heading(f"{when} ({shown.why})", 3), page.paragraph(describe(shown), "soft")]
    parts += _colours(shown, name, when, images)
    if {"red", "nir"} <= set(shown.decoded.bands.names):
        parts += _ndvi(shown, name, when, images)
    return parts


def describe(shown: Shown) -> str:
    """A raster's tier, bytes and certificate in one line."""
    i, c = shown.info, shown.certificate
    ratio = f"{i.bytes:,} B stored, {i.bytes_lzw:,} B as LZW, {i.bytes_jxl:,} B as JPEG XL"
    if i.exact:
        return f"{i.tier} ({i.layers}): {ratio}; exact."
    errors = f"MSE {c.mse:.2e}, PSNR {c.psnr_db:.1f} dB, {_of_values(c)}"
    ndvi = c.indices.get("NDVI")
    more = f", NDVI mean {ndvi.mae:.4f}, p99 {ndvi.p99:.4f}, largest {ndvi.max:.4f}" if ndvi else ""
    return f"{i.tier} ({i.layers}): {ratio}; {errors}{more}."


def _of_values(c: Certificate) -> str:
    known = "" if c.mae is None or c.p99 is None else f"mean error {c.mae:.4f}, p99 {c.p99:.4f}, "
    return f"{known}largest error {number(c.max_error, '.4f')}"


def _colours(shown: Shown, name: str, when: str, images: Path) -> list[str]:
    decoded, original = shown.decoded, shown.original
    bands, how = pictures.composite(decoded.bands)
    stretch = pictures.stretch_of(original or decoded, bands)
    figures = [_picture(original, "original", lambda r: pictures.colour(r, bands, stretch), name, when, how, images)]
    figures.append(_picture(decoded, "decoded", lambda r: pictures.colour(r, bands, stretch), name, when, how, images))
    if original is None:
        return [page.strip([*figures, page.missing("no original to compare with", "error")])]
    error, valid = pictures.error_of(original, decoded), _both(original, decoded)
    top = pictures.top_of(error, valid, ERROR_FLOOR)
    drawn = pictures.mapped(error, valid, pictures.ERROR_COLOURS, 0, top)
    figures.append(_save(drawn, f"{name}-error", f"mean absolute error over bands, {when}", "error", images))
    scale = page.colour_legend(
        "mean absolute error over bands, physical units", pictures.gradient(pictures.ERROR_COLOURS), "0", f"{top:g}"
    )
    return [page.strip(figures), scale]


def _ndvi(shown: Shown, name: str, when: str, images: Path) -> list[str]:
    low, high = pictures.NDVI_RANGE

    def paint(raster: Raster) -> Picture:
        return pictures.mapped(pictures.index_of(raster), raster.valid, pictures.NDVI_COLOURS, low, high)

    decoded, original = shown.decoded, shown.original
    figures = [_picture(original, "NDVI original", paint, name, when, "NDVI", images)]
    figures.append(_picture(decoded, "NDVI decoded", paint, name, when, "NDVI", images))
    scales = [page.colour_legend("NDVI", pictures.gradient(pictures.NDVI_COLOURS), f"{low:g}", f"{high:g}")]
    if original is None:
        figures.append(page.missing("no original to compare with", "NDVI error"))
        return [page.strip(figures), *scales]
    error = np.abs(pictures.index_of(original) - pictures.index_of(decoded))
    valid = _both(original, decoded)
    top = pictures.top_of(error, valid, ERROR_FLOOR)
    drawn = pictures.mapped(error, valid, pictures.ERROR_COLOURS, 0, top)
    figures.append(_save(drawn, f"{name}-ndvi-error", f"absolute NDVI error, {when}", "NDVI error", images))
    scales.append(page.colour_legend("NDVI error", pictures.gradient(pictures.ERROR_COLOURS), "0", f"{top:g}"))
    return [page.strip(figures), *scales]


def _both(original: Raster, decoded: Raster) -> Mask:
    both: Mask = original.valid & decoded.valid
    return both


def _picture(raster: Raster | None, label: str, paint: Paint, name: str, when: str, how: str, images: Path) -> str:
    if raster is None:
        return page.missing("original not kept", label)
    return _save(paint(raster), f"{name}-{label.replace(' ', '-').lower()}", f"{label}, {how}, {when}", label, images)


def _save(drawn: Picture, name: str, alt: str, caption: str, images: Path) -> str:
    size = pictures.save(drawn, images / f"{name}.png")
    return page.picture(f"{name}.png", alt, caption, size)
