"""geostore index import, nearest: search by the vectors of a foundation model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geostore.amounts import counted
from geostore.cli import options, show, wanted
from geostore.cli.session import Session
from geostore.errors import InvalidInput

if TYPE_CHECKING:
    from rich.console import Console

    from geostore.index.filters import Filter
    from geostore.index.imported import Neighbour

Folder = Annotated[Path, typer.Argument(help="The folder that vectors were imported into.")]


def index_import(
    session: Session,
    files: Annotated[list[Path], typer.Argument(help="GeoParquet files of one model's vectors.")],
    into: Annotated[Path, typer.Option(help="Folder of the index; one of the same model there is replaced.")],
    model: Annotated[
        str, typer.Option(help="Name and version of what made them, as clay-v1.5; if not given, the convention's.")
    ] = "",
    time: Annotated[str | None, typer.Option("--time", "-t", help="Time of all rows, where files tell none.")] = None,
    bits: Annotated[int, typer.Option(help="Bits of a signature, 32 to 256.")] = 128,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what the files hold, and write nothing.")] = False,
) -> None:
    """Vectors that others made, from GeoParquet into an index of their own; `geostore index nearest` asks it."""
    from geostore.cli.ingest import read_moment
    from geostore.index.bits import check_bits
    from geostore.index.imported import import_vectors, survey_all

    acquired, name = read_moment(time), model
    check_bits(bits)
    if not session.is_unnamed:
        session.check_outside(into)
    found = survey_all(files, acquired=acquired)
    fields: dict[str, Any] = {"files": [f.to_dict() for f in found], "into": str(into)}
    if dry_run:
        session.answer(fields, lambda out: _show_files(out, fields))
        return
    with session.progress("index import") as progress:
        made = import_vectors(files, into, model=name, bits=bits, acquired=acquired, progress=progress)
    fields |= {"model": made.model, "rows": len(made), "left_out": made.left_out, "width": made.head.width}
    left_out = f"; {made.left_out} left out: no place, no time or no vector" if made.left_out else ""
    session.answer(
        fields,
        lambda out: out.print(
            f"{counted(len(made), 'vector')} of {made.head.width} components by {made.model} in {into}{left_out}"
        ),
    )


def _show_files(out: Console, fields: dict[str, Any]) -> None:
    rows = [
        (
            f["path"],
            f["convention"],
            f["rows"],
            f["width"] or "none usable",
            f["time"] or "as given",
            f["id"] or "its number",
        )
        for f in fields["files"]
    ]
    columns = ("file", "convention", ">rows", ">components", "time by", "row named by")
    out.print(show.table("Vectors; nothing is written", columns, rows))


def index_nearest(
    session: Session,
    folder: Folder,
    row: Annotated[str | None, typer.Argument(help="Id of the row to look near, as its file has it.")] = None,
    at: Annotated[str | None, typer.Option(help="LON,LAT in its place: the rows of the cell there.")] = None,
    k: Annotated[int, typer.Option("-k", help="Hits at most.")] = 20,
    within: wanted.Within = None,
    time: options.Time = None,
    season: wanted.Season = None,
) -> None:
    """The imported vectors nearest to one of them, and the cells they lie in."""
    from geostore.index.imported import open_imported

    place = wanted.place("--at", at)
    if (row is None) == (place is None):
        raise InvalidInput(f"row {row!r} and --at {at!r}; give one of the two")
    if k < 1:
        raise InvalidInput(f"-k {k}; ask for one hit or more")
    index = open_imported(folder)
    vector = index.vector_at(*place) if place is not None else index.vector_of(str(row))
    hits = index.nearest(vector, k, wanted=_filter(within, time, season))
    fields = {"model": index.model, "rows": len(index), "hits": [vars(hit) for hit in hits]}
    session.answer(fields, lambda out: _show_hits(out, index.model, hits))


def _filter(within: str | None, time: str | None, season: list[str] | None) -> Filter:
    """The conditions that rows of vectors can meet."""
    from geostore.client.given import wanted_of
    from geostore.node.search.chosen import filter_of
    from geostore.query.messages import Wanted

    given = wanted.filters(
        collection=None, group=None, time=time, within=within, season=season, sensor=None, cloud=None, valid=None,
        certificate=None, labels=None, match="some",
    )  # fmt: skip
    return filter_of(Wanted.model_validate(wanted_of(given)), [])


def _show_hits(out: Console, model: str, hits: list[Neighbour]) -> None:
    rows = [(hit.id, hit.geohash, show.when(hit.time_us), f"{hit.score:.4f}") for hit in hits]
    out.print(show.table(f"{len(hits)} nearest by {model}", ("row", "cell", "time", ">score"), rows))
