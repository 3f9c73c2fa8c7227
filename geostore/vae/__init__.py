"""The learned codec: a variational autoencoder per partition."""

from __future__ import annotations

from geostore.vae.family import FlatFamily, SingleBandFamily, VaeFamily

__all__ = ["FlatFamily", "SingleBandFamily", "VaeFamily"]
