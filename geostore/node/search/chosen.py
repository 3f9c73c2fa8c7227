"""The rows a question is about, from the fields of a request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from geostore.errors import InvalidInput, NotFound
from geostore.index.filters import Condition, Filter, columns
from geostore.index.labels import AtLeast, Exactly, Some
from geostore.index.segments import Segments
from geostore.index.spatial import Circle, Where, where
from geostore.keys import from_time_us
from geostore.query.messages import Wanted

if TYPE_CHECKING:
    from geostore.node.node import Node

SENSOR, CLOUD = "sensor", "cloud"
_HOW: dict[str, type[Some | AtLeast | Exactly]] = {"some": Some, "at-least": AtLeast, "exactly": Exactly}


def filter_of(wanted: Wanted, indexes: Sequence[Segments]) -> Filter:
    """The filter a request means.

    Raises:
        InvalidInput: a season, an area, a time or a bound that is none, or cloud where no scene told it.
    """
    categories: dict[str, tuple[str, ...]] = {
        name: (value,) for name in ("collection", "group") if (value := getattr(wanted, name)) is not None
    }
    if wanted.sensors:
        categories[SENSOR] = tuple(sensors(wanted.sensors, indexes))
    if None not in (wanted.start_us, wanted.end_us) and wanted.start_us >= wanted.end_us:  # type: ignore[operator]
        raise InvalidInput(f"times {wanted.start_us} to {wanted.end_us} end before they begin; swap the two")
    if CLOUD in wanted.numbers and CLOUD not in columns(p.segment for i in indexes for p in i.parts)[0]:
        raise InvalidInput(
            "cloud was asked for, and no scene here told its cover (a STAC item's eo:cloud_cover or a file's tags do); "
            "use the share of usable pixels, `valid_fraction`, instead"
        )
    return Filter(
        within=None if wanted.within is None else _area(wanted),
        start=None if wanted.start_us is None else _time(wanted.start_us),
        end=None if wanted.end_us is None else _time(wanted.end_us),
        seasons=tuple(wanted.seasons),
        categories=categories,
        numbers=wanted.numbers,
        labels=_labels(wanted),
    )


def meant(node: Node, wanted: Wanted) -> set[str] | None:
    """Names of the models of the collection and band group that are asked for; None for all.

    Raises:
        NotFound: the store has no such collection, or no band group of that name.
    """
    if wanted.collection is None and wanted.group is None:
        return None
    known = node.store.collections() if wanted.collection is None else [node.store.collection(wanted.collection)]
    groups = [(name, bands) for collection in known for name, bands in collection.groups.items()]
    chosen = [bands for name, bands in groups if wanted.group in (None, name)]
    if not chosen:
        where, there = wanted.collection or "this store", ", ".join(sorted({name for name, _ in groups})) or "none"
        raise NotFound(f"no band group {wanted.group!r} in {where}; it has {there}")
    return {node.following.model(bands).name for bands in chosen}


def _time(us: int) -> datetime:
    try:
        return from_time_us(us)
    except OverflowError as error:
        raise InvalidInput(f"{us} us since 1970 is not in the years 1 to 9999; narrow the time") from error


def _area(wanted: Wanted) -> Where:
    area = wanted.within
    assert area is not None
    if area.circle is not None:
        return where(Circle(*area.circle))
    if area.geohashes is not None:
        return where(area.geohashes)
    if area.box is not None:
        return where(area.box)
    assert area.geojson is not None
    return where(area.geojson)


def _labels(wanted: Wanted) -> Condition | None:
    return None if wanted.labels is None else _HOW[wanted.labels.how](*wanted.labels.names)


def sensors(wanted: Iterable[str], indexes: Sequence[Segments]) -> list[str]:
    """Platforms in the index that begin with one of the names: "sentinel-2" means "sentinel-2a" and "sentinel-2b"."""
    known = {n for i in indexes for p in i.parts for n in p.segment.categories[SENSOR].names}
    found = {name for name in known for w in wanted if name.startswith(w.lower())}
    return sorted(found) or [w.lower() for w in wanted]
