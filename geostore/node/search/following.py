"""Indexes kept level with the tables: what was committed is described, what stands no more goes, labels follow."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from geostore.codec import quiet
from geostore.errors import Corrupt, Unavailable, UnsupportedFormat
from geostore.index.rows import Rows
from geostore.keys import PartitionKey, RasterKey
from geostore.node.search.describe import gather
from geostore.node.search.labelling import Labelling, labelling_of, relabelled
from geostore.node.search.levels import FOLDER, LETTERS, RASTER, Levels, borrow, locked, usable
from geostore.node.search.models import SearchModel, bands_digest, newest_model
from geostore.node.search.parts import underway
from geostore.query.messages import Progress
from geostore.raster import Bands
from geostore.storage import EventRow, Finding
from geostore.storage.scratch import Scratch
from geostore.storage.standing import State, changes_since, numbers_in, numbers_of, state_of

if TYPE_CHECKING:
    from geostore.node.node import Node

BATCH = 256  # rasters described between two appends
Models = dict[str, tuple[SearchModel, list[PartitionKey]]]
Stamp = tuple[int, int]  # sequence number of the row, time of the last label


@dataclass(frozen=True)
class Spoken:
    """What events say, as of one version of the slot they lie in."""

    version: int
    events: tuple[EventRow, ...]
    labelling: Labelling


class Following:
    """The indexes of one node. Threads may share it; one brings an index level while others wait for that.

    A store's index lies in `.index` of a local store, where any process that may write there brings it level, one at a
    time; else in a temporary folder of this process, which goes on from what lies in the store.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.RLock()
        self._locks: dict[str, threading.RLock] = {}
        self._levels: dict[str, Levels] = {}
        self._models: dict[str, SearchModel] = {}
        self._spoken: Spoken | None = None
        self._known: tuple[dict[int, int], Models] | None = None
        self._scratch: Scratch | None = None
        self._root: Path | None = None

    @property
    def root(self) -> Path:
        """The folder of all indexes."""
        with self._lock:
            if self._root is None:
                self._root = usable(self._node.store.files.local)
            if self._root is None:
                self._scratch = Scratch("index")
                self._root = self._scratch.path
            return self._root

    @property
    def disposable(self) -> bool:
        """True if it goes with this process."""
        return self.root is not None and self._scratch is not None

    def size(self) -> int:
        """Bytes of all index files on this machine's disk; nothing is made to tell it."""
        local = self._node.store.files.local
        root = self._root or (local / FOLDER if local is not None else None)
        return 0 if root is None else sum(p.stat().st_size for p in root.rglob("*") if p.is_file())

    def verify(self) -> list[Finding]:
        """What is wrong with the indexes on the disk; they only repeat the tables."""
        found = []
        for model, _ in self.models().values():
            levels, _ = self.on_disk(model)
            wrong = [("", levels.damage)] if levels.damage else []
            for (kind, precision), index in sorted(levels.indexes.items()):
                try:
                    index.verify()
                except Corrupt as error:
                    wrong.append((f"/{kind}-{precision}", str(error)))
            found += [
                Finding("index", f"{FOLDER}/{model.name}{where}", f"{what}; run `geostore index build --anew`")
                for where, what in wrong
            ]
        return found

    def close(self) -> None:
        """Let go of what is open."""
        with self._lock:
            self._levels.clear()
            scratch, self._scratch = self._scratch, None
            if scratch is not None:
                scratch.close()

    def spoken(self) -> Spoken:
        """What events say now."""
        store = self._node.store
        home = store.slot_of_scene(store.id)
        version = store.see(lambda view: view.state(home)[0].version)
        with self._lock:
            if self._spoken is None or self._spoken.version != version:
                events = tuple(store.events())
                same = self._spoken is not None and self._spoken.events == events
                labelling = self._spoken.labelling if same and self._spoken else labelling_of(events)
                self._models = self._models if same else {}
                self._spoken = Spoken(version, events, labelling)
            return self._spoken

    def model(self, bands: Bands) -> SearchModel:
        """What rasters of these bands are searched by now."""
        with self._lock:
            spoken, name = self.spoken(), bands_digest(bands)
            if name not in self._models:
                self._models[name] = newest_model(self._node, bands, spoken.events)
            return self._models[name]

    def models(self) -> Models:
        """Every model that stored rasters need, and their partitions, by the model's name; looked up once a state."""
        state = {slot: s.version for slot, s in state_of(self._node.store).items()}
        with self._lock:
            if self._known is not None and self._known[0] == state:
                return self._known[1]
        found = self._looked_up()
        with self._lock:
            self._known = state, found
        return found

    def _looked_up(self) -> Models:
        found: dict[str, tuple[SearchModel, list[PartitionKey]]] = {}
        known: dict[tuple[str, str], SearchModel] = {}
        for partition in self._node.store.partitions():
            kind = partition.collection, partition.group
            if kind not in known:
                known[kind] = self.model(self._node.store.collection(kind[0]).groups[kind[1]])
            found.setdefault(known[kind].name, (known[kind], []))[1].append(partition)
        return found

    def level(
        self,
        model: SearchModel,
        progress: Progress = quiet,
        *,
        anew: bool = False,
        partitions: Sequence[PartitionKey] | None = None,
    ) -> Levels:
        """The indexes of a model, level with the tables as they are seen here.

        Args:
            model: what makes their rows.
            progress: told while rasters are described; may raise to stop, and what was done stays.
            anew: throw away what is there first.
            partitions: what the index covers, where the model is not in use yet.
        """
        folder = self.root / model.name
        with self._own_lock(model.name):
            now = state_of(self._node.store)
            kept = self._levels.get(model.name)
            if kept is None or anew or not kept.holds(now):
                with locked(folder):
                    kept = self._lying(model, now)
                    if kept.folder != folder and (anew or not kept.holds(now)):
                        borrow(kept.folder, folder)
                        kept = Levels.open(folder, model.space, self._node.store.id)
                    if anew or kept.damage:
                        kept.clear()
                    if not kept.holds(now):
                        self._follow(model, kept, now, partitions, progress)
                self._levels[model.name] = kept
            return kept.frozen()

    def _lying(self, model: SearchModel, now: State) -> Levels:
        """The indexes of a model as they lie: in the folder of this process, or in the store, if these know more."""
        mine = Levels.open(self.root / model.name, model.space, self._node.store.id)
        local = self._node.store.files.local
        if mine.holds(now) or local is None or not self.disposable:
            return mine
        with contextlib.suppress(UnsupportedFormat):  # a newer geostore's is left alone
            theirs = Levels.open(local / FOLDER / model.name, model.space, self._node.store.id)
            if theirs.state and not mine.holds(theirs.state):
                return theirs
        return mine

    def _own_lock(self, name: str) -> threading.RLock:
        """The lock of one model: while one is made, questions are answered by another."""
        with self._lock:
            return self._locks.setdefault(name, threading.RLock())

    def on_disk(self, model: SearchModel) -> tuple[Levels, bool]:
        """The indexes of a model as they lie, and whether they are behind the tables."""
        now = state_of(self._node.store)
        found = self._lying(model, now)
        return found, not found.holds(now) and self._owes(model, found, now)

    def _owes(self, model: SearchModel, levels: Levels, now: State) -> bool:
        """Whether rows may have to be made, changed or dropped to be level; commits of jobs ask for none."""
        store, held = self._node.store, self.models().get(model.name, (model, []))[1]
        changes = changes_since(store, levels.state, now)
        new = changes.slots - levels.state.keys()  # their rows are those of partitions there are
        if changes.keys or changes.slots - new or any(store.slot_of(p.geohash) in new for p in held):
            return True
        stamps = self.spoken().labelling.stamps
        there = (index.stamps(stamps) for index in levels.indexes.values())
        return any(stamp[1] != stamps[key] for found in there for key, stamp in found.items())

    def convert(self, levels: Levels, newer: SearchModel) -> None:
        """Make the indexes of `newer`, which has the same descriptors, out of those of the model before it."""
        folder = self.root / newer.name
        with self._own_lock(newer.name), locked(folder):
            made = Levels(folder, newer.space, self._node.store.id)
            made.clear()
            for (kind, precision), index in levels.indexes.items():
                rows = index.everything()
                if rows is not None:
                    assert rows.descriptors is not None
                    assert rows.scales is not None
                    made.append(kind, precision, replace(rows, signatures=newer.sign(rows.descriptors, rows.scales)))
            made.note(levels.state)

    def forget_others(self) -> None:
        """Remove the folders of models that no raster needs any more, unless an upgrade that was interrupted may."""
        if underway(self.root):
            return
        kept = self.models()
        for path in self.root.glob("*"):
            if path.is_dir() and path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)
                path.with_suffix(".lock").unlink(missing_ok=True)
        with self._lock:
            self._levels = {name: levels for name, levels in self._levels.items() if name in kept}

    def forget_lost(self) -> None:
        """Let go of indexes whose folder was deleted, which questions would go on to read from memory."""
        with self._lock:
            self._levels = {name: levels for name, levels in self._levels.items() if levels.folder.is_dir()}

    def _follow(
        self, model: SearchModel, levels: Levels, now: State, mine: Sequence[PartitionKey] | None, progress: Progress
    ) -> None:
        """Bring `levels` to `now`.

        Raises:
            Unavailable: the index was upgraded, or its folder deleted, meanwhile.
        """
        if mine is None:
            found = self.models().get(model.name)
            if found is None:
                raise Unavailable(f"the index of {model.name} was upgraded meanwhile; ask again")
            mine = found[1]
        try:
            self._catch_up(model, levels, now, mine, progress)
        except FileNotFoundError as error:
            raise Unavailable(f"the index in {levels.folder} was deleted while it was made; ask again") from error

    def _catch_up(
        self, model: SearchModel, levels: Levels, now: State, mine: Sequence[PartitionKey], progress: Progress
    ) -> None:
        labelling = self.spoken().labelling
        truth, known = self._compared(levels, now, mine)
        wanted = {key: (number, labelling.stamp(key.to_bytes())) for key, number in truth.items()}
        levels.drop(known.keys() - {key.to_bytes() for key in truth})
        fresh = [key for key, stamp in wanted.items() if known.get(key.to_bytes(), (-1, 0))[0] != stamp[0]]
        self._describe(model, levels, sorted(fresh), {k.to_bytes(): s for k, s in wanted.items()}, progress)
        self._label(levels, labelling)
        levels.note(now)

    def _compared(
        self, levels: Levels, now: State, mine: Sequence[PartitionKey]
    ) -> tuple[dict[RasterKey, int], dict[bytes, Stamp]]:
        """What stands, and what the index has of it: of the rasters that may have changed."""
        store, partitions = self._node.store, set(mine)
        changes = changes_since(store, levels.state, now)
        if changes.slots:
            whole = [p for p in mine if store.slot_of(p.geohash) in changes.slots]
            truth = numbers_in(store, whole)
            every = levels.stamps().items()
            known = {k: s for k, s in every if store.slot_of(RasterKey.from_bytes(k).geohash) in changes.slots}
        else:
            truth, known = {}, {}
        keys = [key for key in changes.keys if key.partition in partitions]
        truth |= numbers_of(store, keys)
        gone = {key.to_bytes(): (-1, 0) for key in keys}
        return truth, {**gone, **known, **levels.stamps(gone)}

    def _describe(
        self, model: SearchModel, levels: Levels, keys: Sequence[RasterKey], stamps: Mapping[bytes, Stamp],
        progress: Progress,
    ) -> None:  # fmt: skip
        """Describe rasters and append their rows, chips first."""
        labelling, done = self._labelling_of(levels), 0
        for precision in sorted({len(key.geohash) for key in keys}):
            mine = [key for key in keys if len(key.geohash) == precision]
            for batch in (mine[i : i + BATCH] for i in range(0, len(mine), BATCH)):
                progress("describe", done / len(keys))
                names = {key.to_bytes() for key in batch}
                found = gather(self._node, model, batch, stamps)
                for kind in sorted(found, key=lambda kind: kind == RASTER):
                    levels.drop(names.difference(found[kind].keys), kind)
                    levels.append(kind, precision + LETTERS[kind], found[kind].rows(labelling))
                done += len(batch)

    def _labelling_of(self, levels: Levels) -> Labelling:
        """Today's labels, once the rows that are there follow today's legend."""
        labelling = self.spoken().labelling
        for index in levels.indexes.values():
            legends = {None if p.segment.labels is None else p.segment.labels.legend.name for p in index.parts}
            if labelling.legend is not None and legends - {labelling.legend.name}:
                index.replace(lambda rows: _with_labels(rows, labelling))
        return labelling

    def _label(self, levels: Levels, labelling: Labelling) -> None:
        """Rows of rasters that were labelled since get their labels."""
        stamps = labelling.stamps
        labelling = self._labelling_of(levels)
        for index in (levels.indexes[name] for name in sorted(levels.indexes)):
            there = index.stamps(stamps)
            behind = [key for key, stamp in there.items() if stamp[1] != stamps[key]]
            rows = index.take(behind) if behind else None
            if rows is not None:
                index.append(_with_labels(rows, labelling))


def _with_labels(rows: Rows, labelling: Labelling) -> Rows:
    """The same rows with the labels their rasters have now."""
    assert labelling.legend is not None
    assert rows.stamps is not None
    stamps = rows.stamps.copy()
    stamps[:, 1] = [labelling.stamp(key) for key in rows.keys]
    words = relabelled(labelling.legend, labelling, rows.keys, rows.owners)
    return replace(rows, labels=words, legend=labelling.legend, stamps=stamps)
