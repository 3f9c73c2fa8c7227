"""geostore withdraw: take a scene back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from geostore.cli import options
from geostore.cli.session import Session
from geostore.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from geostore.client import Client


def withdraw(
    session: Session,
    scene: Annotated[str, typer.Argument(help="The scene's id, as `geostore scenes` lists it.")],
    collection: options.Collection = None,
) -> None:
    """Take a scene back: its rasters are no longer current. They go for good at `prune`."""
    with session.writer() as client:
        name = collection or session.settings.collection or _home_of(client, scene)
        fields = client.withdraw(name, scene)
    session.answer(
        {"collection": name, "scene": scene, **fields}, lambda out: out.print(f"withdrew {scene} from {name}")
    )
    if fields.get("incomplete"):
        session.note(f"rasters it shared are gone with it; ingest again: {', '.join(fields['incomplete'])}")


def _home_of(client: Client, scene: str) -> str:
    """The collection that holds a scene of this id."""
    names = sorted({str(s["collection"]) for s in client.scenes() if s["id"] == scene})
    if len(names) > 1:
        raise InvalidInput(f"{scene!r} is a scene of {', '.join(names)}; name one with --collection")
    if not names:
        raise NotFound(f"no scene {scene!r} in this store; `geostore scenes` lists them")
    return names[0]
