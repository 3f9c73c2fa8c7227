"""A reader's error budget: what is kept where its certificate allows, else the original; told, alike everywhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from daemon_process import Daemon
from small_store import CELL, DATES, fill, fitted, piece

from geostore.client import Client
from geostore.collection import Policy
from geostore.connection import Local, connect
from geostore.errors import InvalidInput, PolicyMissed
from geostore.export import choose, export
from geostore.node import Node
from geostore.query import messages

POLICY = Policy(mse_max=5e-4, index_mae_max=0.05, codec="klt-av1", rivals=())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small store, fitted; its lossless rasters still there."""
    return fitted(tmp_path_factory.mktemp("within") / "store", POLICY, steps_max=10)


def budget(client: Client) -> dict[str, float]:
    """An NDVI budget that about half of the rasters keep."""
    infos = client.rasters(CELL, group="10m")
    return {"ndvi": float(np.median([i.certificate.indices["NDVI"].mae for i in infos]))}


def test_each_raster_is_as_kept_or_the_original_by_its_certificate(store: Path) -> None:
    """Against certificates one by one: near rasters as decoded before, the others bit for bit as put; both told."""
    with connect(store, readonly=True) as client:
        within, infos = budget(client), client.rasters(CELL, group="10m")
        stored = client.decode_rasters(infos)
        found = client.decode_rasters(infos, within=within)
        near = [i.certificate.indices["NDVI"].mae <= within["ndvi"] for i in infos]
        assert 0 < sum(near) < DATES
        for t, stays in enumerate(near):
            info, raster = found[t]
            if stays:
                np.testing.assert_array_equal(raster.pixels, stored[t][1].pixels)
                assert info.tier == "embedding"
            else:
                put = piece(t, "10m").raster
                at = put.grid.offset_of(raster.grid)
                assert at == (0, 0)
                np.testing.assert_array_equal(raster.pixels, put.pixels)
                assert (info.tier, info.exact) == ("original", True)


@pytest.mark.parametrize("name", ["mae", "p99"])
def test_a_budget_of_the_errors_of_values_is_kept(store: Path, name: str) -> None:
    """With a budget that half of the rasters keep, what decodes errs by no more, measured against what was put."""
    with connect(store, readonly=True) as client:
        infos = client.rasters(CELL, group="10m")
        bound = float(np.median([getattr(i.certificate, name) for i in infos]))
        found = client.decode_rasters(infos, within={name: bound})
        ds = client.decode(CELL, within={name: bound})
    assert {info.tier for info, _ in found} == {"embedding", "original"}
    assert float(ds[name].max()) <= bound
    for t, (_, raster) in enumerate(found):
        put = piece(t, "10m").raster
        row, col = raster.grid.offset_of(put.grid)  # what is fitted decodes on the partition's window
        seen = raster.pixels[:, row:, col:][:, : put.grid.height, : put.grid.width]
        away = np.abs(put.bands.to_physical(put.pixels) - put.bands.to_physical(seen))[:, put.valid]
        error = away.mean(dtype=np.float64) if name == "mae" else np.percentile(away, 99)
        assert error <= bound * (1 + 1e-5)


def test_a_dataset_tells_the_tier_of_every_date(store: Path) -> None:
    """`tier` along time, the counts and the budget in the attributes, and no error above the budget."""
    with connect(store, readonly=True) as client:
        within = budget(client)
        ds = client.decode(CELL, within=within).load()
    kept = int((ds["tier"] == "embedding").sum())
    assert ds.attrs["tiers"] == f"embedding {kept}, original {DATES - kept}"
    assert ds.attrs["within"] == f"ndvi <= {within['ndvi']:g}"
    assert float(ds["ndvi_mae"].max()) <= within["ndvi"] * (1 + 1e-6)
    assert (ds["mse"].values[ds["tier"].values == "original"] == 0).all()


def test_a_daemon_answers_the_same(store: Path) -> None:
    """Over the wire, budgets give the same tiers and the same values as in this process."""
    with connect(store, readonly=True) as client:
        within = budget(client)
        here = client.decode(CELL, within=within).load()
    with Daemon(store) as running, connect(running.address) as client:
        there = client.decode(CELL, within=within).load()
    assert here.identical(there)


def test_an_original_is_called_one(store: Path) -> None:
    """Decoded at tier original, a fitted raster has no error, and its tier and layers say why, in facts and Dataset."""
    with connect(store, readonly=True) as client:
        infos = client.rasters(CELL, group="10m")
        assert {i.tier for i in infos} == {"embedding"}
        found = client.decode_rasters(infos, tier="original")
        ds, best = (client.decode(CELL, tier=tier) for tier in ("original", "best"))
        told = [(i.tier, i.layers, i.exact, i.certificate.mse) for i, _ in found]
        assert told == [("original", "original", True, 0.0)] * DATES
        assert set(ds["tier"].values) == set(ds["layers"].values) == {"original"}
        assert (ds["mse"].values == 0).all()
        assert ds.attrs["comment"] == "decoded without loss"
        assert [i.layers for i in infos] == best["layers"].values.tolist()


