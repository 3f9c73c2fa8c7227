"""The ends of the pipe: export, the xarray engine, estimate and the report, against the scenes they came from."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from PIL import Image
from pyproj import Transformer

from geostore.cli.decode import said_error
from geostore.connection import connect
from geostore.errors import InvalidInput
from geostore.export import Exported, choose, crop, export
from geostore.partition.join import join
from geostore.raster import Raster
from geostore.report import report
from geostore.report.charts import bin_edges
from geostore.xarray_backend import read_name


def test_cells_join_to_the_scene_bit_for_bit(run, world, tmp_path):
    """decode of a prefix at tier original, read by rasterio, equals the scene that was written."""
    out = tmp_path / "o.tif"
    done = run(
        "decode", "u2p", "--tier", "original", "--time", "2020-05-03", "-o", out, "--store", world.store, "--json"
    )
    assert done.code == 0, done.err
    scene = world.rasters[min(world.rasters)]
    with rasterio.open(out) as file:
        assert (file.read() == scene.pixels).all()
        assert (file.transform.c, file.transform.f) == (scene.grid.left, scene.grid.top)
        assert file.crs.to_string() == scene.grid.crs
        assert file.tags()["GEOSTORE_EXACT"] == "yes"
        assert file.scales == (1e-4,) * 4
    assert done.json["files"][0]["cells"] == 2


def test_decoded_pixels_keep_the_certificate(run, world, tmp_path):
    """The MSE of a decoded GeoTIFF, measured against the scene with rasterio alone, is the one its tag states."""
    out = tmp_path / "o.tif"
    assert run("decode", "u2p", "--time", "2020-05-03", "-o", out, "--store", world.store).code == 0
    scene = world.rasters[min(world.rasters)]
    with rasterio.open(out) as file:
        error = (file.read().astype(float) - scene.pixels) * 1e-4
        stated = float(file.tags()["GEOSTORE_MSE_N1"])
    assert np.mean(error**2) == pytest.approx(stated, rel=1e-3, abs=1e-9)
    assert 0 < stated <= 0.005  # an embedding, not the lossless row


def test_the_index_errors_in_the_tags_are_those_of_the_pixels(run, world, tmp_path):
    """NDVI of a decoded GeoTIFF of one cell against the scene's, by numpy alone, errs as the file's tags say."""
    out = tmp_path / "o.tif"
    assert run("decode", "u2p", "--time", "2020-05-03", "-o", out, "--store", world.store).code == 0
    with rasterio.open(out) as file:
        seen, tags = file.read().astype(float) * 1e-4, file.tags()
    truth = world.rasters[min(world.rasters)].pixels * 1e-4
    red, nir = 2, 3
    ndvi = [(p[nir] - p[red]) / (p[nir] + p[red]) for p in (np.maximum(seen, 1e-3), np.maximum(truth, 1e-3))]
    assert np.abs(seen - truth).mean() == pytest.approx(float(tags["GEOSTORE_MAE"]), rel=1e-3)
    assert float(tags["GEOSTORE_MAE"]) < float(tags["GEOSTORE_P99_MAX"]) <= float(tags["GEOSTORE_MAX_ERROR"])
    error = np.abs(ndvi[0] - ndvi[1])
    assert error.mean() == pytest.approx(float(tags["GEOSTORE_NDVI_MAE"]), rel=1e-3)
    assert error.max() == pytest.approx(float(tags["GEOSTORE_NDVI_MAX"]), rel=1e-3)
    assert float(tags["GEOSTORE_NDVI_MAE"]) < float(tags["GEOSTORE_NDVI_P99_MAX"]) <= float(tags["GEOSTORE_NDVI_MAX"])


def test_errors_of_cells_of_which_one_is_exact_are_over_the_pixels_of_both(run, world, tmp_path):
    """Within a budget that one of two cells keeps the other is its original: MSE and NDVI error in the tags are those
    of the whole file against the scene, by rasterio and numpy."""
    cells = run("rasters", "u2p", "--time", "2020-05-03", "--store", world.store, "--json").json["rasters"]
    between = sum(cell["certificate"]["mse"] for cell in cells) / 2
    out, asked = tmp_path / "o.tif", ("decode", "u2p", "--time", "2020-05-03", "--within", f"mse={between}")
    made = run(*asked, "-o", out, "--store", world.store, "--json").json["files"][0]
    assert made["tiers"] == ["embedding", "original"]
    with rasterio.open(out) as file:
        seen, tags = file.read().astype(float) * 1e-4, file.tags()
    truth = world.rasters[min(world.rasters)].pixels * 1e-4
    assert np.mean((seen - truth) ** 2) == pytest.approx(float(tags["GEOSTORE_MSE_N1"]), rel=1e-3)
    ndvi = [(p[3] - p[2]) / (p[3] + p[2]) for p in (np.maximum(seen, 1e-3), np.maximum(truth, 1e-3))]
    assert np.abs(ndvi[0] - ndvi[1]).mean() == pytest.approx(float(tags["GEOSTORE_NDVI_MAE"]), rel=1e-3)


def test_several_dates_become_several_files_and_pick_takes_one(run, world, tmp_path):
    """A range of times gives a file a date, each named by its time; --pick last gives the name as asked."""
    many = run(
        *("decode", "u2pc0", "--time", "2020-05/2020-06", "-b", "red,nir", "-o", tmp_path / "m.tif"),
        *("--store", world.store, "--json"),
    ).json["files"]
    assert [Path(m["path"]).name for m in many] == [f"m-{d}T090000.tif" for d in ("20200503", "20200523", "20200612")]
    assert many[0]["bands"] == ["red", "nir"]
    one = run("decode", "u2pc0", "--pick", "last", "-o", tmp_path / "l.tif", "--store", world.store, "--json").json
    assert [f["path"] for f in one["files"]] == [str(tmp_path / "l.tif")]


def test_an_area_is_cropped_and_masked_as_rasterio_does(run, world, tmp_path):
    """--area with a triangle across both cells: valid pixels are those rasterio's geometry_mask keeps."""
    scene = world.rasters[min(world.rasters)]
    left, bottom, right, top = scene.grid.bounds
    corners = [(left + 105, bottom + 95), (right - 95, bottom + 105), ((left + right) / 2, top - 115)]
    to_degrees = Transformer.from_crs(scene.grid.crs, "OGC:CRS84", always_xy=True)
    ring = [list(to_degrees.transform(x, y)) for x, y in [*corners, corners[0]]]
    area = tmp_path / "a.geojson"
    area.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    out = tmp_path / "a.tif"
    done = run(
        *("decode", "--area", area, "--tier", "original", "--pick", "first", "-o", out),
        *("--store", world.store, "--json"),
    )
    assert done.code == 0, done.err
    from rasterio.features import geometry_mask

    with rasterio.open(out) as file:
        shape = {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}
        outside = geometry_mask([shape], file.shape, file.transform)
        kept = file.dataset_mask() > 0
        assert (kept != ~outside).sum() <= 2  # a centre on an edge, in degrees and in metres
        row, col = round((scene.grid.top - file.transform.f) / 10), round((file.transform.c - left) / 10)
        window = scene.pixels[:, row : row + file.height, col : col + file.width]
        assert (file.read()[:, kept] == window[:, kept]).all()
        assert done.json["files"][0]["usable"] == kept.sum()


