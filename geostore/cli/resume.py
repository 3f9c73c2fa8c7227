"""geostore resume: go on with a job."""

from __future__ import annotations

from typing import Annotated

import typer

from geostore.cli.session import Session, to_json


def resume(session: Session, job: Annotated[str, typer.Argument(help="The job, as `geostore jobs` lists it.")]) -> None:
    """Go on with a job that was cancelled, failed, or lost with its process, and wait for its result."""
    with session.writer() as client, session.progress("resume") as progress:
        fields = client.resume(job, progress)
    session.answer(fields, lambda out: out.print(f"job {job} is done: {to_json(fields)}"))
