"""geostore verify: read everything, check every digest, say what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from geostore import exit_codes
from geostore.amounts import counted, size
from geostore.cli import show
from geostore.cli.session import Session

if TYPE_CHECKING:
    from rich.console import Console


def verify(session: Session) -> None:
    """Check every byte of the store against its digest; exit code 5 if something is wrong."""
    with session.reader() as client, session.progress("verify") as progress:
        fields = client.verify(progress)
    session.answer(fields, lambda out: _show(out, fields))
    if not fields["ok"]:
        raise typer.Exit(exit_codes.CORRUPT)


def _show(out: Console, fields: dict[str, Any]) -> None:
    if fields["ok"]:
        out.print(f"nothing is wrong: read {size(fields['bytes'])} and checked every digest")
        return
    columns = list(dict.fromkeys(name for finding in fields["findings"] for name in finding))
    rows = [[finding.get(name) for name in columns] for finding in fields["findings"]]
    out.print(show.table(f"{counted(len(rows), 'finding')}", columns, rows))
