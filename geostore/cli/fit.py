"""geostore fit: per partition a codec, embeddings and certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from geostore.amounts import duration
from geostore.cli import options
from geostore.cli.session import Session

if TYPE_CHECKING:
    from rich.console import Console


def fit(
    session: Session,
    geohash: Annotated[str | None, typer.Argument(help="A cell or prefix; all, if left out.")] = None,
    collection: options.Collection = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps at most; 0: as the base is.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Wall-clock limit per partition.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; one a core, if left out.")] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Fit again what is fitted, where originals are at hand.")
    ] = False,
) -> None:
    """Fit codecs and encode what waits. Resumable: partitions that are done are skipped."""
    with session.writer() as client, session.progress("fit") as progress:
        fields = client.fit(
            collection=collection,
            geohash=geohash,
            steps_max=steps,
            seconds=seconds,
            seed=seed,
            refit=refit,
            workers=workers,
            progress=progress,
        )
    session.answer(fields, lambda out: _show(out, fields))


def _show(out: Console, fields: dict[str, Any]) -> None:
    out.print(
        f"{fields['rasters']} rasters in {fields['partitions']} partitions: {fields['fitted']} codecs fitted, "
        f"{fields['encoded']} kept their codec, {fields['lossless']} are smaller lossless; "
        f"{duration(fields['seconds'])}"
    )
    if fields.get("left"):
        out.print(f"{fields['left']} partitions stay as they are: no original of theirs is at hand any more")