def test_a_date_under_clouds_is_not_called_right():
    """A file of nodata alone has neither errors nor exactness."""
    made = Exported(
        path="o.tif", time_us=0, platform="", width=2, height=2, usable=0, bands=("red",), cells=1,
        tiers=("embedding",), layers=("klt+av1",), exact=False, mse=0.0, max_error=0.0,
    )  # fmt: skip
    assert said_error(made) == "no usable pixel"
    assert said_error(replace(made, usable=1, exact=True)) == "exact"
    assert said_error(replace(made, usable=1, mse=1e-4, max_error=0.02)).startswith("MSE 1.00e-04")


def test_crop_refuses_an_area_without_pixels(world):
    """An area elsewhere is not-found, not an empty file."""
    scene: Raster = world.rasters[min(world.rasters)]
    with pytest.raises(KeyError, match="no pixel centre"):
        crop(scene, {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]})


@pytest.mark.parametrize(
    ("area", "bands", "told"),
    [
        (
            {"type": "Polygon", "coordinates": [[[45.1, 22.1], [45.3, 22.1], [45.3, 22.3], [45.1, 22.1]]]},
            [],
            "stored: ",
        ),
        ({"type": "FeatureCollection", "features": []}, [], "holds nothing"),
        (None, ["red", "nire"], "no band nire; there are 10m: blue"),
    ],
)
def test_a_wrong_place_or_band_is_told_by_what_there_is(run, world, tmp_path, area, bands, told):
    """Axes mixed up, an empty area, a misspelt band: the message holds what was looked for and what is stored."""
    (tmp_path / "a.geojson").write_text(json.dumps(area))
    where = ["u2p"] if area is None else ["--area", tmp_path / "a.geojson"]
    asked = ["-b", ",".join(bands)] if bands else []
    done = run("decode", *where, *asked, "-o", tmp_path / "o.tif", "--store", world.store)
    assert done.code in (2, 4)
    assert told in done.err


