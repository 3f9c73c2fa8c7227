"""Sparse steps as bytes: they come back, cost little, and damage is told or harmless."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geostore.coding.planes import pack_planes
from geostore.coding.sparse import pack_sparse, unpack_sparse
from geostore.errors import Corrupt


def steps(seed: int, shape: tuple[int, int, int], share: float, spread: float) -> np.ndarray:
    """Whole numbers of which about `share` are not 0."""
    rng = np.random.default_rng(seed)
    found = np.rint(rng.laplace(0, spread, shape)).astype(np.int64)
    return np.where(rng.random(shape) < share, found, 0)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32),
    st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20)),
    st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    st.sampled_from([0.7, 5.0, 3000.0]),
)
def test_what_goes_in_comes_out(seed: int, shape: tuple[int, int, int], share: float, spread: float) -> None:
    """Any planes under any mask: values where valid, 0 elsewhere."""
    values = steps(seed, shape, share, spread)
    valid = np.random.default_rng(seed + 1).random(shape[1:]) < 0.7
    valid[0, 0] = True
    data = pack_sparse(values, valid)
    np.testing.assert_array_equal(unpack_sparse(data, shape[0], valid), np.where(valid, values, 0))


def test_the_largest_and_least_likely_values_fit_what_is_set_aside() -> None:
    """Planes of zeros with 2^20 - 1 now and then, and planes that alternate between extremes, come back."""
    everywhere = np.ones((40, 40), bool)
    rare = np.zeros((2, 40, 40), np.int64)
    rare[1, 39, 39] = 2**20 - 1
    swinging = np.where(np.arange(3200).reshape(2, 40, 40) % 3, 1, 1 - 2**20)
    for values in (rare, swinging):
        np.testing.assert_array_equal(unpack_sparse(pack_sparse(values, everywhere), 2, everywhere), values)


def test_sparse_planes_take_little_more_than_their_entropy() -> None:
    """Independent steps of which 2 % are not 0: within a tenth of the ideal, and well below planes in context."""
    values, valid = np.sign(steps(3, (4, 96, 96), 0.02, 5.0)), np.ones((96, 96), bool)
    p = float((values != 0).mean())
    ideal = values.size * (p * (1 - np.log2(p)) - (1 - p) * np.log2(1 - p)) / 8
    size = len(pack_sparse(values, valid))
    assert size < 1.1 * ideal
    assert size < 0.9 * len(pack_planes(values, np.zeros_like(values), valid))


def test_damage_is_corrupt_or_gives_planes() -> None:
    """Cut and flipped streams raise Corrupt or give planes of the right shape; nothing else."""
    values, valid = steps(4, (3, 17, 19), 0.4, 4.0), np.ones((17, 19), bool)
    data, rng = pack_sparse(values, valid), np.random.default_rng(0)
    with pytest.raises(Corrupt, match="ends before"):
        unpack_sparse(data[:2], 3, valid)
    for _ in range(60):
        broken = bytearray(data)
        broken[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        try:
            assert unpack_sparse(bytes(broken[: int(rng.integers(1, len(data)))]), 3, valid).shape == values.shape
        except Corrupt:
            continue
