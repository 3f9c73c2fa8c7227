"""How the daemon's process deals with memory it has let go of."""

from __future__ import annotations

import ctypes

_KEPT_BYTES = 64 * 2**20  # freed memory that stays with the process
_LARGE_BYTES = 32 * 2**20  # the most glibc allows: below it, memory comes from what is kept
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of malloc.h


def keep_freed_memory() -> bool:
    """Have this process use freed memory again instead of asking the system for fresh pages at every request.

    A decoded raster is a few MB; fresh pages for it and for what it is made of cost as much as a third of the
    decoding. One arena for all threads, so that what one freed another uses. At most 64 MiB more stay resident.

    Returns:
        False where the C library is not glibc; nothing is changed then.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    wanted = {_ARENA_MAX: 1, _MMAP_THRESHOLD: _LARGE_BYTES, _TRIM_THRESHOLD: _KEPT_BYTES}
    accepted = [mallopt(name, value) == 1 for name, value in wanted.items()]
    return all(accepted)
