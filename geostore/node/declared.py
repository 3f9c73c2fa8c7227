"""Whether this node can fit what a collection declares: known indices, codec families that are installed here."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

from geostore.codec import Families
from geostore.collection import Collection
from geostore.errors import GeostoreError, NotInstalled
from geostore.keys import PartitionKey

if TYPE_CHECKING:
    from geostore.node.node import Node


def check_declared(node: Node, collection: Collection) -> None:
    """Refuse a collection that a fit here would fail on.

    Raises:
        InvalidInput: an index is unknown, or what is named or bounded is measured in no band group.
        NotInstalled: its policy names a codec family that this node does not have.
    """
    collection.check_indices()
    check_families(collection, node.families)


def check_fittable(node: Node, partitions: Iterable[PartitionKey]) -> None:
    """Refuse a fit that would fail on a partition, by its collection, before any work is done.

    Raises:
        InvalidInput: an index is unknown. NotInstalled: a codec family is not to be had here.
    """
    for name, group in sorted({(p.collection, p.group) for p in partitions}):
        collection = node.store.collection(name)
        try:
            collection.indices_of(group)
            check_families(collection, node.families)
        except GeostoreError as error:
            raise type(error)(f"{error}; or fit others alone: `geostore fit --collection NAME`") from None


def check_families(collection: Collection, families: Families) -> None:
    """Raise NotInstalled if the collection's policy names a codec family that is not among these."""
    known, policy = families.items, collection.policy
    for field, name in (("codec", policy.codec), *(("rivals", rival) for rival in policy.rivals)):
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise NotInstalled(
                f"collection {collection.name!r}: policy {field} names {name!r}, no codec family here"
                f"{f'; the nearest is {near[0]}' if near else ''}; it has {', '.join(sorted(known))}: declare one of "
                "these, or install its package on the node"
            )
