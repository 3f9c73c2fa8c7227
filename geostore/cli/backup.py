"""geostore backup: copy the store, digest by digest."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from geostore.amounts import counted, size
from geostore.cli.session import Session
from geostore.errors import InvalidInput

Options = Annotated[
    list[str] | None, typer.Option("--option", help="KEY=VALUE for the object store, such as a credential; repeatable.")
]


def backup(
    session: Session,
    url: Annotated[str, typer.Argument(help="Folder, s3://, gs:// or az:// to copy to.")],
    option: Options = None,
) -> None:
    """Copy the store to URL; only what is missing there travels."""
    with session.writer() as client, session.progress("backup") as progress:
        fields = client.backup(url, options=read_options(option), progress=progress)
    session.answer(fields, lambda out: out.print(told("backup", fields)))


def read_options(given: list[str] | None) -> dict[str, str]:
    """KEY=VALUE texts as a table.

    Raises:
        InvalidInput: one has no "=".
    """
    for text in given or []:
        if "=" not in text:
            raise InvalidInput(f"--option {text!r} has no '='; write KEY=VALUE")
    return dict(text.split("=", 1) for text in given or [])


def told(what: str, fields: dict[str, Any]) -> str:
    """A copy's counts in one line."""
    counts = [_count(name, value) for name, value in fields.items() if name != "url"]
    return f"{what} done: {', '.join(counts)}"


def _count(name: str, value: int) -> str:
    """As in "19 files", "164 kB in all", "1 file copied"."""
    if name.endswith("bytes"):
        return f"{size(value)} {'copied' if name.startswith('copied') else 'in all'}"
    *how, noun = name.split("_")
    return " ".join((counted(value, noun.removesuffix("s")), *how))
