"""Classical codecs: transforms and video coding, nothing learned."""

from __future__ import annotations

from geostore.classical.family import KltAv1Family

__all__ = ["KltAv1Family"]
