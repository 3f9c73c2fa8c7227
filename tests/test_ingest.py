"""Scenes through the whole pipe: cut, put, fitted, decoded, joined."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from geostore.collection import Collection, Files, Policy
from geostore.connection import connect
from geostore.errors import BadScene, InvalidInput
from geostore.estimate import estimate
from geostore.ingest import ingest
from geostore.partition.join import join, seam
from geostore.query import messages
from geostore.query.messages import GridFields, Piece, Put, SceneFields
from geostore.raster import Band, Bands, Grid, Raster
from geostore.scene import open_scene
from geostore.scene.synthetic import Synthetic, write_scenes
from geostore.scene.writer import write_cog
from geostore.settings import Settings

GRID = Grid("EPSG:32634", 604_000.0, 5_003_000.0, 40.0, 40.0, 120, 150)
PLACE = Synthetic(seed=3, grid=GRID, dates=6, cloud_share=0.0, swath_share=0.0, haze=0.0)
SETTINGS = Settings(workers=1, fit_steps=40)


def collection(**changes: object) -> Collection:
    policy = Policy(mse_max=1e-3, rivals=())
    return replace(Collection(name="place", groups={"40m": PLACE.bands}, policy=policy), **changes)  # type: ignore[arg-type]


def test_a_scene_is_cut_into_cells_and_joined_back_bit_for_bit(tmp_path: Path) -> None:
    """Decoded and joined, several cells are the scene; after a fit all keep the policy, and the seam is printed."""
    write_scenes(PLACE, tmp_path / "scenes")
    with connect(tmp_path / "store", create=True, settings=SETTINGS) as client:
        summary = ingest(client, [tmp_path / "scenes"], collection())
        assert summary.scenes == 6
        assert summary.partitions > 1
        before = sum(client.status()["bytes"][k] for k in ("durable",))
        again = ingest(client, [tmp_path / "scenes"], collection())
        assert (again.scenes, again.unchanged, again.rasters) == (0, 6, 0)
        assert client.status()["bytes"]["durable"] == before
        truth = PLACE.date(2)
        infos = [i for i in client.rasters(collection="place") if i.key.time_us == truth.time_us]
        whole = join([raster for _, raster in client.decode_rasters(infos)])
        at = whole.grid.offset_of(GRID)
        assert at is not None
        window = (slice(None), slice(at[0], at[0] + GRID.height), slice(at[1], at[1] + GRID.width))
        assert np.array_equal(whole.pixels[window], truth.raster.pixels)
        assert whole.valid.sum() == GRID.height * GRID.width
        client.fit()
        infos = [i for i in client.rasters(collection="place") if i.key.time_us == truth.time_us]
        decoded = join([raster for _, raster in client.decode_rasters(infos)])
        figure = seam(whole, decoded, 5)
        print(f"seam: border error over interior error {figure}")
        status = client.status()
        assert status["quality"]["missed"] == 0
        assert client.verify()["ok"]


def test_folder_glob_and_files_make_equal_stores(tmp_path: Path) -> None:
    """The same scenes named three ways: the same rasters with the same pixels."""
    files = write_scenes(replace(PLACE, dates=2), tmp_path / "scenes")
    seen = []
    for i, sources in enumerate(([tmp_path / "scenes"], [str(tmp_path / "scenes" / "*.tif")], files)):
        with connect(tmp_path / f"store{i}", create=True, settings=SETTINGS) as client:
            ingest(client, sources, collection())
            infos = client.rasters(collection="place")
            seen.append([(i.key, i.scene, r.pixels.tobytes()) for i, r in client.decode_rasters(infos)])
    assert seen[0] == seen[1] == seen[2]


def test_one_scene_in_two_baselines_gives_one_embedding(tmp_path: Path) -> None:
    """DN and DN + 1000, baselines 02.14 and 05.10: the same stored pixels, the same embeddings byte for byte."""
    place = replace(PLACE, dates=5)
    bands = tuple(replace(b, offset=-0.1, valid_min=1.0, valid_max=65534.0) for b in place.bands)
    stored = []
    for baseline, shift in (("02.14", 0), ("05.10", 1000)):
        folder = tmp_path / baseline
        folder.mkdir()
        for each in place.series():
            numbers = (each.raster.pixels.astype(np.int32) + 500 + shift).astype(np.uint16)
            day = datetime.fromtimestamp(each.time_us / 1e6, UTC)
            raster = Raster(pixels=numbers, valid=np.ones(GRID.shape, bool), bands=_plain(place.bands), grid=GRID)
            write_cog(folder / f"scene_{day:%Y%m%d}.tif", raster, {"ACQUISITION_DATETIME": day.isoformat()})
        declared = collection(
            groups={"40m": Bands(bands)}, product="sentinel-2-l2a", files=Files(baseline=baseline), masks=()
        )
        with connect(tmp_path / f"store{baseline}", create=True, settings=SETTINGS) as client:
            ingest(client, [folder], declared)
            client.fit()
            rows = client.table("embedding").sort_by([("geohash", "ascending"), ("time_us", "ascending")])
            stored.append([rows["payload_checksum"].to_pylist(), rows["vector"].to_pylist(), rows["mse"].to_pylist()])
    assert stored[0] == stored[1]
    assert stored[0][0]


def _plain(bands: Bands) -> Bands:
    return Bands(tuple(Band(b.name, b.source, b.gsd_m) for b in bands))


def test_pieces_of_one_overpass_are_mosaicked_and_a_new_processing_replaces(tmp_path: Path) -> None:
    """Two scenes of one overpass over one cell become one raster, the first on top; hours later is another raster.

    Withdrawn, one takes the mosaic with it, and the other is incomplete until it is ingested again.
    """
    with connect(tmp_path / "store", create=True, settings=SETTINGS) as client:
        client.put_collection(collection())
        cell = Grid("EPSG:32634", 0.0, 4000.0, 40.0, 40.0, 100, 100)
        left, right = np.full((2, 4, 20, 30), 1000, np.uint16)
        left[:], right[:] = 1000, 2000
        west = [[20.0, 45.0], [20.03, 45.0], [20.03, 45.02], [20.0, 45.02], [20.0, 45.0]]
        east = [[20.025, 45.0], [20.05, 45.0], [20.05, 45.02], [20.025, 45.02], [20.025, 45.0]]
        minute = 60_000_000
        _put(client, cell, "a", 0, 0, left, west, 0)
        _put(client, cell, "b", minute, 20, right, east, 0)
        (info,) = client.rasters(collection="place")
        assert info.scene == "a+b"
        ((_, raster),) = client.decode_rasters([info])
        assert raster.pixels.shape[2] == 50
        assert (raster.pixels[0, 0, :30] == 1000).all()
        assert (raster.pixels[0, 0, 30:] == 2000).all()
        _put(client, cell, "b", minute, 20, right, east, 0)
        assert len(client.rasters(collection="place")) == 1
        _put(client, cell, "later", 3 * 3600 * 1_000_000, 0, right, west, 0)
        assert len(client.rasters(collection="place")) == 2
        assert client.withdraw("place", "b")["incomplete"] == ["a"]
        assert [i.scene for i in client.rasters(collection="place")] == ["later"]
        assert {s["id"]: s["complete"] for s in client.scenes("place")} == {"a": False, "later": True}
        _put(client, cell, "a", 0, 0, left, west, 0)
        assert [i.scene for i in client.rasters(collection="place")] == ["a", "later"]
        assert {s["id"]: s["complete"] for s in client.scenes("place")} == {"a": True, "later": True}


def _put(client, cell, scene, time_us, col, pixels, footprint, revision) -> None:  # type: ignore[no-untyped-def]
    piece = Piece(
        geohash="u2p9p", group="40m", cell=GridFields.model_validate(cell, from_attributes=True), row=0, col=col,
        pixels=0, valid=1,
    )  # fmt: skip
    facts = SceneFields(id=scene, time_us=time_us, platform="sentinel-2a", footprint=footprint, revision=revision)
    client.ask(Put(collection="place", scene=facts, pieces=[piece]), [pixels, np.ones(pixels.shape[1:], np.uint8)])


def test_nothing_found_declares_nothing(tmp_path: Path) -> None:
    """An empty folder is refused, and the store stays without a collection."""
    (tmp_path / "scenes").mkdir()
    with connect(tmp_path / "store", create=True, settings=SETTINGS) as client:
        with pytest.raises(BadScene):
            ingest(client, [tmp_path / "scenes"], collection())
        assert client.ask(messages.Collections()).fields["collections"] == []


def test_one_time_for_scenes_of_several_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six dates under one --time would be laid over each other as one overpass; a single date may be overruled. An
    estimate refuses what an ingest would, and a scene is opened once."""
    write_scenes(PLACE, tmp_path / "scenes")
    day = datetime(2021, 6, 1, tzinfo=UTC)
    told = r"2021-06-01 00:00, is given for 6 scenes, and .*\.tif tells 20"
    with pytest.raises(InvalidInput, match=told):
        estimate([tmp_path / "scenes"], collection(), acquired=day)
    with connect(tmp_path / "store", create=True, settings=SETTINGS) as client:
        with pytest.raises(InvalidInput, match=told):
            ingest(client, [tmp_path / "scenes"], collection(), acquired=day)
        assert client.scenes() == []
        opened: list[object] = []
        for module in ("geostore.ingest", "geostore.scene.ahead"):
            monkeypatch.setattr(f"{module}.open_scene", lambda *a, **k: opened.append(a) or open_scene(*a, **k))
        kept = ingest(client, [tmp_path / "scenes"], collection(), acquired=day, keep_going=True)
        assert (kept.scenes, len(kept.errors), len(opened)) == (0, 6, 6)
        ingest(client, [min((tmp_path / "scenes").iterdir())], collection(), acquired=day)
        assert [s["time_us"] for s in client.scenes()] == [int(day.timestamp() * 1e6)]
