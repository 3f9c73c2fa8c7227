"""geostore status: rasters, bytes by tier, both ratios, measured errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from geostore.amounts import counted, number, quotient, ratio, size
from geostore.cli import options, show
from geostore.cli.fit import SUPERSEDED, beyond
from geostore.cli.session import Session

if TYPE_CHECKING:
    from rich.console import Console

Fields = dict[str, Any]
SLOT_BYTES = 65_536  # tables and log of a touched slot before `compact`
SUPERSEDED_SHARE = 0.1  # of everything durable; less is not worth a word


def status(
    session: Session,
    collection: options.Collection = None,
    partitions: Annotated[bool, typer.Option("--partitions", "-p", help="A row for each partition.")] = False,
) -> None:
    """What the store holds, what it costs, and how true it is."""
    with session.reader() as client:
        fields = client.status(collection=collection, partitions=partitions)
    session.answer(fields, lambda out: _show(out, fields))
    for line in _next(fields, whole=collection is None):
        session.note(line)


def _next(fields: Fields, *, whole: bool) -> list[str]:
    """What may be done next: for what waits, what misses its policy, and, of the whole store, what is superseded."""
    sizes, waiting = fields["bytes"], fields["tiers"].get("waiting", 0)
    lines = beyond(fields["quality"]["missed"], None)
    if waiting:
        lines.append(
            f"waiting for a fit: {counted(waiting, 'raster')}, so no ratio of payloads yet; run `geostore fit`"
        )
    if whole and sizes.get("superseded", 0) > SUPERSEDED_SHARE * sizes["durable"]:
        lines.append(f"{size(sizes['superseded'])} {SUPERSEDED}")
    elif whole and sizes.get("durable_tables", 0) > SLOT_BYTES * fields["slots"] + sizes["durable"] / 2:
        lines.append("tables take more than half of the store; `geostore compact --now` merges their files")
    return lines


def _show(out: Console, fields: Fields) -> None:
    tiers = ", ".join(f"{n} {name}" for name, n in sorted(fields["tiers"].items())) or "nothing stored yet"
    out.print(
        f"store {fields['store']}: {counted(fields['rasters'], 'raster')} ({fields['pieces']} with band groups apart) "
        f"of {counted(fields['scenes'], 'scene')} in {counted(fields['partitions'], 'partition')}, "
        f"{counted(fields['slots'], 'slot')}\ntiers: {tiers}"
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
        "superseded": "in durable, and needed by no current raster",
        "index": "what similar searches, made again from the tables and not in durable",
    }
    return [(name, size(sizes.get(name, 0)), text) for name, text in meanings.items()]


def _ratios(fields: Fields) -> list[tuple[str, str, str]]:
    sizes, waiting = fields["bytes"], fields["tiers"].get("waiting", 0)
    payloads = sizes.get("embeddings", 0) + sizes.get("lossless", 0)
    jxl = sizes.get("source_jxl", 0)

    def row(name: str, lzw: float | None, stored: int) -> tuple[str, str, str]:
        why = f"{waiting} not fitted yet"
        return (name, why, why) if waiting else (name, ratio(lzw), ratio(quotient(jxl, stored)))

    return [
        row("payloads alone (the paper's way)", fields["ratio_embeddings"], payloads),
        row("payloads, codecs and masks", fields["ratio_stored"], sizes.get("stored", 0)),
        ("everything durable, the whole store", ratio(fields["ratio_durable"]), ratio(fields.get("ratio_jxl_durable"))),
    ]


def _errors(quality: Fields) -> list[tuple[str, str]]:
    rows = [
        ("PSNR, dB (exact: -)", number(quality.get("psnr_db"), ".1f")),
        ("MSE on n1, reflectance 0..1", number(quality["mse_n1"] if quality["pixels"] else None, ".2e")),
        ("mean / a raster's p99, mean / largest error, physical units", _of_values(quality)),
    ]
    for name, e in sorted(quality["indices"].items()):
        values = " / ".join(number(e[k], ".4f") for k in ("mae", "p99_mean", "max"))
        rows.append((f"{name} mean / a raster's p99, mean / largest", values))
    return [*rows, ("rasters within / beyond their policy", f"{quality['within_policy']} / {quality['missed']}")]


def _of_values(quality: Fields) -> str:
    largest = quality["max_error"] if quality["pixels"] else None
    return " / ".join(number(value) for value in (quality.get("mae"), quality.get("p99_mean"), largest))


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
