"""Which collection a command means: a file, a preset, or a name the store already knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geostore.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from geostore.client import Client
    from geostore.collection import Collection


def find_collection(given: str, client: Client | None) -> Collection:
    """The collection `given` names; the store's only one, if nothing is given.

    Raises:
        InvalidInput: nothing is given and the store holds none, or several.
        NotFound: there is no such file, preset or collection.
    """
    from geostore.scene import load_collection, preset_names

    known = {c.name: c for c in client.collections()} if client is not None else {}
    if not given:
        if len(known) == 1:
            return next(iter(known.values()))
        raise InvalidInput(
            f"no collection named; give --collection FILE, one of the presets {', '.join(preset_names())}, "
            f"or one of the store's: {', '.join(known) or 'none yet'}"
        )
    if given in known and not Path(given).is_file():
        return known[given]
    try:
        return load_collection(given)
    except NotFound as error:
        raise NotFound(f"{error}; the store's are {', '.join(sorted(known))}" if known else str(error)) from error
