"""Inner loops as machine code: how they are compiled, and where that is kept for the next process.

numba keeps what it compiled for as long as the file with a function is as it was, whatever became of files with
functions that are called from there and are part of the same machine code: after an upgrade old loops would decode new
bytes. So it is kept in a folder of its own for every state of the package's sources.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast, overload

import numba

F = TypeVar("F", bound=Callable[..., Any])
_CONFIG: Any = numba.config
_PACKAGE = Path(__file__).parent
_FORGOTTEN = 30 * 86400  # seconds after which folders of other states are removed


@overload
def compiled(function: F) -> F: ...


@overload
def compiled(*, lean: bool = False, fastmath: tuple[str, ...] = ()) -> Callable[[F], F]: ...


def compiled(function: F | None = None, *, lean: bool = False, fastmath: tuple[str, ...] = ()) -> F | Callable[[F], F]:
    """`function` as machine code, made at its first call; it runs without the interpreter's lock.

    Args:
        function: what is to be compiled.
        lean: count no references to arrays, which can take most of an inner loop's time. For what makes no array, as
            `np.empty` does, which numba refuses; and for what returns none, which it does not: nobody would own it.
            Views are no arrays of their own.
        fastmath: LLVM's flags of what may be done to sums, such as "reassoc"; for whole numbers, which stay exact.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": set(fastmath), "_nrt": not lean}

    def made(function: F) -> F:
        folder, before = folder_of_code(), _CONFIG.CACHE_DIR
        _CONFIG.CACHE_DIR = str(folder or "")  # it is looked at now, not when the function is called
        try:
            return cast(F, numba.njit(cache=folder is not None, **options)(function))
        finally:
            _CONFIG.CACHE_DIR = before

    return made if function is None else made(function)


@lru_cache(maxsize=1)
def folder_of_code() -> Path | None:
    """Where machine code of the sources as they are is kept; None where nothing can be written."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    for base in _bases():
        folder = base / f"compiled-{digest.hexdigest()[:16]}"
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                _forget(base, folder)
                return folder
    return None


def _bases() -> Iterator[Path]:
    """What numba is told to use; else beside the sources, or the user's cache where these may not be written to."""
    if told := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(told)
        return
    yield _PACKAGE / "__pycache__"
    with suppress(RuntimeError):  # nobody's home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geostore"


def _forget(base: Path, folder: Path) -> None:
    """Remove what other states of the sources left long ago."""
    for other in base.glob("compiled-*"):
        with suppress(OSError):  # another process forgets it too
            if other != folder and other.stat().st_mtime < time.time() - _FORGOTTEN:
                shutil.rmtree(other, ignore_errors=True)
