"""What a search found, and how a place changed: rows to look at, decode, draw or hand on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geostore.errors import NotInstalled
from geostore.keys import RasterKey, from_time_us
from geostore.partition.geohash import bounds
from geostore.query.facts import RasterInfo
from geostore.query.messages import Reply
from geostore.raster import Raster

if TYPE_CHECKING:
    import geopandas
    from matplotlib.figure import Figure

Decoded = tuple[RasterInfo, Raster]
Fetch = Callable[[Sequence[RasterKey], Sequence[str] | None], list[Decoded]]
KEY = ("collection", "geohash", "group", "time_us", "platform")
_COLUMNS = {
    **dict.fromkeys(("collection", "geohash", "group"), "str"),
    "time_us": "int64",
    "platform": "str",
    "time": "datetime64[us, UTC]",
    "cell": "str",
    "score": "float64",
    "distance": "int64",
    "valid_fraction": "float64",
    "labels": "str",
    "votes": "str",
}


@dataclass(frozen=True)
class Vote:
    """A part of a cell that looks like what was asked for.

    Attributes:
        key: the raster of the date on which it does most.
        cell: geohash of the part: the cell itself, or a chip of it.
        score: cosine of the descriptors, -1..1.
        weight: its share of the cell's score; those of a cell add up to 1.
    """

    key: RasterKey
    cell: str
    score: float
    weight: float

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(west, south, east, north) of the part, degrees."""
        return bounds(self.cell)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        about = {"cell": self.cell, "score": self.score, "weight": self.weight}
        return {**vars(self.key), "time": from_time_us(self.key.time_us).isoformat(), **about}


@dataclass(frozen=True)
class Hit:
    """One raster that was found, or the chip of it, or a cell by the raster whose part weighs most.

    Attributes:
        key: the raster.
        cell: geohash of the row: of a chip one letter finer than the raster's.
        score: cosine of the descriptors, -1..1; of a cell the soft maximum over its votes.
        distance: bits of the signatures that differ; of a cell those of its heaviest vote.
        valid_fraction: share of the cell's pixels that may be used.
        labels: what the raster was labelled with.
        votes: of a cell the parts that voted, heaviest first, 32 at most; else ().
    """

    key: RasterKey
    cell: str
    score: float
    distance: int
    valid_fraction: float
    labels: tuple[str, ...]
    votes: tuple[Vote, ...] = ()

    @property
    def time(self) -> datetime:
        """When it was acquired, UTC."""
        return from_time_us(self.key.time_us)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(west, south, east, north) of its cell, degrees."""
        return bounds(self.cell)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        about = {"score": self.score, "distance": self.distance, "valid_fraction": self.valid_fraction}
        times = {"time": self.time.isoformat()}
        found = {**vars(self.key), **times, "cell": self.cell, **about, "labels": list(self.labels)}
        return {**found, "votes": [vote.to_dict() for vote in self.votes]} if self.votes else found


@dataclass(frozen=True)
class Hits:
    """What `similar` found, most similar first; empty where nothing met the conditions.

    Attributes:
        rows: the hits.
        count: rasters, chips or cells that met the conditions, exact; a radius is looked at later, and not among them.
        level: "raster", "chip" or "cell".
        space: what made the descriptors and signatures.
        vector: (width,) float32, the point that was looked near; with `space` it can be asked for again.
        plan: how they were found, where that was asked for.
        read: of cells those whose rows were read: no other could be among the hits. None at other levels.
    """

    rows: tuple[Hit, ...]
    count: int
    level: str
    space: Mapping[str, Any]
    vector: npt.NDArray[np.float32] = field(repr=False)
    plan: tuple[Mapping[str, Any], ...] = field(repr=False, default=())
    read: int | None = field(repr=False, default=None)
    _fetch: Fetch | None = field(repr=False, compare=False, default=None)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.rows)

    def __getitem__(self, at: int) -> Hit:
        return self.rows[at]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `plan` only where it was asked for."""
        found = {"count": self.count, "level": self.level, "space": dict(self.space)}
        found |= {} if self.read is None else {"read": self.read}
        found["hits"] = [hit.to_dict() for hit in self.rows]
        return {**found, "plan": [dict(p) for p in self.plan]} if self.plan else found

    def to_geodataframe(self) -> geopandas.GeoDataFrame:
        """A row a hit with its cell as geometry, longitude and latitude; the same columns where there is none.

        Labels, and at level "cell" the cells that voted, are joined by commas, so that any file takes them.

        Raises:
            NotInstalled: geopandas is not there.
        """
        try:
            import geopandas
        except ImportError as error:
            raise NotInstalled("geopandas is not installed; `pip install geopandas`, or use `to_dict`") from error
        from shapely import box

        types = {name: kind for name, kind in _COLUMNS.items() if name != "votes" or self.level == "cell"}
        rows = [_table_row(hit) for hit in self.rows]
        columns = {name: [row[name] for row in rows] for name in types}
        frame = geopandas.GeoDataFrame(columns, geometry=[box(*hit.bounds) for hit in self.rows], crs="EPSG:4326")
        return frame.astype(types)

    def decode(self, bands: Sequence[str] | None = None) -> list[Decoded]:
        """Facts and stored values of each hit's raster, in order; of a chip's those of the whole raster."""
        assert self._fetch is not None
        keys = list(dict.fromkeys(hit.key for hit in self.rows))
        known = dict(zip(keys, self._fetch(keys, bands), strict=True))
        return [known[hit.key] for hit in self.rows]

    def plot(self, *, most: int = 20, bands: Sequence[str] | None = None, columns: int = 5) -> Figure:
        """Pictures of the first hits, chips cut out, in one stretch of colours; save it with `savefig`.

        Args:
            most: hits shown.
            bands: three, or one; else the first that are there of red, green, blue; swir16, nir, red; nir, red, green.
            columns: pictures in a line.
        """
        from geostore.client.pictures import draw_hits

        first = Hits(self.rows[:most], self.count, self.level, self.space, self.vector, _fetch=self._fetch)
        return draw_hits(first.rows, first.decode(), bands=bands, columns=columns)


