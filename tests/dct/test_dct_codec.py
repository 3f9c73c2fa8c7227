"""The klt-dct codec: transforms that are whole numbers, shifts found, policies kept, streams read to a date."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from geostore.certificate import measure
from geostore.classical import KltAv1Family
from geostore.classical.fit import coded_bytes
from geostore.codec import Effort, RawCodec, Series, decode_many, quiet
from geostore.coding.logistic import logistic
from geostore.collection import Policy
from geostore.dct import KltDctFamily
from geostore.dct.blocks import CLASSES, Blocks
from geostore.dct.codec import KltDctCodec
from geostore.dct.contexts import spreads
from geostore.dct.fit import make_codec
from geostore.dct.order import STANDING, turns
from geostore.dct.predict import Sums, taught, teach
from geostore.dct.shift import PARTS, move, shifts
from geostore.dct.steps import step_of
from geostore.dct.stream import decode_group, encode_group
from geostore.errors import Corrupt, InvalidInput, UnsupportedFormat
from geostore.testing.codecs import synthetic_series

FAMILY = KltDctFamily()
GOLDEN = Path(__file__).parents[1] / "golden" / "klt-dct.json"
POLICY = Policy(mse_max=2e-4, index_mae_max=None)


def fit(series: Series, policy: Policy = POLICY) -> KltDctCodec:
    codec = FAMILY.fit(series, policy=policy, effort=Effort(steps=4), progress=quiet)
    assert isinstance(codec, KltDctCodec)
    return codec


def drifting(count: int = 9, side: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """(T, 2, side, side) of one texture seen from further on at each date, and by how many parts of a pixel."""
    rng = np.random.default_rng(5)
    texture = ndimage.gaussian_filter(rng.normal(size=(2, side + 16, side + 16)), (0, 1.5, 1.5)) * 4000
    at = rng.integers(-6, 7, (count, 2))
    seen = [move(np.rint(texture), by)[:, 8 : 8 + side, 8 : 8 + side] for by in at]
    return np.stack(seen), at


@pytest.mark.parametrize("side", [32, 16, 5])
@pytest.mark.parametrize("shape", [(1, 1), (5, 63), (64, 64), (96, 40), (21, 130)])
def test_blocks_turn_back(shape: tuple[int, int], side: int) -> None:
    """Proves that whole-number coefficients of any plane give it back to within a level's sixteenths."""
    blocks = Blocks(*shape, side)
    planes = np.random.default_rng(1).integers(-8000, 8000, (2, *blocks.padded)).astype(np.float64)
    there = blocks.forward(planes)
    assert np.array_equal(there, np.rint(there))
    assert np.abs(blocks.inverse(there) - planes).max() <= 4
    assert sorted(map(tuple, blocks.scan[:, :2].tolist())) == list(np.ndindex(blocks.side))
    assert (np.diff(blocks.scan[:, 2]) >= 0).all()
    assert blocks.scan[-1, 2] < CLASSES


def test_shifts_are_found() -> None:
    """Proves that dates moved by known parts of a pixel are told to lie there, to within one part."""
    planes, at = drifting()
    found = shifts(planes)
    assert np.abs((found - found.mean(axis=0)) - (at - at.mean(axis=0))).max() <= 1.5
    assert not shifts(planes[:1]).any()


def test_moving_is_whole_and_keeps_flat_planes() -> None:
    """Proves that a plane of one value stays so wherever it is moved, and whole pixels are moved as they are."""
    flat = np.full((1, 20, 20), -777.0)
    assert np.array_equal(move(flat, np.array([3, -13])), flat)
    ramp = np.arange(400.0).reshape(1, 20, 20)
    assert np.array_equal(move(ramp, np.array([PARTS, 0]))[:, :-1], ramp[:, 1:])


