from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime

import numpy as np
import pytest
import rasterio.transform
import xarray as xr
from small_store import CELL, COLLECTION, DATES, DAY_US, FINE, fill, piece

from geostore.client import Client, time_range
from geostore.connection import connect, connect_async
from geostore.dataset import build
from geostore.errors import BadRequest, BandMismatch, GeostoreError, InvalidInput, NotFound, StoreLocked
from geostore.raster import Raster


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("client") / "store"
    with connect(path, create=True) as client:
        fill(client)
    return path


@pytest.fixture
def client(store):
    with connect(store, readonly=True) as client:
        yield client


def expected(t: int, group: str = "10m") -> np.ndarray:
    """The physical values put for a date, NaN where they may not be used."""
    raster = piece(t, group).raster
    return np.where(raster.valid, raster.bands.to_physical(raster.pixels), np.float32(np.nan))


def test_rasters_tell_what_was_put(client):
    """Keys, grids and bands of every date, ascending; narrowed by group and time."""
    infos = client.rasters(CELL, collection="farm", group="10m")
    assert [i.key.time_us for i in infos] == [t * DAY_US for t in range(DATES)]
    assert [i.grid for i in infos] == [piece(t, "10m").raster.grid for t in range(DATES)]
    assert infos[0].bands == FINE
    assert infos[0].scene == "scene-0"
    assert infos[0].exact
    assert [i.key.time_us for i in client.rasters(CELL[:3], group="20m", time="1970-01-03")] == [2 * DAY_US]
    assert client.rasters(CELL, time="1999") == []


def test_decode_rasters_gives_back_the_stored_values(client):
    """Bit for bit, masked pixels too, bands in the order asked for."""
    infos = client.rasters(CELL, group="10m")
    for t, (info, raster) in enumerate(client.decode_rasters(infos, bands=["nir", "red"])):
        put = piece(t, "10m").raster
        np.testing.assert_array_equal(raster.pixels, put.pixels[::-1])
        np.testing.assert_array_equal(raster.valid, put.valid)
        assert info.bands.names == ("nir", "red")


def test_decode_is_lazy_and_places_every_date_on_one_grid(client):
    """Values equal what was put, NaN elsewhere; the dates' windows differ by up to two rows."""
    ds = client.decode(CELL)
    assert dict(ds.sizes) == {"time": DATES, "y": 26, "x": 32}
    assert set(ds.data_vars) == {"red", "nir", "valid"}
    for t in range(DATES):
        row = t % 3
        for b, name in enumerate(("red", "nir")):
            plane = ds[name][t].values
            np.testing.assert_array_equal(plane[row : row + 24], expected(t)[b])
            assert np.isnan(np.delete(plane, slice(row, row + 24), axis=0)).all()
        assert int(ds["valid"][t].sum()) == int(piece(t, "10m").raster.valid.sum())


