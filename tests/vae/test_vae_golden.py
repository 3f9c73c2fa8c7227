"""Golden codecs of every mode of the VAE, and of the lossless codec: how they were made, and that they still encode.

`GEOSTORE_GOLDEN=write GEOSTORE_GOLDEN_NAMES="still" pytest tests/vae/test_vae_golden.py` makes the named files anew;
only for a new format or mode: codecs of older formats are to stay readable. tests/test_golden_digests.py decodes them.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from geostore.certificate import measure
from geostore.codec import Effort, RawCodec, quiet
from geostore.collection import Policy
from geostore.testing.codecs import synthetic_series
from geostore.vae import VaeFamily
from geostore.vae.base import Base
from geostore.vae.borrow import borrow_codec
from geostore.vae.encoding import Frame, choose_numbers
from geostore.vae.fit import fit_codec
from geostore.vae.learn_prior import Lesson, learn_prior
from geostore.vae.model import Layout
from geostore.vae.shared import CROP, SharedVae, base_of, start_linear
from geostore.vae.sizing import NO_NETWORK, sized

GOLDEN = Path(__file__).parents[1] / "golden"
BASE = GOLDEN / "base.safetensors"
FREE = Policy(mse_max=None, index_mae_max=None)
POLICIES = {
    "grid": Policy(mse_max=1e-3, index_mae_max=None),  # latents alone, or with detail
    "bounded": replace(FREE, max_error=0.05),  # residual or rounded
    "index": replace(FREE, index_max=0.1),  # residual where an index errs too much
    "flat": FREE,
    "single": FREE,  # band by band
    "still": Policy(mse_max=1e-3, index_mae_max=None),  # no network: static image, gain, level, detail
    "shared": Policy(mse_max=1e-3, index_mae_max=None),  # a base and a delta
    "log": Policy(mse_max=None, index_mae_max=0.04),  # format 3: the static image in AV1, logarithms
    "chain": Policy(mse_max=4e-4, index_mae_max=None),  # format 2: a prior, rasters that lean on one another
}
MODES = {"flat": "flat", "single": "flat-single"}
SMALL = Layout(mode="grid", bands=4, height=CROP, width=CROP, channels=6, widths=(8, 8, 6, 6), encoder=(6, 8), hidden=4)
SLOTS = (("blue", "swir16"), ("green",), ("red",), ("nir", "nir08"))


def golden_series(name):
    """What a golden codec was fitted to."""
    bands = 4 if name in ("log", "index", "shared") else 3
    shape = (6, 2, 9, 10) if name in MODES else (6, bands, 21, 30)
    return synthetic_series(shape, seed=11, indices=("NDVI",) if name in ("log", "index") else ())


def golden_codec(name, series):
    """A small codec of one mode."""
    if name == "raw":
        return RawCodec(series.bands)
    effort, policy = Effort(steps=60), POLICIES[name]
    if name == "shared":
        if not BASE.exists():
            BASE.write_bytes(golden_base().data)
        held = [Base.from_bytes(BASE.read_bytes())]
        return borrow_codec(series, policy=policy, effort=replace(effort, steps=12), delta="whole", held=held)
    plan = NO_NETWORK if name == "still" else sized(len(series.bands), 3)
    codec = fit_codec(series, MODES.get(name, "grid"), plan=plan, policy=policy, effort=effort, progress=quiet)
    return replace(codec, tables=None, prior=_prior(codec, series)) if name == "chain" else codec


def golden_base():
    """A base that nothing trained: a linear codec with random layers beside it."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        vae = SharedVae(SMALL)
        start_linear(vae)
        for name in ("turn0", "turn1", "turn2", "turn3", "spread"):
            torch.nn.init.normal_(vae.decoder.biases[name], std=0.05)
        return base_of(vae, SLOTS, {"title": "random"})


def _prior(codec, series):
    frames = [Frame(codec, p, v) for p, v in zip(series.pixels, series.valid, strict=True)]
    return learn_prior([Lesson([choose_numbers(frames)], codec.static_features)], codec.layout.channels, seed=0)


def write_golden(name):
    """Fit a small codec and keep its bytes, a few payloads and the digests of what they decode to."""
    series = golden_series(name)
    codec = golden_codec(name, series)
    payloads = []
    for date, encoded in enumerate(codec.encode_series(series)[:3]):
        decoded, mask = codec.decode(encoded.payload, series.valid[date], encoded.shared), series.valid[date]
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
    stem = name if name == "raw" else f"vae-{name}"
    (GOLDEN / f"{stem}.codec").write_bytes(codec.to_bytes())
    (GOLDEN / f"{stem}.json").write_text(json.dumps({"payloads": payloads}, indent=1) + "\n")


@pytest.fixture(scope="module", autouse=True)
def _written():
    if os.environ.get("GEOSTORE_GOLDEN") == "write":
        for name in os.environ.get("GEOSTORE_GOLDEN_NAMES", " ".join([*POLICIES, "raw"])).split():
            write_golden(name)


@pytest.mark.parametrize("name", POLICIES)
def test_a_codec_stored_long_ago_still_encodes_new_dates(name):
    """Proves that a golden codec, read back, encodes a date within the policy it was fitted for."""
    series = golden_series(name)
    codec = VaeFamily(lambda digest: BASE.read_bytes()).from_bytes((GOLDEN / f"vae-{name}.codec").read_bytes())
    encoded = codec.encode(series.pixels[4], series.valid[4])
    decoded = codec.decode(encoded.payload, series.valid[4], encoded.shared)
    assert measure(series.pixels[4], decoded, series.valid[4], series.bands, series.indices).keeps(POLICIES[name])


@pytest.mark.parametrize(
    ("name", "layer"),
    [("grid", "grid"), ("still", "gain"), ("single", "vector"), ("index", "residual"), ("shared", "grid")],
)
def test_golden_files_hold_the_layers_they_are_kept_for(name, layer):
    """Proves that each golden file has the layer whose decoding it is to fix."""
    payloads = json.loads((GOLDEN / f"vae-{name}.json").read_text())["payloads"]
    assert any(layer in item["layers"] for item in payloads), [item["layers"] for item in payloads]
