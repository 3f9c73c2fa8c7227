"""Public labelled sets as their users have them: folders of small scenes with class names, for evaluation.

Read are folders of classes (UC Merced, RESISC45, AID, EuroSAT with 3 or 13 bands), alone or below `train` and `test`,
and BigEarthNet (a folder a patch, a file a band; labels in JSON beside it, or in `metadata.parquet`).
"""

from __future__ import annotations

import csv
import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from geostore.errors import BadScene, InvalidInput, NotFound
from geostore.raster import Band, Bands, Pixels
from geostore.scene.geotiff import reading

Part = Literal["train", "validation", "test", ""]
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
SAMPLED = 3  # scenes opened to learn the bands
_PARTS: dict[str, Part] = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_DEPTH = 4  # folders that may lie around the classes
_BANDS = {
    "B01": ("coastal", 60), "B02": ("blue", 10), "B03": ("green", 10), "B04": ("red", 10), "B05": ("rededge071", 20),
    "B06": ("rededge075", 20), "B07": ("rededge078", 20), "B08": ("nir", 10), "B8A": ("nir08", 20),
    "B09": ("nir09", 60), "B10": ("cirrus", 60), "B11": ("swir16", 20), "B12": ("swir22", 20),
}  # fmt: skip
_EUROSAT = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")  # file order
_BIGEARTHNET = tuple(s for s in _BANDS if s != "B10")


@dataclass(frozen=True)
class LabelledScene:
    """One scene of a labelled set.

    Attributes:
        name: of its file or folder, without suffix.
        labels: sorted; one in a folder of classes, one or more in BigEarthNet.
        part: what the set gives it to: "train", "validation", "test", or "" where it gives no parts.
        files: of its pixels, in the order of the set's bands where each band has its own.
    """

    name: str
    labels: tuple[str, ...]
    part: Part
    files: tuple[Path, ...]


@dataclass(frozen=True)
class LabelledSet:
    """A set that was found; pixels are read by `pixels_of`.

    Attributes:
        layout: "classes" or "bigearthnet".
        bands: of every scene.
        scenes: by label, then name.
        unlabelled: scenes without a label, left out.
    """

    layout: Literal["classes", "bigearthnet"]
    bands: Bands
    scenes: tuple[LabelledScene, ...]
    unlabelled: int = 0

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label that occurs, sorted."""
        return tuple(sorted({label for s in self.scenes for label in s.labels}))


def find_labelled(path: Path) -> LabelledSet:
    """The labelled set in a folder.

    Raises:
        NotFound: there is no such folder, or no scene with a label in it.
        BadScene: its files have bands that belong to none of the layouts.
    """
    if not path.is_dir():
        raise NotFound(f"no folder {str(path)!r}; give the folder that a labelled set was unpacked to")
    patches = _patches(path)
    found = _bigearthnet(path, patches) if patches else _classes(path)
    if not found.scenes:
        raise NotFound(
            f"{path} holds no labelled scene; wanted a folder of images for each class, or BigEarthNet patches with "
            "*_labels_metadata.json or metadata.parquet"
        )
    listed = _lists(path)
    scenes = [replace(s, part=s.part or listed.get(s.name, "")) for s in found.scenes]
    return replace(found, scenes=tuple(sorted(scenes, key=lambda s: (s.labels, s.name))))


def pixels_of(labelled: LabelledSet, scene: LabelledScene) -> Pixels:
    """(bands, height, width) of one scene, in the stored dtype; coarser bands are repeated onto the finest grid.

    Raises:
        BadScene: a file is damaged, or does not fit the set's bands.
    """
    if len(scene.files) == 1:
        pixels = _read(scene.files[0])
    else:
        planes = [_read(f)[0] for f in scene.files]
        height = max(p.shape[0] for p in planes)
        pixels = np.stack([_repeated(p, height, f) for p, f in zip(planes, scene.files, strict=True)])
    if labelled.bands.names == ("red", "green", "blue"):
        pixels = np.repeat(pixels, 3, axis=0) if len(pixels) == 1 else pixels[:3]  # grey, or with transparency
    if len(pixels) != len(labelled.bands) or pixels.dtype != labelled.bands.dtype:
        raise BadScene(
            f"{scene.files[0]} has {len(pixels)} bands of {pixels.dtype}; the set has {len(labelled.bands)} of "
            f"{labelled.bands.dtype}; take it out of the folder"
        )
    return pixels


def _read(path: Path) -> Pixels:
    with reading(str(path)), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # such scenes have no place, and need none
        with rasterio.open(path) as data:
            return np.asarray(data.read())


def _repeated(plane: Any, height: int, path: Path) -> Any:
    times, rest = divmod(height, plane.shape[0])
    if rest:
        raise BadScene(f"{path} has {plane.shape[0]} rows, the finest band {height}; wanted a whole part of them")
    return plane.repeat(times, axis=0).repeat(times, axis=1)


def _classes(path: Path) -> LabelledSet:
    """Folders of images; the folder's name is the class."""
    scenes = [
        LabelledScene(f.stem, (f.parent.name,), _part_of(f.parent.parent, path), (f,))
        for f in _below(path, SUFFIXES)
        if f.parent != path and f.parent.name.lower() not in _PARTS
    ]
    return LabelledSet("classes", _bands_of([s.files[0] for s in scenes[:SAMPLED]]), tuple(scenes))


