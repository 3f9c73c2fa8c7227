"""geostore demo: the main job on real imagery, from ingest to report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geostore.amounts import duration, number, ratio, size
from geostore.cli import show
from geostore.cli.session import Session

if TYPE_CHECKING:
    from rich.console import Console

if TYPE_CHECKING:
    from rich.console import Console


def demo(
    session: Session,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the store and the report.")] = Path("demo-out"),
    steps: Annotated[int, typer.Option(help="Optimiser steps per partition at most.")] = 900,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Ingest, fit, prune, verify and report on the imagery that comes with packages; minutes on two cores."""
    from geostore.demo import demo as run

    with session.progress("demo") as progress:
        fields = run(out, steps=steps, seed=seed, progress=progress)
    rows = [_row(f["place"], f) for f in fields["places"]] + [_row("everything", fields)]

    def tell(console: Console) -> None:
        console.print(show.table(f"{duration(fields['seconds'])}", _COLUMNS, rows))
        console.print(f"report at {out / 'report' / 'index.html'}; verified: {fields['verified']}")

    session.answer(fields, tell)


_COLUMNS = (
    *("place", ">rasters", ">LZW", ">JPEG XL", ">payloads", ">+ codecs, masks", ">durable"),
    *(
        ">payloads alone",
        ">with codecs, masks",
        ">everything durable",
        ">PSNR dB",
        ">NDVI mean",
        ">NDVI p99",
        "policy kept",
    ),
)


def _row(place: str, f: dict[str, Any]) -> tuple[Any, ...]:
    sizes = ("bytes_lzw", "bytes_jxl", "bytes_embeddings", "bytes_stored", "bytes_durable")
    return (
        place,
        f["rasters"],
        *(size(f.get(k)) for k in sizes),
        *(ratio(f.get(k)) for k in ("ratio_embeddings", "ratio_stored", "ratio_durable")),
        number(f["psnr_db"], ".1f"),
        *(number(f[k], ".4f") for k in ("ndvi_mae", "ndvi_p99")),
        "yes" if f["within_policy"] else "no",
    )
