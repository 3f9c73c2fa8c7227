"""geostore index: what similarity search is made with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from geostore.amounts import counted, duration, size
from geostore.cli import show, vectors
from geostore.cli.session import Session
from geostore.cli.verb import verb

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(help="See, make and improve what `similar` searches.", no_args_is_help=True)


@app.callback()
def _index() -> None:
    """See, make and improve what `similar` searches."""


def index_status(session: Session) -> None:
    """Spaces, rows, bytes, and whether an index is behind the tables."""
    with session.reader() as client:
        fields = client.index_status()
    session.answer(fields, lambda out: _show(out, fields))


def _show(out: Console, fields: dict[str, Any]) -> None:
    legend = "nothing is labelled" if fields["legend"] is None else f"labelled: {counted(fields['labelled'], 'raster')}"
    out.print(f"{fields['path']}, made again from the tables whenever it is lost; {legend}")
    columns = ("space", ">generation", "descriptor", "head", ">bits", "bands", ">rasters", ">chips", ">bytes", "")
    out.print(show.table("Indexes", columns, [_row(found) for found in fields["indexes"]]))
    if unchecked := sum(found.get("bytes_unchecked", 0) for found in fields["indexes"]):
        out.print(
            f"{size(unchecked)} are too much to be checked whenever they are opened; `geostore verify` reads them"
        )
    for found in fields["indexes"]:
        if (learned := found.get("learned")) is not None and learned["rows"] is not None:
            space = found["space"]
            rows = counted(learned["rows"], "row")
            out.print(f"{space['name']}: learned from {rows} by their {learned['by']}{_judged(learned)}")


def _row(found: dict[str, Any]) -> tuple[Any, ...]:
    space = found["space"]
    about = [space[name] for name in ("name", "generation", "descriptor", "head", "bits")]
    rows = (found["rasters"], found["chips"], size(found["bytes"]))
    return (*about, ", ".join(space["bands"]), *rows, "behind the tables" if found["behind"] else "level")


def index_build(
    session: Session,
    anew: Annotated[bool, typer.Option("--anew", help="From the tables alone, whatever is there.")] = False,
) -> None:
    """Bring the index level now, so that no question waits for it. Resumable."""
    with session.writer() as client, session.progress("index build") as progress:
        fields = client.index_build(anew=anew, progress=progress)
    session.answer(
        fields,
        lambda out: out.print(f"{_rows(fields)}; {duration(fields['seconds'])}"),
    )


def _rows(fields: dict[str, Any]) -> str:
    return f"{counted(fields['rasters'], 'raster')}, {counted(fields['chips'], 'chip')}"


def index_upgrade(
    session: Session,
    head: Annotated[
        Literal["kernel", "milan", "itq", "pca-sign", "rotation"] | None,
        typer.Option(help="How signatures are learned; if not given, kernel from many labels, else milan."),
    ] = None,
    descriptor: Annotated[str | None, typer.Option(help="Another descriptor that is installed.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="A folder with an encoder.json, or the name of an encoder."),
    ] = None,
    bits: Annotated[int, typer.Option(help="Bits of a signature, 32 to 256.")] = 128,
    by: Annotated[
        Literal["labels", "unlabelled"] | None,
        typer.Option(help="Learn from labels, or not; if not given, as places held out say."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps at most.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """A new generation of signatures, learned from what is stored; the old one answers until it is whole. Resumable."""
    with session.writer() as client, session.progress("index upgrade") as progress:
        fields = client.index_upgrade(
            head=head, descriptor=descriptor, encoder=encoder, bits=bits, by=by, steps_max=steps, seed=seed,
            progress=progress,
        )  # fmt: skip
    lines = "\n".join(_upgraded(found) for found in fields["indexes"])
    session.answer(fields, lambda out: out.print(lines))


def _upgraded(found: dict[str, Any]) -> str:
    space = found["space"]
    return (
        f"{', '.join(space['bands'])}: generation {space['generation']}, {space['descriptor']} and {space['head']} of "
        f"{space['bits']} bits, learned from {counted(found['rows'], 'row')} by their {found['by']}"
        f"{_judged(found)}"
    )


def _judged(found: dict[str, Any]) -> str:
    """Why labels were used or left out, where there are some and nobody said so."""
    labels = found.get("labels")
    if labels is None or labels["why"] == "asked for":
        return ""
    if labels["used"]:
        return f"; {labels['why']}"
    hint = "" if labels.get("asked") else ", --by labels takes them"
    return f"; labels were left out ({labels['why']}){hint}"


app.command("status")(verb(index_status))
app.command("build")(verb(index_build))
app.command("upgrade")(verb(index_upgrade))
app.command("import")(verb(vectors.index_import))
app.command("nearest")(verb(vectors.index_nearest))
