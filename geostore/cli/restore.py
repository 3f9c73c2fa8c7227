"""geostore restore: a store from its backup."""

from __future__ import annotations

from typing import Annotated

import typer

from geostore.cli.backup import Options, read_options, told
from geostore.cli.session import Session


def restore(
    session: Session,
    url: Annotated[str, typer.Argument(help="The backup: a folder, s3://, gs:// or az://.")],
    folder: Annotated[str, typer.Argument(help="Where to make the store; must be empty or not there.")],
    option: Options = None,
) -> None:
    """Make a store equal to its backup, digest for digest."""
    from geostore.storage import restore as copy_back

    with session.progress("restore") as progress:
        counts = copy_back(url, folder, source_options=read_options(option), progress=progress)
    fields = {"url": url, "store": folder, **counts}
    session.answer(fields, lambda out: out.print(told("restore", counts)))
