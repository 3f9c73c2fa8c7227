"""geostore demo: the main job on real imagery, from ingest to report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geostore.amounts import duration, number, ratio, size
from geostore.cli import show
from geostore.cli.session import Session

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
    places = [*fields["places"], {"place": "everything", **fields}]

    def tell(console: Console) -> None:
        columns = ("", *(f">{p['place']}" for p in places))
        rows = [(title, *(cell(p) for p in places)) for title, cell in _ROWS]
        console.print(show.table(f"The demo, {duration(fields['seconds'])}", columns, rows))
        console.print(f"report at {out / 'report' / 'index.html'}; verified: {fields['verified']}")

    session.answer(fields, tell)


_ROWS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("rasters in partitions", lambda f: f"{f['rasters']} in {f['partitions']}"),
    ("as LZW GeoTIFF", lambda f: size(f["bytes_lzw"])),
    ("as lossless JPEG XL", lambda f: size(f["bytes_jxl"])),
    ("payloads alone (the paper's way)", lambda f: size(f["bytes_embeddings"])),
    ("- against LZW", lambda f: ratio(f["ratio_embeddings"])),
    ("with codecs and masks", lambda f: size(f["bytes_stored"])),
    ("- against LZW", lambda f: ratio(f["ratio_stored"])),
    ("everything durable", lambda f: size(f.get("bytes_durable"))),
    ("- against LZW", lambda f: ratio(f.get("ratio_durable"))),
    ("PSNR, dB (reflectance 0..1)", lambda f: number(f["psnr_db"], ".1f")),
    ("NDVI error, mean", lambda f: number(f["ndvi_mae"], ".4f")),
    ("NDVI error, 99th percentile of all pixels", lambda f: number(f["ndvi_p99"], ".4f")),
    ("every raster within its policy", lambda f: "yes" if f["within_policy"] else "NO"),
)
