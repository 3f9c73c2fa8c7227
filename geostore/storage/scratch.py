"""Temporary folders that go with their process, or, if that was killed, with the next one that looks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

PREFIX = "geostore-"
_LOCK = ".geostore-scratch"  # no folder without this file is touched


class Scratch:
    """An empty folder of this process; a lock in it, which the kernel drops with the process, tells that it lives."""

    def __init__(self, what: str) -> None:
        """Make one, named after `what` it is for."""
        sweep()
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{what}-"))
            self._handle = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if _taken(self._handle):
                return
            os.close(self._handle)  # a sweep was faster: that folder is gone

    def close(self) -> None:
        """Remove it and all that is in it."""
        if self._handle >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def sweep() -> int:
    """Remove the folders of processes that are gone; returns how many. Those of other users are left alone."""
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        found = [e.path for e in entries if e.name.startswith(PREFIX) and e.is_dir(follow_symlinks=False)]
        return sum(_sweep_one(Path(path)) for path in found)
    return 0


def _sweep_one(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        if folder.stat().st_uid != os.getuid():
            return False
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        try:
            if _taken(handle):
                shutil.rmtree(folder, ignore_errors=True)
                return True
        finally:
            os.close(handle)
    return False


def _taken(handle: int) -> bool:
    """True if the lock was free and is ours now, on a file that still has its name."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return os.fstat(handle).st_nlink > 0