def test_every_date_leans_on_dates_before_it() -> None:
    """Proves that each date has its turn once, and that its references had theirs, the standing image among them."""
    for count in (1, 2, 5, 17, 40, 71):
        order = turns(count)
        assert sorted(t.date for t in order) == list(range(count))
        done: set[int] = set()
        for turn in order:
            assert {r for r in turn.references if r != STANDING} <= done
            assert (STANDING in turn.references) is bool(done)
            done.add(turn.date)


def test_weights_are_learnt() -> None:
    """Proves that weights taught by a mixture of two references find it, and stay as they were taught nothing."""
    seen = np.random.default_rng(2).integers(-9000, 9000, (2, 500))
    square, cross, out = np.zeros((2, 2), np.int64), np.zeros(2, np.int64), np.zeros(2, np.int64)
    start, sums = np.array([200, 40]), Sums.of(2, 500)
    taught(square, cross, start, 16, 4, sums, out)
    assert out.tolist() == [200, 40]
    found = (64 * seen[0] + 192 * seen[1]) >> 8
    others, crossed = np.zeros_like(square), np.zeros_like(cross)
    teach(seen.astype(np.float32), found, sums, square, cross, others, crossed)
    assert (others == square).all()
    assert (crossed == cross).all()
    taught(square, cross, start, 16, 4, sums, out)
    assert np.abs(out - [64, 192]).max() <= 1


