"""The rows a store keeps: what each of them says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from geostore.certificate import Certificate
from geostore.errors import InvalidInput
from geostore.keys import PartitionKey, RasterKey
from geostore.raster import Grid

Op = Literal["put", "withdraw"]


@dataclass(frozen=True, kw_only=True)
class Unread:
    """What a raster's row was read without.

    Attributes:
        payload, shared: bytes of each that lie in the store.
        group: which rasters share `shared`; "" if this one was coded alone.
    """

    payload: int = 0
    shared: int = 0
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class RasterRow:
    """One stored raster: kind "raster" at generation 0 (lossless), kind "embedding" above.

    Attributes:
        key: which acquisition of which partition.
        revision: processing revision of this acquisition; the newest is current.
        generation: of the codec that decodes it; 0 is the lossless one.
        op: "put", or "withdraw": rows of this key up to this revision that came before count no more.
        scene: id of the scene it was cut from.
        row, col, height, width: its window in the partition's cell grid, pixels.
        valid: packed (height, width) mask of usable pixels, see `pack_mask`.
        payload: what the codec made of it; empty where no pixel is usable.
        shared: what several rasters of the partition have in common, needed beside `payload` to decode; stored once
            however many rows name it. Empty if the raster was coded alone.
        vector: int8 embedding, empty if none.
        layers: names of the payload's layers joined by "+".
        lossless: True if the payload decodes bit for bit.
        bytes_lzw, bytes_jxl: its size as LZW GeoTIFF and as lossless JPEG XL, measured at `put`.
        original: digest of the kept COG, "ref:" and where it came from, or "".
        certificate: errors measured by decoding; None at generation 0 means exact. Stored as float32, rounded up.
        coarser: the same of what its first layers decode to, by tier, as `geostore.codec.COARSER` names them; rounded
            up to 8 bits of precision. Empty of rows of formats before 4.
        unread: None if `payload` and `shared` were read; else they may be empty, and it says how large they are.
    """

    key: RasterKey
    revision: int
    generation: int
    op: str
    scene: str
    row: int
    col: int
    height: int
    width: int
    valid: bytes
    payload: bytes
    shared: bytes = b""
    vector: bytes = b""
    layers: str = ""
    lossless: bool = False
    bytes_lzw: int = 0
    bytes_jxl: int = 0
    original: str = ""
    certificate: Certificate | None = None
    coarser: Mapping[str, Certificate] = field(default_factory=dict)
    unread: Unread | None = None

    def __post_init__(self) -> None:
        if self.op not in ("put", "withdraw"):
            raise InvalidInput(f"{self.key}: op {self.op!r}; use put or withdraw")

    @property
    def payload_bytes(self) -> int:
        """The size of the payload, read or not."""
        return len(self.payload) if self.unread is None else self.unread.payload

    @property
    def shared_bytes(self) -> int:
        """The size of what it shares with others, read or not."""
        return len(self.shared) if self.unread is None else self.unread.shared


@dataclass(frozen=True, kw_only=True)
class CodecRow:
    """One generation of a partition's codec.

    Attributes:
        partition: whose codec it is.
        generation: 0 for the lossless one every partition starts with.
        family: the plug-in that reads `data`.
        cell: the partition's fixed grid.
        row, col, height, width: the window of the cell the codec works on, pixels.
        data: the codec's own bytes.
        parent: generation it was warm-started from, or None.
        made_us: when, UTC microseconds.
        facts: how it came to be: steps, seconds, seed, sizes, reason.
        unread: None if `data` was read; else it is empty, and this is its size.
    """

    partition: PartitionKey
    generation: int
    family: str
    cell: Grid
    row: int
    col: int
    height: int
    width: int
    data: bytes
    parent: int | None = None
    made_us: int = 0
    facts: dict[str, str | float | int] = field(default_factory=dict)
    unread: int | None = None

    @property
    def data_bytes(self) -> int:
        """The size of `data`, read or not."""
        return len(self.data) if self.unread is None else self.unread


@dataclass(frozen=True, kw_only=True)
class SceneRow:
    """The facts of one scene, said once; they lie in the slot of the scene's id.

    Attributes:
        time_us, put_us: when it was taken and stored, UTC microseconds.
        footprint: ring of [longitude, latitude], degrees.
        complete: all its rasters are stored.
        op: "put" or "withdraw".
    """

    collection: str
    id: str
    time_us: int
    platform: str = "unknown"
    product: str = ""
    baseline: str = ""
    source: str = ""
    footprint: list[list[float]] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    complete: bool = True
    op: str = "put"
    put_us: int = 0


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """One state of a job; the newest row of an id counts. Times are UTC microseconds."""

    id: str
    verb: str
    fields: dict[str, Any] = field(default_factory=dict)
    state: str = "running"
    made_us: int = 0
    changed_us: int = 0
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EventRow:
    """Something that happened: when (UTC microseconds), by whom, what."""

    time_us: int
    who: str
    what: str
    fields: dict[str, Any] = field(default_factory=dict)


Row = RasterRow | CodecRow | SceneRow | JobRow | EventRow
