"""Copy a store to another place and back, digest by digest."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from geostore.codec import Progress, quiet
from geostore.errors import Conflict, Corrupt, InvalidInput, NotFound
from geostore.storage import header
from geostore.storage.blobs import digest_in
from geostore.storage.files import Files, digest_of, open_files

MANIFEST = "backup.json"


def backup(source: Files, target: Files, progress: Progress = quiet) -> dict[str, int]:
    """Copy what `target` lacks, then the manifest that says what belongs to this backup.

    Log files come last and oldest first, so an interrupted backup is an older one. Returns `files`, `bytes`,
    `copied_files` and `copied_bytes`.

    Raises:
        Conflict: another store is there. InvalidInput: the target is the store itself, or lies in it.
        Corrupt: a file of the source fails its digest; nothing more is copied.
    """
    _apart(source, target)
    _same_store(source, target)
    listed = [(path, size) for path, size, _ in source.walk() if path != MANIFEST]
    listed.sort(key=lambda item: _order(item[0]))
    there = _digests_there(target)
    manifest: dict[str, str] = {}
    copied = copied_bytes = 0
    for i, (path, _) in enumerate(listed):
        progress("backup", i / len(listed))
        named = _named_digest(path)
        if named is not None and there.get(path) == named and target.size(path) is not None:
            manifest[path] = named
            continue
        data = source.read(path)
        manifest[path] = _checked(path, data)
        if there.get(path) != manifest[path] or target.size(path) != len(data):
            target.write(path, data)
            copied, copied_bytes = copied + 1, copied_bytes + len(data)
    target.write(MANIFEST, json.dumps({"files": manifest}, indent=0).encode())
    progress("backup", 1.0)
    return {
        "files": len(listed),
        "bytes": sum(s for _, s in listed),
        "copied_files": copied,
        "copied_bytes": copied_bytes,
    }


def _apart(source: Files, target: Files) -> None:
    """Raise InvalidInput where a copy would become part of what is copied."""
    here, there = (f.url if f.local is None else str(f.local.resolve()) for f in (source, target))
    if f"{there}/".startswith(f"{here}/"):
        raise InvalidInput(f"{target.url} lies in the store {source.url} that is to be copied; name a place outside it")


def restore(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    source_options: Mapping[str, str] | None = None,
    target_options: Mapping[str, str] | None = None,
    progress: Progress = quiet,
) -> dict[str, int]:
    """Copy the backup at `source` to the empty place `target`; the store is there once geostore.json is, at the end.

    Raises:
        NotFound: no backup there. Conflict: `target` holds a store. Corrupt: a file fails its digest.
    """
    old, new = open_files(source, source_options), open_files(target, target_options)
    if new.size(header.HEADER) is not None:
        raise Conflict(f"{new.url} holds a store already; restore to an empty place")
    files = read_manifest(old)
    total = 0
    for i, (path, digest) in enumerate(sorted(files.items(), key=lambda item: _order(item[0]))):
        progress("restore", i / len(files))
        try:
            data = old.read(path)
        except FileNotFoundError as error:
            raise Corrupt(f"{old.url}: {path} is missing from the backup; make the backup again") from error
        if digest_of(data) != digest:
            raise Corrupt(f"{old.url}: {path} fails its digest; make the backup again")
        new.write(path, data)
        total += len(data)
    progress("restore", 1.0)
    return {"files": len(files), "bytes": total}


def read_manifest(files: Files) -> dict[str, str]:
    """Digest by path of the backup in `files`.

    Raises:
        NotFound: there is none.
    """
    try:
        found: dict[str, str] = json.loads(files.read(MANIFEST))["files"]
    except FileNotFoundError as error:
        raise NotFound(f"no backup at {files.url}: it has no {MANIFEST}; run `geostore backup`") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{files.url}/{MANIFEST} does not parse ({error}); make the backup again") from error
    return found


def _same_store(source: Files, target: Files) -> None:
    mine = header.read_header(source)
    try:
        other = header.read_header(target)
    except NotFound:
        return
    if other.id != mine.id:
        raise Conflict(f"{target.url} holds a backup of store {other.id}, this is {mine.id}; choose another place")


def _digests_there(target: Files) -> dict[str, str]:
    try:
        return read_manifest(target)
    except NotFound:
        return {}


def _named_digest(path: str) -> str | None:
    """The digest in the name of a part file or blob; None for log files and headers."""
    return digest_in(path) if path.startswith("blobs/") or "/kind=" in path else None


def _checked(path: str, data: bytes) -> str:
    digest, named = digest_of(data), _named_digest(path)
    if named is not None and named != digest:
        raise Corrupt(f"{path} fails its digest; it is not copied: run `geostore verify`, restore it from a backup")
    return digest


def _order(path: str) -> tuple[int, str]:
    """Blobs and part files, collections, logs, pointers to checkpoints, and the header last."""
    if path == header.HEADER:
        return 4, path
    if path.endswith("_last_checkpoint"):
        return 3, path
    if "/_delta_log/" in path:
        return 2, path.rsplit("/", 1)[-1] + path
    return (1 if path.startswith("collections/") else 0), path
