"""Immutable bytes named by their digest."""

from __future__ import annotations

from geostore.errors import Corrupt, InvalidInput, NotFound
from geostore.keys import RasterKey
from geostore.storage.files import Files, digest_of
from geostore.storage.records import Piece, bytes_checksum

AREAS = ("codecs", "streams", "models")
_SUFFIX = {"codecs": "", "streams": "", "models": ".safetensors"}


def blob_path(area: str, digest: str) -> str:
    """Where a blob lies under the store's root."""
    if area not in AREAS:
        raise InvalidInput(f"blob area {area!r}; use one of {', '.join(AREAS)}")
    return f"blobs/{area}/{digest}{_SUFFIX[area]}"


def original_path(key: RasterKey, digest: str) -> str:
    """Where a kept original lies under the store's root."""
    acquisition = f"{key.time:%Y%m%dT%H%M%S%f}-{key.platform}-{key.group}"
    return f"blobs/rasters/{key.collection}/{key.geohash}/{acquisition}-{digest}.tif"


def digest_in(path: str) -> str:
    """The digest a blob's path ends with."""
    return path.rsplit("/", 1)[-1].rsplit("-", 1)[-1].split(".", 1)[0]


def put_blob(files: Files, path: str, data: bytes) -> None:
    """Write `data` durably at its content-addressed `path`; bytes already there are kept if they are right."""
    if files.size(path) == len(data) and digest_of(files.read(path)) == digest_of(data):
        files.flush(path)  # a writer that was killed may have left it in memory only
        return
    files.write(path, data)


def read_blob(files: Files, path: str) -> bytes:
    """The bytes at `path`, checked against the digest in its name.

    Raises:
        NotFound: nothing is there. Corrupt: other bytes are there.
    """
    try:
        data = files.read(path)
    except FileNotFoundError as error:
        raise NotFound(f"no blob {path}; run `geostore verify`, and restore it from a backup") from error
    if digest_of(data) != digest_in(path):
        raise Corrupt(f"{path}: {len(data)} bytes with digest {digest_of(data)}; restore it from a backup")
    return data


def read_piece(files: Files, piece: Piece) -> bytes:
    """One payload out of a stream blob, checked against its checksum.

    Raises:
        Corrupt: the blob is missing, short, or holds other bytes.
    """
    path = blob_path("streams", piece.stream)
    try:
        data = files.read(path, piece.offset, piece.length)
    except FileNotFoundError as error:
        raise Corrupt(f"{path} is missing, a row needs it; restore it from a backup") from error
    if len(data) != piece.length or bytes_checksum(data) != piece.checksum:
        raise Corrupt(f"{path}: bytes {piece.offset}+{piece.length} fail their checksum; restore it from a backup")
    return data
