"""geostore jobs: long work, its state and its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from geostore.cli import show
from geostore.cli.session import Session

if TYPE_CHECKING:
    from rich.console import Console


def jobs(
    session: Session, job: Annotated[str | None, typer.Argument(help="One job; all, if left out.")] = None
) -> None:
    """Jobs of the store, oldest first: running, done, failed, cancelled or lost."""
    with session.reader() as client:
        found = client.jobs(job)
    session.answer({"jobs": found}, lambda out: _show(out, found))


def _show(out: Console, found: list[dict[str, Any]]) -> None:
    rows = [
        (
            j["id"],
            j["verb"],
            j["state"],
            f"{100 * j.get('share', 0):.0f} %" if "share" in j else None,
            j.get("what"),
            show.when(j["made_us"]),
        )
        for j in found
    ]
    out.print(show.table("Jobs", ("job", "verb", "state", ">done", "what", "since"), rows))
