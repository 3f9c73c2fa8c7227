"""Convolutions in 32 bits: the very sums of float64, and none where one of them might overflow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geostore.vae.exact import Finish, Taps
from geostore.vae.model import SLOPE, Layer, linear

LIMIT, ONE = float(1 << 18), 1024.0


SIDES = {"conv": 3, "up": 4, "point": 1}


def layer_of(kind, inputs, outputs):
    return Layer("up" if kind == "up" else "conv", inputs, outputs, SIDES[kind], True)


def weights(layer, rng):
    sides = (layer.inputs, layer.outputs) if layer.kind == "up" else (layer.outputs, layer.inputs)
    return rng.integers(-127, 128, (*sides, layer.kernel, layer.kernel)).astype(np.int8)


def by_torch(layer, weight, x, finish):
    """The same in float64, one operation after another."""
    sums = linear(layer, torch.from_numpy(x), torch.from_numpy(weight.astype(np.float64)))
    out = torch.floor(
        sums * torch.from_numpy(finish.scale)[:, None, None] + torch.from_numpy(finish.bias)[:, None, None]
    )
    if len(finish.turn):
        wider, shift = (torch.from_numpy(part) for part in np.split(finish.turn, 2))
        out = torch.floor(out.clamp(-LIMIT, LIMIT) * (wider + ONE) / ONE) + shift
    return torch.floor(torch.where(out < 0, out * finish.slope, out)).clamp(-LIMIT, LIMIT).numpy()


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(list(SIDES)),
    largest=st.sampled_from([9000, 32767, 32768, 100000]),
    inputs=st.integers(1, 9),
    outputs=st.integers(1, 9),
    size=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    slope=st.sampled_from([1.0, SLOPE]),
    turned=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_numbers_are_those_of_float64(kind, largest, inputs, outputs, size, slope, turned, seed):
    """Proves against torch's float64 that every output is the same number, for any channels, sides and rasters."""
    rng, layer = np.random.default_rng(seed), layer_of(kind, inputs, outputs)
    count, height, width = size
    weight, x = weights(layer, rng), rng.integers(-largest, largest, (count, inputs, height, width), endpoint=True)
    scale = rng.uniform(1e-4, 2e-2, outputs).astype(np.float16).astype(np.float64)
    bias = rng.normal(0, 1, outputs).astype(np.float16).astype(np.float64) * ONE + 0.5
    sides = (2 * outputs, height * (1 + (kind == "up")), width * (1 + (kind == "up")))
    turn = {"turn": rng.integers(-3000, 3000, sides).astype(np.float32)} if turned else {}
    finish = Finish(scale=scale, bias=bias, one=ONE, slope=slope, limit=LIMIT, **turn)
    found = Taps.of(layer, weight).apply(x.astype(np.float32), finish)
    np.testing.assert_array_equal(found, by_torch(layer, weight, x.astype(np.float64), finish))


@pytest.mark.parametrize("inputs", [64, 1])
def test_what_might_overflow_is_left_alone(inputs):
    """Proves that sums near 2**31, of many small numbers or of few large ones, are exact, and larger ones not tried."""
    layer = layer_of("conv", inputs, 1)
    taps = Taps.of(layer, np.full((1, inputs, 3, 3), 127, np.int8))
    plain = Finish(scale=np.full(1, 2.0**-10), bias=np.zeros(1))
    most = 2 ** int(np.log2(2**31 / (9 * 127 * inputs))) - 1  # bounds are powers of two
    x = np.full((1, inputs, 5, 5), most, np.float32)
    assert taps.apply(x, plain).max() == most * 9 * 127 * inputs >> 10
    assert taps.apply(-x, plain).min() == -most * 9 * 127 * inputs >> 10
    assert taps.apply(2 * x + 1, plain) is None
    assert taps.apply(-2 * x, plain) is None


def test_numbers_of_more_than_two_parts_are_left_alone():
    """Proves that what does not fit two parts is not tried, however small its sums."""
    taps, plain = (
        Taps.of(layer_of("point", 1, 1), np.ones((1, 1, 1, 1), np.int8)),
        Finish(scale=np.ones(1), bias=np.zeros(1)),
    )
    x = np.full((1, 1, 2, 2), float(2**23 - 1), np.float32)
    np.testing.assert_array_equal(taps.apply(x, plain), x)
    assert taps.apply(x + 1, plain) is None


def test_dense_layers_have_no_taps():
    """Proves that dense layers are left to torch."""
    assert Taps.of(Layer("dense", 2, 3, 1, True), np.ones((3, 2, 1, 1), np.int8)) is None
