"""The codec family this package offers; importing it compiles nothing."""

from __future__ import annotations

from typing import ClassVar

from geostore.codec import Codec, Effort, Progress, RawFamily, Series
from geostore.collection import Policy
from geostore.errors import InvalidInput


class KltDctFamily:
    """A Karhunen-Loeve transform over bands, dates laid on one another, cosines; whole-number dtypes only."""

    name: ClassVar[str] = "klt-dct"

    def fit(
        self, series: Series, *, policy: Policy, effort: Effort, progress: Progress, parent: Codec | None = None
    ) -> Codec:
        """Fit a codec to `series` that keeps `policy`; the lossless one where no pixel is usable, or each has a bound.

        Raises:
            InvalidInput: the series is of float32.
        """
        if series.bands.dtype.kind == "f":
            raise InvalidInput(
                f"klt-dct codes whole numbers, these bands are {series.bands.dtype}; name another codec in the "
                "collection's policy, or store scaled integers"
            )
        if not series.valid.any() or policy.bounded:
            return RawFamily().fit(series, policy=policy, effort=effort, progress=progress)
        from geostore.dct.fit import fit_codec

        return fit_codec(series, policy=policy, effort=effort, progress=progress)

    def foresee(self, series: Series, policy: Policy) -> float | None:
        """See `Foreseeing`."""
        if series.bands.dtype.kind == "f" or policy.bounded:
            return None
        from geostore.dct.fit import foresee

        return foresee(series, policy)

    def from_bytes(self, data: bytes) -> Codec:
        """The inverse of `KltDctCodec.to_bytes`. Raises Corrupt or UnsupportedFormat."""
        from geostore.dct.codec import KltDctCodec

        return KltDctCodec.from_bytes(data)
