"""The decode promise: golden codecs decode to the same bytes in every process and at any number of threads.

`GEOSTORE_GOLDEN=write pytest tests/vae/test_vae_golden.py` makes the files anew, after a change of format only, and
`GEOSTORE_GOLDEN_NAMES=chain` before it some of them only: codecs of older formats are to stay readable.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from geostore.codec import Effort, quiet
from geostore.collection import Policy
from geostore.testing.codecs import synthetic_series
from geostore.vae.encoding import Frame, choose_numbers
from geostore.vae.fit import fit_codec
from geostore.vae.learn_prior import Lesson, learn_prior
from geostore.vae.sizing import network_plan

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden"
POLICIES = {
    "grid": Policy(mse_max=1e-3, index_mae_max=None),  # latents alone, or with detail
    "bounded": Policy(mse_max=None, index_mae_max=None, max_error=0.05),  # residual or rounded
    "flat": Policy(mse_max=None, index_mae_max=None),
    "log": Policy(mse_max=None, index_mae_max=0.04),  # format 3: the static image in AV1, logarithms
    "chain": Policy(mse_max=4e-4, index_mae_max=None),  # format 2: a prior, rasters that lean on one another
}


def write_golden(name):
    """Fit a small codec and keep its bytes, a few payloads and the digests of what they decode to."""
    shape = (6, 2, 9, 10) if name == "flat" else (6, 4 if name == "log" else 3, 21, 30)
    series = synthetic_series(shape, seed=11, indices=("NDVI",) if name == "log" else ())
    mode = "flat" if name == "flat" else "grid"
    plan = network_plan(series)
    codec = fit_codec(series, mode, plan=plan, policy=POLICIES[name], effort=Effort(steps=60), progress=quiet)
    if name == "chain":
        codec = replace(codec, tables=None, prior=_prior(codec, series))
    payloads = []
    for date, encoded in enumerate(codec.encode_series(series)[:3]):
        decoded = codec.decode(encoded.payload, series.valid[date], encoded.shared)
        mask = series.valid[date]
        payloads.append(
            {
                "shape": mask.shape,
                "valid": np.packbits(mask).tobytes().hex(),
                "payload": encoded.payload.hex(),
                "shared": encoded.shared.hex(),
                "layers": encoded.layers,
                "sha256": sha256(decoded.tobytes()).hexdigest(),
            }
        )
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / f"vae-{name}.codec").write_bytes(codec.to_bytes())
    (GOLDEN / f"vae-{name}.json").write_text(json.dumps({"payloads": payloads}, indent=1) + "\n")


def _prior(codec, series):
    frames = [Frame(codec, p, v) for p, v in zip(series.pixels, series.valid, strict=True)]
    return learn_prior([Lesson([choose_numbers(frames)], codec.static_features)], codec.layout.channels, seed=0)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_golden_codecs_decode_to_the_same_bytes(threads):
    """Proves, in a process of its own per thread count, that stored payloads decode to the golden digests."""
    if os.environ.get("GEOSTORE_GOLDEN") == "write" and threads == 1:
        for name in os.environ.get("GEOSTORE_GOLDEN_NAMES", " ".join(POLICIES)).split():
            write_golden(name)
    command = [sys.executable, str(HERE / "vae_decode_process.py"), str(threads), *POLICIES]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    seen = json.loads(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)
    for name in POLICIES:
        wanted = json.loads((GOLDEN / f"vae-{name}.json").read_text())["payloads"]
        assert seen[name] == [item["sha256"] for item in wanted], name
