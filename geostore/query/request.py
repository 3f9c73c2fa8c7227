"""What every request is, and how a request names a raster."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

Role = Literal["read", "write", "train", "admin"]


class Request(BaseModel):
    """A request. Unknown fields pass; missing or mistyped ones are refused.

    Class attributes:
        verb: its word on the wire, in the CLI and in the client.
        role: the role a key needs.
        job: True if it is long work: the answer is a job id, and the reply is the job's result.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=False)
    verb: ClassVar[str]
    role: ClassVar[Role] = "read"
    job: ClassVar[bool] = False


class Key(BaseModel):
    """A raster's key on the wire."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    collection: str
    geohash: str
    group: str
    time_us: int
    platform: str = "unknown"
