"""The codec family this package offers; importing it loads no video library."""

from __future__ import annotations

from typing import ClassVar

from geostore.codec import Codec, Effort, Progress, RawFamily, Series
from geostore.collection import Policy
from geostore.errors import InvalidInput


class KltAv1Family:
    """A Karhunen-Loeve transform over bands and AV1 over time; whole-number dtypes only."""

    name: ClassVar[str] = "klt-av1"

    def fit(
        self, series: Series, *, policy: Policy, effort: Effort, progress: Progress, parent: Codec | None = None
    ) -> Codec:
        """Fit a codec to `series` that keeps `policy`; one without a usable pixel gets the lossless codec.

        Raises:
            InvalidInput: the series is of float32, or its rasters are too large for a picture.
        """
        if series.bands.dtype.kind == "f":
            raise InvalidInput(
                f"klt-av1 codes whole numbers, these bands are {series.bands.dtype}; name another codec in the "
                "collection's policy, or store scaled integers"
            )
        if not series.valid.any():
            return RawFamily().fit(series, policy=policy, effort=effort, progress=progress)
        from geostore.classical.fit import fit_codec

        return fit_codec(series, policy=policy, effort=effort, progress=progress)

    def foresee(self, series: Series, policy: Policy) -> float | None:
        """See `Foreseeing`."""
        if series.bands.dtype.kind == "f":
            return None
        from geostore.classical.fit import foresee

        return foresee(series, policy)

    def from_bytes(self, data: bytes) -> Codec:
        """The inverse of `KltAv1Codec.to_bytes`. Raises Corrupt or UnsupportedFormat."""
        from geostore.classical.codec import KltAv1Codec

        return KltAv1Codec.from_bytes(data)
