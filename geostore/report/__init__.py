"""The report: what a store holds, costs and keeps true, as a page with pictures."""

from __future__ import annotations

from geostore.report.gather import Originals
from geostore.report.write import report

__all__ = ["Originals", "report"]
