"""A store beside a plain dict: whatever is done to it, it answers the same."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from storage_rows import codec, embedding, key, partition, raster

from geostore.keys import RasterKey
from geostore.storage import RasterRow, Store

CELLS = ("9qdfr", "9qdfx", "u33db")
days = st.integers(0, 3)
cells = st.sampled_from(CELLS)


class StoreBesideDict(RuleBasedStateMachine):
    """Random commits, withdrawals and upkeep; the model keeps what a key's current row must be."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="geostore-test-"))
        self.store = Store.create(self.root / "s", slots=2)
        self.reader = Store.open(self.root / "s", readonly=True)
        self.rows: dict[RasterKey, list[RasterRow]] = {}

    @initialize()
    def declare(self) -> None:
        self.store.commit([codec(c) for c in CELLS])

    def _commit(self, row: RasterRow) -> None:
        self.store.commit([row])
        self.rows.setdefault(row.key, []).append(row)

    @rule(day=days, cell=cells, revision=st.integers(0, 2), seed=st.integers(0, 9), large=st.booleans())
    def put(self, day: int, cell: str, revision: int, seed: int, large: bool) -> None:
        self._commit(raster(day, cell, revision=revision, seed=seed, size=20_000 if large else 50))

    @rule(day=days, cell=cells, generation=st.integers(1, 3), revision=st.integers(0, 2), seed=st.integers(0, 9))
    def fit(self, day: int, cell: str, generation: int, revision: int, seed: int) -> None:
        self._commit(embedding(day, cell, generation=generation, revision=revision, seed=seed))

    @rule(day=days, cell=cells)
    def withdraw(self, day: int, cell: str) -> None:
        current = self._current().get(key(day, cell))
        if current is not None:
            self.store.commit([replace(current, op="withdraw", payload=b"", valid=b"", certificate=None)])
            kept = [r for r in self.rows[current.key] if r.revision > current.revision]
            self.rows[current.key] = kept

    @rule(again=st.booleans())
    def reopen(self, again: bool) -> None:
        self.store.close()
        self.store = Store.open(self.root / "s")
        if again:
            self.store.rebuild()

    @rule(days_kept=st.sampled_from([0, 7]))
    def compact(self, days_kept: int) -> None:
        self.store.compact(retain_days=days_kept)

    @rule(days_kept=st.sampled_from([0, 7]))
    def prune(self, days_kept: int) -> None:
        self.store.prune(retain_days=days_kept)
        self.rows = {k: [row] for k, row in self._current().items()}

    @invariant()
    def answers_are_the_models(self) -> None:
        want = self._current()
        self.reader.refresh()
        for store in (self.store, self.reader):
            found = {r.key: r for c in CELLS for r in store.rasters(partition(c))}
            assert found == want

    def _current(self) -> dict[RasterKey, RasterRow]:
        """The last of the highest (revision, generation) of each key."""
        return {
            k: max(enumerate(rows), key=lambda item: (item[1].revision, item[1].generation, item[0]))[1]
            for k, rows in self.rows.items()
            if rows
        }

    def teardown(self) -> None:
        assert self.store.verify() == []
        self.reader.close()
        self.store.close()
        shutil.rmtree(self.root)


TestStoreBesideDict = StoreBesideDict.TestCase
TestStoreBesideDict.settings = settings(
    max_examples=8, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
