"""Files of many dates: one scene a date, by descriptions, tags, a pattern, a table, or a netCDF time axis."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr

from geostore.collection import Files
from geostore.connection import connect
from geostore.errors import BadScene, BandMismatch, InvalidInput
from geostore.estimate import estimate
from geostore.ingest import ingest
from geostore.partition.split import split
from geostore.scene import find_scenes, open_scene
from geostore.scene.geotiff import Reader

DAYS = ["2020-05-01", "2020-05-17", "2020-06-02"]
BANDS = """
preset = "generic"
name = "stack"
precision = 4
bands = [{ name = "ndvi", source = "NDVI", gsd_m = 10 }]
[band]
dtype = "int16"
scale = 1e-4
valid_min = -2000
valid_max = 10000
nodata = -3000
kind = "index"
[policy]
codec = "raw"
[files]
"""


def numbers(count: int) -> Any:
    """(count, 12, 16) int16, no two planes alike."""
    return np.random.default_rng(5).integers(-500, 9000, (count, 12, 16)).astype(np.int16)


def read(source: Any, collection: Any) -> Any:
    scene = open_scene(source, collection)
    raster = scene.read("10m", scene.grids["10m"])
    scene.close()
    return raster.pixels


def times(sources: Any, collection: Any) -> list[str]:
    return [f"{from_us(open_scene(s, collection).time_us):%Y-%m-%d}" for s in find_scenes(sources, collection)]


def from_us(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us / 1e6, UTC)


@pytest.mark.parametrize("form", ["{}", "X{} NDVI", "{}T00:00:00Z"])
def test_descriptions_give_the_dates(write, declare, form):
    """Oracle: scene i is band i as rasterio reads it, whatever stands around the date; ids differ, days ascend."""
    pixels = numbers(3)
    path = write("ndvi.tif", pixels, descriptions=[form.format(d) for d in DAYS], nodata=-3000)
    collection = declare(BANDS + 'dates = "bands"')
    sources = list(find_scenes([path], collection))
    assert times([path], collection) == DAYS
    assert len({open_scene(s, collection).id for s in sources}) == 3
    for source, plane in zip(sources, pixels, strict=True):
        np.testing.assert_array_equal(read(source, collection)[0], plane)


def test_a_pattern_reads_descriptions_and_single_dates_join_in(write, declare):
    """MODIS day numbers by time_pattern; a later file of one date is taken by its name into the same collection."""
    stack = write("old_ndvi.tif", numbers(2), descriptions=["MOD13Q1.A2020122", "MOD13Q1.A2020138"])
    single = write("new_2020154_ndvi.tif", numbers(1))
    collection = declare('time_pattern = "(20[0-9]{5})|%Y%j"\n' + BANDS + 'dates = "bands"')
    assert sorted(times([stack, single], collection)) == DAYS


def test_band_tags_give_the_dates(write, declare):
    """Bands without descriptions whose own tags name the day."""
    path = write("ndvi.tif", numbers(3))
    with rasterio.open(path, "r+") as data:
        for i, day in enumerate(DAYS, 1):
            data.update_tags(i, DATE=day)
    assert times([path], declare(BANDS + 'dates = "bands"')) == DAYS


def test_a_table_gives_the_dates(write, declare):
    """Dates as TOML knows them or as text; the collection keeps them through the store's JSON."""
    pixels = numbers(3)
    path = write("anything.tif", pixels)
    collection = declare(BANDS + 'positional = ["ndvi"]\ndates = [2020-05-01, "2020-05-17", 2020-06-02]')
    assert times([path], collection) == DAYS
    np.testing.assert_array_equal(read(list(find_scenes([path], collection))[1], collection)[0], pixels[1])


def test_several_bands_a_date(write, declare):
    """By names in descriptions, in any order; and by a table, date by date in the positional order."""
    two = BANDS.replace("bands = [", 'bands = [{ name = "evi", source = "EVI", gsd_m = 10 }, ')
    pixels = numbers(4)
    named = write("named.tif", pixels, descriptions=[f"{b}_{d}" for b in ("NDVI", "EVI") for d in DAYS[:2]])
    collection = declare(two + 'dates = "bands"')
    second = list(find_scenes([named], collection))[1]
    np.testing.assert_array_equal(read(second, collection), pixels[[3, 1]])  # evi, ndvi of the second day
    plain = write("plain.tif", pixels)
    collection = declare(two + f'positional = ["ndvi", "evi"]\ndates = {DAYS[:2]}')
    second = list(find_scenes([plain], collection))[1]
    np.testing.assert_array_equal(read(second, collection), pixels[[3, 2]])


