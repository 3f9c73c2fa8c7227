"""Rows with every kind of attribute, and the same filters answered by looking at each row."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from signatures_made import clustered

from geostore.index.labels import AtLeast, Exactly, Legend, Some
from geostore.index.rows import Rows, Space
from geostore.keys import RasterKey, from_time_us, time_us
from geostore.partition.geohash import bounds, encode_many, names_of

PRECISION = 5
SPACE = Space("spectral-1", "d", "rotation", "h", 128, 8)
LEGEND = Legend(
    "places-1",
    ("oak", "pine", "lake", "river", "town"),
    {"forest": ("oak", "pine"), "water": ("lake", "river")},
    {"forest": "1", "water": "2", "oak": "11"},
)


def rows_made(count, *, seed=0, first=0):
    """`count` rows in scrambled order; every third key owns two rows."""
    rng = np.random.default_rng(seed)
    cells = encode_many(rng.uniform(-60, -50, count), rng.uniform(-10, 10, count), PRECISION)
    times = rng.integers(time_us(datetime(2015, 1, 1, tzinfo=UTC)), time_us(datetime(2021, 1, 1, tzinfo=UTC)), count)
    owners = np.arange(count) - (np.arange(count) % 3 == 2)
    names = names_of(cells, PRECISION)
    keys = [RasterKey("c", str(g), "10m", first + i).to_bytes() for i, g in enumerate(names)]
    valid = rng.random(count)
    valid[rng.random(count) < 0.1] = np.nan
    return Rows(
        signatures=clustered(count, seed=seed),
        cells=cells,
        times_us=times,
        owners=owners,
        keys=keys,
        descriptors=rng.integers(-127, 128, (count, 8)).astype(np.int8),
        scales=rng.random(count).astype(np.float32),
        numbers={"valid_fraction": valid, "pixels": rng.integers(0, 9, count)},
        categories={"sensor": rng.choice(["sentinel-2a", "sentinel-2b", "landsat-8", ""], count)},
        labels=rng.integers(0, 32, (1, count)).astype(np.uint64),
        legend=LEGEND,
    )


def meets(rows, i, *, box=None, start=None, end=None, seasons=(), sensor=(), valid=None, labels=None):
    """Whether row `i` meets conditions, by looking at it alone."""
    west, south, east, north = bounds(str(names_of(rows.cells[i], PRECISION)))
    when = from_time_us(int(rows.times_us[i]))
    if box is not None and not (west < box[2] and east > box[0] and south < box[3] and north > box[1]):
        return False
    if (start is not None and when < start) or (end is not None and when >= end):
        return False
    if seasons and _season(when.month, south >= 0) not in seasons:
        return False
    if sensor and rows.categories["sensor"][i] not in sensor:
        return False
    if valid is not None and not valid[0] <= rows.numbers["valid_fraction"][i] <= valid[1]:
        return False
    return labels is None or _labels_meet(
        {n for b, n in enumerate(LEGEND.labels) if rows.labels[0, i] >> b & 1}, labels
    )


def _season(month, north):
    northern = {12: "winter", 1: "winter", 2: "winter", 3: "spring", 4: "spring", 5: "spring"}
    northern |= {6: "summer", 7: "summer", 8: "summer", 9: "autumn", 10: "autumn", 11: "autumn"}
    opposite = {"winter": "summer", "summer": "winter", "spring": "autumn", "autumn": "spring"}
    return northern[month] if north else opposite[northern[month]]


def _labels_meet(mine, condition):
    groups = [set(LEGEND.groups.get(n, (n,))) for n in condition.names]
    if isinstance(condition, Some):
        return any(mine & g for g in groups)
    if isinstance(condition, Exactly) and mine - set().union(*groups):
        return False
    assert isinstance(condition, AtLeast | Exactly)
    return all(mine & g for g in groups)
