"""geostore report: a page with pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geostore.cli import options, written
from geostore.cli.session import Session


def report(
    session: Session,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; index.html is the page.")] = Path("report"),
    collection: options.Collection = None,
    partitions: Annotated[int, typer.Option(help="Partitions shown with pictures.", min=0, max=1000)] = 6,
    dates: Annotated[int, typer.Option(help="Dates shown of each partition.", min=1, max=50)] = 3,
    overwrite: written.Overwrite = False,
) -> None:
    """Original, decoded and error side by side; ratios; errors over time; a map of the cells."""
    from geostore.report import report as write_report
    from geostore.report.page import IMAGES

    session.check_outside(out)
    written.check_free("-o", [out / "index.html", out / IMAGES], overwrite=overwrite)
    with session.reader() as client, session.progress("report") as progress:
        page = write_report(client, out, collection=collection, partitions=partitions, dates=dates, progress=progress)
    session.answer({"page": str(page)}, lambda console: console.print(f"report at {page}"))
