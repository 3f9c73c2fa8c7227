"""Digests of a slot's log files, noted as they are written: its own checks cover not every byte of a Delta log.

The notes lie in `.digests` beside the log of a local store, a line a file: digest, name, and the line's check. Lines
are only added; of several about one name the last counts. Like every dot file they may go: then less is noticed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import xxhash

from geostore.durable import TEMPORARY
from geostore.storage.files import Files, digest_of, unfinished
from geostore.storage.log import LOG

NAME = ".digests"
_TRIES = 3  # a file may be replaced while it is compared


def note(files: Files, root: str, names: Iterable[str]) -> None:
    """Note log files of the table at `root` that were just written and flushed; a disk too full for it is no error."""
    path = _path(files, root)
    if path is None:
        return
    with contextlib.suppress(OSError):
        if not path.exists():
            _write(path, _digests(files, root, _there(files, root)))
            return
        lines = "".join(_line(*item) for item in _digests(files, root, names).items())
        with path.open("a", encoding="utf-8") as stream:
            stream.write(lines)


def forget(files: Files, root: str, names: Iterable[str]) -> None:
    """Drop what is noted of log files that are about to be deleted or replaced."""
    path = _path(files, root)
    if path is None:
        return
    known, _ = _noted(path)
    gone = known.keys() & set(names)
    if gone:
        with contextlib.suppress(OSError):
            _write(path, {name: digest for name, digest in known.items() if name not in gone})


def mend(files: Files, root: str) -> None:
    """Write damaged notes anew; what is noted soundly stays, whatever the files hold now."""
    path = _path(files, root)
    if path is None:
        return
    known, damaged = _noted(path)
    if damaged:
        _complete(files, root, path, known)


def settle(files: Files, root: str) -> None:
    """After a writer that did not close: only what is noted of log entries stays, which never change once written."""
    path = _path(files, root)
    there = _there(files, root)
    if path is None or not (there or path.exists()):
        return
    known, _ = _noted(path)
    _complete(files, root, path, {n: d for n, d in known.items() if n in there and n.endswith(".json")})


def _complete(files: Files, root: str, path: Path, known: dict[str, str]) -> None:
    """Write `known`, and what lies there now of all other files."""
    missing = [name for name in _there(files, root) if name not in known]
    with contextlib.suppress(OSError):
        _write(path, {**known, **_digests(files, root, missing)})


def wrong(files: Files, root: str) -> Iterator[tuple[str, str]]:
    """(path, what is wrong) of each log file that is not what was noted, and of damaged notes."""
    path = _path(files, root)
    if path is None or not path.exists():
        return
    for attempt in range(_TRIES):
        known, damaged = _noted(path)
        bad = [name for name, digest in known.items() if _digests(files, root, [name]).get(name) != digest]
        if attempt + 1 == _TRIES or not bad:
            break
    yield from ((f"{root}/{LOG}/{name}", "it is missing or fails its digest; restore it from a backup") for name in bad)
    if damaged:
        yield f"{root}/{NAME}", f"{damaged} of its lines fail their check; run `geostore rebuild`"


def _path(files: Files, root: str) -> Path | None:
    return None if files.local is None else files.local / root / NAME


def _there(files: Files, root: str) -> list[str]:
    return files.names(f"{root}/{LOG}")


def _digests(files: Files, root: str, names: Iterable[str]) -> dict[str, str]:
    """Digest by name of those that are there."""
    found = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            found[name] = digest_of(files.read(f"{root}/{LOG}/{name}"))
    return found


def _line(name: str, digest: str) -> str:
    text = f"{digest} {name}"
    return f"{text} {xxhash.xxh3_64_hexdigest(text.encode())}\n"


def _noted(path: Path) -> tuple[dict[str, str], int]:
    """Digest by name, and how many lines are damaged."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return {}, 0
    found, damaged = {}, 0
    for line in lines:
        text, _, check = line.rpartition(b" ")
        if xxhash.xxh3_64_hexdigest(text).encode() == check and text.count(b" ") == 1:
            digest, name = text.decode().split(" ")
            if not unfinished(name):  # geostore noted these too, once
                found[name] = digest
        else:
            damaged += 1
    return found, damaged


def _write(path: Path, digests: dict[str, str]) -> None:
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-digests")
    try:
        temporary.write_text("".join(_line(*item) for item in digests.items()), "utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
