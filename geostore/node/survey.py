"""survey: which partitions wait for a fit and which rasters miss their policy, from one look at their rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from geostore.collection import Policy
from geostore.keys import PartitionKey, RasterKey
from geostore.node.decode import exact_row
from geostore.node.encode import Fitted
from geostore.storage import RasterRow

if TYPE_CHECKING:
    from geostore.node.node import Node


class Survey:
    """What the rows of some partitions told when a fit began, and what its commits made of that.

    Attributes:
        counts: current rasters of each partition.
        waiting: partitions with a raster that was never fitted.
    """

    def __init__(self, node: Node, partitions: Iterable[PartitionKey]) -> None:
        self._node = node
        self.counts: dict[PartitionKey, int] = {}
        self.waiting: set[PartitionKey] = set()
        self._beyond: dict[RasterKey, RasterRow] = {}
        self._missed = 0  # of those fitted since
        policies = {c.name: c.policy for c in node.store.collections()}
        for partition in partitions:
            self._look(partition, policies[partition.collection])

    def _look(self, partition: PartitionKey, policy: Policy) -> None:
        rows = self._node.store.rasters(partition, payload=False)
        self.counts[partition] = len(rows)
        if any(row.generation == 0 for row in rows):
            self.waiting.add(partition)
        fitted = (row for row in rows if row.generation and row.certificate is not None)
        self._beyond |= {r.key: r for r in fitted if r.certificate is not None and not r.certificate.keeps(policy)}

    def note(self, rows: Iterable[RasterRow], fitted: Fitted, policy: Policy) -> None:
        """`rows` were fitted, and `fitted` was committed."""
        for row in rows:
            self._beyond.pop(row.key, None)
        kept = (stored.certificate for stored in fitted.rasters)
        self._missed += sum(certificate is not None and not certificate.keeps(policy) for certificate in kept)

    def beyond(self) -> dict[str, int]:
        """Rasters that miss the policy as it is now, and of these the ones with no original at hand to fit again."""
        left = sum(exact_row(self._node, row) is None for row in self._beyond.values())
        return {"beyond": len(self._beyond) + self._missed, "beyond_left": left}
