"""Decode golden payloads in a process of its own, with the number of threads given; print their digests."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from llvmlite import binding as llvm

from geostore.classical import KltAv1Family
from geostore.codec import COARSER, Coarser, Codec, Layered, Member, RawFamily, decode_many, decode_many_coarser
from geostore.dct import KltDctFamily
from geostore.errors import NotFound
from geostore.raster import Pixels
from geostore.storage import unpack_mask
from geostore.vae import VaeFamily
from geostore.vae.base import Base

GOLDEN = Path(__file__).parent / "golden"
SIDE = 24  # pixels of the golden rasters that tell no shape
T = TypeVar("T")


def _lend(digest: str) -> bytes:
    """The one base that golden codecs share and that is no base of the package; it never changes."""
    data = (GOLDEN / "base.safetensors").read_bytes()
    if Base.from_bytes(data).digest != digest:
        raise NotFound(f"no base {digest}: was one of the package replaced? keep it in tests/golden, and lend it here")
    return data


FAMILIES = {"vae": VaeFamily(_lend), "klt-av1": KltAv1Family(), "klt-dct": KltDctFamily(), "raw": RawFamily()}


@dataclass(frozen=True)
class Golden:
    """One raster of a golden file: its codec, its group's bytes, itself, and the digest written down."""

    codec: bytes
    shared: bytes
    member: Member
    sha256: str


def read(name: str) -> list[Golden]:
    """Every raster of one golden file."""
    told = json.loads((GOLDEN / f"{name}.json").read_text())
    return [_raster(name, told, item) for item in told.get("payloads", told.get("rasters"))]


def _raster(name: str, told: dict[str, Any], item: dict[str, Any]) -> Golden:
    height, width = item.get("shape", (SIDE, SIDE))
    bits = bytes.fromhex(item["valid"]) if "valid" in item else b"\xff" * -(-height * width // 8)
    valid = np.unpackbits(np.frombuffer(bits, np.uint8))[: height * width].reshape(height, width) > 0
    if name.startswith("klt"):
        codec = bytes.fromhex(told["codec"] if "codec" in told else told["codecs"][item["codec"]])
    else:
        codec = (GOLDEN / f"{item.get('codec', name)}.codec").read_bytes()
    shared = told["streams"][item["stream"]] if "stream" in item else item.get("shared", "")
    return Golden(codec, bytes.fromhex(shared), (bytes.fromhex(item["payload"]), valid), item["sha256"])


def read_codec(name: str, data: bytes) -> Codec:
    """A codec of a golden file of that name."""
    return next(family for start, family in FAMILIES.items() if name.startswith(start)).from_bytes(data)


def each(name: str, decode: Callable[[Codec, Sequence[tuple[bytes, Member]]], Sequence[T]]) -> list[T]:
    """What `decode` makes of each raster of one golden file, those of one codec together."""
    rasters = read(name)
    found: dict[int, T] = {}
    for data in dict.fromkeys(raster.codec for raster in rasters):
        places = [i for i, raster in enumerate(rasters) if raster.codec == data]
        items = [(rasters[i].shared, rasters[i].member) for i in places]
        found |= zip(places, decode(read_codec(name, data), items), strict=True)
    return [found[i] for i in range(len(rasters))]


def digests(name: str) -> list[Any]:
    """SHA-256 of every decoded raster of one golden file, of every mask, or of the tiers of every other file."""
    if name == "masks":
        items = json.loads((GOLDEN / "masks.json").read_text())["payloads"]
        return [sha256(unpack_mask(bytes.fromhex(i["mask"]), tuple(i["shape"])).tobytes()).hexdigest() for i in items]
    if name == "coarser":
        items = json.loads((GOLDEN / "coarser.json").read_text())["payloads"]
        return [tier_digests(i["of"], i["tier"]) for i in items]
    return [digest_of(pixels) for pixels in each(name, decode_many)]


def tier_digests(name: str, tier: Coarser) -> list[str | None]:
    """SHA-256 of every raster of one golden file at a tier; None where it has no such tier."""
    return [None if pixels is None else digest_of(pixels) for pixels in each(name, partial(_coarser, tier))]


def layered(name: str) -> bool:
    """True if rasters of a golden file may have tiers."""
    return name not in ("masks", "coarser") and isinstance(read_codec(name, read(name)[0].codec), Layered)


def tiers(names: Sequence[str]) -> list[tuple[str, Coarser]]:
    """(golden file, tier) of all that may have them."""
    return [(name, tier) for name in names if layered(name) for tier in COARSER]


def _coarser(tier: Coarser, codec: Codec, items: Sequence[tuple[bytes, Member]]) -> list[Pixels | None]:
    assert isinstance(codec, Layered)
    return decode_many_coarser(codec, tier, items)


def digest_of(pixels: Pixels) -> str:
    """SHA-256 of a raster."""
    return sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def limits() -> dict[str, str]:
    """What the libraries may use of the processor here."""
    target = numba.config.CPU_NAME or llvm.get_host_cpu_name()
    return {"torch": torch.backends.cpu.get_cpu_capability(), "numba": target}


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps({"limits": limits(), **{name: digests(name) for name in sys.argv[2:]}}))
