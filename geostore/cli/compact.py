"""geostore compact: merge small table files and write checkpoints."""

from __future__ import annotations

from geostore.cli import show
from geostore.cli.session import Session


def compact(session: Session) -> None:
    """Merge small table files and write checkpoints; nothing is lost."""
    with session.writer() as client, session.progress("compact") as progress:
        fields = client.compact(progress)
    before, after = show.size(fields["bytes_before"]), show.size(fields["bytes_after"])
    session.answer(fields, lambda out: out.print(f"compact done: {before} before, {after} after"))
