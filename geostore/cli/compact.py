"""geostore compact: merge small table files and write checkpoints."""

from __future__ import annotations

from typing import Annotated

import typer

from geostore.amounts import size
from geostore.cli.session import Session


def compact(
    session: Session,
    now: Annotated[bool, typer.Option("--now", help="Remove files at once, without the days for old readers.")] = False,
) -> None:
    """Merge small table files and write checkpoints; nothing is lost."""
    with session.writer() as client, session.progress("compact") as progress:
        fields = client.compact(now=now, progress=progress)
    before, after = size(fields["bytes_before"]), size(fields["bytes_after"])
    session.answer(fields, lambda out: out.print(f"compact done: {before} before, {after} after"))
