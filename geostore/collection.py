"""What a collection declares: bands, grid, masks and the fidelity it promises."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from geostore.errors import InvalidInput
from geostore.keys import check_name
from geostore.raster import Bands

KeepOriginal = Literal["keep", "reference", "drop"]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The fidelity every stored raster must keep, and what is kept beside the embedding.

    A bound that is None is not asked for. All errors are over valid pixels of one raster, on values rounded to
    the stored dtype. MSE is on n1: reflectance clipped to 0..1 (other kinds: their range scaled to 0..1).

    Attributes:
        mse_max: mean squared error on n1.
        max_error: largest absolute error of any value, physical units.
        index_mae_max, index_p99_max, index_max: mean, 99th percentile and largest absolute error of every
            spectral index the collection names.
        original: "keep" the lossless original as a COG, "reference" the file it came from, or "drop" it once
            the certificate is durable.
        codec: the codec family to try first ("vae"); the lossless one is taken wherever it is smaller or the
            bounds cannot be kept otherwise.
    """

    mse_max: float | None = 5e-4
    max_error: float | None = None
    index_mae_max: float | None = 0.05
    index_p99_max: float | None = None
    index_max: float | None = None
    original: KeepOriginal = "drop"
    codec: str = "vae"

    def __post_init__(self) -> None:
        for name in ("mse_max", "max_error", "index_mae_max", "index_p99_max", "index_max"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidInput(f"policy {name} = {value}; use a positive number, or leave it out to ask nothing")
        if self.original not in ("keep", "reference", "drop"):
            raise InvalidInput(f"policy original = {self.original!r}; use keep, reference or drop")


@dataclass(frozen=True)
class MaskRule:
    """Which values of a class or QA band make a pixel unusable.

    Attributes:
        source: the file's band that holds the classes or bits ("SCL", "QA_PIXEL").
        values: category values to mask.
        bits: bit positions to mask wherever set.
    """

    source: str
    values: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Collection:
    """One kind of imagery in one store; create-only, a change is a new version.

    Attributes:
        name: its name in keys, files and messages.
        groups: bands by native resolution, for example {"10m": Bands, "20m": Bands}; every band belongs to one.
        precision: geohash length of a cell.
        crs: CRS of every grid, or None: the first scene's, fixed from then on.
        masks: rules that make pixels unusable.
        indices: spectral indices that are measured, and kept where the policy bounds them.
        policy: the fidelity promised.
        product: product family ("sentinel-2-l2a"); a reader uses it to find scale, offset and time.
        time_pattern: a regular expression with one group, "|", a strptime format, for the file name:
            "([0-9]{8})|%Y%m%d"; or "" to read metadata only.
        version: 1, 2, ... ; a store keeps every version.
    """

    name: str
    groups: dict[str, Bands]
    precision: int = 5
    crs: str | None = None
    masks: tuple[MaskRule, ...] = ()
    indices: tuple[str, ...] = ("NDVI",)
    policy: Policy = field(default_factory=Policy)
    product: str = "generic"
    time_pattern: str = ""
    version: int = 1

    def __post_init__(self) -> None:
        check_name(self.name, "collection")
        if not 1 <= self.precision <= 8:
            raise InvalidInput(f"collection {self.name!r}: precision {self.precision}; use 1 to 8 (5 is about 5 km)")
        names = [b.name for bands in self.groups.values() for b in bands]
        if not names or len(set(names)) != len(names):
            raise InvalidInput(f"collection {self.name!r}: bands {names}; give at least one, each once")
        for group in self.groups:
            check_name(group, "band group")

    def indices_of(self, group: str) -> tuple[str, ...]:
        """The collection's indices whose bands all lie in `group`."""
        from geostore.spectral import spectral_index

        names = set(self.groups[group].names)
        return tuple(i for i in self.indices if names.issuperset(spectral_index(i).bands))
