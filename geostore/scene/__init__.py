"""Scenes as they arrive: the only home of rasterio."""

from __future__ import annotations

from geostore.scene.find import SceneSource, find_scenes
from geostore.scene.presets import load_collection, preset_names
from geostore.scene.scene import Scene, open_scene
from geostore.scene.stac import collection_from_stac

__all__ = [
    "Scene",
    "SceneSource",
    "collection_from_stac",
    "find_scenes",
    "load_collection",
    "open_scene",
    "preset_names",
]
