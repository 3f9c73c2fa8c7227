"""Node: the parts a verb needs, and the table from request to verb."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from geostore.codec import Codec, Families, quiet
from geostore.errors import BadRequest, Forbidden, NotFound
from geostore.keys import PartitionKey
from geostore.node import catalog, changes, decode, fit, index, label, maintain, put, similar, status, withdraw
from geostore.node.decoding import Decoding
from geostore.node.search.following import Following
from geostore.query import messages
from geostore.query.messages import Array, Progress, Reply, Request
from geostore.settings import Settings
from geostore.storage import CodecRow, Store

Verb = Callable[["Node", Any, tuple[Array, ...], Progress], Reply]

_VERBS: dict[type[Request], Verb] = {
    messages.Hello: catalog.hello,
    messages.Collections: catalog.collections,
    messages.PutCollection: catalog.put_collection,
    messages.Scenes: catalog.scenes,
    messages.Cells: catalog.cells,
    messages.Rasters: catalog.rasters,
    messages.Table: catalog.table,
    messages.Put: put.put,
    messages.Withdraw: withdraw.withdraw,
    messages.Decode: decode.decode,
    messages.Fit: fit.fit,
    messages.Similar: similar.similar,
    messages.Changes: changes.changes,
    messages.Label: label.label,
    messages.IndexStatus: index.index_status,
    messages.IndexBuild: index.index_build,
    messages.IndexUpgrade: index.index_upgrade,
    messages.PutEncoder: index.put_encoder,
    messages.Status: status.status,
    messages.Verify: maintain.verify,
    messages.Compact: maintain.compact,
    messages.Prune: maintain.prune,
    messages.Rebuild: maintain.rebuild,
    messages.Backup: maintain.backup,
    messages.Jobs: catalog.jobs,
}
_CODECS_KEPT = 64


class Node:
    """A store opened in this process, and the verbs on it.

    Reads may run from many threads; changes are taken one at a time.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.families = Families.installed().lent(lambda digest: store.blob("models", digest))
        self.changing = threading.RLock()
        self.following = Following(self)
        self.decoding = Decoding(settings.decode_threads)
        self._codecs: dict[tuple[PartitionKey, int], tuple[CodecRow, Codec]] = {}

    @classmethod
    def open(
        cls,
        url: str,
        *,
        settings: Settings | None = None,
        readonly: bool = False,
        create: bool = False,
        slots: int = 16,
        options: dict[str, str] | None = None,
    ) -> Self:
        """Open the store at `url` (made first if `create` and nothing is there).

        Raises:
            NotFound: no store there. StoreLocked: another writer holds it. UnsupportedFormat: a newer format.
        """
        settings = settings or Settings.load()
        try:
            store = Store.open(url, readonly=readonly, options=options, settings=settings)
        except NotFound:
            if not create or readonly:
                raise
            Store.create(url, slots=slots, options=options).close()
            store = Store.open(url, readonly=False, options=options, settings=settings)
        return cls(store, settings)

    def answer(self, request: Request, arrays: Sequence[Array] = (), progress: Progress | None = None) -> Reply:
        """Carry out `request`; long work runs here and now and calls `progress`, which may raise Cancelled.

        Raises:
            GeostoreError: as the verb says. Forbidden: the store is open read-only and the verb writes.
        """
        verb = _VERBS.get(type(request))
        if verb is None:
            raise BadRequest(
                f"{request.verb!r} is about a daemon's jobs, and the store is open in this process; name a daemon "
                "(tcp://host:port), or press Ctrl-C where the work runs"
            )
        if self.store.readonly:
            if request.role != "read" and request.verb != "verify":
                raise Forbidden(f"{request.verb!r} changes the store, which is open read-only; open it for writing")
            self.store.refresh()
        return verb(self, request, tuple(arrays), progress or quiet)

    def codec(self, partition: PartitionKey, generation: int) -> tuple[CodecRow, Codec]:
        """The codec of one generation, kept in memory once read."""
        kept = self._codecs.get((partition, generation))
        if kept is None:
            row = self.store.codec(partition, generation)
            family = self.families.items.get(row.family)
            if family is None:
                raise NotFound(
                    f"{partition} generation {generation} needs codec family {row.family!r}; installed: "
                    f"{', '.join(self.families.items)}; install its package"
                )
            kept = (row, family.from_bytes(row.data))
            if len(self._codecs) >= _CODECS_KEPT:
                self._codecs.pop(next(iter(self._codecs)), None)
            self._codecs[partition, generation] = kept
        return kept

    def close(self) -> None:
        """Let go of the store."""
        self.following.close()
        self.decoding.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
