"""geostore base: the networks that many places share, and one of your own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geostore.amounts import counted, duration, size
from geostore.cli import options, show, written
from geostore.cli.collections import bounds
from geostore.cli.session import Session
from geostore.cli.verb import verb

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(help="See the networks that places share, and train one on your own places.", no_args_is_help=True)


@app.callback()
def _base() -> None:
    """See the networks that places share, and train one on your own places."""


def base_list(session: Session) -> None:
    """The bases that fits here share: those of the setting `bases`, then those that ship."""
    from geostore.vae.base import from_folder, shipped

    folder = session.settings.bases
    kinds = (("setting bases", () if folder is None else from_folder(folder)), ("ships", shipped()))
    rows: list[dict[str, Any]] = [
        {
            "digest": base.digest,
            "title": base.card.get("title", ""),
            "from": kind,
            "slots": [list(slot) for slot in base.slots],
            "bytes": len(base.data),
            "steps": base.card.get("steps"),
        }
        for kind, bases in kinds
        for base in bases
    ]
    session.answer({"bases": rows}, lambda out: _show_list(out, rows))


def _show_list(out: Console, rows: list[dict[str, Any]]) -> None:
    columns = ("digest", "what it is", "from", "bands", ">bytes", ">steps")
    cells = [
        (r["digest"], r["title"], r["from"], ", ".join("|".join(s) for s in r["slots"]), size(r["bytes"]), r["steps"])
        for r in rows
    ]
    out.print(show.table("Bases", columns, cells))


def base_train(
    session: Session,
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write, *.safetensors; its state lies beside it.")],
    geohash: Annotated[str | None, typer.Argument(help="A prefix; everywhere, if left out.")] = None,
    collection: options.Collection = None,
    group: options.Group = None,
    places: Annotated[int, typer.Option(help="Places at most, drawn at random; one in 8 is held out.")] = 200,
    seconds: Annotated[float, typer.Option(help="Processor time, in all runs together.")] = 3600.0,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    overwrite: written.Overwrite = False,
) -> None:
    """A base of the places of a store, for bands that none takes. Resumable: the same command goes on."""
    from geostore.cli.declared import find_collection
    from geostore.train_base import state_of, train_base

    session.check_outside(out)
    written.check_free("-o", [out], overwrite=overwrite or state_of(out).exists())
    with session.reader() as client, session.progress("base train") as progress:
        made = train_base(
            client,
            find_collection(collection or session.settings.collection, client),
            out,
            group=group,
            geohash=geohash,
            places=places,
            seconds=seconds,
            seed=session.settings.seed if seed is None else seed,
            progress=progress,
        )
    fields = {
        "file": str(out),
        "digest": made.base.digest,
        "bytes": len(made.base.data),
        "places": made.places,
        "rasters": made.rasters,
        "exact": made.exact,
        "held_out": made.held_out,
        "policy": bounds(made.policy),
        "bytes_a_raster": made.bytes_a_raster,
        "steps": made.steps,
        "seconds": made.seconds,
        "state": str(made.state),
    }
    session.answer(fields, lambda console: _show_trained(console, fields))


def _show_trained(out: Console, f: dict[str, Any]) -> None:
    decoded = "" if f["exact"] == f["rasters"] else f", {f['rasters'] - f['exact']} of them no longer as they were put"
    out.print(
        f"{f['file']}: {size(f['bytes'])}, {counted(f['steps'], 'step')} in {duration(f['seconds'])} on "
        f"{counted(f['rasters'], 'raster')} of {counted(f['places'], 'place')}{decoded}"
    )
    out.print(f"at {counted(f['held_out'], 'place')} it never saw, nothing fitted, {f['policy']}:")
    rows = [(way, f"{found:,.0f}") for way, found in f["bytes_a_raster"].items()]
    out.print(show.table("", ("on", ">bytes a raster"), rows))
    folder = str(Path(f["file"]).resolve().parent)
    out.print(f"`bases = {folder!r}` in geostore.toml has fits share it; more --seconds go on from {f['state']}")


app.command("list")(verb(base_list))
app.command("train")(verb(base_train))
