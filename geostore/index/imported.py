"""An index of vectors that others made, in a space of its own: search by a foundation model, decode by the local codec.

    <folder>/model.json   whose vectors these are
    <folder>/head.bin     what makes signatures of them
    <folder>/rows/        the segments

A hit names the row as its file does, and a cell; rasters of that cell are decoded as ever.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from geostore.durable import write_whole
from geostore.errors import Corrupt, InvalidInput, NotComparable, NotFound
from geostore.index.encoders import direction
from geostore.index.filters import ALL, Filter
from geostore.index.ranked import Query, ranked
from geostore.index.rerank import quantise
from geostore.index.rows import Rows, Space
from geostore.index.segments import Segments
from geostore.index.signatures import LinearHead, digest, linear_from_bytes, rotation, signatures
from geostore.index.vectors import Floats, Vectors, convention_of, read_vectors
from geostore.partition.geohash import encode_many

PRECISION = 6  # of the cells of rows: about 1.2 x 0.6 km
_SAMPLE = 50_000  # rows that the head is fitted on
_BEHIND = "\t"  # a key is file and row, this, and the id: ids need not be unique


@dataclass(frozen=True)
class Neighbour:
    """One hit.

    Attributes:
        id: of the row, as its file names it; its number in the file where it names none.
        geohash: the cell it lies in.
        time_us: UTC microseconds.
        score: cosine of the vectors.
    """

    id: str
    geohash: str
    time_us: int
    score: float


@dataclass(frozen=True)
class Imported:
    """An index of imported vectors; make one with `import_vectors` or `open_imported`.

    Attributes:
        model: whose vectors these are.
        head: of the signatures.
        rows: the segments.
        left_out: rows that were not taken at the import just made: no place, no time, or no vector.
    """

    model: str
    head: LinearHead
    rows: Segments
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def nearest(self, vector: Floats, k: int, *, wanted: Filter = ALL, threads: int = 1) -> list[Neighbour]:
        """The k rows most similar to a (D,) vector of the same model that meet the filter; none where none does.

        Raises:
            NotComparable: a vector of another width. InvalidInput: it is not finite, or the filter names what is not
                there.
        """
        vector = np.asarray(vector)
        if vector.shape != (self.head.width,):
            raise NotComparable(f"a vector {vector.shape}; those of {self.model} have {self.head.width} components")
        unit = direction(vector)
        signature = np.ascontiguousarray(signatures(self.head, unit[None]).T)
        query = Query(signature, unit, self.rows.space)
        found = ranked([self.rows], query, k, wanted=wanted, threads=threads).found
        return [Neighbour(m.key.decode().partition(_BEHIND)[2], m.geohash, m.time_us, m.score) for m in found]


def import_vectors(
    paths: Sequence[Path], folder: Path, *, model: str = "", bits: int = 128, precision: int = PRECISION,
    acquired: datetime | None = None,
) -> Imported:  # fmt: skip
    """Read GeoParquet files into an index in `folder`, in place of one of the same model that is there.

    Args:
        paths: files of one model's vectors.
        folder: where the index goes.
        model: name and version of what made the vectors; the convention's name if left out. Vectors of different
            versions of a model are not comparable: give each its own name and folder.
        bits: of a signature.
        precision: geohash length of the rows' cells.
        acquired: the time of all rows, where a file tells none.

    Raises:
        NotFound: a file is not there. NotComparable: files of different conventions or widths, or a folder with the
            vectors of another model. InvalidInput: no files; a file lacks vectors, places or times, or holds none that
            can be used.
    """
    if not paths:
        raise InvalidInput("paths = []; give the GeoParquet files of one model's vectors")
    found = {convention_of(p).name for p in paths}
    if len(found) != 1:
        raise NotComparable(f"files in the columns of {sorted(found)}; import each convention into an index of its own")
    name = model or found.pop()
    _check_folder(folder, name)
    head, rows, left_out = None, None, 0
    for number, path in enumerate(paths):
        for start, part in enumerate(read_vectors(path, acquired=acquired)):
            left_out += part.left_out
            if not len(part.vectors):
                continue
            if head is None:
                head = rotation(_two(part.vectors[:_SAMPLE]), bits)
                rows = Segments.create(folder / "rows", _space(name, head), precision)
            assert rows is not None
            rows.append(_rows(part, head, precision, f"{number}:{start}"))
    if head is None or rows is None:
        raise NotFound(f"no vector that can be used in {[str(p) for p in paths]}; {left_out} rows were left out")
    write_whole(folder / "head.bin", lambda stream: stream.write(head.to_bytes()))
    facts = json.dumps({"model": name, "head": digest(head)}).encode()
    write_whole(folder / "model.json", lambda stream: stream.write(facts))
    return Imported(name, head, rows, left_out)


def open_imported(folder: Path) -> Imported:
    """The index that was imported into `folder`.

    Raises:
        NotFound: there is none. Corrupt: a file is missing or damaged; import again.
    """
    try:
        facts = json.loads((folder / "model.json").read_bytes())
        head = linear_from_bytes((folder / "head.bin").read_bytes())
        name, wanted = str(facts["model"]), facts["head"]
    except FileNotFoundError as error:
        raise NotFound(f"no imported vectors in {folder}; import some with `import_vectors`") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{folder / 'model.json'} is damaged ({error!r}); import again") from error
    rows = Segments.open(folder / "rows")
    if digest(head) != wanted or rows.space != _space(name, head):
        raise Corrupt(f"{folder} holds files of different imports; import again")
    return Imported(name, head, rows)


def _check_folder(folder: Path, model: str) -> None:
    """Refuse a folder that holds another model's vectors."""
    try:
        there = open_imported(folder).model
    except (NotFound, Corrupt):  # nothing, or nothing that can be read any more
        return
    if there != model:
        raise NotComparable(f"{folder} holds vectors of {there!r}; give those of {model!r} a folder of their own")


def _space(model: str, head: LinearHead) -> Space:
    described = hashlib.sha256(f"{model} {head.width}".encode()).hexdigest()[:32]
    return Space(f"imported: {model}", described, head.name, digest(head), head.bits, head.width)


def _two(vectors: Floats) -> Floats:
    """A head is fitted on two rows or more."""
    return vectors if len(vectors) > 1 else np.repeat(vectors, 2, axis=0)


def _rows(part: Vectors, head: LinearHead, precision: int, batch: str) -> Rows:
    if part.vectors.shape[1] != head.width:
        raise NotComparable(f"vectors of {part.vectors.shape[1]} components after {head.width}; import one model")
    small, scales = quantise(part.vectors)
    return Rows(
        signatures=signatures(head, part.vectors),
        cells=encode_many(part.lon, part.lat, precision),
        times_us=part.times_us,
        owners=np.arange(len(part.ids)),
        keys=[f"{batch}:{n}{_BEHIND}{name}".encode() for n, name in enumerate(part.ids)],
        descriptors=small,
        scales=scales,
    )
