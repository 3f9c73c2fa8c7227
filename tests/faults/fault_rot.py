"""Flipped bits: where, and what came of each."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fault_check import digests

from geostore.errors import Corrupt, GeostoreError, NotFound, UnsupportedFormat
from geostore.node import Node
from geostore.query import messages
from geostore.settings import Settings
from geostore.storage.follow import VIEW

SETTINGS = Settings(threads=1, workers=1)
SEEN = (Corrupt, UnsupportedFormat, NotFound)  # NotFound: a name that rotted is no longer found under its own


@dataclass
class Tally:
    """What became of the flips in one kind of file.

    Attributes:
        flips: how many. seen: how many verify, opening or reading reported.
        lies: one line for each that decoded to other pixels, or hid a raster, without an error.
        strange: one line for each error that is not of the expected kinds.
    """

    flips: int = 0
    seen: int = 0
    lies: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)


@contextlib.contextmanager
def flipped(path: Path, rng: random.Random) -> Iterator[str]:
    """One random bit of `path` turned over, and back again afterwards."""
    sound = path.read_bytes()
    at, bit = rng.randrange(len(sound)), rng.randrange(8)
    rotten = bytearray(sound)
    rotten[at] ^= 1 << bit
    path.write_bytes(rotten)
    try:
        yield f"{path.name} byte {at} bit {bit}"
    finally:
        path.write_bytes(sound)


def look(store: Path, truth: dict[str, str], tally: Tally, where: str) -> None:
    """Open the store read-only, read and verify everything, and count what is reported."""
    tally.flips += 1
    seen = False
    try:
        with Node.open(str(store), settings=SETTINGS, readonly=True) as node:
            seen |= _read(node, truth, tally, where) or _shuns_view(node, store)
            seen |= not node.answer(messages.Verify()).fields["ok"]
    except SEEN:
        seen = True
    except GeostoreError as error:
        tally.strange.append(f"{where}: {type(error).__name__}: {error}")
    tally.seen += seen


def _shuns_view(node: Node, store: Path) -> bool:
    """True if the store has a view, but this reader made its own from the tables."""
    view = store / VIEW
    return view.exists() and node.store.view_path != view


def _read(node: Node, truth: dict[str, str], tally: Tally, where: str) -> bool:
    """True if reading reports the rot; a difference without a report is a lie."""
    try:
        found = digests(node)
    except SEEN:
        return True
    if found != truth:
        wrong = sorted(k for k in {*found, *truth} if found.get(k) != truth.get(k))
        tally.lies.append(f"{where}: {wrong[:3]}")
    return False
