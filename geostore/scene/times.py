"""When a scene was taken: what is given, stated or named, in that order."""

from __future__ import annotations

from datetime import datetime

from geostore.collection import Collection
from geostore.errors import BadScene
from geostore.keys import time_us
from geostore.scene.find import SceneSource
from geostore.scene.geotiff import RasterFile, path_of
from geostore.scene.names import TIME_TAGS, Product, time_from_pattern, time_from_text
from geostore.scene.stac import ItemFacts

_TIMES_APART_S = 600  # files of one scene may differ by so much


def time_of(
    found: SceneSource,
    facts: ItemFacts | None,
    files: list[RasterFile],
    product: Product,
    collection: Collection,
    *,
    given: datetime | None,
) -> datetime:
    """The given time, else the date in the stack, else STAC's, else by the collection's pattern (in the name of the
    file, then of its folder), else the product name's, else the files' tags'.

    Raises:
        BadScene: there is none, or files of one scene tell several, or one is given for a date of a stack.
    """
    known = given or found.time
    if known:
        return _stacked(found, known)
    told = told_time(found, facts, files, product, collection)
    if told:
        return told
    raise BadScene(
        f"{found} has no time: no tag {TIME_TAGS[0]}, no product name; state time_pattern in the collection, "
        'for example "([0-9]{8})|%Y%m%d", or give --time'
    )


def told_time(
    found: SceneSource,
    facts: ItemFacts | None,
    files: list[RasterFile],
    product: Product,
    collection: Collection,
) -> datetime | None:
    """The time that a scene tells by itself, in the order of `time_of`; None if it tells none.

    Raises:
        BadScene: files of one scene tell several.
    """
    if found.time:
        return found.time
    if facts:
        return facts.time
    patterned = [_by_pattern(f, collection.time_pattern) for f in files]
    if any(patterned):
        return _agreed(patterned, found)
    if product.time:
        return product.time
    tagged = [next((t for k in TIME_TAGS if (t := time_from_text(f.tags.get(k, "")))), None) for f in files]
    return _agreed(tagged, found) if any(tagged) else None


def _stacked(found: SceneSource, known: datetime) -> datetime:
    if found.time and time_us(known) != time_us(found.time):
        raise BadScene(f"{found} holds its own date, not {known}; leave --time out")
    return known


def _by_pattern(file: RasterFile, pattern: str) -> datetime | None:
    folder = path_of(file.href).rpartition("/")[0].rpartition("/")[2]
    return (time_from_pattern(pattern, file.name) or time_from_pattern(pattern, folder)) if pattern else None


def _agreed(times: list[datetime | None], found: SceneSource) -> datetime:
    known = sorted(t for t in times if t)
    if (known[-1] - known[0]).total_seconds() > _TIMES_APART_S:
        raise BadScene(f"the files of {found} are of {known[0]} and {known[-1]}; give one acquisition at a time")
    return known[0]
