"""geostore: a store for satellite imagery that keeps small learned embeddings instead of pixels."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geostore.client import Client
    from geostore.collection import Collection, Policy
    from geostore.connection import connect
    from geostore.errors import GeostoreError
    from geostore.keys import PartitionKey, RasterKey
    from geostore.raster import Band, Bands, Grid, Raster
    from geostore.settings import Settings

__version__ = "0.1.0"

_HOMES = {
    "Band": "raster",
    "Bands": "raster",
    "Client": "client",
    "Collection": "collection",
    "GeostoreError": "errors",
    "Grid": "raster",
    "PartitionKey": "keys",
    "Policy": "collection",
    "Raster": "raster",
    "RasterKey": "keys",
    "Settings": "settings",
    "connect": "connection",
}

__all__ = [
    "Band",
    "Bands",
    "Client",
    "Collection",
    "GeostoreError",
    "Grid",
    "PartitionKey",
    "Policy",
    "Raster",
    "RasterKey",
    "Settings",
    "__version__",
    "connect",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"geostore.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'geostore' has no attribute {name!r}")
