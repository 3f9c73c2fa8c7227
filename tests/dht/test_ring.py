import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore.dht.ring import position, slot_of, slot_of_text
from geostore.errors import InvalidInput
from geostore.keys import GEOHASH_ALPHABET
from geostore.partition.cover import cover

GOLDEN = {  # geohash: position, slot of 16, slot of 1024; a change moves every stored cell
    "s": (None, 10, 643),
    "9qdfr": (12909069968421842695, 11, 716),
    "zzzzz": (None, 10, 650),
    "u33db": (None, 12, 776),
    "6mc5n": (None, 12, 817),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_slots(name: str) -> None:
    """Cells lie where they always lay."""
    at, of_16, of_1024 = GOLDEN[name]
    assert (slot_of(name, 16), slot_of(name, 1024)) == (of_16, of_1024)
    assert at is None or position(name) == at


@given(st.text(alphabet=GEOHASH_ALPHABET, min_size=1, max_size=12), st.integers(1, 1024))
def test_slots_are_equal_arcs(name: str, slots: int) -> None:
    """A slot is the arc that holds the position, and splitting every slot in two keeps what lay together in order."""
    slot = slot_of(name, slots)
    assert slot * 2**64 <= position(name) * slots < (slot + 1) * 2**64
    assert slot_of_text(name, slots) == slot
    if slots <= 512:
        assert slot_of(name, 2 * slots) // 2 == slot


def test_cells_of_one_region_spread_evenly() -> None:
    """About 13,000 neighbouring cells fill 16 slots within 12 % of even, and 256 slots leave none empty."""
    cells = cover((5, 45, 10, 50), 5)
    counts = np.bincount([slot_of(c, 16) for c in cells], minlength=16)
    assert counts.max() / counts.mean() < 1.12
    assert counts.min() / counts.mean() > 0.88
    assert np.bincount([slot_of(c, 256) for c in cells], minlength=256).min() > 0


@pytest.mark.parametrize("slots", [0, 1025, -1, True, 16.0])
def test_slots_have_a_range(slots: int) -> None:
    """A number of slots outside 1..1024 is refused."""
    with pytest.raises(InvalidInput, match="slots"):
        slot_of("s", slots)


def test_only_geohashes_have_a_position() -> None:
    """A malformed name is an error, not a place."""
    with pytest.raises(InvalidInput, match="not a geohash"):
        position("Berlin")