@pytest.mark.parametrize("wrong", ["collection", "source"])
def test_a_wrong_path_makes_no_store(run, world, tmp_path, wrong):
    """A collection or a scene that is not there leaves no empty store behind."""
    source = tmp_path / "nowhere.tif" if wrong == "source" else world.scenes
    declared = tmp_path / "none.toml" if wrong == "collection" else world.collection
    assert run("ingest", source, "--store", tmp_path / "s", "--collection", declared).code in (2, 4)
    assert not (tmp_path / "s").exists()


def test_export_is_what_decode_and_join_give(world, tmp_path):
    """The library call writes exactly join(decode_rasters), read back by rasterio."""
    with connect(world.store, readonly=True) as client:
        chosen = choose(client, "u2p", pick="clearest", bands=["nir"])
        expected = join([r for _, r in client.decode_rasters(chosen[0].infos, bands=["nir"])])
        (made,) = export(client, chosen, tmp_path / "deep" / "x.tif", bands=["nir"])
    with rasterio.open(made.path) as file:
        assert (file.read() == expected.pixels).all()


def test_no_file_is_written_over_by_a_slip(run, world, tmp_path):
    """Where a scene, a dated file, a report or a picture lies, a verb that would write there leaves with 2 and all
    bytes stay; with --overwrite they are replaced."""
    scene = tmp_path / "scene.tif"
    scene.write_bytes(sorted(world.scenes.iterdir())[0].read_bytes())
    (tmp_path / "m-20200503T090000.tif").write_text("mine")
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "index.html").write_text("mine")
    (tmp_path / "c.png").write_text("mine")
    verbs = (
        ("decode", "u2pc0", "--pick", "first", "-o", scene),
        ("decode", "u2pc0", "--time", "2020-05/2020-06", "-o", tmp_path / "m.tif"),
        ("report", "--partitions", 1, "-o", tmp_path / "r"),
        ("changes", "u2pc0", "--plot", tmp_path / "c.png"),
        ("similar", "u2pc0", "--plot", tmp_path / "c.png"),
    )
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    for verb in verbs:
        done = run(*verb, "--store", world.store)
        assert (done.code, "exists already; name another place, or add --overwrite" in done.err) == (2, True), verb
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == before
    for verb in verbs[:3]:
        assert run(*verb, "--overwrite", "--store", world.store).code == 0, verb
    assert all(path.read_bytes() != data for path, data in before.items() if path.name != "c.png")


def test_nothing_is_written_into_the_store(run, world):
    """A report or a decoded file under the store's root would count as durable: exit code 2, and no file is made."""
    before = sorted(world.store.rglob("*"))
    for verb in (["decode", "u2pc0", "-o", world.store / "a.tif"], ["report", "-o", world.store / "report"]):
        done = run(*verb, "--store", world.store)
        assert done.code == 2
        assert "lies in the store" in done.err
    assert sorted(world.store.rglob("*")) == before


