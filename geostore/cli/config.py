"""geostore config: the settings a command would run with."""

from __future__ import annotations

from typing import Any

import typer

from geostore.cli import show
from geostore.cli.session import Session
from geostore.cli.verb import verb
from geostore.errors import NotFound

app = typer.Typer(help="Show and check the settings.", no_args_is_help=True)


def config_show(session: Session) -> None:
    """Every setting and where it can be set: flags over GEOSTORE_* over geostore.toml."""
    fields = session.settings.model_dump(mode="json")
    kinds = type(session.settings).model_fields
    rows = [(name, value, kinds[name].description) for name, value in fields.items()]
    session.answer(fields, lambda out: out.print(show.table("Settings", ("setting", "value", ""), rows)))


def config_check(session: Session) -> None:
    """Check the settings, and that the files they name are there; exit code 2 or 4 if not."""
    for name in ("keys", "client_key", "bases"):
        path = getattr(session.settings, name)
        if path is not None and not path.exists():
            raise NotFound(f"setting {name!r} names {str(path)!r}, which is not there; correct it or make it")
    fields: dict[str, Any] = {"ok": True}
    session.answer(fields, lambda out: out.print("the settings are sound"))


app.command("show")(verb(config_show))
app.command("check")(verb(config_check))
