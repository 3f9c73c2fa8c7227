"""`python -m geostore.cli` is `geostore`."""

from __future__ import annotations

from geostore.cli import main

main()
