"""The klt-av1 codec: policies kept in groups, few bytes, streams any decoder reads, decode that never changes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from classical_series import soft_place

from geostore.certificate import measure
from geostore.classical import KltAv1Family
from geostore.classical.codec import KltAv1Codec
from geostore.classical.fit import Scale, coded_bytes, make_codec
from geostore.codec import Codec, Effort, Series, decode_many, quiet
from geostore.collection import Policy
from geostore.errors import Corrupt, InvalidInput, UnsupportedFormat
from geostore.raster import Pixels
from geostore.testing.codecs import synthetic_series

GOLDEN = Path(__file__).parents[1] / "golden"
FAMILY = KltAv1Family()
POLICY = Policy(mse_max=1e-4, index_mae_max=0.02)


def fit(series: Series, policy: Policy = POLICY) -> KltAv1Codec:
    codec = FAMILY.fit(series, policy=policy, effort=Effort(), progress=quiet)
    assert isinstance(codec, KltAv1Codec)
    return codec


def decoded(codec: Codec, series: Series) -> tuple[int, list[Pixels]]:
    encoded = codec.encode_series(series)
    pairs = [(e.shared, (e.payload, v)) for e, v in zip(encoded, series.valid, strict=True)]
    return coded_bytes(encoded), decode_many(codec, pairs)


def test_a_group_keeps_the_policy_for_every_raster_and_costs_less_than_rasters_alone() -> None:
    """Each raster of a series within its bounds, in fewer bytes together than one by one."""
    series = soft_place(12)
    codec = fit(series)
    size, pixels = decoded(codec, series)
    for t, seen in enumerate(pixels):
        assert measure(series.pixels[t], seen, series.valid[t], series.bands, series.indices).keeps(POLICY)
    alone = sum(len(codec.encode(p, v).payload) for p, v in zip(series.pixels, series.valid, strict=True))
    assert codec.dates > 1
    assert size < 0.8 * alone


def test_masked_pixels_cost_little() -> None:
    """A cloud that is masked adds little to the same place without one."""
    clear, cloudy = soft_place(12, clouds=False), soft_place(12)
    assert decoded(fit(cloudy), cloudy)[0] < 1.25 * decoded(fit(clear), clear)[0]


def test_rasters_that_are_unlike_the_others_are_coded_finer_by_themselves() -> None:
    """One raster with ten times the contrast leaves the group, and the group does not pay for it."""
    series = soft_place(10, clouds=False)
    rng = np.random.default_rng(1)
    pixels = series.pixels.copy()
    pixels[4] = series.bands.to_stored(rng.random((4, 40, 40)) * 0.6)
    wild = Series(pixels=pixels, valid=series.valid, times_us=series.times_us, bands=series.bands)
    encoded = fit(wild, Policy(mse_max=2e-4, index_mae_max=None)).encode_series(wild)
    assert encoded[4].shared == b"" or encoded[4].shared != encoded[3].shared
    assert len({e.shared for i, e in enumerate(encoded) if i != 4}) <= 3


def test_a_stored_picture_that_decodes_to_others_is_found() -> None:
    """A payload's check over the decoded components tells a stream that is not its own."""
    series = soft_place(6)
    codec = fit(series)
    encoded = codec.encode_series(series)[1]
    other = bytes([encoded.payload[0] ^ 1]) + encoded.payload[1:]
    with pytest.raises(Corrupt, match="other components"):
        codec.decode(other, series.valid[1], encoded.shared)


def test_float_series_are_refused_and_others_of_any_whole_dtype_are_not() -> None:
    """float32 raises InvalidInput with what to do; counts of one band in 8 bits go through."""
    with pytest.raises(InvalidInput, match="whole numbers"):
        fit(synthetic_series((3, 2, 16, 16), dtype="float32"))
    series = synthetic_series((4, 1, 20, 33), dtype="uint8")
    codec = fit(series, Policy(mse_max=1e-3, index_mae_max=None))
    assert all(p.dtype == np.uint8 for p in decoded(codec, series)[1])


def test_newer_and_damaged_codecs_are_told_apart() -> None:
    """A higher version is UnsupportedFormat; any flipped bit of the rest is Corrupt."""
    data = fit(soft_place(3)).to_bytes()
    with pytest.raises(UnsupportedFormat, match="newer"):
        FAMILY.from_bytes(data[:5] + b"\x63" + data[6:])
    for at in range(6, len(data), 11):
        with pytest.raises(Corrupt):
            FAMILY.from_bytes(data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :])


