"""geostore prune: drop what is superseded."""

from __future__ import annotations

from typing import Annotated

import typer

from geostore.amounts import size
from geostore.cli.session import Session


def prune(
    session: Session,
    now: Annotated[bool, typer.Option("--now", help="Remove files at once, without the days for old readers.")] = False,
) -> None:
    """Drop superseded and withdrawn rows and blobs that nothing names; lossless rows of fitted rasters go here."""
    with session.writer() as client, session.progress("prune") as progress:
        fields = client.prune(now=now, progress=progress)
    before, after = size(fields["bytes_before"]), size(fields["bytes_after"])
    kept = "" if now else "; table files stay for readers that have them open: --now removes them at once"
    session.answer(fields, lambda out: out.print(f"prune done: {before} before, {after} after{kept}"))
