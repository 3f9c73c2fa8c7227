"""Cells of the rate-distortion bench: one place through one codec at one setting, measured once, kept on disk."""

from __future__ import annotations

import ast
import hashlib
import json
import lzma
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench import classical_baselines, rd_ours
from bench.harness import commit
from bench.rd_curves import Point, errors, violations
from bench.rd_masks import UNMASKED, mask_sizes, recounted
from bench.rd_places import Place, load
from geostore.codec import Effort

_PACKAGE = Path(rd_ours.__file__).parents[1] / "geostore"
_CODING = tuple(f"coding/{name}.py" for name in ("__init__", "logistic", "planes", "rangecoder", "residual", "sparse"))
_COMMON = ("codec.py", "certificate.py", "spectral.py", "classical", *_CODING)  # what every cell of ours depends on
_BODIES = ("coding/bodies.py", "coding/bodies.json")
_FOLDERS: dict[str, tuple[str, ...]] = {"klt-av1": (), "klt-dct": ("dct", *_BODIES)}  # and what those of a family do
_STORED = ("node/encode.py", "vae", "dct", *_BODIES)
_COMPILED = "compiled"  # a decorator that changes speed alone
NEEDS = {"SZ3": "pysz"}


@dataclass(frozen=True)
class Cell:
    """What is to be measured.

    Attributes:
        place, codec, variant: names; a curve is one of each.
        setting: what the codec is asked for, in its own words.
        family: geostore's codec family; "" for a classical codec.
        effort: optimiser steps and seed of a fit.
        bound: largest error and largest index error that are promised, or None.
    """

    place: str
    codec: str
    variant: str
    setting: dict[str, Any]
    family: str = ""
    effort: tuple[int, int] = (0, 0)
    bound: tuple[float | None, float | None] = (None, None)

    @property
    def fingerprint(self) -> str:
        """Changes with everything the result depends on: the cell, the place's pixels, the code."""
        said = json.dumps(asdict(self), sort_keys=True) + _pixels_digest(self.place)
        return hashlib.sha256((said + _code_digest(self.family, "as_stored" in self.setting)).encode()).hexdigest()[:20]


@lru_cache(maxsize=2)
def place_of(name: str) -> Place | None:
    """The place, loaded once a process."""
    return load(name)


@lru_cache
def _pixels_digest(name: str) -> str:
    place = place_of(name)
    return "" if place is None else hashlib.sha256(place.series.pixels.tobytes()).hexdigest()


@lru_cache
def _code_digest(family: str, as_stored: bool) -> str:
    files = [Path((rd_ours if family else classical_baselines).__file__)]
    parts = _STORED if as_stored else _FOLDERS.get(family, ("vae",))
    for name in (*_COMMON, *parts) if family else ():
        path = _PACKAGE / name
        files += sorted(f for f in path.rglob("*") if f.is_file() and "__pycache__" not in f.parts) or [path]
    return hashlib.sha256(b"".join(_said(f) for f in files)).hexdigest()


def _said(path: Path) -> bytes:
    """What a source says to be done: no comments, docstrings, imports, and nothing on how loops are compiled."""
    if path.suffix != ".py":
        return path.read_bytes()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [n for n in body if not _is_unsaid(n)]  # type: ignore[attr-defined]
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = [d for d in node.decorator_list if ast.unparse(d).split("(")[0] != _COMPILED]
    return ast.unparse(tree).encode()


def _is_unsaid(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, ast.Import | ast.ImportFrom)


def measure(cell: Cell) -> Point:
    """Run one cell, in whatever process this is."""
    place = place_of(cell.place)
    assert place is not None, f"{cell.place} was planned but is not here"
    if cell.family:
        effort = Effort(steps=cell.effort[0], seed=cell.effort[1], device="cpu")
        return rd_ours.measure(place, cell.codec, cell.variant, cell.family, cell.setting, effort)
    return _classical(cell, place)


def _classical(cell: Cell, place: Place) -> Point:
    begun = time.monotonic()
    series = place.series
    coded = classical_baselines.CODERS[cell.codec](series, cell.setting)
    masks = mask_sizes(place) * (cell.codec != UNMASKED)
    total, every = coded.nbytes + int(masks.sum()), np.ones(len(series), bool)
    largest, index = cell.bound
    return Point(
        place=cell.place,
        codec=cell.codec,
        variant=cell.variant,
        setting=cell.setting,
        nbytes=total,
        marginal=total,
        unseen_bytes=float(coded.nbytes * place.unseen.mean() + masks[place.unseen].sum()),
        every=errors(series, coded.pixels, every),
        seen=errors(series, coded.pixels, ~place.unseen),
        unseen=errors(series, coded.pixels, place.unseen),
        violations=violations(series, coded.pixels, max_error=largest, index_max=index) if any(cell.bound) else None,
        seconds=round(time.monotonic() - begun, 2),
        facts={"mask_bytes": int(masks.sum())},
    )


