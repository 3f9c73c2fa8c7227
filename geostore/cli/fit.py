"""geostore fit: per partition a codec, embeddings and certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from geostore.amounts import counted, duration, size
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
    nothing = not fields["partitions"] and not fields.get("left")
    out.print(
        "nothing waits for a fit; `geostore fit --refit` fits again what is fitted"
        if nothing
        else f"{counted(fields['rasters'], 'raster')} in {counted(fields['partitions'], 'partition')}: "
        f"{counted(fields['fitted'], 'codec')} fitted, {fields['encoded']} kept theirs, {fields['lossless']} smaller "
        f"lossless; {duration(fields['seconds'])}"
    )
    if fields.get("left"):
        out.print(f"left as before, no original of theirs is at hand any more: {counted(fields['left'], 'partition')}")
    for line in (*beyond(fields.get("beyond", 0), fields.get("beyond_left")), *_freed(fields)):
        out.print(line)


def beyond(missed: int, left: int | None) -> list[str]:
    """What to do about rasters that miss their policy; `left` of them have no original at hand, if that is known."""
    if not missed:
        return []
    said = f"beyond their policy as it is now: {counted(missed, 'raster')}; "
    again = "`geostore fit --refit` fits them again"
    anew = "no original at hand: withdraw their scenes, ingest them again, then fit"
    if not left:
        return [said + again]
    return [said + (anew if left == missed else f"{again}, but for {left} with {anew}")]


def _freed(fields: dict[str, Any]) -> list[str]:
    """How the disk gets smaller; nothing where nothing was encoded."""
    if not fields["partitions"] or not fields.get("superseded"):
        return []
    return [f"{size(fields['superseded'])} {SUPERSEDED}"]


SUPERSEDED = (
    "on the disk are superseded, kept for readers that have them open: `geostore prune --now` deletes them at once, "
    "`geostore prune` those older than `vacuum_days`"
)
