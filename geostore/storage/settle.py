"""Make a local store firm again after its writer was killed or the power failed.

A commit is acknowledged once its log file was flushed, so a log file that a power loss left empty or cut short was
never acknowledged: it goes. One that a killed writer wrote but did not flush is read like any other from now on, so
it is flushed before anything is built on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from geostore.storage.files import TEMPORARY, LocalFiles, flush
from geostore.storage.log import LOG, log_name, torn, versions

_CHECKPOINT = ".checkpoint.parquet"
_LAST = "_last_checkpoint"


def settle(files: LocalFiles, roots: Iterable[str]) -> None:
    """Remove what is torn, flush what may not be on the disk. Only for the writer, before it reads.

    Args:
        files: the store.
        roots: the folders of its slots' tables.
    """
    for root in roots:
        names = files.names(f"{root}/{LOG}")
        if not names:
            continue
        for name in [n for n in names if _is_torn(files, root, n)]:
            files.delete(f"{root}/{LOG}/{name}")
        _drop_pointer(files, root)
        for version in versions(files, root)[-1:]:
            files.flush(f"{root}/{log_name(version)}")
        flush(files.root / root / LOG)
    for path, _, _ in files.walk("collections"):
        files.flush(path)
    _sweep_temporary(files.root)


def _is_torn(files: LocalFiles, root: str, name: str) -> bool:
    """A log file, or a checkpoint made from log files that are still there, which the disk never got whole."""
    if name.endswith(_CHECKPOINT):
        return files.size(f"{root}/{LOG}/{name}") == 0
    if name == log_name(0)[len(LOG) + 1 :][:20] + ".json":
        return torn(files, f"{root}/{LOG}/{name}")
    return name.endswith(".json") and torn(files, f"{root}/{LOG}/{name}")


def _drop_pointer(files: LocalFiles, root: str) -> None:
    """`_last_checkpoint` goes if it does not name a checkpoint that is there; the log is listed without it."""
    path = f"{root}/{LOG}/{_LAST}"
    if files.size(path) is None:
        return
    try:
        version = int(json.loads(files.read(path))["version"])
        there = files.size(f"{root}/{LOG}/{version:020d}{_CHECKPOINT}")
    except (ValueError, KeyError, TypeError):
        there = None
    if not there:
        files.delete(path)


def _sweep_temporary(folder: Path) -> None:
    """Files that a killed writer had not yet given their names; ours, and those of the Delta library (`...json#1`)."""
    for path in [*folder.rglob(f"{TEMPORARY}*"), *folder.glob(f"tables/*/{LOG}/*#*")]:
        path.unlink(missing_ok=True)
