"""geostore: a store for satellite imagery that keeps small learned embeddings instead of pixels."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geostore.client import Client
    from geostore.collection import Collection, Policy
    from geostore.connection import connect, connect_async
    from geostore.errors import GeostoreError
    from geostore.index.labels import AtLeast, Exactly, Some
    from geostore.index.spatial import Circle
    from geostore.keys import PartitionKey, RasterKey
    from geostore.policy import IndexBounds
    from geostore.raster import Band, Bands, Grid, Raster
    from geostore.settings import Settings

__version__ = "0.1.0"

_HOMES = {
    "AtLeast": "index.labels",
    "Band": "raster",
    "Bands": "raster",
    "Client": "client",
    "Circle": "index.spatial",
    "Collection": "collection",
    "Exactly": "index.labels",
    "GeostoreError": "errors",
    "Grid": "raster",
    "IndexBounds": "policy",
    "PartitionKey": "keys",
    "Policy": "collection",
    "Raster": "raster",
    "RasterKey": "keys",
    "Settings": "settings",
    "Some": "index.labels",
    "connect": "connection",
    "connect_async": "connection",
}

__all__ = [
    "AtLeast",
    "Band",
    "Bands",
    "Circle",
    "Client",
    "Collection",
    "Exactly",
    "GeostoreError",
    "Grid",
    "IndexBounds",
    "PartitionKey",
    "Policy",
    "Raster",
    "RasterKey",
    "Settings",
    "Some",
    "__version__",
    "connect",
    "connect_async",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"geostore.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'geostore' has no attribute {name!r}")
