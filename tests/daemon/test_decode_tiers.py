"""Progressive decode: the first layers of a raster alone, each with errors of its own, named or chosen by a budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from daemon_process import Daemon
from small_store import CELL, COLLECTION, fitted, piece

from geostore.certificate import Certificate, measure
from geostore.client import Client
from geostore.collection import Policy
from geostore.connection import connect
from geostore.errors import NotFound
from geostore.query.facts import RasterInfo
from geostore.query.messages import SceneFields, Tier
from geostore.raster import Raster
from geostore.settings import Settings

BOUNDED = Policy(mse_max=None, index_mae_max=None, max_error=0.004, rivals=())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose network's payloads hold a residual."""
    return fitted(tmp_path_factory.mktemp("tiers") / "store", BOUNDED, steps_max=0)


def seen(t: int, raster: Raster, indices: tuple[str, ...] = ("NDVI",)) -> Certificate:
    """The errors of a decoded raster against the piece that was put."""
    put = piece(t, "10m").raster
    row, col = raster.grid.offset_of(put.grid)  # what is fitted decodes on the partition's window
    window = (slice(None), slice(row, row + put.grid.height), slice(col, col + put.grid.width))
    return measure(put.pixels, raster.pixels[window], put.valid, put.bands, indices)


def decoded(client: Client, tier: Tier) -> list[tuple[RasterInfo, Raster]]:
    """Every raster at a tier."""
    return client.decode_rasters(client.rasters(CELL, group="10m"), tier=tier)


def test_a_tier_errs_as_its_certificate_says(store: Path) -> None:
    """Against what was put: each error is the certificate's to eight bits, from below; and more than all of it."""
    with connect(store, readonly=True) as client:
        whole = decoded(client, "best")
        found = decoded(client, "embedding")
    assert {i.tier for i, _ in whole} == {"residual"}
    assert {(i.tier, i.layers) for i, _ in found} == {("embedding", "gain")}
    for t, (info, raster) in enumerate(found):
        truth = seen(t, raster)
        for name in ("mse", "max_error", "mae", "p99"):
            told, is_so = getattr(info.certificate, name), getattr(truth, name)
            assert is_so <= told <= is_so * (1 + 1 / 128)
        assert truth.indices["NDVI"].mae <= info.certificate.indices["NDVI"].mae
        assert info.certificate == whole[t][0].coarser["embedding"]
        assert truth.max_error > whole[t][0].certificate.max_error


def test_a_budget_takes_the_coarsest_tier_that_keeps_it(store: Path) -> None:
    """For a budget that half of the embeddings keep: the tier by the certificates, and real errors within."""
    with connect(store, readonly=True) as client:
        infos = client.rasters(CELL, group="10m")
        bound = float(np.median([i.coarser["embedding"].mse for i in infos]))
        found = client.decode_rasters(infos, within={"mse": bound})
        told = client.decode(CELL, within={"mse": bound})
        exact = client.decode_rasters(infos, within={"max_error": 1e-9})
    assert {info.tier for info, _ in found} == {"embedding", "residual"}
    assert told["tier"].values.tolist() == [info.tier for info, _ in found]
    assert {info.tier for info, _ in exact} == {"original"}
    for t, (info, raster) in enumerate(found):
        assert info.tier == ("embedding" if infos[t].coarser["embedding"].mse <= bound else "residual")
        assert seen(t, raster).mse <= bound


def test_a_daemon_and_any_number_of_threads_answer_the_same(store: Path) -> None:
    """Every tier over the wire, by one thread and by four, gives the values of this process."""
    answers = []
    for threads in (1, 4):
        with connect(store, readonly=True, settings=Settings(decode_threads=threads)) as client:
            answers.append([client.decode(CELL, tier=tier).load() for tier in ("embedding", "best", "original")])
    with Daemon(store) as running, connect(running.address) as client:
        answers.append([client.decode(CELL, tier=tier).load() for tier in ("embedding", "best", "original")])
    for other in answers[1:]:
        assert all(a.identical(b) for a, b in zip(answers[0], other, strict=True))


def test_what_a_raster_has_no_tier_for_is_said(tmp_path: Path) -> None:
    """Pictures with a residual have an embedding and no preview, lossless rasters neither: NotFound says so."""
    pictures = fitted(tmp_path / "av1", replace(BOUNDED, codec="klt-av1"), steps_max=0)
    with connect(pictures, readonly=True) as client:
        with pytest.raises(NotFound, match=r"no preview: it is kept as klt \+ av1"):
            client.decode(CELL, tier="preview")
        for t, (info, raster) in enumerate(decoded(client, "embedding")):
            assert (info.tier, info.layers) == ("embedding", "klt+av1")
            assert seen(t, raster).mse <= info.certificate.mse
    with connect(tmp_path / "put", create=True) as client:
        client.put_collection(COLLECTION)
        scene = SceneFields(id="scene-0", time_us=0, platform="s2a", footprint=[[22.0, 44.0]])
        client.put("farm", scene, [piece(0, "10m")])
        for tier in ("preview", "embedding"):
            with pytest.raises(NotFound, match="kept as lossless; decode it at tier best, or run `geostore fit`"):
                client.decode(CELL, tier=tier)
