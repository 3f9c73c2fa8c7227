"""Make a local store firm again after its writer was killed or the power failed.

A commit is acknowledged once its log file was flushed, so a log file that a power loss left empty or cut short was
never acknowledged: it goes. One that a killed writer wrote but did not flush is read like any other from now on, so
it is flushed before anything is built on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from geostore.durable import TEMPORARY, flush
from geostore.storage import witness
from geostore.storage.files import LocalFiles
from geostore.storage.header import HEADER
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
        _settle_table(files, root)
    files.flush(HEADER)
    for path, _, _ in files.walk("collections"):
        files.flush(path)
    _sweep_temporary(files.root)


def _settle_table(files: LocalFiles, root: str) -> None:
    folder = f"{root}/{LOG}"
    names = files.names(folder)
    if not names:
        return
    whole = versions(files, root)
    newest = whole[-1] if whole else -1
    for name in names:
        if _is_torn(files, f"{folder}/{name}", newest):
            files.delete(f"{folder}/{name}")
    _drop_pointer(files, root)
    if whole:
        files.flush(f"{root}/{log_name(newest)}")
    flush(files.root / folder)
    witness.settle(files, root)


def _is_torn(files: LocalFiles, path: str, newest: int) -> bool:
    """A log file after the `newest` whole one, or a checkpoint of log files that are still there, never on the disk."""
    name = path.rsplit("/", 1)[-1]
    if name.endswith(_CHECKPOINT):
        return torn(files, path, pages=False)
    return name.endswith(".json") and name[:20].isdigit() and int(name[:20]) > newest


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
