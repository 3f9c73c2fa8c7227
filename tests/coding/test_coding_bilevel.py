"""Planes of bits in context: they come back, a decoder made from the document alone reads them, damage is harmless."""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal, getcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from geostore.coding import bilevel
from geostore.coding.bilevel import pack_bilevel, unpack_bilevel
from geostore.errors import Corrupt

TABLE = json.loads((Path(bilevel.__file__).parent / "bilevel.json").read_text())


def clouds(seed: int, shape: tuple[int, int], share: float = 0.3, smooth: float = 2.0) -> np.ndarray:
    """Ragged holes, about `share` of the plane."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), smooth)
    return noise >= np.quantile(noise, share)


class Plain:
    """A decoder of bits in context as docs/FORMAT.md has it, in plain Python: slow, and nothing shared with ours."""

    def __init__(self, stream: bytes, height: int, width: int) -> None:
        getcontext().prec = 30
        self.stream, self.at, self.range, self.code = stream, 4, 0xFFFFFFFF, int.from_bytes((stream + b"\0" * 4)[:4])
        self.height, self.width, self.rows = height, width, []
        half = [int(65536 / (1 + (Decimal(-n) / 256).exp())) for n in range(2817)]
        self.share = {0: 32768} | {n: half[n] for n in range(1, 2817)} | {-n: 65536 - half[n] for n in range(1, 2817)}
        self.alike = [[p, 60] for pair in np.reshape(TABLE["alike"], (6, 2)).tolist() for p in pair]
        self.models: list[dict[int, list[int]]] = [{}, {}]
        self.weights = [45000, 10000, 10000]

    def bit(self, ones: int) -> int:
        part = self.range >> 16
        found = int(self.code < part * ones)
        if not found:
            self.code -= part * ones
        self.range = part * (ones if found else 65536 - ones)
        while self.range < 1 << 24:
            self.range <<= 8
            self.code = self.code << 8 | (self.stream[self.at] if self.at < len(self.stream) else 0)
            self.at += 1
        return found

    def pixel(self, y: int, x: int, row: list[int]) -> int:
        if y < 0:
            return 1
        if y < len(self.rows):
            return self.rows[y][min(max(x, 0), self.width - 1)]
        return row[x] if x >= 0 else self.pixel(y - 1, 0, row)

    def near(self, y: int, x: int, row: list[int]) -> list[int]:
        out = [self.pixel(y, x - d, row) for d in range(1, 7)]
        for up, reach in ((1, 6), (2, 6), (3, 5), (4, 4), (5, 3)):
            out += [self.pixel(y - up, x + d, row) for d in range(reach, -reach - 1, -1)]
        return out

    def odds(self, probability: int) -> int:
        return max((n for n, share in self.share.items() if share <= probability >> 14), default=-2816)

    def moved(self, model: list[int], bit: int, most: int) -> None:
        model[0] += ((bit << 30) - model[0]) * (655360 // (10 * model[1] + 16)) >> 16
        model[1] = min(model[1] + 1, most)

    def mixed(self, near: list[int], r: int) -> int:
        first = np.array(TABLE["first"])[np.array(near) == 1].sum(axis=0) + np.array(TABLE["rows"])[r]
        units = [int(u) if u >= 0 else int(u) // 8 for u in first]
        net = (sum(u * v for u, v in zip(units, TABLE["second"], strict=True)) >> 12) + TABLE["bias"]
        chosen = []
        for memory, left, above, next_up in ((self.models[0], 3, 3, 1), (self.models[1], 4, 3, 2)):
            reach = 2 if left == 3 else 3
            bits = near[:left] + near[12 - above : 13 + reach] + near[25 - next_up : 26 + next_up]
            chosen.append(memory.setdefault(sum(b << i for i, b in enumerate(bits)), [0, 0]))
        odds = [min(max(net, -2816), 2816), *(self.odds(m[0]) if m[1] else 0 for m in chosen)]
        together = sum(w * o for w, o in zip(self.weights, odds, strict=True)) >> 16
        ones = min(max(self.share[min(max(together, -2816), 2816)], 4), 65532)
        bit = self.bit(ones)
        self.weights = [w + (((65536 * bit - ones) * o + 32768) >> 16) for w, o in zip(self.weights, odds, strict=True)]
        for model in chosen:
            if not model[1]:
                model[0] = ones << 14
            self.moved(model, bit, 250)
        return bit

    def read(self) -> np.ndarray:
        for y in range(self.height):
            row: list[int] = []
            for x in range(self.width):
                near, r = self.near(y, x, row), min(y, 5)
                if len(set(near)) > 1:
                    row.append(self.mixed(near, r))
                    continue
                model = self.alike[2 * r + near[0]]
                row.append(self.bit(min(max(model[0] >> 14, 4), 65532)))
                self.moved(model, row[-1], 1000)
            self.rows.append(row)
        return np.array(self.rows, bool)


def test_a_decoder_made_from_the_document_reads_what_the_coder_wrote() -> None:
    """The oracle: a second decoder, in plain Python, gives the very planes; clouds, noise, and a wedge."""
    wedge = np.add.outer(np.arange(20) / 3, np.arange(23)) < 15
    for plane in (clouds(1, (24, 31)), clouds(2, (9, 40), 0.5, 0.3), wedge, np.eye(12, dtype=bool)):
        assert np.array_equal(Plain(pack_bilevel(plane), *plane.shape).read(), plane)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0]),
    st.sampled_from([0.1, 0.8, 3.0]),
)
def test_what_goes_in_comes_out(seed: int, shape: tuple[int, int], share: float, smooth: float) -> None:
    """Planes of any shape, all 0 and all 1 among them, from noise to a few large holes."""
    plane = clouds(seed, shape, share, smooth) if share < 1 else np.zeros(shape, bool)
    assert np.array_equal(unpack_bilevel(pack_bilevel(plane), shape), plane)


def test_the_least_likely_planes_fit_what_is_set_aside() -> None:
    """Checks, stripes and lone pixels, each the other way round too, come back."""
    rows, columns = np.mgrid[:70, :90]
    for odd in ((rows + columns) % 2 == 0, rows % 2 == 0, columns % 3 == 0, (rows % 7 == 3) & (columns % 11 == 5)):
        for plane in (odd, ~odd):
            assert np.array_equal(unpack_bilevel(pack_bilevel(plane), plane.shape), plane)


def test_small_planes_gain_from_what_was_trained() -> None:
    """Clouds of 32 pixels a side take less than a third of the bits that independent ones would."""
    planes = [clouds(seed, (32, 32), 0.3, 3.0) for seed in range(20)]
    entropy = -(0.3 * np.log2(0.3) + 0.7 * np.log2(0.7)) * 32 * 32 / 8
    assert np.mean([len(pack_bilevel(plane)) for plane in planes]) < entropy / 3


def test_threads_at_once_give_the_same_bytes() -> None:
    """Nothing is kept from plane to plane, whoever asks."""
    planes = [clouds(seed, (50, 60)) for seed in range(8)]
    alone = [pack_bilevel(plane) for plane in planes]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(pack_bilevel, planes)) == alone


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.tuples(st.integers(1, 30), st.integers(1, 30)))
def test_any_bytes_are_a_plane_or_corrupt(data: bytes, shape: tuple[int, int]) -> None:
    """Whatever comes, a plane of the shape asked for or Corrupt."""
    with contextlib.suppress(Corrupt):
        assert unpack_bilevel(data, shape).shape == shape


def test_bytes_behind_the_end_are_told() -> None:
    """A plane followed by more is Corrupt."""
    plane = clouds(3, (20, 20))
    with pytest.raises(Corrupt, match="20 x 20"):
        unpack_bilevel(pack_bilevel(plane) + b"\1" * 9, plane.shape)
