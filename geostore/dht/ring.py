"""Where a geohash lies on the ring: SHA-1, cut into equal slots."""

from __future__ import annotations

import hashlib

from geostore.errors import InvalidInput
from geostore.keys import check_geohash

SLOTS_MAX = 1024
_BITS = 64


def check_slots(slots: int) -> int:
    """Return `slots` if a store can have that many; raise InvalidInput otherwise."""
    if isinstance(slots, bool) or not isinstance(slots, int) or not 1 <= slots <= SLOTS_MAX:
        raise InvalidInput(f"{slots!r} slots; use a whole number from 1 to {SLOTS_MAX} (16 on one machine)")
    return slots


def position(geohash: str) -> int:
    """The first 64 bits of SHA-1 of the geohash's ASCII text, 0 .. 2**64 - 1.

    >>> position("9qdfr")
    12909069968421842695
    """
    return _position(check_geohash(geohash))


def slot_of(geohash: str, slots: int) -> int:
    """The slot that owns a cell, 0 .. slots - 1: its position cut into `slots` equal arcs.

    Every child geohash has its own position, so cells of one region spread over all slots.

    >>> slot_of("9qdfr", 16)
    11
    """
    return position(geohash) * check_slots(slots) >> _BITS


def slot_of_text(text: str, slots: int) -> int:
    """The slot of facts that belong to no cell, such as a scene's: the same rule over its id in UTF-8."""
    return _position(text) * check_slots(slots) >> _BITS


def _position(text: str) -> int:
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[: _BITS // 8], "big")
