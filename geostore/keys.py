"""Names of what is stored, and their order-preserving bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from geostore.errors import InvalidInput

GEOHASH_ALPHABET = "0123456789bcdefghjkmnpqrstuvwxyz"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BIAS = 1 << 63


@lru_cache(maxsize=4096)  # few names, checked whenever a key is made
def check_name(name: str, what: str) -> str:
    """Return `name` if it can name a collection, platform or group; raise InvalidInput otherwise."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{what} {name!r} is not a name; use 1-63 of a-z 0-9 . _ - and begin with a letter or digit")
    return name


@lru_cache(maxsize=4096)
def check_geohash(geohash: str) -> str:
    """Return `geohash` if it is 1-12 characters of the geohash alphabet; raise InvalidInput otherwise."""
    if not 1 <= len(geohash) <= 12 or any(c not in GEOHASH_ALPHABET for c in geohash):
        raise InvalidInput(f"{geohash!r} is not a geohash; use 1-12 characters of {GEOHASH_ALPHABET} (no a, i, l, o)")
    return geohash


def time_us(moment: datetime) -> int:
    """UTC microseconds since 1970; a naive datetime is taken as UTC."""
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_time_us(us: int) -> datetime:
    """The aware UTC datetime of `us` microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=us)


_FIRST_US, _LAST_US = (time_us(end.replace(tzinfo=UTC)) for end in (datetime.min, datetime.max))  # noqa: DTZ901


@dataclass(frozen=True, order=True)
class PartitionKey:
    """The unit a codec is fitted for: one cell of one collection at one native resolution.

    `group` names the bands that share a native resolution, for example "10m".
    """

    collection: str
    geohash: str
    group: str

    def __post_init__(self) -> None:
        check_name(self.collection, "collection")
        check_geohash(self.geohash)
        check_name(self.group, "band group")

    def to_bytes(self) -> bytes:
        """collection, 0, geohash, 0, group, 0: sorts as the fields do."""
        return b"\0".join(s.encode() for s in (self.collection, self.geohash, self.group)) + b"\0"

    def __str__(self) -> str:
        return f"{self.collection}/{self.geohash}/{self.group}"


@dataclass(frozen=True, order=True)
class RasterKey:
    """One acquisition of one partition.

    `time_us` is the acquisition's UTC time in microseconds (its earliest piece), `platform` the spacecraft
    or "unknown"; together they name the acquisition, so two spacecraft at one instant stay apart.
    """

    collection: str
    geohash: str
    group: str
    time_us: int
    platform: str = "unknown"

    def __post_init__(self) -> None:
        check_name(self.platform, "platform")
        if not _FIRST_US <= self.time_us <= _LAST_US:
            raise InvalidInput(f"time {self.time_us} us since 1970 is not in the years 1 to 9999; give one that is")

    @property
    def partition(self) -> PartitionKey:
        """The partition this raster belongs to."""
        return PartitionKey(self.collection, self.geohash, self.group)

    @property
    def time(self) -> datetime:
        """The acquisition time, aware, UTC."""
        return from_time_us(self.time_us)

    def to_bytes(self) -> bytes:
        """Partition bytes, 8 bytes big-endian biased time, platform: sorts by place, then time."""
        return self.partition.to_bytes() + (self.time_us + _BIAS).to_bytes(8, "big") + self.platform.encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> RasterKey:
        """The inverse of `to_bytes`."""
        collection, geohash, group, rest = raw.split(b"\0", 3)
        us = int.from_bytes(rest[:8], "big") - _BIAS
        return cls(collection.decode(), geohash.decode(), group.decode(), us, rest[8:].decode())

    def __str__(self) -> str:
        return f"{self.partition}/{self.time:%Y-%m-%dT%H:%M:%S}/{self.platform}"
