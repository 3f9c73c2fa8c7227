"""Whether a collection's band groups have the bands that its spectral indices are measured on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from geostore.errors import InvalidInput
from geostore.policy import INDEX_BOUNDS, Policy
from geostore.raster import Bands
from geostore.spectral import spectral_index


def measurable_in(name: str, bands: Bands) -> bool:
    """True if all bands of the index lie in this group. Raises InvalidInput if there is no such index."""
    return set(bands.names).issuperset(spectral_index(name).bands)


def check_known(names: object, where: str) -> None:
    """Refuse what is no list of spectral indices.

    Raises:
        InvalidInput: `names` is no tuple of texts, or there is no such index.
    """
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        raise InvalidInput(f'{where}: indices = {names!r}; give a tuple of names, as ("NDVI",), or () for none')
    for name in names:
        try:
            spectral_index(name)
        except InvalidInput as error:
            raise InvalidInput(f"{where}: {error}; declare it with indices that are known") from None


def check_measurable(names: Iterable[str], groups: Mapping[str, Bands], where: str) -> None:
    """Refuse an index whose bands lie in no one band group.

    Raises:
        InvalidInput: there is such an index among `names`, or one that is unknown.
    """
    for name in dict.fromkeys(names):
        if not any(measurable_in(name, bands) for bands in groups.values()):
            held = "; ".join(f"{group}: {', '.join(bands.names)}" for group, bands in groups.items())
            raise InvalidInput(
                f"{where}: {name} needs {', '.join(spectral_index(name).bands)} in one band group; there are {held}; "
                f"add what is missing, give those bands one gsd_m, or leave {name} out of `indices`"
            )


def stated_bounds(policy: Policy) -> list[str]:
    """Names of the bounds on every index that are not what a policy has by default."""
    default = Policy()
    return [n for n in INDEX_BOUNDS.values() if getattr(policy, n) not in (None, getattr(default, n))]


def check_bound(bound: Iterable[str], names: Iterable[str], groups: Mapping[str, Bands], where: str) -> None:
    """Refuse bounds of a policy on every index where none of `names` is measured.

    Raises:
        InvalidInput: there is a bound, and nothing it would be kept for.
    """
    first = next(iter(bound), None)
    if first is not None and not any(measurable_in(name, bands) for name in names for bands in groups.values()):
        raise InvalidInput(
            f'{where}, policy: {first} bounds no index; name one, as indices = ["NDVI"], or leave it out'
        )
