"""Every request a store answers, field by field, and the shape of a reply. `docs/PROTOCOL.md` is the specification."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from geostore.errors import BadRequest
from geostore.query.request import Key as Key
from geostore.query.request import Request as Request
from geostore.query.request import Role as Role
from geostore.query.searching import AreaFields as AreaFields
from geostore.query.searching import Changes as Changes
from geostore.query.searching import Example as Example
from geostore.query.searching import IndexBuild as IndexBuild
from geostore.query.searching import IndexStatus as IndexStatus
from geostore.query.searching import IndexUpgrade as IndexUpgrade
from geostore.query.searching import Label as Label
from geostore.query.searching import LabelFields as LabelFields
from geostore.query.searching import PutEncoder as PutEncoder
from geostore.query.searching import Similar as Similar
from geostore.query.searching import Wanted as Wanted

PROTOCOL_VERSION = 1
PIECES_MAX = 4096  # rasters in one put
SCENES_MAX = 256  # scenes in one put
Array = npt.NDArray[Any]
Tier = Literal["best", "preview", "embedding", "original"]


class GridFields(BaseModel):
    """A grid on the wire; the fields of `geostore.raster.Grid`."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    crs: str = Field(max_length=8192)
    left: float
    top: float
    xres: float = Field(gt=0)
    yres: float = Field(gt=0)
    height: int = Field(gt=0, le=65_536)
    width: int = Field(gt=0, le=65_536)


class Piece(BaseModel):
    """One raster of a `put`: where it belongs, and which two arrays of the request hold it.

    `pixels` is the position of the (bands, height, width) array in the stored dtype, `valid` of the
    (height, width) uint8 array whose 1 means usable. `cell` is the partition's whole grid, `row` and `col` the
    place of the piece's first pixel in it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    geohash: str
    group: str
    cell: GridFields
    row: int = Field(ge=0)
    col: int = Field(ge=0)
    pixels: int = Field(ge=0)
    valid: int = Field(ge=0)


class SceneFields(BaseModel):
    """The facts of one scene, said once. `revision`: when it was processed, seconds since 1970, 0 if unknown."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    id: str = Field(min_length=1, max_length=512)
    time_us: int
    revision: int = Field(0, ge=0, lt=2**31)
    platform: str = "unknown"
    product: str = ""
    baseline: str = ""
    source: str = ""
    footprint: list[list[float]] = Field(default_factory=list)  # ring of [lon, lat]
    facts: dict[str, str] = Field(default_factory=dict)


class Hello(Request):
    """Who answers: versions, store id, slots, node name.

    `versions` are the oldest and the newest protocol version the asker speaks.
    """

    verb = "hello"
    versions: tuple[int, int] = (PROTOCOL_VERSION, PROTOCOL_VERSION)


class Collections(Request):
    """The collections of the store, newest version each."""

    verb = "collections"


class PutCollection(Request):
    """Declare a collection; the same one again changes nothing, another one is a new version."""

    verb = "put-collection"
    role = "write"
    collection: dict[str, Any]


