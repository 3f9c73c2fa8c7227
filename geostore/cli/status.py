"""geostore status: rasters, bytes by tier, both ratios, measured errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from geostore.amounts import NOTHING, number, ratio, size
from geostore.cli import options, show
from geostore.cli.session import Session

if TYPE_CHECKING:
    from rich.console import Console

Fields = dict[str, Any]
SLOT_BYTES = 65_536  # tables and log of a touched slot before `compact`


def status(
    session: Session,
    collection: options.Collection = None,
    partitions: Annotated[bool, typer.Option("--partitions", "-p", help="A row for each partition.")] = False,
) -> None:
    """What the store holds, what it costs, and how true it is."""
    with session.reader() as client:
        fields = client.status(collection=collection, partitions=partitions)
    session.answer(fields, lambda out: _show(out, fields))
    if collection is None and has_superseded(fields):
        session.note("superseded rows are still on the disk; `geostore prune --now` and `geostore compact` drop them")


def has_superseded(fields: Fields) -> bool:
    """True if far more is on the disk than what is current needs, tables and logs included."""
    sizes = fields["bytes"]
    needed = sum(sizes.get(name, 0) for name in ("embeddings", "lossless", "masks", "codecs", "durable_originals"))
    return bool(sizes["durable"] > 2 * needed + SLOT_BYTES * fields["slots"])


def _show(out: Console, fields: Fields) -> None:
    tiers = ", ".join(f"{n} {name}" for name, n in sorted(fields["tiers"].items())) or "nothing stored yet"
    out.print(
        f"store {fields['store']}: {fields['rasters']} rasters ({fields['pieces']} with band groups apart) of "
        f"{fields['scenes']} scenes in {fields['partitions']} partitions, {fields['slots']} slots\ntiers: {tiers}"
    )
    out.print(show.table("Bytes", ("what", ">bytes", ""), _bytes(fields["bytes"])))
    out.print(show.table("Ratios", ("", ">against LZW", ">against JPEG XL"), _ratios(fields)))
    out.print(show.table("Errors over usable pixels", ("", ">"), _errors(fields["quality"])))
    if "per_partition" in fields:
        out.print(show.table("Partitions", _COLUMNS, [_partition(p) for p in fields["per_partition"]]))


def _bytes(sizes: Fields) -> list[tuple[str, str, str]]:
    meanings = {
        "source_lzw": "the same rasters as LZW GeoTIFF, native resolution, predictor 2",
        "source_jxl": "the same rasters as lossless JPEG XL",
        "embeddings": "payloads decoded within the policy",
        "lossless": "payloads kept bit for bit",
        "masks": "which pixels may be used",
        "codecs": "every generation of every codec",
        "durable": "all files under the store's root but what is made again from the tables",
        "index": "what similar searches, made again from the tables and not in durable",
    }
    return [(name, size(sizes.get(name, 0)), text) for name, text in meanings.items()]


def _ratios(fields: Fields) -> list[tuple[str, str, str]]:
    sizes = fields["bytes"]
    payloads = sizes.get("embeddings", 0) + sizes.get("lossless", 0)
    jxl = sizes.get("source_jxl", 0) / payloads if payloads and fields["ratio_embeddings"] else None
    return [
        ("payloads alone (the paper's way)", ratio(fields["ratio_embeddings"]), ratio(jxl)),
        ("payloads, codecs and masks", ratio(fields["ratio_stored"]), NOTHING),
        ("everything durable, the whole store", ratio(fields["ratio_durable"]), ratio(fields.get("ratio_jxl_durable"))),
    ]


def _errors(quality: Fields) -> list[tuple[str, str]]:
    rows = [
        ("PSNR, dB (exact: -)", number(quality.get("psnr_db"), ".1f")),
        ("MSE on n1, reflectance 0..1", number(quality["mse_n1"], ".2e")),
        ("largest error, physical units", number(quality["max_error"])),
    ]
    for name, e in sorted(quality["indices"].items()):
        values = " / ".join(number(e[k], ".4f") for k in ("mae", "p99_mean", "max"))
        rows.append((f"{name} mean / a raster's p99, mean / largest", values))
    return [*rows, ("rasters within / beyond their policy", f"{quality['within_policy']} / {quality['missed']}")]


_COLUMNS = (
    *("partition", ">rasters", "codec", ">LZW", ">JPEG XL", ">payloads", ">codec", ">PSNR dB", ">NDVI mean"),
    "reason",
)


def _partition(p: Fields) -> tuple[str, ...]:
    return (
        f"{p['collection']}/{p['geohash']}/{p['group']}",
        str(p["rasters"]),
        f"{p['family']} {p['generation']}",
        size(p["bytes_lzw"]),
        size(p["bytes_jxl"]),
        size(p["bytes_embeddings"] + p["bytes_lossless"]),
        size(p["bytes_codec"]),
        number(p["psnr_db"], ".1f"),
        number(p["ndvi_mae"], ".4f"),
        p["reason"],
    )
