"""Decode golden payloads in a process of its own, with the number of threads given; print their digests."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numba
import numpy as np
import torch
from llvmlite import binding as llvm

from geostore.classical import KltAv1Family
from geostore.codec import RawFamily
from geostore.dct import KltDctFamily
from geostore.storage import unpack_mask
from geostore.vae import VaeFamily

GOLDEN = Path(__file__).parent / "golden"
SIDE = 24  # pixels of the golden rasters of klt-av1 and klt-dct


def _lend(digest: str) -> bytes:
    """The one base that golden codecs share; it is no base of the package, and never changes."""
    return (GOLDEN / "base.safetensors").read_bytes()


FAMILIES = {"vae": VaeFamily(_lend), "klt-av1": KltAv1Family(), "klt-dct": KltDctFamily(), "raw": RawFamily()}


def rasters(name: str) -> Iterator[tuple[bytes, dict[str, str], tuple[int, int]]]:
    """(codec, payload and digest as they are written down, (height, width)) of every raster of one golden file."""
    told = json.loads((GOLDEN / f"{name}.json").read_text())
    if name.startswith("klt"):
        for item in told["rasters"]:
            yield bytes.fromhex(told["codec"] if "codec" in told else told["codecs"][item["codec"]]), item, (SIDE, SIDE)
    else:
        codec = (GOLDEN / f"{name}.codec").read_bytes()
        yield from ((codec, item, item["shape"]) for item in told["payloads"])


def digests(name: str) -> list[str]:
    """SHA-256 of every decoded raster of one golden file, or of every mask."""
    if name == "masks":
        items = json.loads((GOLDEN / "masks.json").read_text())["payloads"]
        return [sha256(unpack_mask(bytes.fromhex(i["mask"]), tuple(i["shape"])).tobytes()).hexdigest() for i in items]
    out, family = [], next(f for start, f in FAMILIES.items() if name.startswith(start))
    for codec, item, (height, width) in rasters(name):
        bits = bytes.fromhex(item["valid"]) if "valid" in item else b"\xff" * (height * width // 8)
        valid = np.unpackbits(np.frombuffer(bits, np.uint8))[: height * width].reshape(height, width) > 0
        pixels = family.from_bytes(codec).decode(
            bytes.fromhex(item["payload"]), valid, bytes.fromhex(item.get("shared", ""))
        )
        out.append(sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest())
    return out


def limits() -> dict[str, str]:
    """What the libraries may use of the processor here."""
    target = numba.config.CPU_NAME or llvm.get_host_cpu_name()
    return {"torch": torch.backends.cpu.get_cpu_capability(), "numba": target}


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps({"limits": limits(), **{name: digests(name) for name in sys.argv[2:]}}))
