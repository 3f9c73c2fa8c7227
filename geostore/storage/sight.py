"""The view a store looks at: the writer's own, the writer's seen from outside, or a private one."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import lmdb

from geostore.errors import Corrupt
from geostore.storage import follow
from geostore.storage.files import Files, LocalFiles
from geostore.storage.lock import is_held
from geostore.storage.scratch import Scratch, sweep
from geostore.storage.settle import settle
from geostore.storage.tables import SlotTable
from geostore.storage.view import Rotten, View

T = TypeVar("T")
_WAIT_S, _STEP_S = 0.5, 0.005  # a reader's patience with a writer between its commit and its view


class Sight:
    """Opens the right view for a store, keeps it level with the tables, and makes it anew when it rots.

    Args:
        files: the store's bytes.
        tables: the table of every slot.
        store_id: what the view must belong to.
        size_bytes: first size of the view's map.
        changing: held while the view is replaced, and by whoever commits.
        readonly: True if the store is not written from here.
    """

    def __init__(
        self,
        files: Files,
        tables: Mapping[int, SlotTable],
        store_id: str,
        *,
        size_bytes: int,
        changing: threading.RLock,
        readonly: bool,
    ) -> None:
        self.files, self.tables, self.store_id, self.size_bytes = files, tables, store_id, size_bytes
        self.readonly = readonly
        self._changing = changing
        self._numbers: dict[int, dict[tuple[str, str], int]] = {}
        self._scratch: Scratch | None = None
        self._shared, self._inode = False, 0
        self._broken: Corrupt | None = None
        self._opened: View | None = None
        sweep()
        try:
            self._opened = self._open_view()
        except Corrupt as error:  # so that `verify` can say all that is wrong
            self._broken = error

    @property
    def path(self) -> Path:
        """Where the view lies: in the store for a local writer, else in a temporary folder."""
        if self._scratch is not None:
            return self._scratch.path
        assert self.files.local is not None
        return self.files.local / follow.VIEW

    @property
    def view(self) -> View:
        """The open view; raises what kept it from being made."""
        if self._opened is None:
            raise self._broken or Corrupt(f"{self.files.url} has no view; run `geostore rebuild`")
        return self._opened

    def _open_view(self) -> View:
        if self.readonly or self.files.local is None:
            return self._shared_view() or self._private_view()
        if isinstance(self.files, LocalFiles) and not follow.was_closed(self.path):
            settle(self.files, [table.root for table in self.tables.values()])
        try:
            view, empty = follow.open_own(self.path, self.size_bytes, self.store_id)
        except (OSError, lmdb.Error):
            return self._private_view()
        try:
            if not empty and follow.follow(view, self.tables):
                return view
        except Rotten:
            pass
        except BaseException:
            view.close()
            raise
        view.close()
        return self._new_view()

    def _new_view(self) -> View:
        """An own view made from the tables; a private one where the store's disk does not take it."""
        try:
            view = follow.anew(self.path, self.size_bytes)
        except (OSError, lmdb.Error):
            return self._private_view()
        try:
            follow.fill(view, self.tables, self.store_id)
        except Rotten:
            view.close()
            return self._private_view()
        except BaseException:
            view.close()
            raise
        return view

    def _shared_view(self) -> View | None:
        """The writer's own view, if this machine has it and it is level with the tables."""
        if self.files.local is None:
            return None
        view = follow.open_shared(self.files.local / follow.VIEW, self.size_bytes, self.store_id)
        if view is None:
            return None
        try:
            if self._is_level(view):
                self._inode = (self.path / "data.mdb").stat().st_ino
                self._shared = True
                return view
        except (Rotten, OSError):
            pass
        except Corrupt:
            view.close()
            raise
        view.close()
        return None

    def _is_level(self, view: View) -> bool:
        """Wait a moment for a writer that has committed and is about to say so in its view."""
        until = time.monotonic() + _WAIT_S
        while not follow.is_level(view, self.tables):
            if self.files.local is None or not is_held(self.files.local) or time.monotonic() > until:
                return False
            time.sleep(_STEP_S)
        return True

    def _private_view(self) -> View:
        self._scratch, self._shared = Scratch("view"), False
        view = View(self._scratch.path, size_bytes=self.size_bytes)
        try:
            follow.fill(view, self.tables, self.store_id)
        except BaseException:
            view.close()
            self._drop_scratch()
            raise
        return view

    def _drop_scratch(self) -> None:
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            scratch.close()

    def close(self, *, clean: bool) -> None:
        """Let go of the view; `clean` brings an own one to the disk, so that it outlives a power loss."""
        view, self._opened = self._opened, None
        if view is None:
            return
        if clean and self._scratch is None and not self.readonly:
            with contextlib.suppress(OSError, lmdb.Error):  # then the next one is made anew
                view.sync()
                follow.mark(self.path, clean=True)
        view.close()
        self._drop_scratch()

    def renew(self) -> None:
        """Throw the view away and build it from the tables."""
        self._numbers.clear()
        self.close(clean=False)
        own = not self.readonly and self.files.local is not None
        self._opened = self._new_view() if own else self._private_view()
        self._broken = None

    def see(self, look: Callable[[View], T]) -> T:
        """`look` at the view; if that is found to be rotten, build it again and look once more.

        Raises:
            Corrupt: the new one is rotten too, or the tables are.
        """
        view = self._opened
        if view is None:  # it is being made anew
            with self._changing:
                view = self.view
        try:
            return look(view)
        except Rotten as error:
            with self._changing:
                if self.view is view:
                    self.renew()
                try:
                    return look(self.view)
                except Rotten:
                    raise Corrupt(f"{self.files.url}: the view rots as it is built: {error}; check the disk") from error

    def refresh(self) -> None:
        """See what was committed since: by a writer elsewhere, if this store is read-only."""
        with self._changing:
            if self._shared:
                self._refresh_shared()
                return
            try:
                level = follow.follow(self.view, self.tables)
            except Rotten:
                level = False
            self._numbers.clear()
            if not level:
                self.renew()

    def _refresh_shared(self) -> None:
        """Wait for the writer's view; if the writer made a new one, or is gone, open another."""
        with contextlib.suppress(Rotten, OSError):
            if (self.path / "data.mdb").stat().st_ino == self._inode and self._is_level(self.view):
                return
        self.close(clean=False)
        self._opened = self._shared_view() or self._private_view()

    def numbers(self, slot: int) -> dict[tuple[str, str], int]:
        """The number of every (collection, scene id) a slot names; to be changed through `learn`."""
        if slot not in self._numbers:
            self._numbers[slot] = {named: n for n, named in self.view.numbers(slot).items()}
        return dict(self._numbers[slot])

    def learn(self, changes: list[follow.Change], numbers: Mapping[int, dict[tuple[str, str], int]]) -> None:
        """Take in what was just committed, and the scene numbers it gave."""
        self._numbers.update(numbers)
        try:
            self.view.apply(changes)
        except Rotten:
            self.renew()

    def check(self) -> None:
        """Read every record of the view, and compare it with one made anew from the tables.

        Raises:
            Rotten: a record fails its checksum, is missing or too many.
        """
        if follow.is_level(self.view, self.tables):
            follow.compare(self.view, self.tables, self.store_id, self.size_bytes)

    def size(self) -> int:
        """Bytes it takes on this machine's disk."""
        return sum(p.stat().st_blocks * 512 for p in self.path.glob("*") if p.is_file())
