"""What stands in a store as numbers, and what changed since a state: for whoever keeps something level with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geostore.errors import Corrupt
from geostore.keys import PartitionKey, RasterKey
from geostore.storage.log import Seal
from geostore.storage.parts import part_kind
from geostore.storage.records import key_of
from geostore.storage.tables import Snapshot

if TYPE_CHECKING:
    from geostore.storage.store import Store

State = Mapping[int, Snapshot]  # slot -> version, of the slots that hold anything


@dataclass(frozen=True)
class Changes:
    """What may have changed between two states.

    Attributes:
        keys: rasters that rows were written for.
        slots: slots whose log no longer tells, so that all they hold must be compared.
    """

    keys: frozenset[RasterKey]
    slots: frozenset[int]


def state_of(store: Store) -> dict[int, Snapshot]:
    """The version of every slot that holds anything, as the store is seen here."""
    found = store.see(lambda view: {slot: view.state(slot)[0] for slot in range(store.slots)})
    return {slot: snapshot for slot, snapshot in found.items() if snapshot.version >= 0}


def changes_since(store: Store, known: State, now: State) -> Changes:
    """What may have changed from `known` to `now`, and possibly a little beyond, where others go on writing."""
    keys: set[RasterKey] = set()
    lost: set[int] = set()
    for slot, snapshot in now.items():
        before = known.get(slot, Snapshot())
        if before.version == snapshot.version:
            continue
        rows = None if before.version < 0 else _written(store, slot, before)
        if rows is None:
            lost.add(slot)
        else:
            keys |= rows
    return Changes(frozenset(keys), frozenset(lost))


def _written(store: Store, slot: int, before: Snapshot) -> set[RasterKey] | None:
    """Keys of the rasters a slot got rows for since `before`; None if the log or its files no longer tell."""
    table = store.tables[slot]
    try:
        commits = table.commits(before)
        if commits is None or any(c.verb == "prune" and not c.stale for c in commits):
            return None
        fresh = [path for c in commits if c.verb == "put" and not c.stale for path in c.adds]
        parts = [path for path in fresh if part_kind(path) in ("raster", "embedding")]
        return {key_of(values) for path in parts for values in table.read(path)}
    except Corrupt:  # swept meanwhile, or rotten: reading all of the slot will tell
        return None


def numbers_in(store: Store, partitions: Iterable[PartitionKey]) -> dict[RasterKey, int]:
    """The sequence number of the current row of every raster of these partitions."""
    return {key_of(v): v[0] for partition in partitions for v in store.current_values(partition)}


def numbers_of(store: Store, keys: Iterable[RasterKey]) -> dict[RasterKey, int]:
    """As `numbers_in`, of these keys; those that do not stand are left out."""
    found = ((key, store.current_number(key)) for key in keys)
    return {key: number for key, number in found if number is not None}


def state_to_dict(state: State) -> dict[str, Any]:
    """JSON values."""
    return {str(slot): [s.version, s.seal.epoch, s.seal.run] for slot, s in state.items()}


def state_from_dict(found: Mapping[str, Any]) -> dict[int, Snapshot]:
    """The inverse of `state_to_dict`; part files are not told. Raises ValueError or TypeError where it is none."""
    return {
        int(slot): Snapshot(int(version), Seal(int(epoch), str(run))) for slot, (version, epoch, run) in found.items()
    }
