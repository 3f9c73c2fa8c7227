"""geostore keys: CURVE keys for a daemon and its clients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from geostore.cli.session import Session
from geostore.cli.verb import verb

app = typer.Typer(help="Make the keys that let clients in.", no_args_is_help=True)


@app.callback()
def _keys() -> None:
    """Make the keys that let clients in."""


def keys_new(
    session: Session,
    name: Annotated[str, typer.Argument(help="\"server\" for the daemon's own key, else the client's name.")],
    folder: Annotated[Path, typer.Option("--keys", help="The daemon's keys folder.")] = Path("keys"),
    role: Annotated[Literal["read", "write", "train", "admin"], typer.Option(help="What the client may do.")] = "read",
) -> None:
    """Make a key pair. A client keeps NAME.key; the daemon lets it in by clients/NAME.toml."""
    from geostore.query.auth import new_client_key, new_server_key

    if name == "server":
        pair, file = new_server_key(folder), folder / "server.key"
    else:
        pair, file = new_client_key(folder, name, role), folder / f"{name}.key"
    fields = {"file": str(file), "public_key": pair.public}
    session.answer(fields, lambda out: out.print(f"{file}\npublic key {pair.public}"))


app.command("new")(verb(keys_new))
