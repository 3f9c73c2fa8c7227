"""What a file's or product's name tells: time, platform, processing, bands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from geostore.errors import InvalidInput

_SENTINEL2 = re.compile(
    r"(?P<platform>S2[A-D])_MSI(?P<level>L1C|L2A)_(?P<time>[0-9]{8}T[0-9]{6})_N(?P<baseline>[0-9]{4})_R[0-9]{3}"
    r"_T[0-9]{2}[A-Z]{3}(?:_(?P<made>[0-9]{8}T[0-9]{6}))?"
)
_SENTINEL2_BAND = re.compile(r"T[0-9]{2}[A-Z]{3}_(?P<time>[0-9]{8}T[0-9]{6})_")
_LANDSAT = re.compile(
    r"L[COET](?P<number>0[4-9])_(?P<level>L[12][A-Z]{2})_[0-9]{6}_(?P<time>[0-9]{8})(?:_(?P<made>[0-9]{8})_(?P<set>[0-9]{2}))?"
)
_MODIS = re.compile(
    r"(?P<platform>M[OY]D)[0-9]{2}[A-Z0-9]{1,2}[._]A(?P<time>[0-9]{7})(?:\.h[0-9]{2}v[0-9]{2})?(?:\.[0-9]{3}\.(?P<made>[0-9]{13}))?"
)
_FIXED = re.compile(r"[0-9]+(?:\.[0-9]+)?m", re.IGNORECASE)  # a resolution: 10m
TIME_TAGS = ("ACQUISITION_DATE", "ACQUISITION_DATETIME", "DATETIME", "TIFFTAG_DATETIME")  # of files and bands
_SPLIT = re.compile(r"[_\-. ]+")


@dataclass(frozen=True, kw_only=True)
class Product:
    """What a product's name says; "" , None or 0 where it does not.

    Attributes:
        family: "sentinel-2-l2a", "landsat-c2-l2", "landsat-c2-l2-tm", ...
        name: the matched name.
        time: start of sensing, UTC.
        platform: "sentinel-2a", "landsat-8", "terra".
        baseline: Sentinel-2 processing baseline "05.10"; Landsat collection number "02".
        made_s: when it was processed, whole seconds since 1970; a later one is a newer revision.
    """

    family: str = ""
    name: str = ""
    time: datetime | None = None
    platform: str = ""
    baseline: str = ""
    made_s: int = 0


def product_of(text: str) -> Product:
    """What the last Sentinel-2, Landsat or MODIS product name within `text` (a path) says; empty if there is none."""
    for pattern, parse in ((_SENTINEL2, _sentinel2), (_LANDSAT, _landsat), (_MODIS, _modis), (_SENTINEL2_BAND, _bare)):
        found = list(pattern.finditer(text))
        if found:
            return parse(found[-1])
    return Product()


def _utc(text: str, form: str) -> datetime:
    try:
        return datetime.strptime(text, form).replace(tzinfo=UTC)
    except ValueError:
        raise InvalidInput(f"time {text!r} does not read as {form!r}; rename the file or give its time") from None


def _seconds(text: str | None, form: str) -> int:
    return int(_utc(text, form).timestamp()) if text else 0


def _sentinel2(m: re.Match[str]) -> Product:
    return Product(
        family=f"sentinel-2-{m['level'].lower()}",
        name=m[0],
        time=_utc(m["time"], "%Y%m%dT%H%M%S"),
        platform=f"sentinel-2{m['platform'][2].lower()}",
        baseline=f"{m['baseline'][:2]}.{m['baseline'][2:]}",
        made_s=_seconds(m["made"], "%Y%m%dT%H%M%S"),
    )


def _bare(m: re.Match[str]) -> Product:
    """A Sentinel-2 band file outside its product folder: the time alone."""
    return Product(name=m[0].rstrip("_"), time=_utc(m["time"], "%Y%m%dT%H%M%S"))


def _landsat(m: re.Match[str]) -> Product:
    number = int(m["number"])
    level2 = m["level"].startswith("L2") and m["set"] == "02"
    return Product(
        family=("landsat-c2-l2" if number >= 8 else "landsat-c2-l2-tm") if level2 else f"landsat-{m['level'].lower()}",
        name=m[0],
        time=_utc(m["time"], "%Y%m%d"),
        platform=f"landsat-{number}",
        baseline=m["set"] or "",
        made_s=_seconds(m["made"], "%Y%m%d"),
    )


def _modis(m: re.Match[str]) -> Product:
    return Product(
        family="modis",
        name=m[0],
        time=_utc(m["time"], "%Y%j"),
        platform="terra" if m["platform"] == "MOD" else "aqua",
        made_s=_seconds(m["made"], "%Y%j%H%M%S"),
    )


def time_from_pattern(pattern: str, name: str) -> datetime | None:
    """The time that a collection's `time_pattern` ("regex|strptime") finds in the file name, UTC; None if absent.

    Raises:
        InvalidInput: the pattern itself is not of that form, or what it found is no time.
    """
    regex, bar, form = pattern.rpartition("|")
    try:
        compiled = re.compile(regex)
    except re.error as error:
        raise InvalidInput(f"time_pattern {pattern!r}: {error}; write it as ([0-9]{{8}})|%Y%m%d") from None
    if not bar or compiled.groups != 1:
        raise InvalidInput(
            f"time_pattern {pattern!r} is not complete; give one group, a bar and a format, as ([0-9]{{8}})|%Y%m%d"
        )
    found = compiled.search(name)
    return _utc(found[1], form) if found else None


def time_from_text(text: str) -> datetime | None:
    """The time in a metadata value: ISO 8601, YYYYMMDD, or TIFF's "YYYY:MM:DD hh:mm:ss"; None if it is none."""
    for form in ("%Y%m%d", "%Y:%m:%d %H:%M:%S", "%Y:%m:%d"):
        try:
            return datetime.strptime(text.strip(), form).replace(tzinfo=UTC)
        except ValueError:
            continue
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


