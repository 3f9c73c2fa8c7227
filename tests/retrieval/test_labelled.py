"""Public labelled sets are read as users have them: folders of classes, with and without parts, and BigEarthNet."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_made import CLASSES, SENTINEL, bigearthnet, classes, rgb, sentinel
from PIL import Image

from geostore.errors import BadScene, InvalidInput, NotFound
from geostore.scene.labelled import find_labelled, pixels_of

DATA = Path(os.environ.get("GEOSTORE_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.parametrize(("inner", "suffix"), [("Images", ".tif"), ("", ".jpg"), ("2750", ".png")])
def test_folders_of_classes_are_read_wherever_they_lie(tmp_path, inner, suffix):
    """UC Merced has `Images` around its classes, EuroSAT `2750`, AID nothing; pixels are as another library reads."""
    classes(tmp_path / inner if inner else tmp_path, suffix=suffix)
    found = find_labelled(tmp_path)
    assert (found.layout, found.labels, found.bands.names) == ("classes", CLASSES, ("red", "green", "blue"))
    assert [s.name for s in found.scenes][:2] == ["forest00", "forest01"]
    assert {s.part for s in found.scenes} == {""}
    pixels = pixels_of(found, found.scenes[7])
    wanted = np.asarray(Image.open(found.scenes[7].files[0]).convert("RGB"), int)
    assert np.abs(np.moveaxis(pixels, 0, 2) - wanted).mean() <= 2


def test_parts_are_read_from_folders_or_from_lists(tmp_path):
    """`train` and `test` around the classes, or lists of names beside them, whatever else is in their rows."""
    classes(tmp_path / "a" / "train")
    classes(tmp_path / "a" / "Test")
    found = find_labelled(tmp_path / "a")
    assert [s.part for s in found.scenes].count("train") == [s.part for s in found.scenes].count("test") == 18
    classes(tmp_path / "b")
    (tmp_path / "b" / "train.csv").write_text(",Filename,Label\n0,forest/forest00.jpg,0\n1,river/river05.jpg,2\n")
    (tmp_path / "b" / "set-test.txt").write_text("harbor03.jpg\n")
    (tmp_path / "b" / "val.csv").write_text("forest02\n")
    parts = {s.name: s.part for s in find_labelled(tmp_path / "b").scenes if s.part}
    assert parts == {"forest00": "train", "river05": "train", "harbor03": "test", "forest02": "validation"}


def test_thirteen_bands_are_those_of_eurosat(tmp_path):
    """The file order of EuroSAT, B8A last, as reflectance."""
    (tmp_path / "Forest").mkdir()
    pixels = sentinel(tmp_path / "Forest" / "Forest_1.tif", 13)
    found = find_labelled(tmp_path)
    assert [b.source for b in found.bands][-3:] == ["B11", "B12", "B8A"]
    assert found.bands.items[3].name == "red"
    assert (pixels_of(found, found.scenes[0]) == pixels).all()


def test_patches_of_bigearthnet_have_several_labels_and_one_grid(tmp_path):
    """Labels beside a patch; coarser bands are repeated; a patch without labels is left out and counted."""
    bigearthnet(tmp_path, {"S2A_1_2": ["Water", "Forest"], "S2A_1_3": ["Forest"], "S2A_1_4": []})
    (tmp_path / "train.csv").write_text("S2A_1_2\n")
    found = find_labelled(tmp_path)
    assert (found.layout, found.labels, found.unlabelled) == ("bigearthnet", ("Forest", "Water"), 1)
    assert {s.name: (s.labels, s.part) for s in found.scenes} == {
        "S2A_1_2": (("Forest", "Water"), "train"), "S2A_1_3": (("Forest",), ""),
    }  # fmt: skip
    pixels = pixels_of(found, found.scenes[0])
    assert pixels.shape == (12, 24, 24)
    assert {b.source for b in found.bands} == set(SENTINEL)
    coarse = pixels[found.bands.index("B01")]
    assert (coarse == coarse[::6, ::6].repeat(6, axis=0).repeat(6, axis=1)).all()


def test_the_second_edition_has_its_labels_in_a_table(tmp_path):
    """`metadata.parquet` names labels and part of each patch, two folders up."""
    bigearthnet(tmp_path / "BigEarthNet-S2" / "S2A_1", {"S2A_1_2": [], "S2A_1_3": []}, beside=False)
    table = {"patch_id": ["S2A_1_2", "S2A_1_9"], "labels": [["Pastures"], ["Water"]], "split": ["validation", "test"]}
    pq.write_table(pa.table(table), tmp_path / "metadata.parquet")
    found = find_labelled(tmp_path)
    assert [(s.name, s.labels, s.part) for s in found.scenes] == [("S2A_1_2", ("Pastures",), "validation")]
    assert found.unlabelled == 1


def test_what_is_no_labelled_set_is_refused_by_name(tmp_path):
    """No folder, nothing in it, other bands, a scene unlike the others, labels that are no list."""
    with pytest.raises(NotFound, match="no folder"):
        find_labelled(tmp_path / "none")
    with pytest.raises(NotFound, match="no labelled scene"):
        find_labelled(tmp_path)
    (tmp_path / "a" / "Forest").mkdir(parents=True)
    sentinel(tmp_path / "a" / "Forest" / "x.tif", 5)
    with pytest.raises(BadScene, match="13 bands"):
        find_labelled(tmp_path / "a")
    classes(tmp_path / "b")
    sentinel(tmp_path / "b" / "river" / "river99.tif", 13)
    found = find_labelled(tmp_path / "b")
    with pytest.raises(BadScene, match="take it out"):
        pixels_of(found, found.scenes[-1])
    bigearthnet(tmp_path / "c", {"S2A_1_2": ["Water"]})
    (tmp_path / "c" / "S2A_1_2" / "S2A_1_2_labels_metadata.json").write_text("{}")
    with pytest.raises(InvalidInput, match="does not list labels"):
        find_labelled(tmp_path / "c")


def test_grey_and_transparent_images_count_as_coloured(tmp_path):
    """One band is repeated, a fourth is left out."""
    (tmp_path / "a").mkdir()
    Image.fromarray(rgb(0, 0)[..., 0]).save(tmp_path / "a" / "grey.png")
    Image.fromarray(rgb(0, 0)).convert("RGBA").save(tmp_path / "a" / "rgba.png")
    found = find_labelled(tmp_path)
    grey, rgba = (pixels_of(found, s) for s in found.scenes)
    assert (grey[0] == grey[2]).all()
    assert (rgba == np.moveaxis(rgb(0, 0), 2, 0)).all()


@pytest.mark.data
@pytest.mark.parametrize(("name", "bands"), [("UCMerced_LandUse", 3), ("EuroSAT_MS", 13), ("EuroSAT_RGB", 3)])
def test_real_samples_are_read(name, bands):
    """Real files of the public sets, as they are published."""
    if not (DATA / "format_samples" / name).is_dir():
        pytest.skip(f"no samples in {DATA / 'format_samples'}; set GEOSTORE_DATA")
    found = find_labelled(DATA / "format_samples" / name)
    assert len(found.bands) == bands
    assert all(pixels_of(found, s).shape[0] == bands for s in found.scenes)
