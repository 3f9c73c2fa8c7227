"""Times as a user writes them, as ranges of UTC microseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from geostore.errors import InvalidInput
from geostore.keys import time_us

Time = str | datetime | np.datetime64 | slice | None
Range = tuple[int | None, int | None]
_PERIOD = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?")


def limits(group: str | None, time: Time) -> str:
    """What a choice of rasters was limited to, as a message says it: "" if to nothing."""
    said = "" if group is None else f" in group {group!r}"
    if isinstance(time, slice):
        return f"{said} from {time.start or 'the first'} to {time.stop or 'the last'}"
    return said if time is None else f"{said} at {time}"


def time_range(time: Time) -> Range:
    """(start_us, end_us), start <= t < end; None where open.

    A text is a period: "2020", "2020-06", "2020-06-14", or an ISO 8601 instant. A slice reaches to the end of the
    period its stop names, as in xarray. Without a zone, UTC is meant.

    Raises:
        InvalidInput: not a time, or a range that ends before it begins.

    Examples:
        >>> time_range("1970-01-02")
        (86400000000, 172800000000)
        >>> time_range(slice(None, "1970"))
        (None, 31536000000000)
    """
    if not isinstance(time, slice):
        return (None, None) if time is None else _period(time)
    if time.step is not None:
        raise InvalidInput(f"time {time!r} has a step; take every n-th date from the dataset instead")
    start = None if time.start is None else _period(time.start)[0]
    stop = None if time.stop is None else _period(time.stop)[1]
    if start is not None and stop is not None and stop <= start:
        raise InvalidInput(f"time {time.start} to {time.stop} ends before it begins; swap the two")
    return start, stop


def _period(time: Any) -> tuple[int, int]:
    if isinstance(time, str) and (parts := _PERIOD.fullmatch(time)):
        return _calendar(time, *parts.groups())
    moment = _instant(time)
    return time_us(moment), time_us(moment) + 1


def _calendar(text: str, year: str, month: str | None, day: str | None) -> tuple[int, int]:
    try:
        first = datetime(int(year), int(month or 1), int(day or 1), tzinfo=UTC)
        if day:
            after = first + timedelta(days=1)
        elif month:
            after = (first + timedelta(days=32)).replace(day=1)
        else:
            after = first.replace(year=first.year + 1)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{text!r} is not a date ({error}); write 2020, 2020-06 or 2020-06-14") from error
    return time_us(first), time_us(after)


def _instant(time: Any) -> datetime:
    if isinstance(time, datetime):
        return time
    try:
        if isinstance(time, np.datetime64):
            time = str(time.astype("datetime64[us]"))
        return datetime.fromisoformat(time)
    except (ValueError, TypeError) as error:
        raise InvalidInput(
            f"{time!r} is not a time; write 2020, 2020-06, 2020-06-14 or 2020-06-14T09:05:31; a range is "
            "slice(first, last), in a shell FIRST/LAST"
        ) from error
