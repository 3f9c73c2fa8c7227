"""A reader's error budget: which rasters are near enough as they are stored, and which are wanted as they came."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from numbers import Real
from typing import Final

from geostore.certificate import Certificate, SpectralError, float32_up
from geostore.errors import InvalidInput
from geostore.query.facts import RasterInfo
from geostore.query.messages import Tier

ORIGINAL: Final = "original"  # tier and layers of a raster as it came
Within = Mapping[str, float]  # the largest allowed by name: "mse"; of values "mae", "p99", "max_error"; of an index its
# mean error "ndvi" (or "ndvi_mae"), "ndvi_p99", "ndvi_max"
_VALUES = ("mae", "p99")


def check_within(within: object, tier: Tier) -> None:
    """Refuse what is no budget: anything but errors above 0 by name, or one beside a tier.

    Raises:
        InvalidInput: `within` is no table of numbers above 0, or `tier` says something else.
    """
    if within is None:
        return
    if not isinstance(within, Mapping):
        raise InvalidInput(f"within = {within!r}; give errors allowed by name, as {{'ndvi': 0.02}}")
    for name, bound in within.items():
        if not isinstance(name, str) or isinstance(bound, bool) or not isinstance(bound, Real):
            raise InvalidInput(f"within {name!s} = {bound!r}; give the largest error allowed as a number, as 0.02")
        if not float(bound) > 0:
            raise InvalidInput(f"within {name} = {float(bound):g}; give the largest error allowed, above 0")
    if tier != "best":
        raise InvalidInput(f"tier {tier!r} and within {dict(within)} both say what to decode; give one")


def check_measured(within: Within, indices: Iterable[str]) -> None:
    """Refuse names of a budget that are not measured where these indices are.

    Raises:
        InvalidInput: there is such a name; the message has those there are.
    """
    none = SpectralError(0.0, 0.0, 0.0)
    _check_names(within, errors_of(Certificate(0, 0.0, 0.0, dict.fromkeys(indices, none))))


def _check_names(within: Within, measured: Iterable[str]) -> None:
    for name, bound in within.items():
        if name not in measured:
            raise InvalidInput(f"within {name} = {bound:g}: that is not measured here; use {', '.join(measured)}")


def errors_of(certificate: Certificate) -> dict[str, float]:
    """Every error by the name a budget has for it; `mae` and `p99` are at most the largest where not measured."""
    found = {"mse": certificate.mse, "max_error": certificate.max_error}
    found |= {name: certificate.at_most(getattr(certificate, name)) for name in _VALUES}
    for index, error in certificate.indices.items():
        name = index.lower()
        found |= {name: error.mae, f"{name}_mae": error.mae, f"{name}_p99": error.p99, f"{name}_max": error.max}
    return found


def beyond(certificate: Certificate, within: Within) -> str:
    """What of the budget the errors exceed, in words; "" if nothing.

    Raises:
        InvalidInput: a name of the budget is not measured.
    """
    errors = errors_of(certificate)
    _check_names(within, errors)
    missed = [name for name, bound in within.items() if errors[name] > float32_up(bound)]
    return ", ".join(f"{name} {_said(name, certificate)} where {within[name]:g} is wanted" for name in missed)


def _said(name: str, certificate: Certificate) -> str:
    """An error in words."""
    if name in _VALUES and getattr(certificate, name) is None:
        return f"not measured when it was stored (the largest error is {certificate.max_error:.3g}; fit it again)"
    return f"{errors_of(certificate)[name]:.3g}"


def as_original(info: RasterInfo) -> RasterInfo:
    """The facts of the same raster as it came."""
    none = Certificate.without_error(info.certificate.pixels)
    return replace(info, tier=ORIGINAL, layers=ORIGINAL, exact=True, certificate=none, coarser={})


def in_words(within: Within) -> str:
    """As `ndvi <= 0.02, mse <= 0.0001`."""
    return ", ".join(f"{name} <= {bound:g}" for name, bound in within.items())