def test_one_file_a_band_and_a_date_missing_in_one(write, declare):
    """A folder of stacks, one a band, is one scene a date; a date that one file lacks is refused by band name."""
    two = BANDS.replace("bands = [", 'bands = [{ name = "evi", source = "EVI", gsd_m = 10 }, ')
    collection = declare(two + 'dates = "bands"')
    ndvi, evi = numbers(3), numbers(3) + np.int16(1)
    write("s/place_NDVI.tif", ndvi, descriptions=DAYS)
    folder = write("s/place_EVI.tif", evi[:2], descriptions=DAYS[:2]).parent
    sources = list(find_scenes([folder], collection))
    assert len(sources) == 3
    np.testing.assert_array_equal(read(sources[1], collection), np.stack([evi[1], ndvi[1]]))
    with pytest.raises(BandMismatch, match="needs evi"):
        open_scene(sources[2], collection)


def test_a_folder_named_by_its_day(write, declare):
    """Files named by their bands alone, in folders named by the date, which the pattern finds there."""
    for day in DAYS:
        write(f"all/{day}/NDVI.tif", numbers(1))
    path = write(f"all/{DAYS[0]}/NDVI.tif", numbers(1)).parent.parent
    assert times([path], declare('time_pattern = "^(2020-[0-9-]{5})$|%Y-%m-%d"\n' + BANDS)) == DAYS


def test_a_netcdf_cube(declare, tmp_path):
    """Variables over (time, y, x) by the CF time axis and scale: oracle xarray; other calendars are refused."""
    cube = cf_cube(tmp_path / "cube.nc", numbers(3), "standard")
    collection = declare(BANDS.replace("[files]", '[files]\nvalues = "stored"') + 'dates = "bands"')
    sources = list(find_scenes([tmp_path], collection))
    assert times([tmp_path], collection) == DAYS
    np.testing.assert_array_equal(read(sources[2], collection)[0], cube[2])
    assert open_scene(sources[0], collection).source == str(tmp_path / "cube.nc")
    cf_cube(tmp_path / "other.nc", numbers(3), "360_day")
    with pytest.raises(BadScene, match="360_day calendar"):
        open_scene(tmp_path / "other.nc", collection)


def cf_cube(path: Any, pixels: Any, calendar: str) -> Any:
    """Writes two variables, NDVI and one that nobody asked for."""
    axis = {"units": "days since 2020-05-01 00:00:00", "calendar": calendar}
    coordinates = {
        "time": ("time", np.array([0, 16, 32], np.int32), axis),
        "y": ("y", 5_000_000.0 - 10 * np.arange(12) - 5, {"standard_name": "projection_y_coordinate", "units": "m"}),
        "x": ("x", 600_000.0 + 10 * np.arange(16) + 5, {"standard_name": "projection_x_coordinate", "units": "m"}),
        "crs": ((), np.int32(0), {"spatial_ref": rasterio.crs.CRS.from_epsg(32634).to_wkt(), "grid_mapping_name": ""}),
    }
    axes, about = ("time", "y", "x"), {"grid_mapping": "crs"}
    variables = {"NDVI": (axes, pixels, about), "Q": (axes, pixels + np.int16(1), about)}
    xr.Dataset(variables, coordinates).to_netcdf(path, engine="scipy")
    return pixels


@pytest.mark.parametrize(
    ("descriptions", "dates", "words"),
    [
        (DAYS, str(DAYS[:2]), ["has 3 bands", "states 2 dates", "wanted 2 bands", "table of 3 dates"]),
        ([], str([*DAYS, "2020-06-18"]), ["has 3 bands", "states 4 dates"]),
        ([*DAYS[:2], "mean"], '"bands"', ["band 3 ('mean')", "names no date", "dates = [...]"]),
        (["a", "b", "c"], '"bands"', ["none of its 3 bands names a date", "time_pattern", "dates = [...]"]),
        (DAYS, '""', ["named by dates, '2020-05-01' to '2020-06-02'", 'dates = "bands"']),
        ([DAYS[0], DAYS[0], DAYS[1]], '"bands"', ["2 bands are of 2020-05-01", "wanted 1"]),
    ],
)
def test_dates_that_do_not_fit_the_bands(write, declare, descriptions, dates, words):
    """Faults: too few or many dates, bands without one, none at all, dates nobody declared, one date twice."""
    path = write("ndvi.tif", numbers(3), descriptions=descriptions)
    collection = declare(BANDS + f"dates = {dates}")
    with pytest.raises(InvalidInput) as caught:
        open_scene(next(iter(find_scenes([path], collection))), collection)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(("dates", "words"), [('"files"', "use"), ('["2020-13-01"]', "2020-13-01"), ("[5]", "list of")])
def test_dates_that_are_none(declare, dates, words):
    """Faults in the collection: a word nobody knows, no such day, a number."""
    with pytest.raises(InvalidInput, match=words):
        declare(BANDS + f"dates = {dates}")


