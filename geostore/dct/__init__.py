"""A classical codec of our own: bands turned, dates laid on one another, what differs as cosines in adaptive bits."""

from __future__ import annotations

from geostore.dct.family import KltDctFamily

__all__ = ["KltDctFamily"]
