"""What a collection promises: bounds on the errors of every stored raster, and what is kept of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from geostore.errors import InvalidInput

KeepOriginal = Literal["keep", "reference", "drop"]
BOUNDS = ("mse_max", "max_error", "mae_max", "p99_max", "index_mae_max", "index_p99_max", "index_max")
_BOUND_MIN = 1e-12  # of errors on n1 or of an index: below it the arithmetic of reading pixels says nothing


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The fidelity every stored raster must keep, and what is kept beside the embedding.

    A bound that is None is not asked for. All errors are over valid pixels of one raster, on values rounded to
    the stored dtype. MSE is on n1: reflectance clipped to 0..1 (other kinds: their range scaled to 0..1).

    Attributes:
        mse_max: mean squared error on n1.
        max_error: largest absolute error of any value, physical units.
        mae_max, p99_max: mean and 99th percentile of the absolute errors of all values, physical units.
        index_mae_max, index_p99_max, index_max: mean, 99th percentile and largest absolute error of every
            spectral index the collection names.
        original: "keep" the lossless original as a COG, "reference" the scene it came from, which is read again while
            it holds the same pixels, or "drop" it once the certificate is durable.
        codec: the codec family to fit ("vae"); the lossless one is taken wherever it is smaller or the bounds cannot
            be kept otherwise.
        rivals: families fitted beside it; of all of them the one that takes the fewest bytes of a partition is kept.
    """

    mse_max: float | None = 5e-4
    max_error: float | None = None
    mae_max: float | None = None
    p99_max: float | None = None
    index_mae_max: float | None = 0.05
    index_p99_max: float | None = None
    index_max: float | None = None
    original: KeepOriginal = "drop"
    codec: str = "vae"
    rivals: tuple[str, ...] = ("klt-av1",)

    @property
    def codecs(self) -> tuple[str, ...]:
        """The families to fit, each once: none beside the lossless one."""
        return (self.codec,) if self.codec == "raw" else tuple(dict.fromkeys((self.codec, *self.rivals)))

    @property
    def bounded(self) -> bool:
        """True if an error of every single pixel has a bound."""
        return self.max_error is not None or self.index_max is not None

    def __post_init__(self) -> None:
        for name in BOUNDS:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidInput(f"policy {name} = {value}; use a positive number, or leave it out to ask nothing")
            if value is not None and name != "max_error" and value < _BOUND_MIN:
                raise InvalidInput(
                    f"policy {name} = {value}; at least {_BOUND_MIN:g}, or codec = 'raw' for exact pixels"
                )
        if self.original not in ("keep", "reference", "drop"):
            raise InvalidInput(f"policy original = {self.original!r}; use keep, reference or drop")