def _part_of(folder: Path, top: Path) -> Part:
    """The part named by a folder around the class, up to the top one."""
    while folder != top.parent:
        if folder.name.lower() in _PARTS:
            return _PARTS[folder.name.lower()]
        folder = folder.parent
    return ""


def _below(path: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Files with these suffixes, folder by folder in the order of names."""
    for name, folders, files in os.walk(path):
        folder = Path(name)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        if len(folder.relative_to(path).parts) >= _DEPTH:
            folders.clear()
        yield from (folder / f for f in sorted(files) if Path(f).suffix.lower() in suffixes and f[0] != ".")


def _bands_of(files: list[Path]) -> Bands:
    """What the images of a folder of classes hold, by number of bands and dtype."""
    kinds = {(len(p), str(p.dtype)) for p in (_read(f) for f in files)}
    if not kinds or all(count in (1, 3, 4) and dtype == "uint8" for count, dtype in kinds):
        names = ("red", "green", "blue")
        return Bands(tuple(Band(n, n, 1.0, dtype="uint8", scale=1 / 255, valid_max=255) for n in names))
    if kinds == {(13, "uint16")}:
        return _sentinel(_EUROSAT)
    raise BadScene(
        f"{files[0].parent} holds images of (bands, dtype) {sorted(kinds)}; wanted red, green, blue in 8 bits, or the "
        "13 bands of Sentinel-2 in 16"
    )


def _sentinel(sources: tuple[str, ...]) -> Bands:
    """Bands of Sentinel-2 as these sets store them: reflectance times 10,000, no offset."""
    return Bands(tuple(Band(_BANDS[s][0], s, float(_BANDS[s][1]), scale=1e-4) for s in sources))


def _patches(path: Path) -> list[Path]:
    """Folders of BigEarthNet patches."""
    return [f.parent for f in _below(path, (".tif",)) if f.name == f"{f.parent.name}_B02.tif"]


def _bigearthnet(path: Path, patches: list[Path]) -> LabelledSet:
    table = _table(path)
    scenes = []
    for folder in patches:
        labels, part = table.get(folder.name) or (_labels_beside(folder), "")
        files = tuple(folder / f"{folder.name}_{source}.tif" for source in _BIGEARTHNET)
        if labels:
            scenes.append(LabelledScene(folder.name, tuple(sorted(labels)), part, files))
    return LabelledSet("bigearthnet", _sentinel(_BIGEARTHNET), tuple(scenes), len(patches) - len(scenes))


def _labels_beside(folder: Path) -> list[str]:
    file = folder / f"{folder.name}_labels_metadata.json"
    if not file.is_file():
        return []
    try:
        return [str(label) for label in json.loads(file.read_text("utf-8"))["labels"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{file} does not list labels ({error!r}); wanted {{'labels': [...]}}") from error


def _table(path: Path) -> dict[str, tuple[list[str], Part]]:
    """Patch -> labels and part, by `metadata.parquet`."""
    file = next((f for f in (path / "metadata.parquet", path.parent / "metadata.parquet") if f.is_file()), None)
    if file is None:
        return {}
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.read_table(file, columns=["patch_id", "labels", "split"]).to_pydict()
    except (pa.ArrowException, KeyError) as error:
        raise InvalidInput(f"{file} lacks patch_id, labels or split ({error}); take BigEarthNet's own") from error
    rows = zip(columns["patch_id"], columns["labels"], columns["split"], strict=True)
    return {name: (list(labels), _PARTS.get(part, "")) for name, labels, part in rows}


def _lists(path: Path) -> dict[str, Part]:
    """Scene -> part, by lists of names that lie at the top: `train.csv`, `uc_merced-test.txt`, `splits/val.csv`."""
    found: dict[str, Part] = {}
    for folder in (path, path / "splits"):
        for file in sorted([*folder.glob("*.csv"), *folder.glob("*.txt")]):
            part = _PARTS.get(file.stem.lower().replace("-", "_").split("_")[-1])
            if part is None:
                continue
            with file.open(newline="", encoding="utf-8") as stream:
                found |= {_stem(field): part for row in csv.reader(stream) for field in row}
    return found


def _stem(field: str) -> str:
    """The scene's name of a field: without folder, and without a suffix of an image."""
    name = field.strip().rsplit("/", 1)[-1]
    return name.rsplit(".", 1)[0] if name.lower().endswith(SUFFIXES) else name
