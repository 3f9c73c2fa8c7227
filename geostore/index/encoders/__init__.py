"""Encoders: images, texts and locations as vectors of one space, comparable with others of the same encoder alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInput, NotComparable
from geostore.raster import Bands, Mask, Pixels

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Side = Literal["image", "text", "location"]
GROUP = "geostore.encoders"  # the entry-point group
TEXT_MAX = 512  # characters of one text


@dataclass(frozen=True)
class Preprocessing:
    """What an image side is given, declared: nothing about it is guessed.

    Attributes:
        bands: names, in the order of the network's channels.
        size: (height, width) that every image is resized to.
        low, high: physical values, as reflectance, that become 0 and 1; what lies beyond is held there.
        mean, std: of each band, taken off and divided by after that.
    """

    bands: tuple[str, ...]
    size: tuple[int, int]
    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        counts = {len(v) for v in (self.bands, self.low, self.high, self.mean, self.std)}
        sound = all(a < b for a, b in zip(self.low, self.high, strict=False)) and all(s > 0 for s in self.std)
        if len(counts) != 1 or not self.bands or not sound or not all(1 <= s <= 4096 for s in self.size):
            raise InvalidInput(f"{self}; give each band a name, low < high, a mean and a std above 0, sizes 1 to 4096")

    def check(self, bands: Bands) -> None:
        """Raise NotComparable unless `bands` has all that are wanted."""
        missing = [name for name in self.bands if name not in bands.names]
        if missing:
            raise NotComparable(f"the encoder wants bands {missing}; these are {', '.join(bands.names)}: use another")


@runtime_checkable
class Encoder(Protocol):
    """What is common to the sides of one encoder; registered under the entry-point group `geostore.encoders`.

    It has one to three of the sides below. Vectors have length 1, and the same input gives the same vector.
    """

    @property
    def name(self) -> str:
        """Of the model, such as "siglip-base-patch16-224"."""
        ...

    @property
    def width(self) -> int:
        """Components of a vector, the same on every side."""
        ...

    def digest(self) -> str:
        """32 hexadecimal digits over all that vectors depend on: weights, tokens, preprocessing."""
        ...


@runtime_checkable
class ImageEncoder(Encoder, Protocol):
    """The side of images."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What it is given."""
        ...

    def image(self, pixels: Pixels, valid: Mask, bands: Bands) -> Floats:
        """(B, H, W) stored values -> (width,); zeros where too few pixels may be used; masked pixels weigh nothing."""
        ...


@runtime_checkable
class TextEncoder(Encoder, Protocol):
    """The side of texts."""

    def text(self, texts: Sequence[str]) -> Floats:
        """(N, width), a row a text."""
        ...


@runtime_checkable
class LocationEncoder(Encoder, Protocol):
    """The side of places."""

    def location(self, lon: Doubles, lat: Doubles) -> Floats:
        """(N,) degrees -> (N, width)."""
        ...


def sides(encoder: Encoder) -> tuple[Side, ...]:
    """Which sides an encoder has."""
    has = getattr(encoder, "sides", None)
    if has is not None:
        return tuple(has)
    found: list[Side] = ["image"] if isinstance(encoder, ImageEncoder) else []
    found += ["text"] if isinstance(encoder, TextEncoder) else []
    return (*found, *(["location"] if isinstance(encoder, LocationEncoder) else []))  # type: ignore[arg-type]


def check_texts(texts: Sequence[str]) -> list[str]:
    """The texts without spaces around; raises InvalidInput for one that is empty or too long."""
    kept = [text.strip() for text in texts]
    for text in kept:
        if not text or len(text) > TEXT_MAX:
            raise InvalidInput(f"a text of {len(text)} characters: {text[:40]!r}; give 1 to {TEXT_MAX}")
    return kept


def check_places(lon: Doubles, lat: Doubles) -> None:
    """Raise InvalidInput unless all are degrees on the Earth."""
    if lon.shape != lat.shape or not ((np.abs(lon) <= 180) & (np.abs(lat) <= 90)).all():  # NaN is none either
        raise InvalidInput(f"longitudes {lon[:3]}, latitudes {lat[:3]}; give as many, -180..180 and -90..90 degrees")


def direction(vector: npt.NDArray[Any]) -> Floats:
    """A (D,) vector that somebody gave, however long, as (D,) float32 of length 1.

    Raises:
        InvalidInput: a value is not finite, or all are 0.
    """
    wide = np.asarray(vector, np.float64)
    if not np.isfinite(wide).all() or not wide.any():
        raise InvalidInput("a vector holds values that are not finite, or only zeros; give finite numbers")
    wide = wide / np.abs(wide).max()  # squares of what is left neither overflow nor vanish
    return np.asarray(wide / np.linalg.norm(wide), np.float32)


def unit(vectors: Floats) -> Floats:
    """Each row at length 1; zeros stay."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12), np.float32)
