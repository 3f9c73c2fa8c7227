"""Stacks: files whose bands are of many dates, one after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from geostore.collection import Collection
from geostore.errors import BadScene
from geostore.scene.bands import Offered, label_of, spellings
from geostore.scene.calibration import has_data
from geostore.scene.geotiff import RasterFile, Reader, path_of
from geostore.scene.names import TIME_TAGS, date_in, named_in, time_from_pattern, time_from_text

SCAN_ROWS = 512  # rows read at once while looking for the first measured pixel
_DATE_TAGS = (*TIME_TAGS, "DATE", "TIME", "TIMESTAMP", "DATE_TIME")  # of one band
_NETCDF_DIM, _NETCDF_UNITS = "NETCDF_DIM_", "#UNITS"
_CALENDARS = ("", "standard", "gregorian", "proleptic_gregorian")
_UNITS = ("microseconds", "milliseconds", "seconds", "minutes", "hours", "days", "weeks")


def dates_in(hrefs: Sequence[str], collection: Collection) -> list[datetime]:
    """The dates that the stacks among the files of one group hold, ascending; [] if the files are of one date each.

    Raises:
        BadScene: a file cannot be read, or its dates cannot be told; see `times_of`.
    """
    found = {time for href in hrefs for time in times_of(_file(href), collection) or ()}
    return sorted(found)


def offered(hrefs: Sequence[str], collection: Collection, time: datetime) -> list[Offered]:
    """What the files hold of one date.

    Raises:
        BadScene: as `dates_in`.
    """
    offers = []
    for href in hrefs:
        file = _file(href)
        times = times_of(file, collection) or ()
        at = tuple(i for i, t in enumerate(times) if t == time)
        offers += [Offered(file, indexes=at)] if at else []
    return offers


def times_of(file: RasterFile, collection: Collection) -> tuple[datetime, ...] | None:
    """The date of each band of `file`, by the collection's `files.dates`; None if the file is of one date.

    A band names its date in its description (found by the collection's time_pattern, else the first day in it), in
    its tags, or by the time axis of a netCDF variable. A file of which no band names a date is of one date.

    Raises:
        BadScene: the stated dates do not fit the number of bands, or some bands name a date and others do not.
    """
    if collection.files.table:
        return _by_table(file, collection)
    if not collection.files.dates:
        return None
    times = _by_bands(file.descriptions, tuple(_tagged(file)), collection.time_pattern)
    missing = [i for i, time in enumerate(times) if time is None]
    if not missing:
        return _each_once(file, tuple(t for t in times if t), collection)
    if len(missing) < len(times):
        raise BadScene(
            f"{file.href}: band {missing[0] + 1} ({file.descriptions[missing[0]]!r}) names no date, {len(times)} bands "
            f"in all, {len(missing)} without one; describe each band by its date, or list the dates of all as "
            f"dates = [...] under [files] in collection {collection.name!r}"
        )
    _check_single(file, collection)
    return None


def _by_table(file: RasterFile, collection: Collection) -> tuple[datetime, ...]:
    """The stated dates, each for as many bands as one date has."""
    table, count = collection.files.table, len(file.descriptions)
    each = len(collection.files.positional) or max(1, len(_named(file, collection)))
    if count != len(table) * each:
        of_each = f" of {each} bands each" if each > 1 else ""
        raise BadScene(
            f"{file.href} has {count} bands, collection {collection.name!r} states {len(table)} dates{of_each} (dates "
            f"under [files]); wanted {len(table) * each} bands, or a table of {count / each:g} dates"
        )
    return tuple(time for time in table for _ in range(each))


def _each_once(file: RasterFile, times: tuple[datetime, ...], collection: Collection) -> tuple[datetime, ...]:
    """`times`, each as often as a date has bands, where the bands themselves do not say which of them they are."""
    wanted = len(collection.files.positional) or 1
    other = next(((t, n) for t, n in Counter(times).items() if n != wanted), None)
    if other and not _named(file, collection):
        raise BadScene(
            f"{file.href}: {other[1]} bands are of {other[0]:%Y-%m-%d}, wanted {wanted} a date; describe them by band "
            'and date ("red 2020-06-01"), or state the order of a date\'s bands as positional under [files]'
        )
    return times


def _check_single(file: RasterFile, collection: Collection) -> None:
    """Refuse a file that has more bands than one date can have."""
    bands = sum(len(b) for b in collection.groups.values()) + len(collection.masks)
    if len(file.descriptions) > bands and not _named(file, collection):
        raise BadScene(
            f"{file.href}: none of its {len(file.descriptions)} bands names a date (the first is described "
            f"{file.descriptions[0]!r}); describe each by its date, state in time_pattern how descriptions give it, or "
            f"list the dates as dates = [...] under [files] in collection {collection.name!r}"
        )


def _named(file: RasterFile, collection: Collection) -> set[str]:
    """The bands and mask sources that descriptions name."""
    known = spellings(collection)
    return {label for text in file.descriptions if (label := label_of(text, known))}


@lru_cache(maxsize=64)
def _by_bands(
    descriptions: tuple[str, ...], tagged: tuple[datetime | None, ...], pattern: str
) -> tuple[datetime | None, ...]:
    stated = [time_from_pattern(pattern, text) if pattern and text else None for text in descriptions]
    return tuple(s or date_in(d) or t for s, d, t in zip(stated, descriptions, tagged, strict=True))


def _tagged(file: RasterFile) -> list[datetime | None]:
    """The time that the tags of each band state."""
    axis = next(
        (k.removesuffix(_NETCDF_UNITS) for k, v in file.tags.items() if k.endswith(_NETCDF_UNITS) and " since " in v),
        "",
    )
    calendar = file.tags.get(f"{axis}#CALENDAR", "")
    if axis and calendar.lower() not in _CALENDARS:
        raise BadScene(f"{file.href} counts time in a {calendar} calendar; convert it to the standard one")
    return [
        _since(tags[_NETCDF_DIM + axis], file.tags[axis + _NETCDF_UNITS], file.href)
        if axis and _NETCDF_DIM + axis in tags
        else next((t for k in _DATE_TAGS if k in tags and (t := time_from_text(tags[k]))), None)
        for tags in file.band_tags
    ]


def _since(number: str, units: str, href: str) -> datetime:
    """A value of a CF time axis: 10, "days since 2015-08-01 00:00:00"."""
    unit, _, text = units.partition(" since ")
    unit = unit.strip().lower().rstrip("s") + "s"
    begin = time_from_text(text.strip().removesuffix(" UTC")) or date_in(text)
    if begin is None or unit not in _UNITS:
        raise BadScene(f"{href} counts time in {units!r}; wanted {', '.join(_UNITS)} since a date")
    return begin.astimezone(UTC) + timedelta(**{unit: float(number)})


def variables(path: str, collection: Collection) -> list[str]:
    """What to open of a netCDF file: its variables that name bands of the collection, else all; or `path` itself.

    A file that does not read is given back as it is: opening it says why.
    """
    try:
        with Reader() as reader:
            parts = reader.parts(path)
    except BadScene:
        return [path]
    wanted = tuple(spellings(collection).values())
    named = [part for part in parts if named_in(part.rpartition(":")[2], wanted) is not None]
    return named or parts


def _file(href: str) -> RasterFile:
    path = Path(path_of(href))
    stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else (0, 0)
    return _inspected(href, stamp)


@lru_cache(maxsize=64)
def _inspected(href: str, stamp: tuple[int, int]) -> RasterFile:  # noqa: ARG001 - a changed file is another entry
    """What the file declares; it is looked at once for all its dates."""
    with Reader() as reader:
        return reader.inspect(href)


def holds_data(reader: Reader, file: RasterFile, index: int, nodata: tuple[float, ...]) -> bool:
    """True if band `index` (from 0) has a measured pixel; reads until the first."""
    height, width = file.grid.shape
    for row in range(0, height, SCAN_ROWS):
        for col in range(0, width, SCAN_ROWS):
            window = row, col, min(SCAN_ROWS, height - row), min(SCAN_ROWS, width - col)
            if has_data(reader.read(file.href, [index + 1], *window)[0], nodata).any():
                return True
    return False


@lru_cache(maxsize=64)
def any_band_holds_data(href: str, nodata: tuple[float, ...]) -> bool:
    """True if one band of a stack has a measured pixel."""
    file = _file(href)
    with Reader() as reader:
        return any(holds_data(reader, file, index, nodata) for index in range(len(file.descriptions)))
