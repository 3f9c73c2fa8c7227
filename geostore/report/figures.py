"""The numbers of a report as text: headline, ratios, errors, partitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from geostore.amounts import NOTHING, number, quotient, ratio, size

Fields = dict[str, Any]
PLACES_MAX = 12
PARTITION_COLUMNS = (
    *("partition", "rasters", "codec", "LZW", "JPEG XL", "payloads", "codecs", "against LZW", "against JPEG XL"),
    *("MSE n1", "PSNR dB", "NDVI mean", "NDVI p99, mean", "NDVI max", "beyond policy", "reason"),
)
STORED = "with codecs and masks"


def payloads(status: Fields) -> int:
    """Bytes of everything rasters decode from, codecs and masks apart."""
    sizes = status["bytes"]
    return int(sizes.get("embeddings", 0) + sizes.get("lossless", 0))


def headline(status: Fields) -> list[tuple[str, str, str]]:
    """The ratios and the errors that go with them."""
    quality, sizes = status["quality"], status["bytes"]
    ndvi = quality["indices"].get("NDVI", {})
    lzw, jxl = sizes.get("source_lzw", 0), sizes.get("source_jxl", 0)
    counted = (
        ("payloads alone", payloads(status)),
        (STORED, sizes["stored"]),
        ("everything durable", sizes["durable"]),
    )
    return [
        *(
            (ratio(quotient(lzw, count)), name, f"{ratio(quotient(jxl, count))} against lossless JPEG XL")
            for name, count in counted
        ),
        (
            "exact" if quality.get("psnr_db") is None else f"{quality['psnr_db']:.1f} dB",
            "PSNR",
            f"MSE {number(quality['mse_n1'], '.2e')} on reflectance 0..1",
        ),
        (
            number(ndvi.get("mae"), ".4f"),
            "NDVI mean error",
            f"99th percentile of a raster, on average {number(ndvi.get('p99_mean'), '.4f')}",
        ),
        (
            str(quality["within_policy"]),
            "rasters within their policy, band groups apart",
            f"{quality['missed']} beyond it, {status['tiers'].get('waiting', 0)} not fitted yet",
        ),
    ]


def ratios(status: Fields) -> list[tuple[str, str, str, str]]:
    """The table of bytes; the baselines first."""
    sizes = status["bytes"]
    lzw, jxl = sizes.get("source_lzw", 0), sizes.get("source_jxl", 0)
    rows = [
        ("LZW GeoTIFF", lzw),
        ("lossless JPEG XL", jxl),
        ("payloads alone", payloads(status)),
        ("  of these embeddings", sizes.get("embeddings", 0)),
        ("  of these kept lossless", sizes.get("lossless", 0)),
        ("masks", sizes.get("masks", 0)),
        ("codecs", sizes.get("codecs", 0)),
        (STORED, sizes["stored"]),
        ("everything durable", sizes["durable"]),
        *([("  of these superseded, dropped by `geostore prune`", gone)] if (gone := sizes.get("superseded")) else []),
    ]
    compared = {"lossless JPEG XL", "payloads alone", STORED, "everything durable"}
    return [
        (
            name,
            size(count),
            ratio(quotient(lzw, count)) if name in compared else "",
            ratio(quotient(jxl, count)) if name in compared and count is not jxl else "",
        )
        for name, count in rows
    ]


def errors(quality: Fields) -> list[tuple[str, str, str, str]]:
    """MSE, largest error and every spectral index."""
    mean, p99, largest = (number(quality.get(k), ".4f") for k in ("mae", "p99_mean", "max_error"))
    rows = [
        ("squared error on n1 (reflectance 0..1)", number(quality["mse_n1"], ".2e"), "", ""),
        ("absolute error, physical units", mean, p99, largest),
    ]
    for name, e in sorted(quality["indices"].items()):
        mean, p99, largest = (number(e[k], ".4f") for k in ("mae", "p99_mean", "max"))
        rows.append((f"{name}, absolute", mean, p99, largest))
    return rows


def ratio_rows(status: Fields) -> list[tuple[str, float, float]]:
    """(label, against LZW, against JPEG XL) of the whole store; [] while it is empty."""
    sizes = status["bytes"]
    lzw, jxl = sizes.get("source_lzw", 0), sizes.get("source_jxl", 0)
    rows = [("payloads alone", payloads(status)), (STORED, sizes["stored"]), ("everything durable", sizes["durable"])]
    return [(name, lzw / count, jxl / count) for name, count in rows if count and lzw and jxl]


def place_bytes(p: Fields) -> int:
    """What a partition costs: payloads, masks, every generation of its codec."""
    return int(p["bytes_embeddings"] + p["bytes_lossless"] + p.get("bytes_masks", 0) + p["bytes_codec"])


def place_name(p: Fields) -> str:
    """collection/geohash/group."""
    return f"{p['collection']}/{p['geohash']}/{p['group']}"


def place_ratios(partitions: Sequence[Fields]) -> list[tuple[str, float, float]]:
    """The same for the partitions with most source bytes."""
    rows = sorted((p for p in partitions if place_bytes(p) and p["bytes_lzw"]), key=lambda p: -p["bytes_lzw"])
    return [
        (place_name(p), p["bytes_lzw"] / place_bytes(p), p["bytes_jxl"] / place_bytes(p)) for p in rows[:PLACES_MAX]
    ]


def cells(partitions: Sequence[Fields]) -> dict[str, tuple[Sequence[float], float, float | None]]:
    """By geohash: (bounds, ratio against LZW, mean MSE or None), band groups of a cell together."""
    found: dict[str, tuple[Sequence[float], float, float | None]] = {}
    for geohash in sorted({p["geohash"] for p in partitions}):
        groups = [p for p in partitions if p["geohash"] == geohash]
        errors = [p["mse_n1"] for p in groups if p["mse_n1"]]
        held = sum(p["bytes_lzw"] for p in groups) / max(sum(place_bytes(p) for p in groups), 1)
        found[geohash] = (groups[0]["bounds"], max(held, 1e-3), sum(errors) / len(errors) if errors else None)
    return found


def partition(p: Fields) -> list[str]:
    """One row of the table of partitions."""
    cost = place_bytes(p)
    return [
        place_name(p),
        str(p["rasters"]),
        f"{p['family']} {p['generation']}",
        *(size(p[k]) for k in ("bytes_lzw", "bytes_jxl")),
        size(p["bytes_embeddings"] + p["bytes_lossless"]),
        size(p["bytes_codec"]),
        ratio(quotient(p["bytes_lzw"], cost)),
        ratio(quotient(p["bytes_jxl"], cost)),
        number(p["mse_n1"], ".2e") if p["mse_n1"] else "exact",
        number(p["psnr_db"], ".1f"),
        *(number(p[k], ".4f") for k in ("ndvi_mae", "ndvi_p99_mean", "ndvi_max")),
        str(p["missed"]) if "missed" in p else NOTHING,
        p["reason"],
    ]
