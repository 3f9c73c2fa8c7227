"""geostore similar: what looks most like an example."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from geostore.amounts import counted
from geostore.cli import options, show, wanted, written
from geostore.cli.session import Session

if TYPE_CHECKING:
    from rich.console import Console

    from geostore.client import Hits
    from geostore.client.hits import Hit


UNNAMED = (
    "say what rasters show with `geostore label`, or compare texts with pixels, by an encoder "
    "(`geostore index upgrade --encoder`, docs/guides/encoders.md)"
)


def similar(
    session: Session,
    like: Annotated[
        list[str] | None, typer.Argument(help="Examples: GEOHASH@TIME of a stored raster, or a scene's file.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="What it shows, in words.")] = None,
    words: Annotated[str | None, typer.Option(help="As --text, among labels, seasons, sensors, collections.")] = None,
    near: Annotated[str | None, typer.Option(help="LON,LAT: the nearest cells first.")] = None,
    location: Annotated[str | None, typer.Option(help="LON,LAT: what looks as it does there, by an encoder.")] = None,
    unlike: Annotated[list[str] | None, typer.Option(help="A counter-example; may be repeated.")] = None,
    k: Annotated[int, typer.Option("-k", help="Hits at most.")] = 20,
    radius: Annotated[int | None, typer.Option(help="Bits of the signature that may differ.")] = None,
    level: Annotated[
        Literal["raster", "chip", "cell"], typer.Option(help="Whole rasters, parts of them, or cells by their parts.")
    ] = "raster",
    within: wanted.Within = None,
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
    explain: Annotated[
        bool, typer.Option("--explain", help="Show how the hits were found, with exact counts.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the hits to this PNG.")] = None,
    overwrite: written.Overwrite = False,
) -> None:
    """The rasters, chips or cells that look most like the examples."""
    written.check_picture(plot, overwrite=overwrite)
    filters = wanted.filters(
        collection=collection, group=group, time=time, within=within, season=season, sensor=sensor, cloud=cloud,
        valid=valid, certificate=certificate, labels=labels, match=match,
    )  # fmt: skip
    with session.reader() as client:
        hits = client.similar(
            like=[wanted.example(given) for given in like or ()],
            unlike=[wanted.example(given) for given in unlike or ()],
            text=text,
            words=words,
            near=wanted.place("--near", near),
            location=wanted.place("--location", location),
            k=k,
            radius=radius,
            level=level,
            explain=explain,
            **filters,
        )
        if plot is not None:
            hits.plot().savefig(plot)
    session.answer(hits.to_dict(), lambda out: _show(out, hits, radius))


def _show(out: Console, hits: Hits, radius: int | None) -> None:
    for number, part in enumerate(hits.plan):
        out.print(f"part {number}: {counted(part['rows'], 'row')}")
        for step in part["steps"]:
            out.print(f"  {step['what']}: {step['rows']} left")
        out.print(f"  {part['path']} of {counted(part['left'], 'row')}")
    if hits.read is not None:
        out.print(f"read {hits.read} of {counted(hits.count, 'cell')}; no other could be among the hits")
    by = str(hits.space["descriptor"])
    if by.startswith("words"):
        out.print(f"labels, seasons, sensors and collections compared with the text, by {by.partition(': ')[2]}")
        if not len(hits):
            out.print(f"none is near it: {UNNAMED}")
    columns = ("cell", "time", "platform", ">score", ">bits", ">usable", "labels", "collection")
    near = "" if radius is None else f", within {counted(radius, 'bit')}"
    title = f"{len(hits)} of {counted(hits.count, hits.level)} meeting the conditions{near}"
    votes = hits.level == "cell"
    if not hits.count:
        out.print("nothing stored meets all conditions; --explain says what each of them leaves")
    elif near and not len(hits):
        out.print(f"none of them lies{near.removeprefix(',')}; give a larger --radius, or none")
    out.print(show.table(title, (*columns, "votes") if votes else columns, [_row(hit, votes) for hit in hits]))


def _row(hit: Hit, votes: bool) -> tuple[Any, ...]:
    when, usable = show.when(hit.key.time_us), f"{hit.valid_fraction:.0%}"
    row = (
        hit.cell,
        when,
        hit.key.platform,
        f"{round(hit.score, 4) + 0.0:.4f}",
        hit.distance,
        usable,
        ", ".join(hit.labels),
    )
    return (*row, hit.key.collection, " ".join(_parts(hit))) if votes else (*row, hit.key.collection)


def _parts(hit: Hit) -> list[str]:
    """Letters of the chips that voted with a hundredth of the weight or more, "-" of the cell as a whole."""
    return [vote.cell.removeprefix(hit.cell) or "-" for vote in hit.votes if vote.weight >= 0.01]