_DATE = re.compile(
    r"(?<![0-9])([0-9]{4})([-_./]?)([0-9]{2})\2([0-9]{2})(?:[T _-]?([0-9]{2}):?([0-9]{2})(?::?([0-9]{2}))?)?(?![0-9])"
)


@lru_cache(maxsize=4096)
def date_in(text: str) -> datetime | None:
    """The first day, or day and time, that stands anywhere in `text` as 2020-06-01 or 20200601, UTC; None if none."""
    for m in _DATE.finditer(text):
        numbers = [int(m[i] or 0) for i in (1, 3, 4, 5, 6, 7)]
        try:
            return datetime(*numbers, tzinfo=UTC)  # type: ignore[arg-type, misc]
        except ValueError:
            continue
    return None


@lru_cache(maxsize=4096)
def words(text: str) -> tuple[str, ...]:
    """`text` in comparable words: upper case, parted at _ - . and blanks, without leading zeros (B04 is B4)."""
    return tuple(re.sub(r"^([A-Z]*)0+([1-9])", r"\1\2", w.upper()) for w in _SPLIT.split(text) if w)


@lru_cache(maxsize=4096)
def find_word(text: str, wanted: str) -> tuple[int, int] | None:
    """Where the words of `wanted` last stand in those of `text`: (end, length) in words; None if nowhere."""
    have, want = words(text), words(wanted)
    for end in range(len(have), len(want) - 1, -1):
        if want and have[end - len(want) : end] == want:
            return end, len(want)
    return None


@lru_cache(maxsize=4096)
def named_in(text: str, names: tuple[tuple[str, ...], ...]) -> int | None:
    """Which of `names` (each a band's spellings) `text` names, the last in it, the longest if two end there."""
    best: tuple[int, int, int] | None = None
    for i, spellings in enumerate(names):
        for spelling in spellings:
            found = find_word(text, spelling)
            if found is not None and (best is None or found > best[:2]):
                best = (*found, i)
    return best[2] if best else None


def scene_stem(stem: str, spellings: list[str]) -> str:
    """`stem` without the words that tell one file of a scene from another: bands, resolutions; "" if none is left."""
    parts = [w for w in _SPLIT.split(stem) if w]
    drop: set[int] = set()
    for spelling in spellings:
        found = find_word(stem, spelling)
        if found is not None:
            drop.update(range(found[0] - found[1], found[0]))
    drop.update(i for i, w in enumerate(parts) if _FIXED.fullmatch(w))
    kept = [w for i, w in enumerate(parts) if i not in drop]
    return "_".join(kept)
