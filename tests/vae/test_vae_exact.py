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


def layer_of(kind, inputs, outputs):
    return Layer(kind, inputs, outputs, 4 if kind == "up" else 3, True)


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
    kind=st.sampled_from(["conv", "up"]),
    inputs=st.integers(1, 9),
    outputs=st.integers(1, 9),
    size=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    slope=st.sampled_from([1.0, SLOPE]),
    turned=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_numbers_are_those_of_float64(kind, inputs, outputs, size, slope, turned, seed):
    """Proves against torch's float64 that every output is the same number, for any channels, sides and rasters."""
    rng, layer = np.random.default_rng(seed), layer_of(kind, inputs, outputs)
    count, height, width = size
    weight, x = weights(layer, rng), rng.integers(-9000, 9000, (count, inputs, height, width)).astype(np.float64)
    scale = rng.uniform(1e-4, 2e-2, outputs).astype(np.float16).astype(np.float64)
    bias = rng.normal(0, 1, outputs).astype(np.float16).astype(np.float64) * ONE + 0.5
    sides = (2 * outputs, height * (1 + (kind == "up")), width * (1 + (kind == "up")))
    turn = {"turn": rng.integers(-3000, 3000, sides).astype(np.float64)} if turned else {}
    finish = Finish(scale=scale, bias=bias, one=ONE, slope=slope, limit=LIMIT, **turn)
    np.testing.assert_array_equal(Taps.of(layer, weight).apply(x, finish), by_torch(layer, weight, x, finish))


@pytest.mark.parametrize("kind", ["conv", "up"])
def test_what_might_overflow_is_left_alone(kind):
    """Proves that sums up to the last one below 2**31 are exact, and that a larger one is not tried."""
    layer = layer_of(kind, 1, 1)
    weight = np.full((1, 1, layer.kernel, layer.kernel), 1, np.int8)
    taps, plain = Taps.of(layer, weight), Finish(scale=np.ones(1), bias=np.zeros(1))
    most = (2**31 - 1) // taps.sum_max
    x = np.full((1, 1, 5, 5), float(most))
    assert taps.apply(x, plain).max() == most * taps.sum_max
    assert taps.apply(x + 1, plain) is None


def test_other_layers_have_no_taps():
    """Proves that 1 x 1 convolutions and dense layers are left to torch."""
    assert Taps.of(Layer("conv", 2, 3, 1, False), np.ones((3, 2, 1, 1), np.int8)) is None
    assert Taps.of(Layer("dense", 2, 3, 1, True), np.ones((3, 2, 1, 1), np.int8)) is None