def _write_golden() -> None:
    series = soft_place(5, side=24, seed=3)
    items, codecs = [], {}
    for name, scale in (("even", Scale(0, 1)), ("bent", Scale(30, 2))):
        codec = replace(make_codec(series, POLICY, scale), crf=20.0)
        codecs[name] = codec.to_bytes().hex()
        alone = codec.encode(series.pixels[2], series.valid[2])
        for mask, e in zip((*series.valid, series.valid[2]), (*codec.encode_series(series), alone), strict=True):
            seen = codec.decode(e.payload, mask, e.shared)
            digest = sha256(seen.tobytes()).hexdigest()
            items.append({"codec": name, "payload": e.payload.hex(), "shared": e.shared.hex(), "sha256": digest})
    (GOLDEN / "klt-av1.json").write_text(json.dumps({"codecs": codecs, "rasters": items}, indent=1) + "\n")


def test_golden_rasters_decode_to_the_same_bytes() -> None:
    """Codecs and payloads stored once decode to the digests written down then, whatever the build."""
    if os.environ.get("GEOSTORE_GOLDEN") == "write":
        _write_golden()
    golden = json.loads((GOLDEN / "klt-av1.json").read_text())
    codecs = {name: FAMILY.from_bytes(bytes.fromhex(data)) for name, data in golden["codecs"].items()}
    assert (codecs["even"].klt.bend.per_mille, codecs["bent"].klt.bend.per_mille) == (0, 30)
    mask = np.ones((24, 24), bool)
    for item in golden["rasters"]:
        seen = codecs[item["codec"]].decode(bytes.fromhex(item["payload"]), mask, bytes.fromhex(item["shared"]))
        assert sha256(seen.tobytes()).hexdigest() == item["sha256"]