def test_logistic_tables_are_inverse() -> None:
    """Proves that odds grow with a probability, and that going there and back changes it by less than one step."""
    odds, back = logistic()
    assert (np.diff(odds) >= 0).all()
    middle = np.arange(64, 65536 - 64)
    assert (np.abs(back[odds[middle] + len(back) // 2] - middle) <= middle * (65536 - middle) / 65536 / 200 + 1).all()
    assert (np.diff([step_of(n) for n in range(128)]) > 0).all()


def test_a_stream_is_read_no_further_than_asked() -> None:
    """Proves that some dates of a stream are what all of them are, and that a cut stream gives the dates it has."""
    planes, at = drifting(12)
    blocks = Blocks(*planes.shape[2:])
    stream, coded = encode_group(planes * 4, blocks, at, 40)
    everything = dict(decode_group(stream, blocks, 2, range(12)))
    assert all(np.array_equal(everything[t], coded[t]) for t in range(12))
    ((date, alone),) = decode_group(stream, blocks, 2, [11])
    assert date == 11
    assert np.array_equal(alone, coded[11])
    first = stream[: len(stream) * 9 // 10]
    assert np.array_equal(dict(decode_group(first, blocks, 2, [0]))[0], coded[0])
    with pytest.raises(Corrupt):
        dict(decode_group(stream[:40], blocks, 2, range(12)))


def test_shifts_save_bytes() -> None:
    """Proves that dates that lie beside one another take fewer bytes, at no more error, when that is told."""
    planes, at = drifting()
    blocks = Blocks(*planes.shape[2:])
    told, with_shifts = encode_group(planes * 4, blocks, at, 56)
    plain, without = encode_group(planes * 4, blocks, np.zeros_like(at), 56)
    assert len(told) < 0.7 * len(plain)
    errors = [float(np.square(np.stack(found) - planes * 4).mean()) for found in (with_shifts, without)]
    assert errors[0] <= 1.1 * errors[1]


def test_what_is_masked_costs_next_to_nothing() -> None:
    """Proves that dates of which little matters take few bytes, and are about as true there as if all mattered."""
    planes, at = drifting()
    blocks, known = Blocks(*planes.shape[2:]), np.ones((len(planes), *planes.shape[2:]), np.bool_)
    known[3:, 12:] = False
    hidden = np.where(known[:, None], planes, planes.mean())
    told, some = encode_group(hidden * 4, blocks, at, 40, known=known)
    plain, _ = encode_group(hidden * 4, blocks, at, 40)
    every, whole = encode_group(planes * 4, blocks, at, 40)
    assert len(told) < 0.6 * len(plain)
    assert len(told) < 0.85 * len(every)
    where = np.broadcast_to(known[:, None], planes.shape)
    errors = [float(np.square((np.stack(found) - planes * 4)[where]).mean()) for found in (some, whole)]
    assert errors[0] <= 1.4 * errors[1]


def test_groups_are_of_nearly_equal_length() -> None:
    """Proves that a series one raster longer than a group is halved, and that each raster comes back from its half."""
    series = synthetic_series((9, 4, 24, 24), indices=("NDVI",))
    encoded = replace(make_codec(series, POLICY, 0), dates=8).encode_series(series)
    shared = [e.shared for e in encoded]
    assert [shared.count(one) for one in dict.fromkeys(shared)] == [5, 4]


def test_dates_without_a_pixel_say_nothing_of_a_series() -> None:
    """Proves that a long series whose first dates are all under clouds is fitted by those that are not."""
    clear = synthetic_series((12, 4, 64, 64), indices=("NDVI",))
    count = 60
    pixels = np.concatenate([np.zeros((count, *clear.pixels.shape[1:]), np.uint16), clear.pixels])
    valid = np.concatenate([np.zeros((count, 64, 64), bool), clear.valid])
    series = replace(clear, pixels=pixels, valid=valid, times_us=np.arange(count + 12))
    policy, effort = Policy(mse_max=5e-4, index_mae_max=None), Effort(steps=300)
    for family in (FAMILY, KltAv1Family()):
        foreseen = family.foresee(series, policy)
        assert foreseen is not None
        assert foreseen == pytest.approx(family.foresee(clear, policy), rel=0.2)
        codec = family.fit(series, policy=policy, effort=effort, progress=quiet)
        encoded = codec.encode_series(series)
        assert all(e.layers == ("empty",) for e in encoded[:count])
        assert all(e.payload for e in encoded[count:])


def test_every_raster_keeps_the_policy() -> None:
    """Proves that rasters of very different errors at one step all keep the bound, and that a looser one takes less."""
    series = synthetic_series((10, 4, 40, 33), indices=("NDVI",))
    sizes = []
    for bound in (2e-4, 2e-5):
        policy = Policy(mse_max=bound, index_mae_max=0.05)
        codec = fit(series, policy)
        encoded = codec.encode_series(series)
        pairs = [(e.shared, (e.payload, v)) for e, v in zip(encoded, series.valid, strict=True)]
        for date, pixels in enumerate(decode_many(codec, pairs)):
            assert measure(series.pixels[date], pixels, series.valid[date], series.bands, ("NDVI",)).keeps(policy)
        sizes.append(coded_bytes(encoded))
    assert sizes[0] < sizes[1]


def fields() -> np.ndarray:
    """(6, 2, 64, 64) reflectance of rectangles that are laid on one another, some more at each date."""
    rng, place, dates = np.random.default_rng(4), np.full((2, 64, 64), 0.1, np.float32), []
    for _ in range(6):
        for _ in range(6):
            (y, x), (height, width) = rng.integers(0, 58, 2), rng.integers(4, 14, 2)
            place[:, y : y + height, x : x + width] = rng.uniform(0.02, 0.5, (2, 1, 1))
        dates.append(place.copy())
    return np.stack(dates)


def test_smaller_blocks_are_taken_where_edges_are_hard() -> None:
    """Proves that a fit of fields of which some change at each date takes smaller blocks, which are told."""
    soft = synthetic_series((6, 2, 64, 64))
    hard = replace(soft, pixels=soft.bands.to_stored(fields()), valid=np.ones_like(soft.valid))
    codec = FAMILY.fit(hard, policy=POLICY, effort=Effort(steps=400), progress=quiet)
    assert isinstance(codec, KltDctCodec)
    assert codec.side < 32
    again = FAMILY.from_bytes(codec.to_bytes())
    encoded = codec.encode_series(hard)
    pairs = [(e.shared, (e.payload, v)) for e, v in zip(encoded, hard.valid, strict=True)]
    for date, pixels in enumerate(decode_many(again, pairs)):
        assert measure(hard.pixels[date], pixels, hard.valid[date], hard.bands).keeps(POLICY)
    assert coded_bytes(encoded) < coded_bytes(replace(codec, side=32).encode_series(hard))


def test_formats_before_are_written_and_read_as_they_were() -> None:
    """Proves that what an older version fitted stays in its format, and reads back as the same codec."""
    series = synthetic_series((3, 2, 24, 24))
    for version, side in ((1, 32), (2, 8), (3, 32), (3, 8), (4, 32), (4, 8)):
        codec = replace(make_codec(series, POLICY, 0), side=side, version=version)
        assert codec.to_bytes()[5] == version
        again = FAMILY.from_bytes(codec.to_bytes())
        assert isinstance(again, KltDctCodec)
        assert (again.side, again.blocks.beside) == (side, version > 2)
        assert again.to_bytes() == codec.to_bytes()


def test_a_date_brighter_all_over_is_told_once() -> None:
    """Proves that what references miss of all blocks alike takes less where blocks are expected to miss it together."""
    planes, at = drifting(12)
    planes += np.random.default_rng(3).normal(0, 1500, (12, 2, 1, 1))
    sizes = []
    for beside in (True, False):
        blocks = Blocks(*planes.shape[2:], 12, beside)
        stream, coded = encode_group(planes * 4, blocks, at, 40)
        assert all(np.array_equal(found, coded[t]) for t, found in decode_group(stream, blocks, 2, range(12)))
        sizes.append(len(stream))
    assert sizes[0] < 0.95 * sizes[1]


def test_what_is_not_for_it_is_left() -> None:
    """Proves that bounds on every value get the lossless codec, floats a refusal, newer formats and damage an error."""
    series = synthetic_series((3, 2, 16, 16))
    bounded = Policy(mse_max=None, index_mae_max=None, max_error=0.01)
    assert isinstance(FAMILY.fit(series, policy=bounded, effort=Effort(steps=4), progress=quiet), RawCodec)
    with pytest.raises(InvalidInput, match="float32"):
        fit(synthetic_series((3, 2, 16, 16), dtype="float32"))
    codec = fit(series)
    data = codec.to_bytes()
    with pytest.raises(UnsupportedFormat):
        FAMILY.from_bytes(data[:5] + b"\x09" + data[6:])
    encoded = codec.encode(series.pixels[0], series.valid[0])
    damaged = replace(encoded, payload=bytes([encoded.payload[0] ^ 1]) + encoded.payload[1:])
    with pytest.raises(Corrupt, match="other components"):
        codec.decode(damaged.payload, series.valid[0])
    with pytest.raises(InvalidInput, match="does not fit"):
        codec.encode(series.pixels[0, :, :5], series.valid[0, :5])


def test_spreads_are_even_distances_from_the_mean() -> None:
    """Proves that references a and b everywhere lie 8 |a - b| / 2 apart, and that one reference lies nowhere apart."""
    within = Blocks(5, 7).within
    seen = np.full((2, 1, 2, 35), 40, np.float32)
    seen[1] = -60
    assert (spreads(seen, within, (5, 7)) == 400).all()
    assert not spreads(seen[:1], within, (5, 7)).any()


def test_spreads_are_those_of_whole_numbers() -> None:
    """Proves against whole-number quotients, one frequency after another, that distances and their means are exact."""
    rng, scan = np.random.default_rng(6), Blocks(9, 8).scan
    seen = rng.integers(-(1 << 20), 1 << 20, (5, 2, 1, 72))
    mean = seen.sum(axis=0) // 5
    far = np.zeros((2, 9, 8), np.int64)
    far[:, scan[:, 0], scan[:, 1]] = (8 * np.abs(seen - mean).sum(axis=0) // 5)[:, 0]
    wide = np.pad(far, ((0, 0), (1, 1), (1, 1)), mode="edge")
    wanted = sum(wide[:, i : i + 9, j : j + 8] for i, j in np.ndindex(3, 3)) // 9
    found = spreads(seen.astype(np.float32), Blocks(9, 8).within, (9, 8))
    np.testing.assert_array_equal(found[:, 0], wanted[:, scan[:, 0], scan[:, 1]])


def test_order_of_frequencies_turns_back() -> None:
    """Proves that coefficients in order, blocks row by row, make the planes that they make as they are."""
    blocks = Blocks(10, 21, 5)
    planes = np.random.default_rng(7).integers(-9000, 9000, (2, *blocks.padded)).astype(np.float64)
    there = blocks.forward(planes)
    ordered = np.empty((2, 8, blocks.side[0] * blocks.side[1]), np.float32)
    blocks.ordered(planes, ordered)
    assert ordered[1, 5, 0] == there[1, 1, 0, 1, 0]
    np.testing.assert_array_equal(blocks.planes(ordered.astype(np.int64)), blocks.inverse(there))


def test_a_date_far_off_is_leant_on() -> None:
    """Proves that a scene seen once and again, much later, takes far less the second time, told which date it was."""
    planes, at = drifting(24)
    other = np.roll(planes[:, ::-1, ::-1], 7, axis=3)
    scenes = planes.copy()
    scenes[[3, 20]] = other[[3, 20]]  # a second look, in some 17 dates' time
    scenes[20] = move(move(np.rint(other[3]), -at[3]), at[20])
    blocks = Blocks(*planes.shape[2:])
    stream, coded = encode_group(scenes * 4, blocks, at, 40)
    assert all(np.array_equal(found, coded[t]) for t, found in decode_group(stream, blocks, 2, range(24)))
    scenes[20] = np.roll(other[20], 11, axis=2)
    assert len(stream) < 0.9 * len(encode_group(scenes * 4, blocks, at, 40)[0])


def _write_golden() -> None:
    """Add what is not there yet: what was written once stays, whatever codecs are made of the series now."""
    series = synthetic_series((7, 4, 24, 24), indices=("NDVI",))
    series = replace(series, valid=np.ones_like(series.valid))
    golden = json.loads(GOLDEN.read_text())
    items, codecs = golden["rasters"], golden["codecs"]
    made = (("even", (0, 1), 32), ("bent", (30, 4), 32), ("small", (0, 1), 8), ("beside", (0, 1), 8))
    for name, scale, side in (m for m in made if m[0] not in codecs):
        codec = replace(make_codec(series, POLICY, *scale), step=48, side=side, version=3 if name == "beside" else 2)
        codecs[name] = codec.to_bytes().hex()
        alone = codec.encode(series.pixels[1], series.valid[1])
        for mask, e in zip((*series.valid, series.valid[1]), (*codec.encode_series(series), alone), strict=True):
            digest = sha256(codec.decode(e.payload, mask, e.shared).tobytes()).hexdigest()
            items.append({"codec": name, "payload": e.payload.hex(), "shared": e.shared.hex(), "sha256": digest})
    GOLDEN.write_text(json.dumps({"codecs": codecs, "rasters": items}, indent=1) + "\n")


def test_golden_rasters_decode_to_the_same_bytes() -> None:
    """Proves that codecs and streams stored once decode to the digests written down then."""
    if os.environ.get("GEOSTORE_GOLDEN") == "write":
        _write_golden()
    golden = json.loads(GOLDEN.read_text())
    codecs = {name: FAMILY.from_bytes(bytes.fromhex(data)) for name, data in golden["codecs"].items()}
    mask = np.ones((24, 24), bool)
    for item in golden["rasters"]:
        seen = codecs[item["codec"]].decode(bytes.fromhex(item["payload"]), mask, bytes.fromhex(item["shared"]))
        assert sha256(seen.tobytes()).hexdigest() == item["sha256"]
