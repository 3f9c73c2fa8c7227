"""geostore prune: drop what is superseded."""

from __future__ import annotations

from typing import Annotated

import typer

from geostore.cli import show
from geostore.cli.session import Session


def prune(
    session: Session,
    now: Annotated[bool, typer.Option("--now", help="Remove files at once, without the days for old readers.")] = False,
) -> None:
    """Drop superseded and withdrawn rows and blobs that nothing names; lossless rows of fitted rasters go here."""
    from geostore.query.messages import Prune

    with session.writer() as client, session.progress("prune") as progress:
        fields = client.prune(progress) if not now else client.ask(Prune(now=True), (), progress).fields
    before, after = show.size(fields["bytes_before"]), show.size(fields["bytes_after"])
    session.answer(fields, lambda out: out.print(f"prune done: {before} before, {after} after"))
