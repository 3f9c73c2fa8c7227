"""Files of a store by relative path: a local folder that flushes, or an object store."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from geostore.durable import flush, is_full, temporary_beside
from geostore.errors import GeostoreError, InvalidInput, StorageFull, Unreachable


def digest_of(data: bytes) -> str:
    """The name of `data`: the first 128 bits of its SHA-256, 32 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()[:32]


@contextlib.contextmanager
def full_disk_is_an_error(what: str) -> Iterator[None]:
    """Turn "no space left" inside the block into StorageFull."""
    try:
        yield
    except GeostoreError:
        raise
    except Exception as error:
        if not is_full(error):
            raise
        raise StorageFull(f"no space left while writing {what}; make room and try again, nothing was lost") from error


def unfinished(name: str) -> bool:
    """True of a dot file and of what the Delta library writes before it gives a log file its name (`...json#1`)."""
    _, mark, number = name.rpartition("#")
    return name.startswith(".") or (bool(mark) and number.isdigit())


class Files(Protocol):
    """What storage asks of the place that holds the bytes. Paths are relative, with forward slashes."""

    url: str
    options: dict[str, str]

    @property
    def local(self) -> Path | None:
        """The folder, or None on an object store."""
        ...

    def read(self, path: str, start: int | None = None, length: int = 0) -> bytes:
        """All bytes, or `length` from `start`. Raises FileNotFoundError."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Write or replace, durably and at once."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Write durably if nothing is there. Raises FileExistsError."""
        ...

    def size(self, path: str) -> int | None:
        """Bytes, or None if it is not there."""
        ...

    def walk(self, prefix: str = "") -> list[tuple[str, int, float]]:
        """(path, bytes, modification time in seconds) of every file below `prefix`, sorted by path."""
        ...

    def names(self, folder: str) -> list[str]:
        """Names directly in `folder`, sorted; empty if it is not there."""
        ...

    def delete(self, path: str) -> None:
        """Remove one file; nothing happens if it is not there."""
        ...

    def flush(self, path: str) -> None:
        """Bring a file another library wrote, and the folders that lead to it, to the disk."""
        ...


