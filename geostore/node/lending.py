"""lending: what a network that many partitions use counts for each of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from geostore.keys import PartitionKey
from geostore.node.encode import Fitted

if TYPE_CHECKING:
    from geostore.node.node import Node
    from geostore.vae.base import Base


def offer_bases(folder: Path | None) -> list[Base]:
    """The bases in the folder that the setting names, which the fits of this process share from now on.

    Raises:
        InvalidInput: see `geostore.vae.base.from_folder`.
    """
    if folder is None:
        return []
    from geostore.vae.base import from_folder, offer

    found = from_folder(folder)
    for base in found:
        offer(base)
    return found


class Lending:
    """How the bytes of a shared network are divided, over one fit.

    A store pays for a network once. Until it has it, every partition of the same bands bears its part, by its
    rasters; from then on the network costs nobody anything.
    """

    def __init__(
        self,
        node: Node,
        counts: Mapping[PartitionKey, int],
        chosen: Iterable[PartitionKey],
        bases: Sequence[Base] = (),
    ) -> None:
        """For a fit of `chosen` partitions that was offered `bases`; `counts` has the rasters of those counted."""
        self._node, self.bases = node, bases
        self._collections = {c.name: c for c in node.store.collections()}
        self._counts = dict(counts)
        self._rasters: Counter[tuple[str, ...]] = Counter()
        self._held: dict[tuple[str, ...], set[str]] = defaultdict(set)
        wanted = {self._bands(partition) for partition in chosen}
        for partition in node.store.partitions() if wanted else ():
            bands = self._bands(partition)
            if bands in wanted:
                self._rasters[bands] += self._count(partition)
                networks = str(node.store.generations(partition, data=False)[-1].facts.get("networks", ""))
                self._held[bands] |= {digest for digest in networks.split(",") if digest}

    def share(self, partition: PartitionKey) -> float:
        """Which part of a network's bytes counts against `partition`, 0 to 1."""
        bands = self._bands(partition)
        return 0.0 if self._is_paid(bands) else self._count(partition) / max(1, self._rasters[bands])

    def note(self, partition: PartitionKey, fitted: Fitted) -> None:
        """`fitted` was committed: what it borrows is in the store now."""
        self._held[self._bands(partition)] |= set(self._node.families.networks(fitted.family, fitted.codec))

    def _is_paid(self, bands: tuple[str, ...]) -> bool:
        """True where the store holds the base that a fit of these bands would borrow."""
        if not self.bases:
            return bool(self._held[bands])  # the one that ships
        from geostore.vae.base import find

        found = find(bands)
        return found is not None and found[0].digest in self._held[bands]

    def _bands(self, partition: PartitionKey) -> tuple[str, ...]:
        return self._collections[partition.collection].groups[partition.group].names

    def _count(self, partition: PartitionKey) -> int:
        if partition not in self._counts:
            self._counts[partition] = len(self._node.store.current_values(partition))
        return self._counts[partition]
