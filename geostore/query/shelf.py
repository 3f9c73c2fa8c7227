"""Memory that large bodies are received in, used again when nobody looks at it any more."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Callable

import numpy as np

from geostore.query.messages import Array

SHELF_BYTES_MAX = 32 * 2**20  # memory a client keeps to receive the next large replies in


def counts_are_exact() -> bool:
    """True if a reference count tells whether anybody else looks at an object: under CPython's lock, not without it."""
    running: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return sys.implementation.name == "cpython" and running() and not sysconfig.get_config_var("Py_GIL_DISABLED")


class Shelf:
    """Memory of bodies that nobody looks at any more, used again: fresh pages cost more than filling them.

    Not for several threads. What it keeps stays below SHELF_BYTES_MAX. Whether anybody looks is told by reference
    counts, so where these are not exact, as in a free-threaded Python, nothing is used again.
    """

    def __init__(self, *, reuses: bool | None = None) -> None:
        self._kept: list[Array] = []
        self._reuses = counts_are_exact() if reuses is None else reuses

    def take(self, nbytes: int) -> memoryview:
        """Memory for `nbytes`, with anything in it."""
        if not self._reuses:
            return np.empty(nbytes, np.uint8).data
        for memory, references in _referenced(self._kept):
            if memory.nbytes >= nbytes and references == _UNSEEN:
                return memory.data[:nbytes]
        memory = np.empty(nbytes, np.uint8)
        if nbytes <= SHELF_BYTES_MAX:
            self._kept.append(memory)
            while sum(m.nbytes for m in self._kept) > SHELF_BYTES_MAX:
                self._kept.pop(0)
        return memory.data


def _referenced(kept: list[Array]) -> list[tuple[Array, int]]:
    """Each array, and how many references to it there are; _UNSEEN where only the list has one."""
    return [(memory, sys.getrefcount(memory)) for memory in kept]


_UNSEEN = _referenced([np.empty(1, np.uint8)])[0][1]  # it differs between interpreters
