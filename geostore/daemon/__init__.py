"""The daemon: one store, served over the wire."""

from __future__ import annotations

from geostore.daemon.main import main

__all__ = ["main"]
