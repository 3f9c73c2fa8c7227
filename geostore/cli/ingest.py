"""geostore ingest: scenes into the store, losslessly and durably."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from geostore import exit_codes
from geostore.amounts import counted, duration, size
from geostore.cli import options
from geostore.cli.session import Session

if TYPE_CHECKING:
    from datetime import datetime

    from geostore.collection import Collection as Declaration

Sources = Annotated[list[str], typer.Argument(help="Files, folders, globs, STAC items or catalogues.")]


def ingest(
    session: Session,
    sources: Sources,
    collection: options.Declared = None,
    time: Annotated[str | None, typer.Option("--time", "-t", help="Time of a scene that tells none.")] = None,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Go on past a scene that is refused.")] = False,
) -> None:
    """Take scenes in; the same scene again changes nothing. Makes the store if it is not there."""
    from geostore.cli.declared import find_collection
    from geostore.ingest import ingest as take_in

    moment = read_moment(time)
    if session.is_new:  # no store is made for a wrong path, a wrong collection or a first scene that does not fit
        first = find_collection(collection or session.settings.collection, None)
        _look(sources, first, moment, any_scene=keep_going)
    with session.maker() as client, session.progress("ingest") as progress:
        chosen = find_collection(collection or session.settings.collection, client)
        summary = take_in(client, sources, chosen, acquired=moment, keep_going=keep_going, progress=progress)
    fields = {"collection": chosen.name, **dataclasses.asdict(summary)}
    session.answer(
        fields,
        lambda out: out.print(
            f"{counted(summary.scenes, 'scene')} in, {summary.unchanged} unchanged: "
            f"{counted(summary.rasters, 'raster')} in {counted(summary.partitions, 'new partition')}, "
            f"{size(summary.bytes_source)} in {duration(summary.seconds)}"
        ),
    )
    for line in summary.errors:
        session.note(f"refused {line}")
    if summary.errors:
        raise typer.Exit(exit_codes.USAGE)


def _look(sources: list[str], collection: Declaration, moment: datetime | None, *, any_scene: bool) -> None:
    """Raise what is wrong with the sources, or with the first scene; of `any_scene` one may be refused later."""
    from geostore.ingest import check_first
    from geostore.scene import find_scenes

    found = list(find_scenes(sources, collection))
    if found and not any_scene:
        check_first(found, collection, moment)


def read_moment(text: str | None) -> datetime | None:
    """An instant from ISO 8601; UTC where it names no zone.

    Raises:
        InvalidInput: it is not a time, or lies in the future.
    """
    from datetime import UTC, datetime, timedelta

    from geostore.errors import InvalidInput

    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"--time {text!r} is not a time; write 2020-06-14 or 2020-06-14T09:05:31") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment > datetime.now(UTC) + timedelta(days=1):
        raise InvalidInput(f"--time {text!r} lies in the future; write the time of the acquisition")
    return moment