def test_what_no_tier_keeps_is_said_with_both_numbers(store: Path, tmp_path: Path) -> None:
    """Without an original PolicyMissed names the error kept, the one wanted and the next step."""
    shutil.copytree(store, tmp_path / "store")
    with connect(tmp_path / "store") as client:
        client.prune(now=True)
    with connect(tmp_path / "store", readonly=True) as client:
        infos = client.rasters(CELL, group="10m")
        with pytest.raises(PolicyMissed, match=r"is kept with mse .* where 1e-12 is wanted.*decode it at tier best"):
            client.decode_rasters(infos, within={"mse": 1e-12})
        assert len(client.decode_rasters(infos, within={"mse": 5e-4})) == DATES


def test_budgets_that_mean_nothing_are_refused(store: Path) -> None:
    """Errors that are not measured, numbers that are no bound, and a tier beside a budget raise InvalidInput."""
    with connect(store, readonly=True) as client:
        infos = client.rasters(CELL, group="10m")
        for within, why in (({"evi": 0.1}, "use mse, max_error, mae, p99, ndvi"), ({"mse": 0.0}, "above 0")):
            with pytest.raises(InvalidInput, match=why):
                client.decode_rasters(infos, within=within)
            with pytest.raises(InvalidInput, match=why):
                client.decode(CELL, within=within)
        with pytest.raises(InvalidInput, match="give one"):
            client.decode_rasters(infos, within={"mse": 1.0}, tier="original")


BAD = [
    ({"ndvi": "0.02"}, r"within ndvi = '0.02'; give the largest error allowed as a number"),
    ({"ndvi": True}, "within ndvi = True; give the largest error allowed as a number"),
    ({"ndvi": -1}, "within ndvi = -1; .*above 0"),
    ({"ndvi": float("nan")}, "within ndvi = nan; .*above 0"),
    ({"foo": 0.1}, "within foo = 0.1: that is not measured here; use mse, max_error, mae, p99, ndvi, ndvi_mae"),
    ("ndvi=0.02", "give errors allowed by name"),
]


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small store before its fit: every raster is exact."""
    path = tmp_path_factory.mktemp("waiting") / "store"
    with connect(path, create=True) as client:
        fill(client)
    return path


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small store fitted by a policy that keeps every raster lossless."""
    return fitted(tmp_path_factory.mktemp("exact") / "store", Policy(codec="raw"), steps_max=0)


@pytest.mark.parametrize("kept", ["store", "waiting", "exact"])
@pytest.mark.parametrize(("within", "why"), BAD)
def test_a_bad_budget_is_refused_at_the_call(
    kept: str, within: object, why: str, request: pytest.FixtureRequest
) -> None:
    """Before any value is read, however the rasters are kept: of a fit, waiting for one, or lossless after it."""
    with connect(request.getfixturevalue(kept), readonly=True) as client:
        infos = client.rasters(CELL, group="10m")
        with pytest.raises(InvalidInput, match=why):
            client.decode(CELL, group="10m", within=within)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match=why):
            client.decode_rasters(infos, within=within)  # type: ignore[arg-type]


@pytest.mark.parametrize("kept", ["store", "waiting", "exact"])
def test_a_tier_beside_a_budget_is_refused_at_the_call(kept: str, request: pytest.FixtureRequest) -> None:
    """A Dataset is not made of two answers to one question."""
    why = r"tier 'original' and within .*mse.* give one"
    with connect(request.getfixturevalue(kept), readonly=True) as client, pytest.raises(InvalidInput, match=why):
        client.decode(CELL, within={"mse": 1.0}, tier="original")


@pytest.mark.parametrize("kept", ["waiting", "exact"])
def test_exact_rasters_keep_every_budget_that_is_measured(kept: str, request: pytest.FixtureRequest) -> None:
    """Names that a fit measures, and numbers of any kind: decoded without loss; NDVI of no band group is refused."""
    with connect(request.getfixturevalue(kept), readonly=True) as client:
        ds = client.decode(CELL, group="10m", within={"ndvi_max": np.float32(1e-3), "mse": 1e-9}).load()
        assert ds.attrs["comment"] == "decoded without loss"
        if kept == "waiting":
            with pytest.raises(InvalidInput, match=r"not measured here; use mse, max_error, mae, p99$"):
                client.decode(CELL, group="20m", within={"ndvi": 0.1})


def test_a_node_refuses_a_bad_budget_of_any_client(waiting: Path) -> None:
    """Requests as they come over the wire, of a client that did not look."""
    with Node.open(str(waiting), readonly=True) as node:
        keys = [i.to_key() for i in Client(Local(node)).rasters(CELL, group="10m")]
        for within, tier, why in (
            ({"mse": -1.0}, "best", "above 0"),
            ({"foo": 1.0}, "best", "not measured here"),
            ({"mse": 1.0}, "preview", "give one"),
        ):
            with pytest.raises(InvalidInput, match=why):
                node.answer(messages.Decode(keys=keys, within=within, tier=tier))  # type: ignore[arg-type]


def test_an_exported_file_names_its_tiers(store: Path, tmp_path: Path) -> None:
    """A file of a date that is decoded from its original says so, and is exact."""
    import rasterio

    with connect(store, readonly=True) as client:
        chosen = choose(client, CELL, group="10m", pick="first")
        (made,) = export(client, chosen, tmp_path / "one.tif", within={"mse": 1e-12})
    assert made.exact
    with rasterio.open(made.path) as file:
        assert file.tags()["GEOSTORE_TIER"] == file.tags()["GEOSTORE_LAYERS"] == "original"
