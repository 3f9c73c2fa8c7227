"""A policy of mean errors and single indices through a store: kept by a fit in workers, told, and what is not known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_store import CELL, COLLECTION, DATES, fitted

from geostore.client import Client
from geostore.connection import connect
from geostore.errors import PolicyMissed
from geostore.policy import IndexBounds, Policy
from geostore.report import charts
from geostore.storage import Store

POLICY = Policy(
    mse_max=None,
    mae_max=0.004,
    p99_max=0.02,
    index_mae_max=0.05,
    index={"NDVI": IndexBounds(mae_max=0.02)},
    domain="linear",
    codec="klt-av1",
    rivals=(),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small store, fitted to POLICY by a worker; its lossless rasters gone."""
    path = fitted(tmp_path_factory.mktemp("told") / "store", POLICY, steps_max=10)
    with connect(path) as client:
        client.prune(now=True)
    return path


def tightened(client: Client, **bounds: object) -> int:
    """How many rasters miss the policy once it is changed so."""
    client.put_collection(replace(COLLECTION, policy=replace(POLICY, **bounds)))
    return int(client.status()["quality"]["missed"])


def test_a_fit_keeps_it_and_status_tells(store: Path) -> None:
    """Every certificate lies within each bound, and `status` gives means over them."""
    with connect(store, readonly=True) as client:
        (declared,) = client.collections()
        assert declared.policy == POLICY
        seen = [i.certificate for i in client.rasters(CELL)]
        quality = client.status()["quality"]
    assert all(0 < c.mae <= 0.004 and c.p99 <= 0.02 and c.indices["NDVI"].mae <= 0.02 for c in seen)
    pixels = sum(c.pixels for c in seen)
    assert quality["mae"] == pytest.approx(sum(c.mae * c.pixels for c in seen) / pixels)
    assert quality["p99_mean"] == pytest.approx(sum(c.p99 for c in seen) / DATES)
    assert (quality["within_policy"], quality["missed"]) == (DATES, 0)


def test_charts_show_the_mean_error_where_it_has_a_bound(store: Path, tmp_path: Path) -> None:
    """A panel more, for the policy that bounds it, over time and in the histograms."""
    with connect(store, readonly=True) as client:
        infos = client.rasters(CELL)
    sizes = []
    for policy in (POLICY, replace(POLICY, mae_max=None)):
        over_time = charts.errors_over_time(tmp_path, "errors", "farm", infos, policy)
        spread = charts.histograms(tmp_path, "spread", infos, [policy])
        assert spread is not None
        sizes.append((over_time.height, spread.width))
    assert sizes[0][0] > sizes[1][0]
    assert sizes[0][1] > sizes[1][1]


def test_each_bound_that_is_tightened_tells_who_misses_it(store: Path) -> None:
    """Of values, of one index, of every index but that one: rasters are counted beyond what was asked last."""
    with connect(store) as client:
        assert tightened(client, mae_max=1e-5) == DATES
        assert tightened(client, p99_max=1e-5) == DATES
        assert tightened(client, index={"NDVI": IndexBounds(mae_max=1e-5)}) == DATES
        assert tightened(client, index_mae_max=1e-5) == 0
        assert tightened(client) == 0


def test_what_was_stored_before_they_were_measured_is_not_taken_for_kept(store: Path, tmp_path: Path) -> None:
    """Rows as an earlier format left them: a budget and a policy go by the largest error, in words."""
    import shutil

    shutil.copytree(store, tmp_path / "store")
    with Store.open(tmp_path / "store") as rows:
        (partition,) = rows.partitions()
        before = [replace(r, certificate=replace(r.certificate, mae=None, p99=None)) for r in rows.rasters(partition)]
        rows.commit(before)
    with connect(tmp_path / "store") as client:
        infos = client.rasters(CELL)
        assert {(i.certificate.mae, i.certificate.p99) for i in infos} == {(None, None)}
        largest = max(i.certificate.max_error for i in infos)
        assert len(client.decode_rasters(infos, within={"mae": largest * 1.01})) == DATES
        with pytest.raises(PolicyMissed, match=r"mae not measured when it was stored \(the largest error is"):
            client.decode_rasters(infos, within={"mae": largest / 10})
        assert client.status()["quality"]["mae"] is None
        assert tightened(client, mae_max=largest * 1.01, p99_max=None) == 0
        assert tightened(client) == DATES
