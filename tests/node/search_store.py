"""A small store of places that differ, and the same questions answered by looking at every decoded raster."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from geostore.collection import Collection, Policy, collection_to_dict
from geostore.index.descriptors.spectral import Spectral
from geostore.index.rerank import quantise
from geostore.keys import RasterKey, time_us
from geostore.node import Node
from geostore.node.decode import read_row
from geostore.partition.grid import cell_grid, owned
from geostore.query import messages
from geostore.query.messages import Array, Key, Piece, Put, Reply, SceneFields
from geostore.raster import Band, Bands, Raster
from geostore.settings import Settings

CELLS = ("u8hks", "u8hkt", "u8hku", "u8hkv")
NAMES = ("blue", "green", "red", "nir")
BANDS = Bands(tuple(Band(n, n, 100.0, valid_max=20_000, scale=1e-4) for n in NAMES))
COLLECTION = Collection(name="farm", groups={"100m": BANDS}, policy=Policy(mse_max=5e-4, codec="klt-av1", rivals=()))
MONTHS = ("2020-01-10", "2020-04-10", "2020-07-10", "2020-10-10", "2021-01-10", "2021-07-10")


def when(day: str) -> int:
    """UTC microseconds of a day."""
    return time_us(datetime.fromisoformat(day).replace(tzinfo=UTC))


def picture(cell: str, day: str, *, kind: int | None = None) -> Raster:
    """Ground of a kind (dark water, green field, bright town), a season, noise; usable inside the cell."""
    grid = cell_grid(cell, "EPSG:32634", 100.0, 100.0, (0.0, 0.0))
    place = CELLS.index(cell)
    rng = np.random.default_rng([place, int(day[:4]), int(day[5:7])])
    levels = np.array([[300, 400, 300, 200], [400, 700, 500, 3500], [1800, 2000, 2200, 2600]])
    base = levels[place % 3 if kind is None else kind][:, None, None] * (1 + 0.15 * np.cos(int(day[5:7]) / 2))
    y, x = np.mgrid[0 : grid.height, 0 : grid.width] / 5
    wave = 1 + 0.2 * np.sin(x * (1 + place)) * np.cos(y)
    pixels = np.clip(base * wave + rng.normal(0, 30, (4, *grid.shape)), 1, 20_000).astype(np.uint16)
    valid = owned(cell, grid)
    valid[: 2 + int(day[5:7]), :9] = False
    return Raster(pixels=pixels, valid=valid, bands=BANDS, grid=grid)


def new_node(path: Path, **settings: object) -> Node:
    """A store with the collection and nothing in it."""
    node = Node.open(str(path), settings=Settings(workers=1, **settings), create=True)
    node.answer(messages.PutCollection(collection=collection_to_dict(COLLECTION)))
    return node


def put(
    node: Node, cell: str, day: str, *, platform: str = "sentinel-2a", revision: int = 0, empty: bool = False,
    collection: str = "farm", **look: object,
) -> Reply:  # fmt: skip
    """Store one raster as a scene of its own."""
    raster = picture(cell, day, **look)
    usable = raster.valid & (not empty)
    grid = messages.GridFields.model_validate(raster.grid, from_attributes=True)
    piece = Piece(geohash=cell, group="100m", cell=grid, row=0, col=0, pixels=0, valid=1)
    scene = SceneFields(
        id=f"{cell}-{day}-{revision}", time_us=when(day), platform=platform, revision=revision,
        facts={"eo:cloud_cover": str(int(day[5:7]))},
    )  # fmt: skip
    return node.answer(Put(collection=collection, scene=scene, pieces=[piece]), [raster.pixels, usable.view(np.uint8)])


def fill(node: Node, days: Sequence[str] = MONTHS) -> None:
    """Every cell at every date; the sensor changes by year."""
    for cell in CELLS:
        for day in days:
            put(node, cell, day, platform="sentinel-2a" if day < "2021" else "landsat-8")


def key(cell: str, day: str, platform: str = "") -> Key:
    """A stored raster's key."""
    name = platform or ("sentinel-2a" if day < "2021" else "landsat-8")
    return Key(collection="farm", geohash=cell, group="100m", time_us=when(day), platform=name)


def similar(node: Node, example: Key, **fields: object) -> Reply:
    """One question about one stored raster."""
    wanted = fields.pop("wanted", {})
    return node.answer(messages.Similar.model_validate({"like": [{"key": example}], "wanted": wanted, **fields}))


def hits(reply: Reply) -> list[tuple[str, str]]:
    """(geohash, cell of the row) and day of each hit."""
    days = [datetime.fromtimestamp(h["time_us"] / 1e6, UTC).strftime("%Y-%m-%d") for h in reply.fields["hits"]]
    return [(h["geohash"], day) for h, day in zip(reply.fields["hits"], days, strict=True)]


def brute(node: Node, example: Key) -> list[tuple[float, tuple[str, str]]]:
    """(cosine, hit) of every other stored raster by decoding and describing it here and now, best first."""
    found, mine = [], None
    for partition in node.store.partitions():
        for row in node.store.rasters(partition):
            _, raster = read_row(node, row)
            vector = Spectral().describe(raster.pixels, raster.valid, raster.bands)
            small = quantise(vector[None])[0][0].astype(np.float32)
            unit = small / np.linalg.norm(small)
            if row.key == RasterKey(**vars(example)):
                mine = unit
            else:
                found.append((unit, (row.key.geohash, f"{row.key.time:%Y-%m-%d}")))
    assert mine is not None
    return sorted(((float(v @ mine), hit) for v, hit in found), reverse=True)


def contents(node: Node) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every index of the node's one model, comparable whatever segments they lie in."""
    model = node.following.model(BANDS)
    levels = node.following.level(model)
    found = {}
    for name, index in levels.indexes.items():
        rows = index.everything()
        if rows is None:
            continue
        numbers = {n: np.nan_to_num(c, nan=-1.0) for n, c in sorted(rows.numbers.items())}
        labels = rows.labels if rows.labels is not None else np.zeros((1, len(rows)), np.uint64)
        found[str(name)] = sorted(
            (
                rows.keys[int(rows.owners[i])],
                int(rows.cells[i]),
                rows.signatures[:, i].tobytes(),
                rows.descriptors[i].tobytes() if rows.descriptors is not None else b"",
                *(float(c[i]) for c in numbers.values()),
                *(str(c[i]) for _, c in sorted(rows.categories.items())),
                labels[:, i].tobytes(),
            )
            for i in range(len(rows))
        )
    return found


def arrays_of(raster: Raster) -> list[Array]:
    """What a request carries of a raster."""
    return [raster.pixels, raster.valid.view(np.uint8)]
