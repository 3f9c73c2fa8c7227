"""geostore withdraw: take a scene back."""

from __future__ import annotations

from typing import Annotated

import typer

from geostore.cli import options
from geostore.cli.declared import find_collection
from geostore.cli.session import Session


def withdraw(
    session: Session,
    scene: Annotated[str, typer.Argument(help="The scene's id, as `geostore scenes` lists it.")],
    collection: options.Collection = None,
) -> None:
    """Take a scene back: its rasters are no longer current. They go for good at `prune`."""
    with session.writer() as client:
        name = collection or session.settings.collection or find_collection("", client).name
        fields = client.withdraw(name, scene)
    session.answer(
        {"collection": name, "scene": scene, **fields}, lambda out: out.print(f"withdrew {scene} from {name}")
    )
