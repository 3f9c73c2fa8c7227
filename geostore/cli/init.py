"""geostore init: make an empty store."""

from __future__ import annotations

from typing import Annotated

import typer

from geostore.amounts import counted
from geostore.cli.session import Session


def init(
    session: Session,
    slots: Annotated[int, typer.Option(help="Slots of the ring, fixed for good: 16 on one machine.")] = 16,
) -> None:
    """Make an empty store. `ingest` makes one too, with 16 slots."""
    from geostore.storage import Store

    with Store.create(session.store, slots=slots) as store:
        fields = {"store": store.id, "url": session.store, "slots": store.slots}
    session.answer(
        fields, lambda out: out.print(f"made store {fields['store']} with {counted(slots, 'slot')} at {session.store}")
    )
