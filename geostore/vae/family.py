"""The codec families this package offers; importing them loads no network library."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from geostore.codec import Codec, Effort, Lend, Progress, RawFamily, Series
from geostore.collection import Policy

if TYPE_CHECKING:
    from geostore.vae.model import Mode

_HOPELESS = 2.0  # times what a rival takes: a static image expected to take more, from coding its middle, cannot win


class VaeFamily:
    """The default: a spatial latent grid conditioned on the place's static image.

    The network is a base that many places share, with or without a delta, or the place's own: whatever takes the
    fewest bytes, as `geostore.vae.choose` works out. Where a codec and its embeddings are expected to take more bytes
    than the lossless rasters or than a rival does, or nothing in the series can be seen, `fit` returns the lossless
    codec instead, as soon as that shows.
    """

    name: ClassVar[str] = "vae"
    mode: ClassVar[Mode] = "grid"

    def __init__(self, lend: Lend | None = None) -> None:
        self._lend = lend

    def fit(
        self, series: Series, *, policy: Policy, effort: Effort, progress: Progress, parent: Codec | None = None
    ) -> Codec:
        """Fit a codec to `series` that keeps `policy`; `parent` warm-starts it where the networks match."""
        if not self._pays(series, policy, effort):
            return RawFamily().fit(series, policy=policy, effort=effort, progress=progress)
        from geostore.vae.choose import choose_codec
        from geostore.vae.codec import VaeCodec
        from geostore.vae.fit import fit_codec

        lender = parent if isinstance(parent, VaeCodec) else None
        if self.mode == "grid":
            return choose_codec(series, policy=policy, effort=effort, progress=progress, parent=lender)
        return fit_codec(series, self.mode, policy=policy, effort=effort, progress=progress, parent=lender)

    def _pays(self, series: Series, policy: Policy, effort: Effort) -> bool:
        from geostore.vae.sizing import static_bytes, worthwhile

        if not series.valid.any():
            return False
        if effort.bytes_max is not None and static_bytes(series, policy) > _HOPELESS * effort.bytes_max:
            return False
        return worthwhile(series, policy).worthwhile

    def from_bytes(self, data: bytes) -> Codec:
        """The inverse of `VaeCodec.to_bytes`. Raises Corrupt, UnsupportedFormat or NotFound (of a base)."""
        from geostore.vae.codec import VaeCodec

        return VaeCodec.from_bytes(data, self._lend)

    def lent(self, lend: Lend) -> VaeFamily:
        """The same family, asking `lend` for bases that the package does not bring."""
        return type(self)(lend)

    def networks(self, data: bytes) -> dict[str, bytes]:
        """The base that the codec stored as `data` names, by its digest; nothing if its weights are its own."""
        from geostore.vae.codec import VaeCodec

        borrowed = VaeCodec.from_bytes(data, self._lend).borrowed
        return {} if borrowed is None else {borrowed.base.digest: borrowed.base.data}


class FlatFamily(VaeFamily):
    """The paper's VAE: one vector for all bands of a raster. The baseline: fitted whether it pays or not."""

    name: ClassVar[str] = "vae-flat"
    mode: ClassVar[Mode] = "flat"

    def _pays(self, series: Series, policy: Policy, effort: Effort) -> bool:
        return bool(series.valid.any())


class SingleBandFamily(FlatFamily):
    """The paper's VAE band by band: one small network, one vector a band."""

    name: ClassVar[str] = "vae-flat-single"
    mode: ClassVar[Mode] = "flat-single"
