"""Entropy coding: round trips, code lengths near the ideal, and tables made by whole-number arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geostore.errors import Corrupt
from geostore.vae.entropy import Table, pack_symbols, unpack_symbols


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0.01, 60), count=st.integers(0, 300), limit=st.integers(1, 255))
def test_symbols_round_trip(seed, spread, count, limit):
    """Proves that any integers within the limit come back, whether the table was made for them or not."""
    rng = np.random.default_rng(seed)
    values = np.clip(np.rint(rng.laplace(0, spread, count)), -limit, limit).astype(np.int32)
    others = rng.integers(-limit, limit + 1, (3, 5)).astype(np.int32)
    runs = [(values, Table.of(values, limit)), (others, Table.of(values, limit))]
    back = unpack_symbols(pack_symbols(runs), [((count,), runs[0][1]), ((3, 5), runs[1][1])])
    np.testing.assert_array_equal(back[0], values)
    np.testing.assert_array_equal(back[1], others)


def test_streams_are_near_the_ideal_length():
    """Proves that 20,000 symbols take at most 1 % and 8 bytes more than their ideal code length."""
    values = np.rint(np.random.default_rng(3).laplace(0, 2.0, 20_000)).astype(np.int32)
    table = Table.of(values, 255)
    ideal = table.bits(values) / 8
    assert ideal <= len(pack_symbols([(values, table)])) <= 1.01 * ideal + 8


def test_tables_fit_what_they_count():
    """Proves that the two-number table is within 3 % of the empirical entropy of Laplace-like symbols."""
    values = np.rint(np.random.default_rng(4).laplace(0, 1.3, 50_000)).astype(np.int32)
    share = np.unique(values, return_counts=True)[1] / len(values)
    entropy = -(share * np.log2(share)).sum() * len(values)
    assert Table.of(values, 255).bits(values) < 1.03 * entropy


def test_a_table_is_two_integers():
    """Proves by a fixed figure that frequencies follow from two 16-bit numbers and nothing else."""
    stream = pack_symbols([(np.arange(-6, 7, dtype=np.int32), Table(zero=20000, ratio=40000, limit=20))])
    assert stream.hex() == "04ae8c03d415e33d"


def test_cut_streams_never_crash():
    """Proves that a stream cut anywhere gives symbols or Corrupt, nothing else."""
    values = np.rint(np.random.default_rng(5).laplace(0, 9.0, 500)).astype(np.int32)
    table = Table.of(values, 255)
    stream = pack_symbols([(values, table)])
    for cut in range(0, len(stream), 7):
        try:
            assert unpack_symbols(stream[:cut], [((500,), table)])[0].shape == (500,)
        except Corrupt:
            continue


@pytest.mark.parametrize("values", [np.zeros(50, np.int32), np.full(50, 9, np.int32), np.empty(0, np.int32)])
def test_tables_of_one_value_still_code_others(values):
    """Proves that no table gives a symbol within its limit probability 0."""
    table = Table.of(values, 30)
    wild = np.array([-30, 30, 0, 1], np.int32)
    np.testing.assert_array_equal(unpack_symbols(pack_symbols([(wild, table)]), [((4,), table)])[0], wild)
