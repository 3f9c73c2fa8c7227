"""geostore decode: pixels back, cells joined, as Cloud-Optimised GeoTIFF."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from geostore.amounts import counted, number
from geostore.cli import options, show, written
from geostore.cli.session import Session
from geostore.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from rich.console import Console

    from geostore.export import Exported


NOT_WRITTEN = (".png", ".jpg", ".jpeg", ".jp2", ".nc", ".zarr", ".img", ".json")  # a name that would mislead


def decode(
    session: Session,
    geohash: Annotated[str | None, typer.Argument(help="A cell, or a prefix of cells to join.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The GeoTIFF; a date is added where several match.")] = Path(
        "decoded.tif"
    ),
    time: options.Time = None,
    bands: Annotated[str | None, typer.Option("--bands", "-b", help="Band names, separated by commas.")] = None,
    area: Annotated[Path | None, typer.Option("--area", help="GeoJSON polygon instead of a cell.")] = None,
    collection: options.Collection = None,
    group: options.Group = None,
    tier: Annotated[
        Literal["best", "preview", "embedding", "original"],
        typer.Option(help="best is what is kept now; preview and embedding are its first layers alone."),
    ] = "best",
    within: Annotated[
        list[str] | None,
        typer.Option(
            help="Largest error, as ndvi=0.02 or mse=1e-4: the coarsest tier that keeps it, at last the original."
        ),
    ] = None,
    pick: Annotated[
        Literal["all", "first", "last", "clearest"], typer.Option(help="Which of several acquisitions.")
    ] = "all",
    overwrite: written.Overwrite = False,
) -> None:
    """Decode to GeoTIFF, one file an acquisition; cells are joined, nodata, scale and offset are set."""
    from geostore.export import choose, export, name_files

    if (geohash is None) == (area is None):
        raise InvalidInput("give either a GEOHASH or --area polygon.geojson")
    if out.is_dir():
        raise InvalidInput(f"-o {out} is a folder; name a file in it, as {out / 'decoded.tif'}")
    if out.suffix.lower() in NOT_WRITTEN:
        raise InvalidInput(f"-o {out}: decode writes GeoTIFF alone; name it {out.with_suffix('.tif')}")
    session.check_outside(out)
    names = [b.strip() for b in bands.split(",") if b.strip()] if bands else None
    place: Any = geohash if area is None else read_area(area)
    with session.reader() as client, session.progress("decode") as progress:
        chosen = choose(client, place, collection=collection, time=read_time(time), bands=names, group=group, pick=pick)
        written.check_free("-o", name_files(out, chosen), overwrite=overwrite)
        made = export(
            client,
            chosen,
            out,
            bands=names,
            tier=tier,
            within=read_within(within),
            area=None if area is None else place,
            progress=progress,
        )
    session.answer({"files": [dataclasses.asdict(m) for m in made]}, lambda console: _show(console, made))


def read_area(path: Path) -> dict[str, Any]:
    """The GeoJSON in a file.

    Raises:
        NotFound: no such file. InvalidInput: it is not JSON.
    """
    import json

    try:
        area = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotFound(f"no file {str(path)!r}; give the path of a GeoJSON polygon") from None
    except ValueError as error:
        raise InvalidInput(f"{path} is not GeoJSON: {error}; give the path of a GeoJSON polygon") from None
    if not isinstance(area, dict):
        raise InvalidInput(f"{path} is not GeoJSON: it holds a {type(area).__name__}, wanted an object")
    return area


def read_within(items: list[str] | None) -> dict[str, float] | None:
    """The error budget that `name=number` items give; None for none.

    Raises:
        InvalidInput: an item has another form.
    """
    found = {}
    for item in items or ():
        name, _, value = item.partition("=")
        try:
            found[name.strip().lower()] = float(value)
        except ValueError:
            raise InvalidInput(f"--within {item!r}; write it as ndvi=0.02, mse=1e-4 or mae=0.005") from None
    return found or None


def read_time(text: str | None) -> str | slice | None:
    """What `Client.decode` takes for a time or a range start/end; either side of "/" may be empty or ".."."""
    if text is None or "/" not in text:
        return text
    start, _, end = text.partition("/")
    return slice(*(None if side in ("", "..") else side for side in (start, end)))


def _show(console: Console, made: list[Exported]) -> None:
    for m in made:
        console.print(
            f"{m.path}: {m.width} x {m.height}, {', '.join(m.bands)}, {counted(m.cells, 'cell')}, "
            f"{show.when(m.time_us)}, {said_error(m)}; from {' and '.join(m.tiers)} ({', '.join(m.layers)})"
        )


def said_error(made: Exported) -> str:
    """How far the file may be from the original."""
    if not made.usable:
        return "no usable pixel"
    if made.exact:
        return "exact"
    mean = "" if made.mae is None else f"mean error {number(made.mae)}, "
    return f"MSE {number(made.mse, '.2e')}, {mean}largest error {number(made.max_error)}"
