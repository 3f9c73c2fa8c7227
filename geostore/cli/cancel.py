"""geostore cancel: stop a job."""

from __future__ import annotations

from typing import Annotated

import typer

from geostore.cli.session import Session


def cancel(session: Session, job: Annotated[str, typer.Argument(help="The job, as `geostore jobs` lists it.")]) -> None:
    """Ask a job to stop; what it committed stays, and `resume` goes on from there."""
    with session.writer() as client:
        fields = client.cancel(job)
    session.answer(fields, lambda out: out.print(said(job, fields.get("state"))))


def said(job: str, state: str | None) -> str:
    """What became of the request: one that has ended is left as it is."""
    return f"asked job {job} to stop" if state in ("running", None) else f"job {job} is {state}"
