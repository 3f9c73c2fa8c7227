"""The requests of similarity search: what to look for, among which rasters, and what an index is made with."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from geostore.query.request import Key, Request

EXAMPLES_MAX = 64  # like and unlike, each
K_MAX = 10_000
KEYS_MAX = 4096  # rasters labelled at once
LABELS_MAX = 64  # of one raster
Level = Literal["raster", "chip", "cell"]
Share = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Text = Annotated[str, Field(min_length=1, max_length=512)]
Lon = Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]
Lat = Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]


class Example(BaseModel):
    """One thing to look for: a stored raster or its chip `cell`, pixels, a descriptor, a text, a location.

    Texts and locations (longitude, latitude) need an encoder with such a side. Positions are of the arrays: `pixels` is
    (bands, height, width) in the dtype of `bands`, `valid` (height, width) uint8 whose 1 means usable; `vector` is
    (width,) float32. `space` says what made the vector, as an answer named it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    key: Key | None = None
    cell: str | None = None
    pixels: int | None = Field(None, ge=0)
    valid: int | None = Field(None, ge=0)
    bands: list[dict[str, Any]] = Field(default_factory=list, max_length=512)
    vector: int | None = Field(None, ge=0)
    space: str = ""
    text: Text | None = None
    location: tuple[Lon, Lat] | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        given = (self.key, self.pixels, self.vector, self.text, self.location)
        if sum(value is not None for value in given) != 1:
            raise ValueError("an example is one of key, pixels, vector, text, location")
        if self.pixels is not None and (self.valid is None or not self.bands):
            raise ValueError("pixels come with valid and bands")
        return self


class AreaFields(BaseModel):
    """Where: one of geohashes (cells or prefixes), a box, a circle, a GeoJSON geometry."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    geohashes: list[str] | None = Field(None, min_length=1, max_length=4096)
    box: tuple[Share, Share, Share, Share] | None = None  # west, south, east, north; west > east: antimeridian
    circle: tuple[Share, Share, Share] | None = None  # lon, lat, km
    geojson: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if sum(v is not None for v in (self.geohashes, self.box, self.circle, self.geojson)) != 1:
            raise ValueError("an area is one of geohashes, box, circle, geojson")
        return self


class LabelFields(BaseModel):
    """Labels: `some` of the names, `at-least` all of them, or `exactly` these."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    how: Literal["some", "at-least", "exactly"]
    names: list[Name] = Field(min_length=1, max_length=512)


class Wanted(BaseModel):
    """Which rasters may be hits; all that is given must hold. Times are UTC microseconds, start <= t < end.

    `numbers` gives (least, largest) of a column, None for no bound: valid_fraction, cloud, mse, max_error,
    mae, p99, and `<index>_mae`, `_p99`, `_max` of a spectral index, lower case.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    collection: str | None = None
    group: str | None = None
    within: AreaFields | None = None
    start_us: int | None = None
    end_us: int | None = None
    seasons: list[str] = Field(default_factory=list, max_length=4)
    sensors: list[Name] = Field(default_factory=list, max_length=256)
    numbers: dict[str, tuple[Share | None, Share | None]] = Field(default_factory=dict, max_length=32)
    labels: LabelFields | None = None


class Similar(Request):
    """The rasters, chips or cells that look most like the examples and least like the counter-examples.

    In place of examples `words`, which are looked for in labels and facts, or `near`, a longitude and latitude.
    """

    verb = "similar"
    like: list[Example] = Field(default_factory=list, max_length=EXAMPLES_MAX)
    unlike: list[Example] = Field(default_factory=list, max_length=EXAMPLES_MAX)
    k: int = Field(50, ge=1, le=K_MAX)
    radius: int | None = Field(None, ge=0, le=256)  # bits of the signature that may differ
    level: Level = "raster"
    wanted: Wanted = Wanted()
    explain: bool = False
    words: Text | None = None
    near: tuple[Lon, Lat] | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if sum((bool(self.like), self.words is not None, self.near is not None)) != 1:
            raise ValueError("give one of like, words, near")
        if self.unlike and not self.like:
            raise ValueError("unlike goes with like")
        return self


class Changes(Request):
    """One place over time: how far each date is from what was before, and how like an example it looks."""

    verb = "changes"
    geohash: str
    to: Example | None = None  # the newest date, if None
    wanted: Wanted = Wanted()


class Label(Request):
    """Say what rasters show: the labels replace those they had; none takes them away. Kept as an event."""

    verb = "label"
    role = "write"
    keys: list[Key] = Field(min_length=1, max_length=KEYS_MAX)
    labels: list[Name] = Field(default_factory=list, max_length=LABELS_MAX)
    legend: Literal["own", "corine-2018"] = "own"
    who: str = Field("", max_length=64)
    reason: str = Field("", max_length=512)


class IndexStatus(Request):
    """The indexes: what they are made with, rows, bytes, how far behind the tables."""

    verb = "index-status"


class IndexBuild(Request):
    """Bring every index level with the tables; `anew` makes them from the tables alone."""

    verb = "index-build"
    role = "train"
    job = True
    anew: bool = False


class PutEncoder(Request):
    """Keep an encoder's files in the store, so that `index-upgrade` can describe rasters with it."""

    verb = "put-encoder"
    role = "train"


class IndexUpgrade(Request):
    """A new generation of signatures: a head trained on what is stored, or another descriptor."""

    verb = "index-upgrade"
    role = "train"
    job = True
    head: Literal["rotation", "pca-sign", "itq", "milan", "kernel"] | None = None  # kernel by labels, else milan
    descriptor: str | None = Field(None, max_length=64)  # as it is, if None
    encoder: str | None = Field(None, max_length=128)  # in place of a descriptor: an installed one, or one that was put
    bits: int = Field(128, ge=32, le=256)
    steps: int | None = Field(None, ge=1, le=1_000_000)
    seed: int = Field(0, ge=0)
    by: Literal["labels", "unlabelled"] | None = None  # labels where held-out places say that they are better
