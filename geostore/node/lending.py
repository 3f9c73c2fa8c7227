"""lending: what a network that many partitions use counts for each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from geostore.keys import PartitionKey
from geostore.node.encode import Fitted

if TYPE_CHECKING:
    from geostore.node.node import Node


class Lending:
    """How the bytes of a shared network are divided, over one fit.

    A store pays for a network once. Until it has it, every partition of the same bands bears its part, by its
    rasters; from then on the network costs nobody anything.
    """

    def __init__(self, node: Node, counts: Mapping[PartitionKey, int], chosen: Iterable[PartitionKey]) -> None:
        """For a fit of the `chosen` partitions; `counts` has the rasters of those that were counted."""
        self._node = node
        self._collections = {c.name: c for c in node.store.collections()}
        self._counts = dict(counts)
        self._rasters: Counter[tuple[str, ...]] = Counter()
        self._paid: set[tuple[str, ...]] = set()
        wanted = {self._bands(partition) for partition in chosen}
        for partition in node.store.partitions() if wanted else ():
            bands = self._bands(partition)
            if bands in wanted:
                self._rasters[bands] += self._count(partition)
                if node.store.generations(partition, data=False)[-1].facts.get("networks"):
                    self._paid.add(bands)

    def share(self, partition: PartitionKey) -> float:
        """Which part of a network's bytes counts against `partition`, 0 to 1."""
        bands = self._bands(partition)
        return 0.0 if bands in self._paid else self._count(partition) / max(1, self._rasters[bands])

    def note(self, partition: PartitionKey, fitted: Fitted) -> None:
        """`fitted` was committed: what it borrows is in the store now."""
        if self._node.families.networks(fitted.family, fitted.codec):
            self._paid.add(self._bands(partition))

    def _bands(self, partition: PartitionKey) -> tuple[str, ...]:
        return self._collections[partition.collection].groups[partition.group].names

    def _count(self, partition: PartitionKey) -> int:
        if partition not in self._counts:
            self._counts[partition] = len(self._node.store.current_values(partition))
        return self._counts[partition]
