"""geostore estimate: bytes, minutes and break-even dates, before doing anything."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geostore.amounts import counted, duration, ratio, size
from geostore.cli import options, show
from geostore.cli.ingest import Sources, read_moment
from geostore.cli.session import Session

if TYPE_CHECKING:
    from rich.console import Console


def estimate(
    session: Session,
    sources: Sources,
    collection: options.Declared = None,
    time: Annotated[str | None, typer.Option("--time", "-t", help="Time of a scene that tells none.")] = None,
    cells: Annotated[int, typer.Option(help="Cells looked at; more is slower and truer.", min=1, max=1000)] = 3,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps per partition the fit would take.")] = None,
) -> None:
    """What ingest and fit would cost and give. Reads a few cells, fits one in small, writes nothing."""
    from geostore.cli.declared import find_collection
    from geostore.estimate import estimate as look
    from geostore.node.lending import offer_bases

    offer_bases(session.settings.bases)
    with contextlib.nullcontext() if session.is_unnamed or session.is_new else session.reader() as client:
        chosen = find_collection(collection or session.settings.collection, client)
    with session.progress("estimate") as progress:
        found = look(
            sources,
            chosen,
            cells=cells,
            steps=steps or session.settings.fit_steps,
            workers=session.settings.workers,
            acquired=read_moment(time),
            progress=progress,
        )
    fields = dataclasses.asdict(found)
    session.answer(fields, lambda out: _show(out, fields))


def _show(out: Console, f: dict[str, Any]) -> None:
    dates = (
        "never: the lossless codec stays smaller"
        if f["break_even_dates"] is None
        else f"{counted(f['break_even_dates'], 'date')} a cell"
    )
    rows = [
        ("scenes", f["scenes"], ""),
        ("partitions", f["partitions"], f"{f['cells_sampled']} looked at"),
        ("rasters", f["rasters"], f"{f['rasters_sampled']} read"),
        ("as LZW GeoTIFF", size(f["bytes_lzw"]), _between(f["bytes_lzw_interval"])),
        ("as lossless JPEG XL", size(f["bytes_jxl"]), _between(f["bytes_jxl_interval"])),
        ("embeddings", size(f["bytes_embeddings"]), ratio(f["ratio_embeddings"]) + " against LZW"),
        ("codecs", size(f["bytes_codecs"]), ""),
        ("with codecs and masks", size(f["bytes_stored"]), _between(f["bytes_stored_interval"])),
        ("everything durable", size(f["bytes_durable"]), ratio(f["ratio_durable"]) + " against LZW"),
        ("ingest", duration(f["seconds_ingest"]), ""),
        ("fit", duration(f["seconds_fit"]), counted(f["workers"], "worker")),
        ("break-even", dates, ""),
    ]
    out.print(show.table(f"Estimate, {f['collection']}", ("", ">", ""), rows))
    out.print(f"advice: {f['advice']}")


def _between(interval: Sequence[int]) -> str:
    return f"{size(interval[0])} to {size(interval[1])}"
