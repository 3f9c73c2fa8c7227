"""What lies at rest: tables, blobs and the view made from them. docs/FORMAT.md is the specification."""

from __future__ import annotations

from geostore.storage.audit import Finding
from geostore.storage.backup import restore
from geostore.storage.header import FORMAT_VERSION
from geostore.storage.masks import pack_mask, pack_rows, unpack_mask
from geostore.storage.rows import CodecRow, EventRow, JobRow, RasterRow, Row, SceneRow
from geostore.storage.store import Store

__all__ = [
    "FORMAT_VERSION",
    "CodecRow",
    "EventRow",
    "Finding",
    "JobRow",
    "RasterRow",
    "Row",
    "SceneRow",
    "Store",
    "pack_mask",
    "pack_rows",
    "restore",
    "unpack_mask",
]
