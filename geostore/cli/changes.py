"""geostore changes: when one place changed, and when it looked like an example."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geostore.amounts import counted, number
from geostore.cli import options, show, wanted, written
from geostore.cli.session import Session

if TYPE_CHECKING:
    from rich.console import Console

    from geostore.client import PlaceChanges


def changes(
    session: Session,
    geohash: Annotated[str, typer.Argument(help="A cell, or a chip one letter finer.")],
    to: Annotated[str | None, typer.Option(help="GEOHASH@TIME or a file to be like; the newest date.")] = None,
    time: options.Time = None,
    season: wanted.Season = None,
    sensor: wanted.Sensor = None,
    cloud: wanted.Cloud = None,
    valid: wanted.Valid = None,
    certificate: wanted.Certificate = None,
    labels: wanted.Labels = None,
    match: wanted.Match = "some",
    collection: options.Collection = None,
    group: options.Group = None,
    only: Annotated[bool, typer.Option("--only", help="Show just the changes.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw likeness and shift to this PNG.")] = None,
    overwrite: written.Overwrite = False,
) -> None:
    """When one place changed, and when it looked like an example."""
    written.check_picture(plot, overwrite=overwrite)
    filters = wanted.filters(
        collection=collection, group=group, time=time, season=season, sensor=sensor, cloud=cloud, valid=valid,
        certificate=certificate, labels=labels, match=match,
    )  # fmt: skip
    with session.reader() as client:
        found = client.changes(geohash, to=None if to is None else wanted.example(to), **filters)
        if plot is not None:
            found.plot().savefig(plot)
    fields = found.to_dict()
    if only:
        fields["rasters"] = [row for row in fields["rasters"] if row["changed"]]
    session.answer(fields, lambda out: _show(out, found, only))


def _show(out: Console, found: PlaceChanges, only: bool) -> None:
    columns = ("time", "platform", ">likeness", ">step", ">shift", "changed", "labels")
    rows = [_row(moment) for moment in (found.changes if only else found.rows)]
    seasons = "seasons taken off" if found.deseasoned else "seasons left in: not every one was seen in two years"
    seasons = seasons if len(found) else "none meets the conditions"
    out.print(show.table(f"{found.geohash}, {counted(len(found), 'date')}, {seasons}", columns, rows))


def _row(moment: Any) -> tuple[Any, ...]:
    numbers = (number(v, ".4f") for v in (moment.likeness, moment.step, moment.shift))
    changed = f"here: {moment.where}" if moment.changed else ""
    return (show.when(moment.key.time_us), moment.key.platform, *numbers, changed, ", ".join(moment.labels))
