"""What an upgrade has trained so far, kept so that one that was interrupted goes on from there.

    .index/parts/<digest>    the bytes of a descriptor's weights or a head, after their checksum

The digest is over everything the bytes follow from, training set included, so a part is taken up again by the very
same training alone. The folder goes when an upgrade ends.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from geostore.durable import write_whole

FOLDER = "parts"
_CHECK = 16  # bytes


def kept(root: Path, what: Mapping[str, Any], arrays: Iterable[Any], make: Callable[[], bytes]) -> bytes:
    """What was made of the same before, else what `make` gives, which is kept.

    Args:
        root: the folder of all indexes.
        what: JSON values that the bytes follow from.
        arrays: NumPy arrays that they follow from, in order.
        make: gives the bytes; what it raises leaves nothing behind.
    """
    path = root / FOLDER / _digest(what, arrays)
    found = _read(path)
    if found is None:
        found = make()
        data = xxhash.xxh3_128_digest(found) + found
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda stream: stream.write(data))
    return found


def forget(root: Path) -> None:
    """Remove every part: the upgrade they were made for is done."""
    shutil.rmtree(root / FOLDER, ignore_errors=True)


def begin(root: Path) -> None:
    """Say that an upgrade runs, or was interrupted, until `forget`: nothing it describes is to be cleared away."""
    (root / FOLDER).mkdir(parents=True, exist_ok=True)


def underway(root: Path) -> bool:
    """Whether an upgrade runs or was interrupted."""
    return (root / FOLDER).is_dir()


def _read(path: Path) -> bytes | None:
    """The bytes of a part; None where it is not there, or damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return data[_CHECK:] if data[:_CHECK] == xxhash.xxh3_128_digest(data[_CHECK:]) else None


def _digest(what: Mapping[str, Any], arrays: Iterable[Any]) -> str:
    """32 hexadecimal digits of all that a part follows from, this version of geostore included."""
    made = [json.dumps({"geostore": version("geostore"), **what}, sort_keys=True)]
    for array in arrays:
        whole = np.ascontiguousarray(array)
        made += [f"{whole.dtype.str} {whole.shape}", xxhash.xxh3_128_hexdigest(whole.data)]
    return hashlib.sha256("\n".join(made).encode()).hexdigest()[:32]