def _table_row(hit: Hit) -> dict[str, Any]:
    votes = ",".join(vote.cell for vote in hit.votes)
    return {**hit.to_dict(), "time": hit.time, "labels": ",".join(hit.labels), "votes": votes}


@dataclass(frozen=True)
class Moment:
    """One date of a place.

    Attributes:
        key: the raster.
        valid_fraction: share of the cell's pixels that may be used.
        likeness: cosine with the example, or with the newest date.
        step: 1 - cosine with the date before; None for the first.
        shift: 1 - cosine of what five dates before, and five from this one on, look like; None with fewer than three of
            either, at the ends.
        changed: True where the shift stands out.
        where: geohash of the chip that moved most, at a change; else of the place.
        labels: what it was labelled with.
    """

    key: RasterKey
    valid_fraction: float
    likeness: float
    step: float | None
    shift: float | None
    changed: bool
    where: str
    labels: tuple[str, ...]

    @property
    def time(self) -> datetime:
        """When it was acquired, UTC."""
        return from_time_us(self.key.time_us)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        names = ("valid_fraction", "likeness", "step", "shift", "changed", "where")
        about = {name: getattr(self, name) for name in names}
        return {**vars(self.key), "time": self.time.isoformat(), **about, "labels": list(self.labels)}


@dataclass(frozen=True)
class PlaceChanges:
    """How one place looked over time, ascending.

    Attributes:
        geohash: the place.
        rows: its dates.
        deseasoned: True if what each season looks like was taken off before shifts were measured.
        space: what made the descriptors.
    """

    geohash: str
    rows: tuple[Moment, ...]
    deseasoned: bool
    space: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Moment]:
        return iter(self.rows)

    def __getitem__(self, at: int) -> Moment:
        return self.rows[at]

    @property
    def changes(self) -> list[Moment]:
        """The dates at which it changed."""
        return [row for row in self.rows if row.changed]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        about = {"geohash": self.geohash, "deseasoned": self.deseasoned, "space": dict(self.space)}
        return {**about, "rasters": [row.to_dict() for row in self.rows]}

    def plot(self) -> Figure:
        """Likeness and shift over time, changes marked; save it with `savefig`."""
        from geostore.client.pictures import draw_changes

        return draw_changes(self.geohash, self.rows)


def read_hits(reply: Reply, fetch: Fetch) -> Hits:
    """The hits in the answer to `similar`."""
    distances, scores, vector = reply.arrays
    rows = tuple(
        Hit(
            RasterKey(*(found[name] for name in KEY)),
            found["cell"],
            float(score),
            int(distance),
            found["valid_fraction"],
            tuple(found["labels"]),
            tuple(_vote(vote) for vote in found.get("votes", ())),
        )
        for found, distance, score in zip(reply.fields["hits"], distances, scores, strict=True)
    )
    about = reply.fields
    plan, read = tuple(about.get("plan", ())), about.get("read")
    return Hits(rows, about["count"], about["level"], about["space"], vector, plan, read, fetch)


def _vote(found: Mapping[str, Any]) -> Vote:
    return Vote(RasterKey(*(found[name] for name in KEY)), found["cell"], found["score"], found["weight"])


def read_changes(reply: Reply) -> PlaceChanges:
    """The dates in the answer to `changes`."""
    likeness, step, shift = reply.arrays
    rows = tuple(
        Moment(
            key=RasterKey(*(found[name] for name in KEY)),
            valid_fraction=found["valid_fraction"],
            likeness=float(likeness[i]),
            step=None if np.isnan(step[i]) else float(step[i]),
            shift=None if np.isnan(shift[i]) else float(shift[i]),
            changed=found["changed"],
            where=found["where"],
            labels=tuple(found["labels"]),
        )
        for i, found in enumerate(reply.fields["rasters"])
    )
    about = reply.fields
    return PlaceChanges(about["geohash"], rows, about["deseasoned"], about["space"])