def test_the_demo_pools_ndvi_errors_over_all_pixels(world):
    """Its 99th percentile is that of every pixel of every raster, computed by hand from the scenes and what decodes."""
    from geostore.demo import ndvi_errors, percentile

    with connect(world.store, readonly=True) as client:
        decoded = client.decode_rasters(client.rasters())
        originals = {i.key: r for i, r in client.decode_rasters(client.rasters(), tier="original")}
        errors = ndvi_errors(client, originals)
    by_hand = []
    for info, seen in decoded:
        row, col = seen.grid.offset_of(originals[info.key].grid)
        height, width = originals[info.key].grid.shape
        part = seen.pixels[:, row : row + height, col : col + width] * 1e-4
        truth, valid = originals[info.key].pixels * 1e-4, originals[info.key].valid
        ndvi = [(p[3] - p[2]) / (p[3] + p[2]) for p in (part[:, valid], truth[:, valid])]
        by_hand.append(np.abs(ndvi[0] - ndvi[1]))
    assert errors.size == sum(e.size for e in by_hand)
    assert percentile(errors)["ndvi_p99"] == pytest.approx(np.percentile(np.concatenate(by_hand), 99), rel=1e-3)


def test_the_demos_account_has_the_figures_it_promises(world):
    """Every figure of its last line under --json is there as a number, and the ratios are quotients of its bytes."""
    from geostore.demo import account, percentile

    with connect(world.store, readonly=True) as client:
        fields = {**account(client.status()), **percentile(np.zeros(3, np.float32))}
    counts = ("rasters", "partitions", "bytes_lzw", "bytes_embeddings", "bytes_durable")
    errors = ("psnr_db", "ndvi_mae", "ndvi_p99", "ratio_embeddings", "ratio_durable")
    assert all(isinstance(fields[name], int) for name in counts)
    assert all(isinstance(fields[name], float) for name in errors)
    assert fields["within_policy"] is True
    for of in ("embeddings", "durable"):
        assert fields[f"ratio_{of}"] == pytest.approx(fields["bytes_lzw"] / fields[f"bytes_{of}"])


def test_xarray_opens_a_cell_by_name(world):
    """xr.open_dataset("geostore:...") equals Client.decode, is lazy, and closes its store."""
    with xr.open_dataset(f"geostore:{world.store}/u2pc0", engine="geostore", bands=["red"]) as ds:
        assert ds.sizes["time"] == 6
        assert "red" in ds
        seen = ds["red"].isel(time=0).values
        with connect(world.store, readonly=True) as client:
            same = client.decode("u2pc0", bands=["red"])["red"].isel(time=0).values
        np.testing.assert_array_equal(seen, same)


def test_a_store_without_a_cell_is_told_so(world):
    """The name of a store alone is refused with the form that was wanted, not taken for a cell of its parent."""
    with pytest.raises(InvalidInput, match=r"is a store without a cell; add one, as geostore:.*/store/9qdfr"):
        xr.open_dataset(f"geostore:{world.store}", engine="geostore")


def test_xarray_names():
    """The name is split at its last slash, daemon addresses included; other names are refused."""
    assert read_name("geostore:tcp://127.0.0.1:7070/9qdfr") == ("tcp://127.0.0.1:7070", "9qdfr")
    for wrong in ("geostore:9qdfr", "./store/9qdfr", "geostore:./store/aaaaa", 3):
        with pytest.raises(InvalidInput):
            read_name(wrong)