class ScenePieces(BaseModel):
    """A further scene of a `put`, whole."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    scene: SceneFields
    pieces: list[Piece] = Field(max_length=PIECES_MAX)


class Put(Request):
    """Store rasters of one scene, or of several in one durable commit, losslessly. Idempotent.

    `last` says that `scene` is complete with this request; the scenes in `more` are. All pieces together are at most
    PIECES_MAX.
    """

    verb = "put"
    role = "write"
    collection: str
    scene: SceneFields
    pieces: list[Piece] = Field(max_length=PIECES_MAX)
    last: bool = True
    more: list[ScenePieces] = Field(default_factory=list, max_length=SCENES_MAX - 1)

    @property
    def scenes(self) -> list[ScenePieces]:
        """Every scene with its pieces, in order."""
        return [ScenePieces.model_construct(scene=self.scene, pieces=self.pieces), *self.more]

    @model_validator(mode="after")
    def _check_pieces(self) -> Self:
        count = sum(len(s.pieces) for s in self.scenes)
        if count > PIECES_MAX:
            raise ValueError(f"{count} pieces in one put; at most {PIECES_MAX}")
        return self


class Withdraw(Request):
    """Take a scene back: its rasters are no longer current. Kept in the log until `prune`."""

    verb = "withdraw"
    role = "write"
    collection: str
    scene: str


class Scenes(Request):
    """The scenes of a collection."""

    verb = "scenes"
    collection: str | None = None


class Cells(Request):
    """The fixed grid of every partition of a collection."""

    verb = "cells"
    collection: str


class Selection(Request):
    """Which rasters: all fields narrow, None asks nothing. Times are UTC microseconds, start <= t < end."""

    verb = "rasters"
    collection: str | None = None
    geohash: str | None = None  # a cell or a prefix
    group: str | None = None
    start_us: int | None = None
    end_us: int | None = None


class Rasters(Selection):
    """Facts of the chosen current rasters, without pixels."""

    verb = "rasters"


class Decode(Request):
    """Decode rasters by key. `tier`: best (what is kept now), preview, embedding, or original (kept or referenced).

    `within` names the largest errors allowed, as {"ndvi": 0.02}: each raster is decoded at the coarsest tier whose
    certificate lies within them, from its original if none does.
    """

    verb = "decode"
    keys: list[Key] = Field(max_length=4096)
    bands: list[str] | None = None
    tier: Tier = "best"
    within: dict[str, float] | None = Field(None, max_length=32)


class Fit(Request):
    """Fit codecs and encode: per partition size, codec, embeddings, certificates. Resumable."""

    verb = "fit"
    role = "train"
    job = True
    collection: str | None = None
    geohash: str | None = None
    steps: int | None = Field(None, ge=0, le=1_000_000)
    seconds: float | None = Field(None, gt=0)
    seed: int | None = Field(None, ge=0, lt=2**63)
    refit: bool = False
    workers: int | None = Field(None, ge=1, le=256)


class Status(Request):
    """Rasters, partitions, bytes by tier, both ratios, certificates. `partitions` adds a row for each."""

    verb = "status"
    collection: str | None = None
    partitions: bool = False


class Verify(Request):
    """Read everything, check every digest and checksum, say what is wrong."""

    verb = "verify"
    role = "admin"
    job = True


class Compact(Request):
    """Merge small table files and write checkpoints; `now` as in `prune`."""

    verb = "compact"
    role = "admin"
    job = True
    now: bool = False


class Prune(Request):
    """Drop superseded rows and unreferenced blobs.

    Files stay on the disk for `vacuum_days`, for readers of an older version; with `now` they go at once.
    """

    verb = "prune"
    role = "admin"
    job = True
    now: bool = False


class Rebuild(Request):
    """Build the view again from the tables."""

    verb = "rebuild"
    role = "admin"
    job = True


class Backup(Request):
    """Copy the store to `url`, digest by digest; only what is missing there travels."""

    verb = "backup"
    role = "admin"
    job = True
    url: str
    options: dict[str, str] = Field(default_factory=dict)


class Table(Request):
    """Rows of one kind over all slots, as one Arrow IPC stream in a uint8 array."""

    verb = "table"
    kind: Literal["raster", "embedding", "group", "codec", "scene", "event", "job"]


class Jobs(Request):
    """Jobs of this store: running, done, failed, cancelled."""

    verb = "jobs"
    id: str | None = None


class Cancel(Request):
    """Ask a job to stop; what it committed stays."""

    verb = "cancel"
    role = "train"
    id: str


class Resume(Request):
    """Go on with a job that was cancelled, failed, or lost with its process."""

    verb = "resume"
    role = "train"
    job = True
    id: str


def _verbs() -> dict[str, type[Request]]:
    found: dict[str, type[Request]] = {}
    todo = list(Request.__subclasses__())
    while todo:
        cls = todo.pop()
        todo += cls.__subclasses__()
        if cls is not Selection:
            found[cls.verb] = cls
    return found


VERBS: dict[str, type[Request]] = _verbs()


@dataclass(slots=True)  # not frozen: making one takes a third of the time, and there is one for every answer
class Reply:
    """An answer: plain fields, and the arrays they point into by position.

    `fields` holds only what msgpack and JSON both carry (None, bool, int, float, str, list, dict).
    """

    fields: dict[str, Any] = field(default_factory=dict)
    arrays: tuple[Array, ...] = ()


Progress = Callable[[str, float], None]
Ask = Callable[..., Reply]  # ask(request, arrays=(), progress=None) -> Reply; raises GeostoreError


def parse(verb: str, fields: dict[str, Any]) -> Request:
    """The request `verb` with `fields`.

    Raises:
        BadRequest: unknown verb, or a missing or mistyped field; the message names it.
    """
    cls = VERBS.get(verb)
    if cls is None:
        raise BadRequest(f"unknown verb {verb!r}; this version answers {', '.join(sorted(VERBS))}")
    try:
        return cls.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(p) for p in first["loc"])
        raise BadRequest(f"{verb}: field {where!r}: {first['msg']}; see docs/PROTOCOL.md") from error


def check_arrays(arrays: tuple[Array, ...], wanted: int, what: str) -> None:
    """Raise BadRequest unless position `wanted` exists in `arrays`."""
    if wanted >= len(arrays):
        raise BadRequest(f"{what} is array {wanted}, but the request carries {len(arrays)}; send all arrays")


ARRAY_DTYPES: frozenset[np.dtype[Any]] = frozenset(
    np.dtype(d) for d in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float32", "float64")
)
