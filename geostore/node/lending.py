"""lending: what a network that many partitions use counts for each of them."""

from __future__ import annotations

from collections import Counter
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

    def __init__(self, node: Node) -> None:
        self._node = node
        self._rasters: Counter[tuple[str, ...]] = Counter()
        self._paid: set[tuple[str, ...]] = set()
        for partition in node.store.partitions():
            bands = self._bands(partition)
            self._rasters[bands] += self._count(partition)
            if node.store.codec(partition).facts.get("networks"):
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
        return self._node.store.collection(partition.collection).groups[partition.group].names

    def _count(self, partition: PartitionKey) -> int:
        return len(self._node.store.rasters(partition, payload=False))
