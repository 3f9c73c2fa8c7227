"""Rasters coded in groups through a whole node, and the choice between codecs by bytes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geostore.certificate import measure
from geostore.codec import Effort, Series, quiet
from geostore.collection import Collection, Policy, collection_to_dict
from geostore.node import Node
from geostore.node.encode import Fitted, fit_series
from geostore.partition.grid import cell_grid
from geostore.query import messages
from geostore.query.messages import GridFields, Key, Piece, Put, PutCollection, SceneFields
from geostore.raster import Band, Bands
from geostore.settings import Settings
from geostore.testing.codecs import synthetic_series

CELL, DAY_US = "u8hks", 86_400_000_000
NAMES = ("blue", "green", "red", "nir")
BANDS = Bands(tuple(Band(n, n, 10.0, valid_max=20_000, scale=1e-4) for n in NAMES))
POLICY = Policy(mse_max=2e-5, index_mae_max=0.02, codec="klt-av1", rivals=())
DATA = Path(os.environ.get("GEOSTORE_DATA", Path(__file__).parents[3] / "shared" / "data"))


def series(dates: int, *, noise: float = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth place whose reflectance follows a season; DN, and a mask with a cloud on odd dates."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:40, 0:48] / 16
    place = 1000 + 400 * np.stack([np.sin(x + b) + np.cos(y - b) for b in range(4)]) + np.arange(4)[:, None, None] * 500
    gains = 1 + 0.2 * np.sin(np.arange(dates))
    pixels = gains[:, None, None, None] * place + rng.normal(0, noise, (dates, 4, 40, 48))
    valid = np.ones((dates, 40, 48), bool)
    valid[1::2, 10:20, 10:30] = False
    return np.clip(pixels, 1, 20_000).astype(np.uint16), valid


def put(node: Node, t: int, pixels: np.ndarray, valid: np.ndarray) -> None:
    grid = GridFields.model_validate(cell_grid(CELL, "EPSG:32634", 10.0, 10.0, (0.0, 0.0)), from_attributes=True)
    piece = Piece(geohash=CELL, group="10m", cell=grid, row=5, col=7, pixels=0, valid=1)
    scene = SceneFields(id=f"scene-{t}", time_us=t * DAY_US)
    node.answer(Put(collection="farm", scene=scene, pieces=[piece]), [pixels, valid.astype(np.uint8)])


def decode(node: Node, *dates: int) -> list[tuple[dict, np.ndarray]]:
    keys = [Key(collection="farm", geohash=CELL, group="10m", time_us=t * DAY_US) for t in dates]
    reply = node.answer(messages.Decode(keys=keys))
    return [(fields, reply.arrays[fields["pixels"]]) for fields in reply.fields["rasters"]]


def open_node(path: Path, policy: Policy = POLICY) -> Node:
    node = Node.open(str(path / "store"), settings=Settings(workers=1, fit_steps=5), create=True)
    collection = Collection(name="farm", groups={"10m": BANDS}, policy=policy)
    node.answer(PutCollection(collection=collection_to_dict(collection)))
    return node


def test_a_store_of_groups_is_fitted_decoded_counted_pruned_and_verified(tmp_path: Path) -> None:
    """Rasters decode the same one by one, all at once and backwards, before and after upkeep, within their bounds."""
    pixels, valid = series(9)
    valid[4] = False
    with open_node(tmp_path) as node:
        for t in range(9):
            put(node, t, pixels[t], valid[t])
        assert node.answer(messages.Fit()).fields["fitted"] == 1
        node.answer(messages.Prune(now=True))
        node.answer(messages.Compact(now=True))
        together = decode(node, *range(9))
        backwards = decode(node, *reversed(range(9)))[::-1]
        for t, (fields, seen) in enumerate(together):
            assert np.array_equal(seen, backwards[t][1])
            assert np.array_equal(seen, decode(node, t)[0][1])
            truth = measure(pixels[t], seen, valid[t], BANDS, ("NDVI",))
            assert truth.keeps(POLICY)
            assert fields["tier"] == ("empty" if t == 4 else "embedding")
        shared = {fields["bytes_shared"] for fields, _ in together} - {0}
        account = node.answer(messages.Status(partitions=True)).fields
        assert shared
        rows = node.store.rasters(node.store.partitions()[0])
        groups = {row.shared for row in rows}
        assert account["bytes"]["embeddings"] == sum(map(len, groups)) + sum(len(r.payload) for r in rows)
        assert account["per_partition"][0]["bytes_embeddings"] == account["bytes"]["embeddings"]
        assert node.answer(messages.Verify()).fields["ok"]
        node.answer(messages.Rebuild())
        assert np.array_equal(decode(node, 8)[0][1], together[8][1])


def test_new_dates_are_coded_alone_until_they_miss_and_then_with_the_old_ones(tmp_path: Path) -> None:
    """A like date joins the frozen codec by itself; an unlike one brings a generation that holds the old ones too."""
    pixels, valid = series(9)
    other = np.clip(pixels[8:].astype(int) * 3, 1, 20_000).astype(np.uint16)
    with open_node(tmp_path, replace(POLICY, original="keep")) as node:
        for t in range(7):
            put(node, t, pixels[t], valid[t])
        node.answer(messages.Fit())
        put(node, 7, pixels[7], valid[7])
        assert node.answer(messages.Fit()).fields["encoded"] == 1
        fields, _ = decode(node, 7)[0]
        assert (fields["generation"], fields["bytes_shared"]) == (1, 0)
        node.answer(messages.Prune(now=True))
        put(node, 8, other[0], valid[8])
        second = node.answer(messages.Fit()).fields
        assert (second["rasters"], second["encoded"]) == (9, 0)
        found = decode(node, *range(9))
        assert {f["generation"] for f, _ in found} == {2}
        assert all(measure(pixels[t], found[t][1], valid[t], BANDS, ("NDVI",)).keeps(POLICY) for t in range(8))


def _romania() -> Series:
    import rasterio

    stack = []
    for path in sorted((DATA / "s2_l2a_romania_timeseries" / "10m").glob("*.tif"))[:8]:
        with rasterio.open(path) as file:
            stack.append(file.read()[:, :40, :40])
    pixels = np.stack(stack)
    valid = np.isin(pixels[:, 4], (2, 4, 5, 6, 7, 11))
    return _series(pixels[:, :4], valid, tuple(Band(n, n, 10.0, scale=1e-4) for n in NAMES), ("NDVI",))


def _peru() -> Series:
    import rasterio

    stack = []
    for path in sorted((DATA / "landsat_peru_timeseries").glob("*.tif")):
        with rasterio.open(path) as file:
            stack.append(file.read()[:, 100:132, 200:232])
    pixels = np.stack(stack)
    names = ("swir16", "nir", "red", "green")
    bands = tuple(Band(n, n, 90.0, "uint8", 1 / 255, valid_max=255, kind="counts") for n in names)
    return _series(pixels, np.ones((len(pixels), 32, 32), bool), bands, ())


def _series(pixels: np.ndarray, valid: np.ndarray, bands: tuple[Band, ...], indices: tuple[str, ...]) -> Series:
    times = np.arange(len(pixels), dtype=np.int64) * DAY_US
    return Series(pixels=pixels, valid=valid, times_us=times, bands=Bands(bands), indices=indices)


_FINE = Policy(mse_max=1e-4, index_mae_max=None)
_PLACES = [("romania", Policy()), ("peru", _FINE), ("synthetic", Policy()), ("synthetic-float", _FINE)]


@pytest.mark.parametrize(("place", "policy"), _PLACES, ids=[name for name, _ in _PLACES])
def test_no_partition_takes_more_than_klt_av1_or_lossless_would(place: str, policy: Policy) -> None:
    """What a fit keeps, codec, payloads, groups and masks, is never above a rival fitted alone at the same policy."""
    if not place.startswith("synthetic") and not DATA.is_dir():
        pytest.skip(f"no development data at {DATA}; set GEOSTORE_DATA")
    dtype = "float32" if place.endswith("float") else "uint16"
    made = {"romania": _romania, "peru": _peru}.get(place)
    chosen = made() if made else synthetic_series((6, 4, 30, 21), dtype=dtype, indices=("NDVI",))
    kept = _fitted("vae", chosen, policy)
    facts = kept.facts
    assert facts["bytes_total"] == kept.bytes_total == min(v for k, v in facts.items() if k.startswith("bytes_"))
    rivals = ("raw",) if dtype == "float32" else ("raw", "klt-av1")
    for rival in rivals:
        assert kept.bytes_total <= _fitted(rival, chosen, replace(policy, rivals=())).bytes_total
    if dtype == "float32":
        assert "klt-av1: fits no codec to such values" in str(facts["reason"])


def test_a_rival_that_is_foreseen_to_take_clearly_more_is_not_fitted() -> None:
    """Proves that of two classical codecs only the one foreseen to win is fitted, and that the other would lose."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:48, 0:48] / 9
    place = 2000 + 900 * np.stack([np.sin(x * (b + 1)) * np.cos(y + b) for b in range(4)])
    season = 1 + 0.3 * np.sin(np.arange(14) / 2)
    pixels = (
        season[:, None, None, None] * place + rng.normal(0, 250, place.shape) + rng.normal(0, 10, (14, *place.shape))
    )
    chosen = _series(pixels.astype(np.uint16), np.ones((14, 48, 48), bool), BANDS.items, ("NDVI",))
    kept = _fitted("vae", chosen, Policy())
    assert kept.family == "klt-dct"
    assert "klt-av1: foreseen to take" in str(kept.facts["reason"])
    assert "bytes_klt-av1" not in kept.facts
    assert kept.bytes_total < _fitted("klt-av1", chosen, Policy(rivals=())).bytes_total


def _fitted(family: str, chosen: Series, policy: Policy) -> Fitted:
    return fit_series(family, None, chosen, replace(policy, codec=family), Effort(steps=3), quiet)
