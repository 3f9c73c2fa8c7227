"""Memory of received bodies: used again once nobody looks at it, and never before."""

from __future__ import annotations

import sys
import sysconfig

import numpy as np
import pytest

from geostore.query.shelf import SHELF_BYTES_MAX, Shelf, counts_are_exact

SIZE = 1_048_576


def _taken(shelf: Shelf, nbytes: int = SIZE) -> np.ndarray:
    return np.frombuffer(shelf.take(nbytes), np.uint8)


def test_memory_still_seen_is_not_given_out_again() -> None:
    """Proves that any view of an array, however derived, keeps its memory from the next body."""
    shelf = Shelf()
    first = _taken(shelf)
    seen = first.reshape(2, -1)[1, 5:]
    first_at = first.ctypes.data
    del first
    second = _taken(shelf)
    assert second.ctypes.data != first_at
    del seen
    assert _taken(shelf, SIZE // 2).ctypes.data == first_at


def test_bodies_above_the_limit_are_not_kept() -> None:
    """Proves that the shelf keeps no more than its limit, and nothing larger than that."""
    shelf = Shelf()
    held = [_taken(shelf, SHELF_BYTES_MAX // 4) for _ in range(6)]
    huge = _taken(shelf, SHELF_BYTES_MAX + 1)
    assert huge.nbytes == SHELF_BYTES_MAX + 1
    assert sum(m.nbytes for m in shelf._kept) <= SHELF_BYTES_MAX
    assert len({a.ctypes.data for a in held}) == len(held)


def test_nothing_is_used_again_where_reference_counts_are_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves the switch: a free-threaded build, its lock on or off, gives out fresh memory and keeps none."""
    assert counts_are_exact() is not bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    with monkeypatch.context() as free:
        free.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
        assert not counts_are_exact()
        shelf = Shelf()
        taken = [_taken(shelf) for _ in range(3)]
        assert len({a.ctypes.data for a in taken}) == 3
        assert shelf._kept == []
    with monkeypatch.context() as built:
        built.setattr(sysconfig, "get_config_var", lambda name: 1)
        assert not counts_are_exact()
