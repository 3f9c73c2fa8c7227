"""Small labelled sets, generated in the layouts that public ones come in."""

from __future__ import annotations

import json

import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import Affine

CLASSES = ("forest", "harbor", "river")
SENTINEL = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")


def rgb(kind, number, side=24):
    """(side, side, 3) uint8: each class has a colour and a texture of its own."""
    rng = np.random.default_rng([kind, number])
    base = np.array([(40, 90, 40), (120, 120, 130), (60, 80, 140)][kind])
    return np.clip(base + rng.normal(0, 4 + 12 * kind, (side, side, 3)), 0, 255).astype(np.uint8)


def classes(folder, *, count=6, suffix=".jpg"):
    """A folder for each class."""
    for kind, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            path = folder / name / f"{name}{number:02d}{suffix}"
            Image.fromarray(rgb(kind, number)).save(path)
    return folder


def sentinel(path, bands, side=24, level=1000, seed=0):
    """One GeoTIFF of uint16 bands."""
    pixels = np.random.default_rng(seed).integers(level, level + 400, (bands, side, side)).astype(np.uint16)
    profile = {"driver": "GTiff", "count": bands, "height": side, "width": side, "dtype": "uint16"}
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_500_000)}
    with rasterio.open(path, "w", **profile, **place) as data:
        data.write(pixels)
    return pixels


def bigearthnet(folder, names_labels, *, beside=True):
    """Patches of twelve files each at 10, 20 and 60 m; labels in JSON beside them, if asked."""
    for seed, (name, labels) in enumerate(names_labels.items()):
        patch = folder / name
        patch.mkdir(parents=True)
        for source in SENTINEL:
            side = {"B02": 24, "B03": 24, "B04": 24, "B08": 24, "B01": 4, "B09": 4}.get(source, 12)
            sentinel(patch / f"{name}_{source}.tif", 1, side, 600 + 900 * len(labels), seed)
        if beside:
            (patch / f"{name}_labels_metadata.json").write_text(json.dumps({"labels": labels}))
    return folder
