"""Decode the golden payloads in a process of its own, with the number of torch threads given; print their digests."""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from geostore.vae import VaeFamily

GOLDEN = Path(__file__).parents[1] / "golden"


def digests(name: str) -> list[str]:
    """SHA-256 of every decoded raster of one golden codec."""
    codec = VaeFamily().from_bytes((GOLDEN / f"vae-{name}.codec").read_bytes())
    payloads = json.loads((GOLDEN / f"vae-{name}.json").read_text())["payloads"]
    out = []
    for item in payloads:
        valid = np.unpackbits(np.frombuffer(bytes.fromhex(item["valid"]), np.uint8)).astype(bool)
        valid = valid[: item["shape"][0] * item["shape"][1]].reshape(item["shape"])
        shared = bytes.fromhex(item.get("shared", ""))
        pixels = codec.decode(bytes.fromhex(item["payload"]), valid, shared)
        out.append(sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest())
    return out


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps({name: digests(name) for name in sys.argv[2:]}))
