"""The flags of search: examples, areas and conditions as a shell writes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from geostore.cli.decode import read_area, read_time
from geostore.errors import InvalidInput

if TYPE_CHECKING:
    from geostore.client.given import Filters

_PANEL = "Which rasters"
Within = Annotated[
    str | None,
    typer.Option(help="Geohash, W,S,E,N, LON,LAT,KM, or a GeoJSON file.", rich_help_panel=_PANEL),
]
Season = Annotated[
    list[str] | None, typer.Option(help="winter, spring, summer, autumn; may be repeated.", rich_help_panel=_PANEL)
]
Sensor = Annotated[
    list[str] | None, typer.Option(help="Beginning of the platform's name; may be repeated.", rich_help_panel=_PANEL)
]
Cloud = Annotated[float | None, typer.Option(help="Share of cloud at most, 0..1.", rich_help_panel=_PANEL)]
Valid = Annotated[float | None, typer.Option(help="Share of usable pixels at least, 0..1.", rich_help_panel=_PANEL)]
Certificate = Annotated[
    list[str] | None,
    typer.Option(
        help="A measured error at most, as ndvi_mae=0.02, mse=1e-4, mae=0.005; may be repeated.", rich_help_panel=_PANEL
    ),
]
Labels = Annotated[list[str] | None, typer.Option("--label", help="May be repeated.", rich_help_panel=_PANEL)]
Match = Annotated[
    Literal["some", "at-least", "exactly"],
    typer.Option(help="What of the labels a raster must have.", rich_help_panel=_PANEL),
]


def filters(
    *,
    collection: str | None,
    group: str | None,
    time: str | None,
    within: str | None = None,
    season: list[str] | None,
    sensor: list[str] | None,
    cloud: float | None,
    valid: float | None,
    certificate: list[str] | None,
    labels: list[str] | None,
    match: str,
) -> Filters:
    """The conditions as the client takes them; those that are left out ask nothing."""
    return {
        "collection": collection,
        "group": group,
        "within": None if within is None else _area(within),
        "time": read_time(time),
        "season": season or [],
        "sensor": sensor or [],
        "cloud": cloud,
        "valid_fraction": valid,
        "certificate": dict(_bound(text) for text in certificate or ()),
        "labels": _labels(labels, match),
    }


def _area(text: str) -> Any:
    """An area: a file, numbers, or a geohash."""
    if text.endswith((".geojson", ".json")) or Path(text).is_file():
        return read_area(Path(text))
    if "," not in text:
        return text
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 3:
        from geostore.index.spatial import Circle

        return Circle(*numbers)
    if len(numbers) == 4:
        return tuple(numbers)
    raise InvalidInput(f"--within {text!r}; give a geohash, W,S,E,N, LON,LAT,KM, or a GeoJSON file")


def place(flag: str, text: str | None) -> tuple[float, float] | None:
    """A longitude and a latitude."""
    if text is None:
        return None
    try:
        lon, lat = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidInput(f"{flag} {text!r}; write it as -120.5,36.8: longitude, latitude") from error
    return lon, lat


def _bound(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError as error:
        raise InvalidInput(f"--certificate {text!r}; write it as ndvi_mae=0.02 or mae=0.005") from error


def _labels(names: list[str] | None, match: str) -> Any:
    if not names:
        return None
    from geostore.index.labels import AtLeast, Exactly, Some

    return {"some": Some, "at-least": AtLeast, "exactly": Exactly}[match](*names)


def example(text: str) -> Any:
    """An example: GEOHASH@TIME of a stored raster, or a file."""
    place, at, time = text.rpartition("@")
    return (place, time) if at and not Path(text).exists() else text