def test_nothing_is_decoded_until_it_is_looked_at(client):
    """Fetches counted: none to build, one date for one date, none again from the cache."""
    infos = client.rasters(CELL, group="10m")
    fetched: list[int] = []

    def fetch(chosen):
        fetched.extend(i.key.time_us // DAY_US for i in chosen)
        return [raster for _, raster in client.decode_rasters(chosen)]

    ds = build(infos, fetch)
    assert fetched == []
    ds["red"].isel(time=3, x=4).load()
    assert fetched == [3]
    ds.isel(time=[3, 5]).load()
    assert fetched == [3, 5]


def test_the_cache_keeps_to_its_size_and_the_values_stay_right(client):
    """With room for one raster the last one used is kept, no more."""
    infos = client.rasters(CELL, group="10m")
    fetched: list[int] = []

    def fetch(chosen: list) -> list[Raster]:
        fetched.extend(i.key.time_us // DAY_US for i in chosen)
        return [raster for _, raster in client.decode_rasters(chosen)]

    one = infos[0].bytes_decoded + 24 * 32
    ds = build(infos, fetch, cache_bytes=one)
    for t in (0, 0, 1, 1, 0):
        np.testing.assert_array_equal(ds["red"][t, t % 3 : t % 3 + 24].values, expected(t)[0])
    assert fetched == [0, 1, 0]


@pytest.mark.parametrize(
    "indexers",
    [
        {"time": 2},
        {"time": slice(1, 6, 2), "y": slice(3, 20)},
        {"time": [4, 0, 4], "x": [31, 0, 5]},
        {"y": slice(None, None, -1)},
        {"time": slice(0, 0)},
        {"time": 1, "y": 7, "x": 9},
        {"time": -1, "x": slice(-3, None)},
        {"y": [], "time": [0]},
    ],
)
def test_indexing_lazily_is_indexing_the_loaded_array(client, indexers):
    """Oracle: xarray's own indexing of the array in memory."""
    lazy, loaded = client.decode(CELL), client.decode(CELL).load()
    xr.testing.assert_identical(lazy.isel(indexers).load(), loaded.isel(indexers))


def test_pointwise_indexing_works(client):
    """Vectorised indexing, as sampling at points does."""
    t = xr.DataArray([0, 3, 7], dims="p")
    y = xr.DataArray([4, 9, 20], dims="p")
    lazy, loaded = client.decode(CELL), client.decode(CELL).load()
    xr.testing.assert_identical(lazy.isel(time=t, y=y).load(), loaded.isel(time=t, y=y))


def test_the_dataset_says_where_when_and_how_well(client):
    """CRS, coordinates of pixel centres, CF attributes, certificates along time."""
    ds = client.decode(CELL, time=slice("1970-01-02", "1970-01-04"), bands=["NIR"])
    grid = piece(0, "10m").cell.window(5, 7, 26, 32)
    assert ds.attrs["comment"] == "decoded without loss"
    assert list(ds.data_vars) == ["nir", "valid"]
    assert ds["nir"].attrs["units"] == "1"
    assert ds["nir"].attrs["standard_name"] == "surface_bidirectional_reflectance"
    assert ds["nir"].attrs["grid_mapping"] == "spatial_ref"
    assert ds["nir"].encoding == {"dtype": "uint16", "scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": 0}
    assert rasterio.crs.CRS.from_wkt(ds["spatial_ref"].attrs["crs_wkt"]) == rasterio.crs.CRS.from_string(grid.crs)
    turn = rasterio.Affine.from_gdal(*(float(v) for v in ds["spatial_ref"].attrs["GeoTransform"].split()))
    for row, col in ((0, 0), (25, 31)):
        x, y = rasterio.transform.xy(turn, row, col)
        assert (float(ds["x"][col]), float(ds["y"][row])) == (x, y)
    assert ds["time"].values.tolist() == [d * DAY_US * 1000 for d in (1, 2, 3)]
    for name in ("mse", "psnr_db", "max_error", "tier", "codec", "generation", "platform", "scene"):
        assert ds[name].dims == ("time",)
    assert ds["mse"].values.tolist() == [0.0] * 3
    assert ds["platform"].values.tolist() == ["s2a"] * 3


def test_the_dataset_written_as_declared_reads_back_the_stored_values(client):
    """Its encoding packs physical values into the stored integers again."""
    ds = client.decode(CELL).load()
    packed = xr.conventions.encode_cf_variable(ds["red"].variable)
    assert packed.dtype == np.uint16
    raster = piece(0, "10m").raster
    np.testing.assert_array_equal(packed.values[0, :24], np.where(raster.valid, raster.pixels[0], 0))


def test_bands_choose_their_group(client):
    """swir16 lives at 20 m; red and swir16 together are told to be apart."""
    assert float(client.decode(CELL, bands=["swir16"])["x"].diff("x")[0]) == 20.0
    with pytest.raises(BandMismatch, match="20m: swir16"):
        client.decode(CELL, bands=["red", "swir16"])
    with pytest.raises(BandMismatch):
        client.decode(CELL, group="20m", bands=["red"])


def test_a_decode_that_means_nothing_is_told(client):
    """Unknown cell, empty time, unknown collection."""
    with pytest.raises(NotFound, match=f"'9q8yy' in this store; it has {CELL}: choose"):
        client.decode("9q8yy")
    with pytest.raises(NotFound, match="at "):
        client.decode(CELL, time="2031")
    with pytest.raises(NotFound):
        client.decode(CELL, collection="forest")


def test_put_is_idempotent_and_a_second_writer_is_refused(store):
    """The same scenes again: nothing stored. Another writer: StoreLocked."""
    with connect(store) as client:
        before = client.status()["bytes"]["durable"]
        fill(client)
        assert client.status()["bytes"]["durable"] == before
        with pytest.raises(StoreLocked):
            connect(store)


def test_every_read_answers_in_its_type(client):
    """collections, scenes, cells, table, status, hello, verify, jobs."""
    assert client.collections() == [COLLECTION]
    assert [s["id"] for s in client.scenes("farm")] == [f"scene-{t}" for t in range(DATES)]
    assert client.cells("farm")[CELL, "20m"] == piece(0, "20m").cell
    assert client.table("raster").num_rows >= 2 * DATES
    assert client.status()["scenes"] == DATES
    assert client.hello()["protocol"] == 1
    assert client.verify()["ok"]
    assert client.jobs() == []


def test_jobs_verbs_need_a_daemon(client):
    """In process work runs while one waits; there is no job to cancel."""
    with pytest.raises(BadRequest, match="daemon"):
        client.cancel("x")


def test_the_async_client_gives_the_same_answers(store, client):
    """Each verb awaited in process, several at once, against the waiting client."""

    async def ask() -> tuple:
        async with connect_async(store, readonly=True) as found:
            many = await asyncio.gather(*(found.rasters(CELL, group=g) for g in ("10m", "20m") * 8))
            ds = await asyncio.to_thread((await found.decode(CELL)).load)
            return many, ds, await found.status(), await found.collections(), await found.table("raster")

    many, ds, status, collections, table = asyncio.run(ask())
    assert many[0] == client.rasters(CELL, group="10m")
    assert many[15] == client.rasters(CELL, group="20m")
    xr.testing.assert_identical(ds, client.decode(CELL).load())
    assert status == client.status()
    assert collections == client.collections()
    assert table.equals(client.table("raster"))


@pytest.mark.parametrize(
    ("verb", "given", "told"),
    [
        ("table", {"kind": "foo"}, "table: kind = 'foo': Input should be 'raster'"),
        ("status", {"collection": 5}, "status: collection = 5: Input should be a valid string"),
        ("rasters", {"geohash": 5}, "rasters: geohash = 5: "),
        ("withdraw", {"collection": "farm", "scene": None}, "withdraw: scene = None: "),
        ("fit", {"workers": -1}, "fit: workers = -1: "),
        ("fit", {"seed": -4}, "fit: seed = -4: "),
        ("index_upgrade", {"bits": 7}, "index-upgrade: bits = 7: "),
        ("similar", {"words": "x" * 1000}, "similar: words = 'xxx"),
        ("label", {"rasters": [(CELL, "1970-01-01")], "labels": ["x" * 65]}, "label: labels.0 = 'xxx"),
        ("decode", {"geohash": CELL, "bands": "red"}, "bands = 'red' is one text; give a list, ['red']"),
        ("decode", {"geohash": CELL, "tier": "gold"}, "tier = 'gold'; use best, preview, embedding, original"),
        ("decode", {"geohash": CELL, "within": ["ndvi"]}, "within = ['ndvi']; give errors allowed by name"),
        ("scenes", {"collection": "nope"}, "no collection 'nope' in this store"),
        ("status", {"collection": "nope"}, "no collection 'nope' in this store; `geostore collections` lists"),
    ],
)
def test_a_wrong_argument_is_told_by_name_value_and_what_was_wanted(client, verb, given, told):
    """Every verb refuses what is no value of its field with an error of this project, on one line."""
    with pytest.raises(GeostoreError) as caught:
        getattr(client, verb)(**given)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_place_that_is_none_is_refused_on_one_line():
    """An address of an unknown kind is told by its value, without what the library below adds."""
    with pytest.raises(InvalidInput, match=r"^cannot use 's4://x': .*; give a folder, or an s3") as caught:
        connect("s4://x")
    assert "\n" not in str(caught.value)


def test_a_cancelled_task_ends_its_work_in_this_process(store, tmp_path):
    """A fit that would take hours ends when the task that awaits it is cancelled, and the client closes."""
    shutil.copytree(store, tmp_path / "store")

    async def ask() -> int:
        begun, loop = asyncio.Event(), asyncio.get_running_loop()
        async with connect_async(tmp_path / "store") as found:
            fit = asyncio.create_task(
                found.fit(steps_max=1_000_000, workers=1, progress=lambda *_: loop.call_soon_threadsafe(begun.set))
            )
            await begun.wait()
            fit.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fit
            return (await found.status())["tiers"]["waiting"]

    assert asyncio.run(ask()) == 2 * DATES


def test_clients_have_the_same_verbs():
    """Nothing is only waited for, or only awaited."""
    from geostore.client import AsyncClient

    def verbs(cls: type) -> set[str]:
        return {n for n in vars(cls) if not n.startswith("_")}

    assert verbs(Client) == verbs(AsyncClient)


@pytest.mark.parametrize(
    ("time", "start", "end"),
    [
        (None, None, None),
        ("2020", "2020-01-01", "2021-01-01"),
        ("2020-12", "2020-12-01", "2021-01-01"),
        ("2020-02-29", "2020-02-29", "2020-03-01"),
        (slice("2020-05", "2020-09"), "2020-05-01", "2020-10-01"),
        (slice(None, "2020-06-14"), None, "2020-06-15"),
        (slice(datetime(2020, 1, 2), None), "2020-01-02", None),  # noqa: DTZ001  naive on purpose
        (slice(np.datetime64("2020-01-02"), "2021"), "2020-01-02", "2022-01-01"),
    ],
)
def test_times_are_periods(time, start, end):
    """What a user writes, as half-open ranges."""

    def us(text):
        return None if text is None else int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6)

    assert time_range(time) == (us(start), us(end))


def test_an_instant_is_one_microsecond():
    """Zones are honoured; naive means UTC."""
    start, end = time_range("2020-06-14T11:05:31+02:00")
    assert start == time_range(datetime(2020, 6, 14, 9, 5, 31))[0]  # noqa: DTZ001
    assert end == start + 1


@pytest.mark.parametrize(
    "time", ["2020-13", "2020-02-30", "June", 2020, "9999", slice("2021", "2020"), slice("2020", None, 2)]
)
def test_a_time_that_is_none_is_refused(time):
    """Each with what to write instead."""
    with pytest.raises(InvalidInput):
        time_range(time)
