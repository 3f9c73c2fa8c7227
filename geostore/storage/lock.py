"""The lock that keeps a second writer off a local store."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from pathlib import Path

from geostore.errors import StoreLocked

LOCK = ".writer.lock"


class WriterLock:
    """Held while a store is open for writing; the kernel lets go of it when the process ends."""

    def __init__(self, root: Path) -> None:
        """Take the lock of the store at `root`.

        Raises:
            StoreLocked: another writer has it; the message names its process and host where known.
        """
        self._handle = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(root)
            os.close(self._handle)
            raise StoreLocked(
                f"{root} is open for writing by {holder}; wait for it, or open the store read-only"
            ) from error
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, json.dumps({"pid": os.getpid(), "host": platform.node()}).encode(), 0)

    def release(self) -> None:
        """Let go."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def is_held(root: Path) -> bool:
    """True if some process has the store at `root` open for writing."""
    try:
        handle = os.open(root / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _holder(root: Path) -> str:
    try:
        known = json.loads((root / LOCK).read_text())
        return f"process {known['pid']} on {known['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
