"""geostore rebuild: build the view anew from the tables."""

from __future__ import annotations

from geostore.amounts import size
from geostore.cli.session import Session


def rebuild(session: Session) -> None:
    """Build the view anew from the tables."""
    with session.writer() as client, session.progress("rebuild") as progress:
        fields = client.rebuild(progress)
    before, after = size(fields["bytes_before"]), size(fields["bytes_after"])
    session.answer(fields, lambda out: out.print(f"rebuild done: {before} before, {after} after"))
