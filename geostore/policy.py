"""What a collection promises: bounds on the errors of every stored raster, and what is kept of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from geostore.errors import InvalidInput

KeepOriginal = Literal["keep", "reference", "drop"]
Domain = Literal["auto", "linear", "log"]
VALUE_BOUNDS = ("mse_max", "max_error", "mae_max", "p99_max")
INDEX_BOUNDS = {"mae_max": "index_mae_max", "p99_max": "index_p99_max", "max_error": "index_max"}  # of one: of every
BOUNDS = (*VALUE_BOUNDS, *INDEX_BOUNDS.values())
_BOUND_MIN = 1e-12  # of errors on n1 or of an index: below it the arithmetic of reading pixels says nothing
_LATER = ("mae_max", "p99_max", "index", "domain")  # fields that codecs of before do not state


@dataclass(frozen=True, kw_only=True)
class IndexBounds:
    """Bounds on the absolute error of one spectral index: mean, 99th percentile and largest.

    None is what the policy asks of every index; `math.inf` asks for nothing.
    """

    mae_max: float | None = None
    p99_max: float | None = None
    max_error: float | None = None

    def __post_init__(self) -> None:
        for name in INDEX_BOUNDS:
            _check_bound(name, getattr(self, name), "of an index", _BOUND_MIN)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The fidelity every stored raster must keep, and what is kept beside the embedding.

    A bound that is None, or `math.inf`, is not asked for. All errors are over valid pixels of one raster, on values
    rounded to the stored dtype. MSE is on n1: reflectance clipped to 0..1 (other kinds: their range scaled to 0..1).

    Attributes:
        mse_max: mean squared error on n1.
        max_error: largest absolute error of any value, physical units.
        mae_max, p99_max: mean and 99th percentile of the absolute errors of all values, physical units.
        index_mae_max, index_p99_max, index_max: mean, 99th percentile and largest absolute error of every
            spectral index the collection names.
        index: bounds of single indices by name, in the place of these three.
        domain: what codecs work in: "linear" in reflectance, "log" in its logarithm, "auto" in whichever takes fewer
            bytes, as families find it. Values that are no reflectance in whole numbers are always coded as they are.
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
    index: Mapping[str, IndexBounds] = field(default_factory=dict, hash=False)
    domain: Domain = "auto"
    original: KeepOriginal = "drop"
    codec: str = "vae"
    rivals: tuple[str, ...] = ("klt-av1", "klt-dct")

    def __post_init__(self) -> None:
        for name in BOUNDS:
            least = 0.0 if name in ("max_error", "mae_max", "p99_max") else _BOUND_MIN
            _check_bound(name, getattr(self, name), "", least)
            if getattr(self, name) == math.inf:
                object.__setattr__(self, name, None)
        self._check_index()
        self._check_codecs()
        for name, allowed in (("domain", Domain), ("original", KeepOriginal)):
            if getattr(self, name) not in get_args(allowed):
                words = ", ".join(get_args(allowed))
                raise InvalidInput(f"policy {name} = {getattr(self, name)!r}; use one of {words}")

    def _check_index(self) -> None:
        if not isinstance(self.index, Mapping):
            raise InvalidInput(
                f"policy index = {self.index!r}; give bounds by name, as {{'NDVI': IndexBounds(mae_max=0.02)}}, or {{}}"
            )
        for name, own in self.index.items():
            if not isinstance(own, IndexBounds):
                raise InvalidInput(f"policy index {name} = {own!r}; give an IndexBounds, as IndexBounds(mae_max=0.02)")

    def _check_codecs(self) -> None:
        if not isinstance(self.codec, str) or not self.codec:
            raise InvalidInput(f"policy codec = {self.codec!r}; give the name of one codec family, as 'vae' or 'raw'")
        if not isinstance(self.rivals, tuple | list) or not all(isinstance(n, str) and n for n in self.rivals):
            raise InvalidInput(
                f"policy rivals = {self.rivals!r}; give the names of codec families, as ('klt-av1',), or () for none"
            )
        object.__setattr__(self, "rivals", tuple(self.rivals))  # so that a list says the same

    @property
    def codecs(self) -> tuple[str, ...]:
        """The families to fit, each once: none beside the lossless one."""
        return (self.codec,) if self.codec == "raw" else tuple(dict.fromkeys((self.codec, *self.rivals)))

    @property
    def bounded(self) -> bool:
        """True if an error of every single pixel has a bound."""
        return self.max_error is not None or self.index_limit(self.index) is not None or self.index_max is not None

    @property
    def asks(self) -> bool:
        """True if any error has a bound."""
        single = (asdict(self.index_bounds(name)).values() for name in self.index)
        flat = (getattr(self, name) for name in BOUNDS)
        return any(b is not None for b in flat) or any(b is not None for bounds in single for b in bounds)

    @property
    def bounds_values(self) -> bool:
        """True if a mean or percentile of the errors of values has a bound."""
        return any(b is not None for b in (self.mse_max, self.mae_max, self.p99_max))

    def index_bounds(self, name: str) -> IndexBounds:
        """The bounds of one index, its own or those of every index; None is not asked for."""
        own = self.index.get(name) or IndexBounds()
        found = {}
        for short, every in INDEX_BOUNDS.items():
            bound = getattr(own, short)
            bound = getattr(self, every) if bound is None else bound
            found[short] = None if bound is None or math.isinf(bound) else bound
        return IndexBounds(**found)

    def bounds_indices(self, names: Iterable[str]) -> bool:
        """True if an error of one of these indices has a bound."""
        return any(b is not None for name in names for b in asdict(self.index_bounds(name)).values())

    def index_limit(self, names: Iterable[str]) -> float | None:
        """The tightest bound on the largest error of any of these indices."""
        return min((b for name in names if (b := self.index_bounds(name).max_error) is not None), default=None)

    def takes(self, domain: Literal["linear", "log"]) -> bool:
        """True unless another domain is asked for."""
        return self.domain in ("auto", domain)

    def to_fields(self) -> dict[str, Any]:
        """Plain values as codecs state them: those of `_LATER` only where they are not what they are by default."""
        default = Policy()
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        kept = {k: v for k, v in own.items() if k not in _LATER or v != getattr(default, k)}
        return {k: _plain_index(v) if k == "index" else v for k, v in kept.items()}

    @classmethod
    def from_fields(cls, found: Mapping[str, Any]) -> Policy:
        """The inverse of `to_fields`. Raises TypeError or InvalidInput where they make no policy."""
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
        index = {name: IndexBounds(**asked(bounds)) for name, bounds in known.pop("index", {}).items()}
        return cls(**known, index=index)


def _check_bound(name: str, value: float | None, of: str, least: float) -> None:
    where = f"policy {name} {of}".rstrip()
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"{where} = {value!r}; give a plain number above 0, or None")
    if not value > 0:
        raise InvalidInput(f"{where} = {value}; use a positive number, or leave it out to ask nothing")
    if value < least:
        raise InvalidInput(f"{where} = {value}; at least {least:g}, or codec = 'raw' for exact pixels")


def _plain_index(index: Mapping[str, IndexBounds]) -> dict[str, dict[str, float | bool]]:
    """Tables of the bounds that are stated; False asks for nothing."""
    return {
        name: {k: v if math.isfinite(v) else False for k, v in asdict(bounds).items() if v is not None}
        for name, bounds in index.items()
    }


def asked(bounds: Mapping[str, Any]) -> dict[str, Any]:
    """Bounds as plain tables say them, False made what asks for nothing."""
    return {k: math.inf if v is False else v for k, v in bounds.items()}
