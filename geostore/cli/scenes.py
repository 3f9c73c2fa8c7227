"""geostore scenes: which acquisitions are stored."""

from __future__ import annotations

from geostore.cli import options, show
from geostore.cli.session import Session


def scenes(session: Session, collection: options.Collection = None) -> None:
    """Every scene that was not withdrawn, oldest first."""
    with session.reader() as client:
        found = sorted(client.scenes(collection), key=lambda s: (s["collection"], s["time_us"], s["id"]))
    rows = [
        (
            s["id"],
            s["collection"],
            show.when(s["time_us"]),
            s["platform"],
            "yes" if s["complete"] else "no",
            s["source"],
        )
        for s in found
    ]
    columns = ("scene", "collection", "time", "platform", "complete", "source")
    session.answer({"scenes": found}, lambda out: out.print(show.table("Scenes", columns, rows)))
