"""Which labels rasters have: the newest event about each counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInput, NotComparable
from geostore.index.bits import Words
from geostore.index.labels import Legend, corine
from geostore.keys import RasterKey
from geostore.query.messages import Wanted
from geostore.storage import EventRow

EVENT = "label"
OWN_MAX = 512  # different labels of a store's own


@dataclass(frozen=True)
class Labelling:
    """The labels of a store's rasters.

    Attributes:
        names: by the bytes of the raster's key.
        stamps: when each was last labelled, UTC microseconds.
        legend: the labels there are, in the order of first use, after those of CORINE where it is used; None without.
    """

    names: Mapping[bytes, tuple[str, ...]] = field(default_factory=dict)
    stamps: Mapping[bytes, int] = field(default_factory=dict)
    legend: Legend | None = None

    def pack(self, keys: Iterable[bytes]) -> Words | None:
        """(words, N) uint64 of the labels of these keys; None without a legend."""
        return None if self.legend is None else self.legend.pack([self.names.get(key, ()) for key in keys])

    def stamp(self, key: bytes) -> int:
        """When a raster was last labelled, 0 if never."""
        return self.stamps.get(key, 0)


def label_event(
    keys: Iterable[RasterKey], labels: Iterable[str], *, legend: str, who: str, reason: str, time_us: int
) -> EventRow:
    """What a `label` request leaves in the store."""
    rasters = [[k.collection, k.geohash, k.group, k.time_us, k.platform] for k in keys]
    fields = {"legend": legend, "labels": list(labels), "rasters": rasters, "reason": reason}
    return EventRow(time_us=time_us, who=who, what=EVENT, fields=fields)


def labelling_of(events: Iterable[EventRow]) -> Labelling:
    """The labels that follow from events in the order of their times."""
    names: dict[bytes, tuple[str, ...]] = {}
    stamps: dict[bytes, int] = {}
    own: dict[str, None] = {}
    with_corine = False
    for event in events:
        if event.what != EVENT:
            continue
        labels = tuple(event.fields["labels"])
        if event.fields["legend"] == corine().name:
            with_corine = True
        else:
            own |= dict.fromkeys(labels)
        for fields in event.fields["rasters"]:
            key = RasterKey(*fields).to_bytes()
            names[key], stamps[key] = labels, event.time_us
    return Labelling(names, stamps, legend_of(tuple(own), with_corine=with_corine) if stamps else None)


def legend_of(own: tuple[str, ...], *, with_corine: bool) -> Legend:
    """CORINE's labels where they are used, and then a store's own; one more label is another legend."""
    known = {name.lower() for name in (*corine().labels, *corine().groups)} if with_corine else set()
    mine = tuple(name for name in own if name.lower() not in known)
    if not with_corine:
        return Legend(f"own-{len(mine)}", mine, {}, {})
    return Legend(f"{corine().name}+own-{len(mine)}", (*corine().labels, *mine), corine().groups, corine().codes)


def check_labels(labelling: Labelling, labels: Iterable[str], legend: str) -> None:
    """Raise InvalidInput for a label that the legend does not have, or one too many of a store's own."""
    if legend == corine().name:
        for name in labels:
            corine().positions(name)
        return
    there = set() if labelling.legend is None else set(labelling.legend.labels)
    wanted = list(labels)
    lower = {name.lower(): name for name in there}
    for name in wanted:
        if lower.get(name.lower(), name) != name:
            raise InvalidInput(f"label {name!r}: there is {lower[name.lower()]!r} already; use that spelling")
    count = len(there.difference(corine().labels) | set(wanted))
    if count > OWN_MAX:
        raise InvalidInput(f"{count} different labels; a store has at most {OWN_MAX} of its own")


def relabelled(legend: Legend, labelling: Labelling, keys: Iterable[bytes], owners: npt.NDArray[np.int64]) -> Words:
    """(words, N) uint64 of rows by the position of their keys."""
    packed = legend.pack([labelling.names.get(key, ()) for key in keys])
    return np.ascontiguousarray(packed[:, owners])


def check_asked(wanted: Wanted, legend: Legend | None) -> None:
    """Raise InvalidInput for a label nothing can have, NotComparable where nothing was ever labelled."""
    if wanted.labels is None:
        return
    if legend is None:
        raise NotComparable(
            f"labels {wanted.labels.names} cannot be asked for: nothing is labelled; see `geostore label`"
        )
    for name in wanted.labels.names:
        legend.positions(name)
