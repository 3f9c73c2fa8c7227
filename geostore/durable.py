"""Bytes on a local disk that stay there: flushed, and replaced whole or not at all."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from geostore.errors import StorageFull

TEMPORARY = ".tmp-"  # names of files that are not whole yet begin so
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SERIAL = itertools.count()


def flush(path: Path) -> None:
    """Bring one file or folder to the disk. Every promise of durability on a local disk goes through here."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_full(error: BaseException) -> bool:
    """True if `error` says that the disk or its quota is exhausted."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    text = str(error)
    return "No space left" in text or "os error 28" in text or "Disk quota exceeded" in text


def temporary_beside(path: Path) -> Path:
    """A name in the folder of `path` that nobody else uses."""
    return path.parent / f"{TEMPORARY}{os.getpid()}-{next(_SERIAL)}"


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Put what `write(stream)` writes at `path`: a temporary file beside it, flushed, renamed, and its folder flushed.

    Raises:
        StorageFull: the disk is full; an older file of that name is untouched.
        OSError: the folder is not there, or may not be written to.
    """
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as stream:
            write(stream)
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    except OSError as error:
        if is_full(error):
            raise StorageFull(f"no room left while writing {path}: {error.strerror}; make room and retry") from error
        raise
    finally:
        if path.parent.is_dir():
            temporary.unlink(missing_ok=True)
