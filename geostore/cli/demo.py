"""geostore demo: the main job on real imagery, from ingest to report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geostore.cli.session import Session


def demo(
    session: Session,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the store and the report.")] = Path("demo-out"),
) -> None:
    """Ingest, fit, decode, verify and report on the imagery that comes with packages; minutes on two cores."""
    from geostore.demo import run

    with session.progress("demo") as progress:
        fields = run(out, settings=session.settings, progress=progress)
    session.answer(fields, lambda console: console.print(f"report at {out / 'report' / 'index.html'}"))
