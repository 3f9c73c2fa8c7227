"""geostore label: say what rasters show."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from geostore.amounts import counted
from geostore.cli import options
from geostore.cli.decode import read_time
from geostore.cli.session import Session
from geostore.errors import InvalidInput, NotFound


def label(
    session: Session,
    geohash: Annotated[
        str, typer.Argument(help="A cell or prefix: all of its rasters in the time. GEOHASH@TIME as in similar.")
    ],
    labels: Annotated[
        list[str] | None, typer.Argument(help="The labels, in place of those there; none: take away.")
    ] = None,
    time: options.Time = None,
    collection: options.Collection = None,
    group: options.Group = None,
    legend: Annotated[Literal["own", "corine-2018"], typer.Option(help="Any words, or CORINE's classes.")] = "own",
    who: Annotated[str, typer.Option(help="Whose opinion it is.")] = "",
    reason: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Label rasters; every change is kept as an event."""
    from geostore.client.times import limits

    geohash, time = _place(geohash, time)
    with session.writer() as client:
        found = client.rasters(geohash, collection=collection, group=group, time=read_time(time))
        if not found:
            raise NotFound(
                f"no raster of {geohash!r}{limits(group, time)}; `geostore rasters {geohash}` lists what there is"
            )
        fields = client.label(found, labels or [], legend=legend, who=who, reason=reason)
    session.answer(
        fields,
        lambda out: out.print(
            f"{counted(fields['labelled'], 'raster')} labelled, {fields['unchanged']} had just these"
        ),
    )


def _place(text: str, time: str | None) -> tuple[str, str | None]:
    """Cell or prefix, and time, of GEOHASH or GEOHASH@TIME."""
    geohash, _, at = text.partition("@")
    if at and time is not None:
        raise InvalidInput(f"{text!r} and --time {time} name two times; leave one of them out")
    return geohash, at or time