@dataclass
class Workshop:
    """Measures cells, several at a time, and keeps each on disk as soon as it is done.

    Attributes:
        folder: results already there are read, not measured again, unless code or data have changed.
        archive: file of those of earlier runs, on whatever machine, which are read alike; see `pack`.
        workers: processes; 0 measures in this one, None measures nothing and takes what is there.
        left: cells that were not measured.
        failed: (cell, what went wrong), for cells that raised.
    """

    folder: Path
    workers: int | None
    archive: Path | None = None
    left: list[Cell] = field(default_factory=list)
    failed: list[tuple[Cell, str]] = field(default_factory=list)
    found: dict[str, Point] = field(default_factory=dict)

    @cached_property
    def packed(self) -> dict[str, dict[str, Any]]:
        """Points of the archive, as tables, by fingerprint."""
        if self.archive is None or not self.archive.exists():
            return {}
        read: dict[str, dict[str, Any]] = json.loads(lzma.decompress(self.archive.read_bytes()))
        return read

    def pack(self) -> None:
        """Write the archive anew: what was found, and what it held of places that were not looked at."""
        assert self.archive is not None, "only what has an archive is packed"
        places = {point.place for point in self.found.values()}
        others = {key: table for key, table in self.packed.items() if table["place"] not in places}
        every = others | {key: point.to_dict() for key, point in self.found.items()}
        self.archive.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.archive.with_suffix(".new")
        fresh.write_bytes(lzma.compress(json.dumps(every, sort_keys=True).encode()))
        fresh.replace(self.archive)

    def run(self, cells: Sequence[Cell], title: str) -> list[Point]:
        """Points of `cells`, in their order, without those that failed."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description:<48}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(title, total=len(cells))
            for cell, point in self._points(cells):
                progress.update(task, advance=1, description=f"{title}: {cell.place}, {cell.codec}")
                if point is not None:
                    self.found[cell.fingerprint] = point
        return [self.found[c.fingerprint] for c in cells if c.fingerprint in self.found]

    def _points(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Point | None]]:
        todo = []
        for cell in cells:
            path = self._path(cell)
            table = json.loads(path.read_text()) if path.exists() else self.packed.get(cell.fingerprint)
            if table is not None:
                yield cell, _kept(table)
            else:
                todo.append(cell)
        if self.workers is None:
            self.left += todo
        else:
            yield from self._measured(todo, self.workers)

    def _measured(self, cells: Iterable[Cell], workers: int) -> Iterator[tuple[Cell, Point | None]]:
        if not workers:
            for cell in cells:
                yield cell, self._keep(cell, _attempt(cell))
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=_one_thread) as pool:
            running = {pool.submit(_attempt, cell): cell for cell in cells}
            for done in as_completed(running):
                yield running[done], self._keep(running[done], done.result())

    def _path(self, cell: Cell) -> Path:
        return self.folder / cell.place / f"{cell.fingerprint}.json"

    def _keep(self, cell: Cell, result: Point | str) -> Point | None:
        if isinstance(result, str):
            self.failed.append((cell, result))
            return None
        result = replace(result, commit=commit())
        path = self._path(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(result.to_dict()))
        fresh.replace(path)
        return result


def _kept(table: Mapping[str, Any]) -> Point:
    """What was measured before, its masks counted as they are kept today."""
    point = Point.from_dict(table)
    place = place_of(point.place)
    assert place is not None, "only cells of places that are here are planned"
    return recounted(point, place)


def _attempt(cell: Cell) -> Point | str:
    """The point, or what went wrong: one codec's failure must not lose the others' hours."""
    try:
        return measure(cell)
    except Exception as error:  # noqa: BLE001 - told in the result
        return f"{type(error).__name__}: {error}"


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)


def missing(codec: str) -> str:
    """The package that `codec` needs and that is not installed; "" if it can run."""
    package = NEEDS.get(codec, "")
    return package if package and find_spec(package) is None else ""