BOUNDS = {
    "values": Policy(mse_max=None, index_mae_max=None, max_error=0.005),
    "index": Policy(mse_max=None, index_mae_max=None, index_max=0.02),
    "both": Policy(mse_max=2e-5, index_mae_max=None, max_error=0.01, index_max=0.05),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_on_every_value_holds_at_clouds_saturation_and_edges(name: str) -> None:
    """No value misses its bound with a saturated corner, bright clouds unmasked, and slivers; rasters alone too."""
    clouded = synthetic_series((6, 4, 33, 21), indices=("NDVI",))
    series = replace(clouded, valid=np.ones_like(clouded.valid))
    codec = fit(series, BOUNDS[name])
    assert any("residual" in e.layers for e in codec.encode_series(series))
    again = KltAv1Codec.from_bytes(codec.to_bytes())
    alone = codec.encode(series.pixels[0], series.valid[0])
    both = [*decoded(again, series)[1], again.decode(alone.payload, series.valid[0])]
    for t, seen in enumerate(both):
        at = t % len(series)
        assert measure(series.pixels[at], seen, series.valid[at], series.bands, series.indices).keeps(BOUNDS[name])


def test_a_bound_on_every_value_costs_less_than_half_of_the_lossless_rasters() -> None:
    """Pictures and residuals within 0.01 of every value take less than half of JPEG XL lossless, mask and all."""
    from geostore.codec import RawCodec

    series = soft_place(12)
    size, _ = decoded(fit(series, Policy(mse_max=None, index_mae_max=None, max_error=0.01)), series)
    raw = RawCodec(series.bands)
    assert size < 0.5 * sum(len(raw.encode(p, v).payload) for p, v in zip(series.pixels, series.valid, strict=True))


EVEN = Policy(mse_max=None, index_mae_max=0.014)


def noisy_place(side: int, dates: int = 12) -> Series:
    """A place of which every other date is twice as noisy as the others."""
    series = soft_place(dates, side=side, clouds=False)
    rng = np.random.default_rng(2)
    physical = series.bands.to_physical(series.pixels) * rng.normal(1, 0.03, series.pixels.shape)
    pixels = series.pixels.copy()
    pixels[::2] = series.bands.to_stored(physical[::2].astype(np.float32))
    return replace(series, pixels=pixels)


def test_dates_that_need_another_quality_are_stretched_and_stay_in_the_group() -> None:
    """Under a bound on NDVI noisy dates keep it within one stream, in less than where they have to leave it."""
    series = noisy_place(40)
    plain = replace(make_codec(series, EVEN, Scale(10, 8)), crf=40.0)
    codec = replace(plain, stretches=True)
    encoded = codec.encode_series(series)
    size, pixels = decoded(KltAv1Codec.from_bytes(codec.to_bytes()), series)
    for t, seen in enumerate(pixels):
        assert measure(series.pixels[t], seen, series.valid[t], series.bands, series.indices).keeps(EVEN)
    assert size < 0.8 * decoded(plain, series)[0]
    assert len({e.shared for e in encoded}) == 1
    assert len({len(e.payload) for e in encoded}) == 2  # some name a stretch
    assert KltAv1Codec.from_bytes(codec.to_bytes()).stretches
    with pytest.raises(Corrupt, match="no place"):
        codec.decode(encoded[0].payload + b"\x10\x10", series.valid[0], encoded[0].shared)


def _write_golden_stretched() -> None:
    series = noisy_place(24, 6)
    codec = replace(make_codec(series, EVEN, Scale(10, 8)), crf=40.0, stretches=True)
    items = [
        {
            "payload": e.payload.hex(),
            "shared": e.shared.hex(),
            "valid": np.packbits(mask).tobytes().hex(),
            "sha256": sha256(codec.decode(e.payload, mask, e.shared).tobytes()).hexdigest(),
        }
        for mask, e in zip(series.valid, codec.encode_series(series), strict=True)
    ]
    golden = {"codec": codec.to_bytes().hex(), "rasters": items}
    (GOLDEN / "klt-av1-stretched.json").write_text(json.dumps(golden, indent=1) + "\n")


def test_golden_stretched_rasters_decode_to_the_same_bytes() -> None:
    """A codec of format 3 and its payloads decode to the digests written down then, some of them stretched."""
    if os.environ.get("GEOSTORE_GOLDEN") == "write":
        _write_golden_stretched()
    golden = json.loads((GOLDEN / "klt-av1-stretched.json").read_text())
    codec = FAMILY.from_bytes(bytes.fromhex(golden["codec"]))
    assert len({len(item["payload"]) for item in golden["rasters"]}) == 2
    for item in golden["rasters"]:
        seen = codec.decode(bytes.fromhex(item["payload"]), np.ones((24, 24), bool), bytes.fromhex(item["shared"]))
        assert sha256(seen.tobytes()).hexdigest() == item["sha256"]


def _write_golden_bounded() -> None:
    series = soft_place(4, side=24, seed=5)
    codec = replace(make_codec(series, BOUNDS["both"], Scale(0, 1)), crf=30.0)
    alone = codec.encode(series.pixels[2], series.valid[2])
    items = []
    for mask, e in zip((*series.valid, series.valid[2]), (*codec.encode_series(series), alone), strict=True):
        digest = sha256(codec.decode(e.payload, mask, e.shared).tobytes()).hexdigest()
        packed = np.packbits(mask).tobytes().hex()
        items.append({"payload": e.payload.hex(), "shared": e.shared.hex(), "valid": packed, "sha256": digest})
    golden = {"codec": codec.to_bytes().hex(), "rasters": items}
    (GOLDEN / "klt-av1-bounded.json").write_text(json.dumps(golden, indent=1) + "\n")


def test_golden_corrected_rasters_decode_to_the_same_bytes() -> None:
    """A codec of format 2 and its payloads, in a group and alone, decode to the digests written down then."""
    if os.environ.get("GEOSTORE_GOLDEN") == "write":
        _write_golden_bounded()
    golden = json.loads((GOLDEN / "klt-av1-bounded.json").read_text())
    codec = FAMILY.from_bytes(bytes.fromhex(golden["codec"]))
    for item in golden["rasters"]:
        mask = np.unpackbits(np.frombuffer(bytes.fromhex(item["valid"]), np.uint8))[: 24 * 24].reshape(24, 24) > 0
        seen = codec.decode(bytes.fromhex(item["payload"]), mask, bytes.fromhex(item["shared"]))
        assert sha256(seen.tobytes()).hexdigest() == item["sha256"]