class LocalFiles:
    """A folder. Files whose names are not theirs yet (`unfinished`) are not part of the store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)
        self.options: dict[str, str] = {}
        self._known: set[Path] = set()

    @property
    def local(self) -> Path | None:
        """The folder."""
        return self.root

    def read(self, path: str, start: int | None = None, length: int = 0) -> bytes:
        """All bytes, or `length` from `start`."""
        with (self.root / path).open("rb") as stream:
            if start is None:
                return stream.read()
            stream.seek(start)
            return stream.read(length)

    def write(self, path: str, data: bytes) -> None:
        """A temporary file, flushed, renamed, and its folder flushed."""
        with self._temporary(path, data) as (temporary, target):
            temporary.replace(target)
        self._flush_folders(target.parent)

    def create(self, path: str, data: bytes) -> None:
        """As `write`, but refuses to replace."""
        with self._temporary(path, data) as (temporary, target):
            target.hardlink_to(temporary)
            temporary.unlink()
        self._flush_folders(target.parent)

    @contextlib.contextmanager
    def _temporary(self, path: str, data: bytes) -> Iterator[tuple[Path, Path]]:
        target = self.root / path
        temporary = temporary_beside(target)
        with full_disk_is_an_error(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(data)
                flush(temporary)
                yield temporary, target
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def size(self, path: str) -> int | None:
        """Bytes, or None."""
        try:
            return (self.root / path).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def walk(self, prefix: str = "") -> list[tuple[str, int, float]]:
        """Every file below `prefix`, unfinished ones left out."""
        return sorted(self._below(self.root / prefix if prefix else self.root))

    def _below(self, folder: Path) -> Iterator[tuple[str, int, float]]:
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            return
        for entry in entries:
            if unfinished(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._below(Path(entry.path))
                continue
            with contextlib.suppress(FileNotFoundError):
                stat = entry.stat()
                yield Path(entry.path).relative_to(self.root).as_posix(), stat.st_size, stat.st_mtime

    def names(self, folder: str) -> list[str]:
        """Names directly in `folder`."""
        try:
            return sorted(n for n in os.listdir(self.root / folder) if not unfinished(n))  # noqa: PTH208 - faster
        except FileNotFoundError:
            return []

    def delete(self, path: str) -> None:
        """Unlink."""
        (self.root / path).unlink(missing_ok=True)

    def flush(self, path: str) -> None:
        """The file, its folder, and every folder up to the root that was not flushed with it before."""
        target = self.root / path
        flush(target)
        self._flush_folders(target.parent)

    def _flush_folders(self, folder: Path) -> None:
        """`folder` always; its ancestors once, since only their first entry for the child matters."""
        flush(folder)
        while folder != self.root and folder not in self._known:
            flush(folder.parent)
            self._known.add(folder)
            folder = folder.parent


class RemoteFiles:
    """A bucket or a prefix of one, through obstore; as durable as the service promises."""

    def __init__(self, url: str, options: Mapping[str, str] | None = None) -> None:
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        self.url = url.rstrip("/")
        self.options = dict(options or {})
        client: Any = {"allow_http": True} if self.options.get("allow_http", self.options.get("AWS_ALLOW_HTTP")) else {}
        config: Any = {k: v for k, v in self.options.items() if k.lower() not in ("allow_http", "aws_allow_http")}
        try:
            self._store = from_url(self.url, config=config, client_options=client)
        except (BaseError, ValueError) as error:
            raise InvalidInput(
                f"cannot use {url!r}: {_why(error)}; give a folder, or an s3://, gs:// or az:// URL"
            ) from error

    @property
    def local(self) -> Path | None:
        """None: this is no folder."""
        return None

    def read(self, path: str, start: int | None = None, length: int = 0) -> bytes:
        """One GET, ranged if asked."""
        import obstore

        with _remote(path):
            if start is None:
                return bytes(obstore.get(self._store, path).bytes())
            return bytes(obstore.get_range(self._store, path, start=start, length=length)) if length else b""

    def write(self, path: str, data: bytes) -> None:
        """One PUT."""
        import obstore

        with _remote(path):
            obstore.put(self._store, path, data)

    def create(self, path: str, data: bytes) -> None:
        """A PUT with If-None-Match."""
        import obstore

        with _remote(path):
            obstore.put(self._store, path, data, mode="create", use_multipart=False)

    def size(self, path: str) -> int | None:
        """Bytes, or None."""
        import obstore

        try:
            with _remote(path):
                return int(obstore.head(self._store, path)["size"])
        except FileNotFoundError:
            return None

    def walk(self, prefix: str = "") -> list[tuple[str, int, float]]:
        """Every object below `prefix`."""
        import obstore

        with _remote(prefix):
            batches = list(obstore.list(self._store, prefix or None))
        return sorted((m["path"], int(m["size"]), m["last_modified"].timestamp()) for batch in batches for m in batch)

    def names(self, folder: str) -> list[str]:
        """Names directly in `folder`."""
        import obstore

        with _remote(folder):
            found = obstore.list_with_delimiter(self._store, folder or None)
        paths = [*found["common_prefixes"], *(m["path"] for m in found["objects"])]
        return sorted(p.rstrip("/").rsplit("/", 1)[-1] for p in paths)

    def delete(self, path: str) -> None:
        """One DELETE."""
        import obstore

        with contextlib.suppress(FileNotFoundError), _remote(path):
            obstore.delete(self._store, path)

    def flush(self, path: str) -> None:
        """Nothing to do: a PUT that was answered is as durable as it gets."""


@contextlib.contextmanager
def _remote(path: str) -> Iterator[None]:
    from obstore import exceptions

    try:
        yield
    except exceptions.NotFoundError as error:
        raise FileNotFoundError(path) from error
    except exceptions.AlreadyExistsError as error:
        raise FileExistsError(path) from error
    except exceptions.BaseError as error:
        why = _why(error)
        raise Unreachable(f"the object store did not serve {path!r}: {why}; check address and credentials") from error


def _why(error: Exception) -> str:
    """What the library below says, without how its error was made, which it adds on further lines."""
    return str(error).partition("\n")[0]


def open_files(url: str | os.PathLike[str], options: Mapping[str, str] | None = None) -> Files:
    """The folder or bucket that `url` names; nothing is created or checked yet."""
    text = os.fspath(url)
    if "://" in text and not text.startswith("file://"):
        return RemoteFiles(text, options)
    return LocalFiles(Path(text.removeprefix("file://")).expanduser().absolute())
