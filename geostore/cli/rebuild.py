"""geostore rebuild: build the view anew from the tables."""

from __future__ import annotations

from geostore.cli import show
from geostore.cli.session import Session


def rebuild(session: Session) -> None:
    """Build the view anew from the tables."""
    with session.writer() as client, session.progress("rebuild") as progress:
        fields = client.rebuild(progress)
    before, after = show.size(fields["bytes_before"]), show.size(fields["bytes_after"])
    session.answer(fields, lambda out: out.print(f"rebuild done: {before} before, {after} after"))