def test_estimate_measures_the_baselines_it_prints(run, world):
    """With all cells looked at, what status then measured lies in every interval; nothing is written."""
    before = sorted(world.scenes.parent.iterdir())
    found = run("estimate", world.scenes, "-c", world.collection, "--cells", 10, "--json")
    assert found.code == 0, found.err
    status = run("status", "--store", world.store, "--json").json
    for name, seen in (("lzw", "source_lzw"), ("jxl", "source_jxl"), ("stored", "stored")):
        low, high = found.json[f"bytes_{name}_interval"]
        assert low <= status["bytes"][seen] <= high, name
    assert found.json["bytes_lzw_interval"][1] < 1.05 * found.json["bytes_lzw"]  # all of it was read
    assert found.json["rasters"] == status["rasters"]
    assert found.json["partitions"] == status["partitions"]
    assert sorted(world.scenes.parent.iterdir()) == before
    assert "advice" in run("estimate", world.scenes, "-c", world.collection).out


def test_report_is_one_folder_with_every_picture_it_names(run, world, tmp_path):
    """Each image on the page exists, opens, has a text alternative and its true size; nothing is off the host."""
    done = run("report", "--store", world.store, "-o", tmp_path / "r", "--json")
    assert done.code == 0, done.err
    html = Path(done.json["page"]).read_text()
    images = re.findall(r'<img [^>]*src="([^"]+)" alt="([^"]*)" width="(\d+)" height="(\d+)"', html)
    assert len(images) == html.count("<img")
    for source, alt, width, height in images:
        with Image.open(tmp_path / "r" / source) as image:
            assert alt
            assert image.width * int(height) == pytest.approx(image.height * int(width), rel=0.02)
    for dark in re.findall(r'srcset="([^"]+)"', html):
        assert (tmp_path / "r" / dark).exists()
    assert not re.findall(r'(?:src|href|srcset)="(?:https?:)?//', html)
    assert "payloads alone" in html
    assert "everything durable" in html


def test_report_pictures_show_the_pixels(world, tmp_path):
    """With originals given, the original's picture is its stretched pixels, and an exact raster's error is black."""
    originals = {int(w.timestamp() * 1e6): r for w, r in world.rasters.items()}
    asked = []

    def original(key):
        asked.append(key)
        with connect(world.store, readonly=True) as client:
            infos = [i for i in client.rasters(key.geohash) if i.key == key]
            grid = client.decode_rasters(infos)[0][1].grid
        scene = originals[key.time_us]
        row, col = scene.grid.offset_of(grid)
        window = np.s_[row : row + grid.height, col : col + grid.width]
        return Raster(
            pixels=scene.pixels[(slice(None), *window)], valid=scene.valid[window], bands=scene.bands, grid=grid
        )

    with connect(world.store, readonly=True) as client:
        report(client, tmp_path / "r", partitions=1, dates=2, originals=original)
    assert asked
    drawn = sorted((tmp_path / "r" / "images").glob("meadow-*-original.png"))
    assert len(drawn) == 2 * 2  # colour and NDVI of two dates
    with Image.open(drawn[0]) as image:
        assert np.asarray(image)[..., :3].std() > 20
    assert "not kept" not in (tmp_path / "r" / "index.html").read_text()


def test_no_bin_of_a_histogram_straddles_a_bound():
    """Every bound within the values is an edge, a value equal to it counts below, and all values are counted."""
    values = [*np.geomspace(1e-5, 4e-4, 50), 5e-4, 6e-4]
    edges = bin_edges(values, [2e-4, 5e-4, 1.0])
    assert all(np.isclose(edges, bound, rtol=1e-8).any() for bound in (2e-4, 5e-4))
    counts, _ = np.histogram(values, edges)
    assert counts.sum() == len(values)
    assert counts[edges[:-1] > 5e-4].sum() == 1
    assert 25 <= len(counts) <= 33


def test_report_of_a_place_whose_original_is_gone_says_so(run, world, tmp_path):
    """After prune the lossless rows are gone: the page says that the original is not kept."""
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(world.store, copy)
    assert run("prune", "--now", "--store", copy).code == 0
    tiers = run("status", "--store", copy, "--json").json["tiers"]
    assert run("report", "--store", copy, "-o", tmp_path / "r").code == 0
    html = (tmp_path / "r" / "index.html").read_text()
    assert ("original not kept" in html) == bool(tiers.get("embedding", 0))
