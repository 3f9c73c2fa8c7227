"""An index of vectors that others made, in a space of its own: search by a foundation model, decode by the local codec.

    <folder>/model.json   whose vectors these are
    <folder>/head.bin     what makes signatures of them
    <folder>/rows/        the segments

A hit names the row as its file does, and a cell; rasters of that cell are decoded as ever.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from geostore.durable import write_whole
from geostore.errors import Corrupt, InvalidInput, NotComparable, NotFound
from geostore.index.encoders import direction
from geostore.index.filters import ALL, Filter
from geostore.index.ranked import Query, ranked
from geostore.index.rerank import quantise
from geostore.index.rows import Rows, Space
from geostore.index.segment import Segment
from geostore.index.segments import Segments
from geostore.index.signatures import LinearHead, digest, linear_from_bytes, rotation, signatures
from geostore.index.vectors import Floats, Surveyed, Vectors, read_vectors, survey
from geostore.partition.geohash import encode_many, name_of

PRECISION = 6  # of the cells of rows: about 1.2 x 0.6 km
_SAMPLE = 50_000  # rows that the head is fitted on
_UNDER_WAY = "importing"  # a folder in the index's, which what was read takes the place of the old from
_BEHIND = "\t"  # a key is file and row, this, and the id: ids need not be unique


Progress = Callable[[str, float], None]  # (what is being done, share done 0..1); may raise Cancelled


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
        return [Neighbour(_id(m.key), m.geohash, m.time_us, m.score) for m in found]

    def vector_of(self, name: str) -> Floats:
        """The (D,) vector of the row of that id, to be looked near; the mean where several rows have it.

        Raises:
            NotFound: no row has it.
        """
        wanted = f"{_BEHIND}{name}".encode()
        found = []
        for part in self.rows.parts:
            keys = part.segment.keys
            owners = [at for at in range(len(keys)) if keys[at].endswith(wanted) and _id(keys[at]) == name]
            found.append(_vectors(part.segment, np.flatnonzero(np.isin(part.segment.owners, owners))))
        return self._mean(
            found, f"no row {name!r} among the {len(self)} of {self.model}; ids are as their files have them"
        )

    def vector_at(self, lon: float, lat: float) -> Floats:
        """The (D,) mean vector of the rows in the cell at a longitude and latitude.

        Raises:
            NotFound: no row lies there. InvalidInput: it is not on Earth.
        """
        if not (-180 <= lon <= 180 and -90 <= lat <= 90):
            raise InvalidInput(f"{lon}, {lat} is not on Earth; use -180..180 and -90..90 degrees, longitude first")
        code = encode_many(np.array([lon]), np.array([lat]), self.rows.precision)[0]
        found = [_vectors(p.segment, np.flatnonzero(p.segment.cells == code)) for p in self.rows.parts]
        cell = name_of(int(code), self.rows.precision)
        return self._mean(found, f"no row of {self.model} lies in {cell}, the cell of {lon}, {lat}")

    def _mean(self, found: Sequence[Floats], missing: str) -> Floats:
        vectors = np.concatenate([np.zeros((0, self.head.width), np.float32), *found])
        if not len(vectors):
            raise NotFound(missing)
        return np.asarray(vectors.mean(axis=0), np.float32)


def _id(key: bytes) -> str:
    """Of a row, as its file names it."""
    return key.decode().partition(_BEHIND)[2]


def _vectors(segment: Segment, rows: npt.NDArray[np.int64]) -> Floats:
    """(M, D) float32."""
    assert segment.descriptors is not None
    assert segment.scales is not None
    return np.asarray(segment.descriptors[rows].astype(np.float32) * segment.scales[rows, None])


def import_vectors(
    paths: Sequence[Path], folder: Path, *, model: str = "", bits: int = 128, precision: int = PRECISION,
    acquired: datetime | None = None, progress: Progress = lambda _, __: None,
) -> Imported:  # fmt: skip
    """Read GeoParquet files into an index in `folder`, in place of one of the same model that is there.

    That one stays until all files are read, whatever goes wrong meanwhile.

    Args:
        paths: files of one model's vectors.
        folder: where the index goes.
        model: name and version of what made the vectors; the convention's name if left out. Vectors of different
            versions of a model are not comparable: give each its own name and folder.
        bits: of a signature.
        precision: geohash length of the rows' cells.
        acquired: the time of all rows, where a file tells none.
        progress: told while rows are read; may raise to stop.

    Raises:
        NotFound: a file is not there. NotComparable: files of different conventions or widths, or a folder with the
            vectors of another model. InvalidInput: no files; a file lacks vectors, places or times, or holds none that
            can be used.
    """
    files = survey_all(paths, acquired=acquired)
    name = model or files[0].convention.name
    _check_folder(folder, name)
    fresh = folder / _UNDER_WAY
    try:
        head, left_out = _read(files, fresh, name, bits, precision, acquired, progress)
        _take_over(folder, fresh, name, head)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    progress("import", 1.0)
    return Imported(name, head, Segments.open(folder / "rows"), left_out)


def survey_all(paths: Sequence[Path], *, acquired: datetime | None = None) -> list[Surveyed]:
    """What each file holds, if they can be imported together; nothing is written.

    Raises:
        NotFound, NotComparable, InvalidInput: as `import_vectors`.
    """
    if not paths:
        raise InvalidInput("paths = []; give the GeoParquet files of one model's vectors")
    found = [survey(path, acquired=acquired) for path in paths]
    names = {f.convention.name for f in found}
    if len(names) != 1:
        raise NotComparable(f"files in the columns of {sorted(names)}; import each convention into an index of its own")
    return found


def _read(
    files: Sequence[Surveyed], folder: Path, name: str, bits: int, precision: int, acquired: datetime | None,
    progress: Progress,
) -> tuple[LinearHead, int]:  # fmt: skip
    """Rows of files as segments in `folder`; their head, and how many rows were left out."""
    head, rows, left_out, seen = None, None, 0, 0
    total = max(sum(f.rows for f in files), 1)
    for number, file in enumerate(files):
        for start, part in enumerate(read_vectors(file.path, acquired=acquired)):
            progress(f"reading {file.path.name}", seen / total)
            seen += len(part.vectors) + part.left_out
            left_out += part.left_out
            if not len(part.vectors):
                continue
            if head is None:
                head = rotation(_two(part.vectors[:_SAMPLE]), bits)
                rows = Segments.create(folder / "rows", _space(name, head), precision)
            assert rows is not None
            rows.append(_rows(part, head, precision, f"{number}:{start}"))
    if head is None:
        raise NotFound(f"no vector that can be used in {[str(f.path) for f in files]}; {left_out} rows were left out")
    return head, left_out


def _take_over(folder: Path, fresh: Path, name: str, head: LinearHead) -> None:
    """Put what was read in the place of what was there; without `model.json`, written last, nothing counts."""
    (folder / "model.json").unlink(missing_ok=True)
    shutil.rmtree(folder / "rows", ignore_errors=True)
    (fresh / "rows").replace(folder / "rows")
    write_whole(folder / "head.bin", lambda stream: stream.write(head.to_bytes()))
    facts = json.dumps({"model": name, "head": digest(head)}).encode()
    write_whole(folder / "model.json", lambda stream: stream.write(facts))


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