def test_a_date_stated_twice(declare):
    """Fault: the table names a day twice."""
    with pytest.raises(InvalidInput, match="2020-05-01T00:00:00 stands there twice"):
        declare(BANDS + f"dates = {[DAYS[0], *DAYS]}")


def test_dates_without_a_measurement(write, declare):
    """One empty date of a stack is a scene without pixels; a stack of nothing but nodata is refused."""
    pixels = numbers(3)
    pixels[1] = -3000
    collection = declare(BANDS + 'dates = "bands"')
    path = write("ndvi.tif", pixels, descriptions=DAYS, nodata=-3000)
    assert not read(list(find_scenes([path], collection))[1], collection).any()
    empty = write("void/ndvi.tif", np.full_like(pixels, -3000), descriptions=DAYS, nodata=-3000)
    with pytest.raises(BadScene, match=r"all nodata .* on every date"):
        open_scene(next(iter(find_scenes([empty], collection))), collection)
    with pytest.raises(BadScene, match="leave --time out"):
        open_scene(next(iter(find_scenes([path], collection))), collection, time=datetime(2021, 1, 1))  # noqa: DTZ001


def test_a_date_reads_its_own_band_in_windows_of_a_cell(write, declare, tmp_path, monkeypatch):
    """Memory is that of one date in one cell: no read asks for another date's band, and none for more than a cell."""
    asked = []
    real = Reader.read

    def read(self, href, indexes, row, col, height, width):
        asked.append((tuple(indexes), height * width))
        return real(self, href, indexes, row, col, height, width)

    monkeypatch.setattr(Reader, "read", read)
    pixels = np.random.default_rng(2).integers(1, 9000, (3, 200, 240)).astype(np.int16)
    path = write("ndvi.tif", pixels, descriptions=DAYS, res=100.0)
    collection = declare(BANDS.replace("precision = 4", "precision = 5").replace("gsd_m = 10", "gsd_m = 100"))
    collection = replace(collection, files=Files(dates="bands"))
    for i, source in enumerate(find_scenes([path], collection)):
        scene = open_scene(source, collection)
        asked.clear()
        cells = list(split(scene, precision=5))
        assert len(cells) > 10
        assert {indexes for indexes, _ in asked} == {(i + 1,)}
        assert max(size for _, size in asked) < 200 * 240 / 4
        scene.close()


def test_a_stack_is_taken_in_estimated_and_referred_to(write, declare, tmp_path):
    """ingest, estimate and `original = "reference"`: every date decodes to its band; the same again changes nothing."""
    pixels = numbers(3)
    path = write("scenes/ndvi.tif", pixels, descriptions=DAYS)
    text = BANDS.replace("[policy]", '[policy]\noriginal = "reference"') + 'dates = "bands"'
    collection = declare(text)
    assert estimate([path.parent], collection).scenes == 3
    with connect(tmp_path / "store", create=True) as client:
        assert ingest(client, [path.parent], collection).scenes == 3
        again = ingest(client, [path.parent], collection)
        assert (again.scenes, again.unchanged) == (0, 3)
        infos = client.rasters(collection="stack")
        for tier in ("best", "original"):
            for info, raster in client.decode_rasters(infos, tier=tier):
                day = next(i for i, d in enumerate(DAYS) if d == f"{from_us(info.key.time_us):%Y-%m-%d}")
                kept = raster.pixels[0][raster.valid]
                assert kept.size
                assert np.isin(kept, pixels[day]).all(), (tier, day)


@pytest.mark.data
def test_the_real_series(data, declare, tmp_path):
    """392 dates of MODIS NDVI by the preset and one line: every date in the store is its band, as rasterio reads it."""
    path = data / "modis_mato_grosso_timeseries" / "MOD13Q1_sinop_ndvi_2000-2017_392dates.tif"
    collection = declare('preset = "modis-13q1-ndvi"\nname = "sinop"\n[files]\ndates = "bands"')
    with rasterio.open(path) as file:
        numbers, days = file.read(), file.descriptions
    with connect(tmp_path / "store", create=True) as client:
        assert ingest(client, [path], collection).scenes == 392
        infos = client.rasters(collection="sinop")
        assert len({i.key.geohash for i in infos}) * 392 >= len(infos) > 300
        at = {f"{day}": i for i, day in enumerate(days)}
        counted = 0
        for info, raster in client.decode_rasters(infos):
            plane = numbers[at[f"{from_us(info.key.time_us):%Y-%m-%d}"]]
            assert np.isin(raster.pixels[0][raster.valid], plane).all()
            counted += int(raster.valid.sum())
    assert counted == int((numbers != -3000).sum())
