"""Find what others plug in, by entry-point group, and load it on first use."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from geostore.errors import NotInstalled


@cache
def find(group: str, name: str) -> Any:
    """One instance of the class registered as `name` in `group`.

    Raises:
        NotInstalled: nothing of that name is installed, or it cannot be imported; the message lists what is, or why.
    """
    for point in entry_points(group=group):
        if point.name == name:
            return _load_point(point)()
    raise NotInstalled(f"no {name!r} among {group}; installed: {', '.join(names(group)) or 'none'}")


def names(group: str) -> list[str]:
    """Names registered in `group`, sorted."""
    return sorted({point.name for point in entry_points(group=group)})


def load(group: str, wanted: Sequence[str] = ()) -> dict[str, Any]:
    """Instances of `wanted` (all installed, if empty) in `group`, by name."""
    return {name: find(group, name) for name in (wanted or names(group))}


def _load_point(point: EntryPoint) -> Any:
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise NotInstalled(
            f"{point.name!r} of {point.group} cannot be loaded from {point.value} ({error}); "
            "install what it needs, or uninstall the package that registers it"
        ) from error
