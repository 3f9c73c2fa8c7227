"""Golden codecs of every mode of the VAE, and of the lossless codec: how they were made, and that they still encode.

`GEOSTORE_GOLDEN=write GEOSTORE_GOLDEN_NAMES="still" pytest tests/vae/test_vae_golden.py` makes the named files anew;
only for a new format or mode: codecs of older formats are to stay readable. tests/test_golden_digests.py decodes them.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from geostore.certificate import measure
from geostore.codec import Effort, RawCodec, Series, quiet
from geostore.collection import Policy
from geostore.testing.codecs import reflectance_bands, synthetic_series
from geostore.vae import VaeFamily, encoding
from geostore.vae.base import Base, shipped
from geostore.vae.borrow import borrow_codec
from geostore.vae.codec import CORRECTED, DETAILED, FOLLOWED, MODEL, NEAR, ROUNDED, STEPPED
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
    "shipped": Policy(mse_max=2.6e-4, index_mae_max=0.05),  # the package's base and its prior, chains, a delta
    "many": replace(FREE, max_error=0.02),  # the other base, of which it takes some slots, as it is
    "float": replace(FREE, max_error=0.01),  # float32, whose layers state steps in another way; the largest delta
}
SHIPPED = {"shipped": ((11, 4, 37, 30), "few"), "many": ((5, 9, 21, 30), "none"), "float": ((5, 4, 21, 30), "whole")}
AGAIN = {"bounded-near": "bounded", "index-near": "index"}  # further payloads of a golden codec
TAKEN = {  # kinds that the encoder is held to, each for all rasters: at these sizes others take less
    "many": (CORRECTED, NEAR, STEPPED),
    "float": (FOLLOWED, NEAR, STEPPED),
    "bounded-near": (NEAR, STEPPED),
    "index-near": (NEAR, STEPPED),
}
DATES = {"shipped": (0, 1, 3, 8, 10), "many": (1, 2), "float": (1, 2), "bounded-near": (1,), "index-near": (1,)}
MODES = {"flat": "flat", "single": "flat-single"}
SMALL = Layout(mode="grid", bands=4, height=CROP, width=CROP, channels=6, widths=(8, 8, 6, 6), encoder=(6, 8), hidden=4)
SLOTS = (("blue", "swir16"), ("green",), ("red",), ("nir", "nir08"))


def golden_series(name):
    """What a golden codec was fitted to."""
    name = AGAIN.get(name, name)
    if name in SHIPPED:
        return changing_place(SHIPPED[name][0], "float32" if name == "float" else "uint16")
    bands = 4 if name in ("log", "index", "shared") else 3
    shape = (6, 2, 9, 10) if name in MODES else (6, bands, 21, 30)
    return synthetic_series(shape, seed=11, indices=("NDVI",) if name in ("log", "index") else ())


def changing_place(shape, dtype):
    """A place on which smooth fields come and go, which a base tells in latents; clouds, on one date everywhere."""
    rng = np.random.default_rng(23)
    dates, bands, height, width = shape

    def smooth(count, sigma):
        found = ndimage.gaussian_filter(rng.normal(size=(count, height, width)), (0, sigma, sigma))
        return found / found.std()

    mixed, fields, pixels = rng.normal(size=(bands, 3)) * 0.018, smooth(3, 3.0), np.empty(shape)
    place = 0.15 + 0.02 * np.arange(bands)[:, None, None] + 0.03 * smooth(bands, 1.5)
    for date in range(dates):
        fields = 0.7 * fields + 0.7 * smooth(3, 3.0)
        pixels[date] = place + np.einsum("bk,khw->bhw", mixed, fields) + rng.normal(0, 0.002, shape[1:])
    valid = np.ones((dates, height, width), bool)
    valid[1, :9, :11] = valid[3] = False
    pixels[1, :, :9, :11] = 0.9
    described, times = reflectance_bands(bands, dtype), np.arange(dates, dtype=np.int64)
    indices = ("NDVI",) if dates > 5 else ()
    return Series(pixels=described.to_stored(pixels), valid=valid, times_us=times, bands=described, indices=indices)


def golden_codec(name, series):
    """A small codec of one mode, or one that was kept."""
    if name in AGAIN:
        return read_codec(AGAIN[name])
    if name == "raw":
        return RawCodec(series.bands)
    effort, policy = Effort(steps=60), POLICIES[name]
    if name == "shared":
        if not BASE.exists():
            BASE.write_bytes(golden_base().data)
        held = [Base.from_bytes(BASE.read_bytes())]
        return borrow_codec(series, policy=policy, effort=replace(effort, steps=12), delta="whole", held=held)
    if name in SHIPPED:
        return borrow_codec(series, policy=policy, effort=replace(effort, steps=12), delta=SHIPPED[name][1])
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


def read_codec(name):
    """A golden codec."""
    return VaeFamily(lambda digest: BASE.read_bytes()).from_bytes((GOLDEN / f"vae-{name}.codec").read_bytes())


@contextmanager
def held_to(kind):
    """What is encoded takes no layer of another kind; all are tried if None."""
    with pytest.MonkeyPatch.context() as patched:
        if kind is not None:
            patched.setattr(encoding, "_layers", lambda *on: (at for at in _LAYERS(*on) if at[0] == kind))
        yield


_LAYERS = encoding._layers


def write_golden(name):
    """Fit a small codec and keep its bytes, a few payloads and the digests of what they decode to."""
    series = golden_series(name)
    codec = golden_codec(name, series)
    payloads = []
    for kind in TAKEN.get(name, (None,)):
        with held_to(kind):
            found = codec.encode_series(series)
        for date in DATES.get(name, (0, 1, 2)):
            encoded, mask = found[date], series.valid[date]
            decoded = codec.decode(encoded.payload, mask, encoded.shared)
            payloads.append(
                {
                    **({"codec": f"vae-{AGAIN[name]}"} if name in AGAIN else {}),
                    "shape": mask.shape,
                    "valid": np.packbits(mask).tobytes().hex(),
                    "payload": encoded.payload.hex(),
                    "shared": encoded.shared.hex(),
                    "layers": encoded.layers,
                    "sha256": sha256(decoded.tobytes()).hexdigest(),
                }
            )
    stem = name if name == "raw" else f"vae-{name}"
    if name not in AGAIN:
        (GOLDEN / f"{stem}.codec").write_bytes(codec.to_bytes())
    (GOLDEN / f"{stem}.json").write_text(json.dumps({"payloads": payloads}, indent=1) + "\n")


@pytest.fixture(scope="module", autouse=True)
def _written():
    if os.environ.get("GEOSTORE_GOLDEN") == "write":
        for name in os.environ.get("GEOSTORE_GOLDEN_NAMES", " ".join([*POLICIES, *AGAIN, "raw"])).split():
            write_golden(name)


@pytest.mark.parametrize("name", POLICIES)
def test_a_codec_stored_long_ago_still_encodes_new_dates(name):
    """Proves that a golden codec, read back, encodes a date within the policy it was fitted for."""
    series = golden_series(name)
    codec = read_codec(name)
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


KINDS = {  # of the payloads that are kept, and whether they lean on a chain
    "shipped": {(MODEL, True), (CORRECTED, True), (FOLLOWED, True)},
    "many": {(CORRECTED, True), (NEAR, True), (STEPPED, False)},
    "float": {(FOLLOWED, True), (NEAR, True), (STEPPED, False)},
    "bounded-near": {(NEAR, False), (STEPPED, False)},
    "index-near": {(NEAR, False), (STEPPED, False)},
}


def payloads_of(name):
    """(payload, shared bytes) of a golden file."""
    items = json.loads((GOLDEN / f"vae-{name}.json").read_text())["payloads"]
    return [(bytes.fromhex(i["payload"]), bytes.fromhex(i.get("shared", ""))) for i in items]


@pytest.mark.parametrize("name", KINDS)
def test_golden_payloads_are_of_the_kinds_they_are_kept_for(name):
    """Proves, by their tags, which layers golden payloads have, and which of them lean on a chain."""
    assert {(payload[0] >> 4, bool(shared)) for payload, shared in payloads_of(name) if payload} == KINDS[name]


def test_every_kind_of_payload_is_golden():
    """Proves that some golden payload is of each kind that `_decode` tells apart, or empty."""
    files = [*POLICIES, *AGAIN]
    seen = {payload[0] >> 4 if payload else None for name in files for payload, _ in payloads_of(name)}
    assert seen == {None, MODEL, DETAILED, CORRECTED, ROUNDED, FOLLOWED, NEAR, STEPPED}


@pytest.mark.parametrize("name", SHIPPED)
def test_golden_codecs_lean_on_bases_of_the_package(name):
    """Proves that codecs take a shipped base, its prior and some delta, and that latents of a chain say something."""
    codec = read_codec(name)
    borrowed, header = codec.borrowed, codec.borrowed.header(codec.prior)
    assert borrowed.base.digest in {base.digest for base in shipped()}
    assert header["delta"] == SHIPPED[name][1]
    assert codec.prior is not None
    assert codec.prior is borrowed.prior
    for payload, shared in payloads_of(name):
        if shared:
            chain = codec._unpacked(shared, [(payload, None)])
            assert len(chain) == payload[0] & 15
            assert all(numbers.latents.any() for numbers in chain)
    places = {payload[0] & 15 for payload, shared in payloads_of(name) if shared}
    assert max(places) > 1, "none leans on one before"


def test_golden_slots_are_some_of_a_base():
    """Proves that a golden codec takes nine of thirteen slots, in another order than the base's."""
    borrowed = read_codec("many").borrowed
    assert len(borrowed.planes) == 9 < borrowed.base.layout.bands
    assert list(borrowed.planes) != sorted(borrowed.planes)


def test_golden_steps_are_even_and_relative():
    """Proves that steps in context are golden both as wide everywhere and as wide as reflectance asks."""
    for name, relative in (("bounded-near", False), ("index-near", True)):
        codec = read_codec(AGAIN[name])
        for payload, _ in payloads_of(name):
            layer = payload[1:] if payload[0] >> 4 == STEPPED else codec._read(payload, [])[1]
            assert bool(int.from_bytes(layer[2:6], "little")) is relative


@pytest.mark.parametrize("name", [*SHIPPED, *AGAIN])
def test_golden_rasters_decode_one_by_one(name):
    """Proves that each golden raster, its chain unpacked no further than it needs, decodes to its digest."""
    codec = read_codec(AGAIN.get(name, name))
    for item in json.loads((GOLDEN / f"vae-{name}.json").read_text())["payloads"]:
        height, width = item["shape"]
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(item["valid"]), np.uint8))
        valid = bits[: height * width].reshape(height, width) > 0
        pixels = codec.decode(bytes.fromhex(item["payload"]), valid, bytes.fromhex(item["shared"]))
        assert sha256(pixels.tobytes()).hexdigest() == item["sha256"]
