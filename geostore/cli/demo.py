"""geostore demo: the main job on real imagery, from ingest to report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geostore.cli import show
from geostore.cli.session import Session

if TYPE_CHECKING:
    from rich.console import Console


def demo(
    session: Session,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the store and the report.")] = Path("demo-out"),
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps per partition at most.")] = 900,
) -> None:
    """Ingest, fit, verify and report on the imagery that comes with packages; minutes on two cores."""
    from geostore.demo import demo as run

    with session.progress("demo") as progress:
        fields = run(out, steps=steps, seed=session.settings.seed, progress=progress)
    session.answer(fields, lambda console: _print(fields, out, console))


def _print(fields: dict[str, Any], out: Path, console: Console) -> None:
    from rich.table import Table

    table = Table("", *(p["place"] for p in fields["places"]), "all")
    columns = [*fields["places"], fields]
    for title, cell in _ROWS.items():
        table.add_row(title, *(cell(c) for c in columns))
    console.print(table)
    console.print(
        f"{fields['seconds']} s, store verified: {fields['verified']}; look at {out / 'report' / 'index.html'}"
    )


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}x"


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


_ROWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "rasters / partitions": lambda f: f"{f['rasters']} / {f['partitions']}",
    "as LZW GeoTIFF": lambda f: show.size(f["bytes_lzw"]),
    "as lossless JPEG XL": lambda f: show.size(f["bytes_jxl"]),
    "embeddings (and what is kept lossless)": lambda f: show.size(f["bytes_embeddings"]),
    "ratio, embeddings only": lambda f: _ratio(f["ratio_embeddings"]),
    "everything durable": lambda f: show.size(f["bytes_durable"]),
    "ratio, everything durable": lambda f: _ratio(f["ratio_durable"]),
    "MSE on reflectance 0..1": lambda f: _error(f["mse_n1"]),
    "PSNR dB": lambda f: _error(f["psnr_db"]),
    "NDVI error: mean": lambda f: _error(f["ndvi_mae"]),
    "NDVI error: 99th percentile": lambda f: _error(f["ndvi_p99"]),
    "every raster within its policy": lambda f: "yes" if f["within_policy"] else "NO",
}
