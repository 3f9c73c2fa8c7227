"""The client whose verbs wait for their answers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from geostore.client import searching, steps
from geostore.client.asker import Asker
from geostore.client.given import Filters
from geostore.client.hits import Decoded, Hits, PlaceChanges
from geostore.client.steps import AHEAD, Send, SendMany, Steps, T
from geostore.client.times import Time
from geostore.collection import Collection
from geostore.keys import RasterKey
from geostore.partition.split import Split
from geostore.query import messages
from geostore.query.budget import Within
from geostore.query.facts import RasterInfo
from geostore.query.messages import Array, Progress, Reply, Request, SceneFields, Tier
from geostore.query.tiers import provenance
from geostore.raster import Grid, Raster

if TYPE_CHECKING:
    import pyarrow as pa
    import xarray as xr

Kind = Literal["raster", "embedding", "group", "codec", "scene", "event", "job"]


class Client:
    """A store, in this process or behind a daemon: the same verbs with the same answers. May be used by many threads.

    Made by `geostore.connect`. Every verb raises the errors of `geostore.errors`; Unreachable, DeadlineExpired and
    Overloaded mean that asking again later may succeed.
    """

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def ask(self, request: Request, arrays: Sequence[Array] = (), progress: Progress | None = None) -> Reply:
        """Send any request of `geostore.query.messages` and wait for its reply."""
        return self._asker.ask(request, arrays, progress)

    def _run(self, verb: Steps[T]) -> T:
        answer: Reply | list[Reply] | None = None
        while True:
            try:
                step = verb.send(answer)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if isinstance(step, Send):
                answer = self._asker.ask(step.request, step.arrays, step.progress)
            elif isinstance(step, SendMany):
                answer = self._ask_many(step.requests)
            else:
                time.sleep(step.seconds)

    def _ask_many(self, requests: Sequence[Request]) -> list[Reply]:
        if len(requests) == 1:
            return [self._asker.ask(requests[0])]
        begun: deque[Future[Reply]] = deque()
        replies = []
        try:
            for request in requests:
                if len(begun) == AHEAD:
                    replies.append(begun[0].result())
                    begun.popleft()
                begun.append(self._asker.submit(request))
            return replies + [future.result() for future in begun]
        except BaseException:
            for future in begun:
                future.cancel()
            raise

    def hello(self) -> dict[str, Any]:
        """Who answers: versions, store id, slots, codec families."""
        return self._run(steps.fields(messages.Hello()))

    def collections(self) -> list[Collection]:
        """The newest version of every collection."""
        return self._run(steps.collections())

    def put_collection(self, collection: Collection) -> Collection:
        """Declare a collection; the same again changes nothing, a changed one is stored as a new version."""
        return self._run(steps.put_collection(collection))

    def put(self, collection: str, scene: SceneFields, splits: Iterable[Split]) -> dict[str, int]:
        """Store the pieces of a scene, losslessly and durably; counts `stored`, `unchanged` and new `cells`."""
        return self._run(steps.put(collection, scene, splits))

    def put_scenes(self, collection: str, scenes: Sequence[tuple[SceneFields, Sequence[Split]]]) -> dict[str, int]:
        """As `put`, for several small scenes in one request: they share one durable commit. At most 256 scenes."""
        return self._run(steps.put_scenes(collection, scenes))

    def withdraw(self, collection: str, scene: str) -> dict[str, Any]:
        """Take a scene back; its rasters are no longer current."""
        return self._run(steps.fields(steps.asked(messages.Withdraw, collection=collection, scene=scene)))

    def scenes(self, collection: str | None = None) -> list[dict[str, Any]]:
        """The facts of every scene that was not withdrawn."""
        return self._run(steps.listed(steps.asked(messages.Scenes, collection=collection), "scenes"))

    def cells(self, collection: str) -> dict[tuple[str, str], Grid]:
        """The fixed grid of every partition, by (geohash, group)."""
        return self._run(steps.cells(collection))

    def rasters(
        self,
        geohash: str | None = None,
        *,
        collection: str | None = None,
        group: str | None = None,
        time: Time = None,
    ) -> list[RasterInfo]:
        """Facts of the rasters of a cell or prefix, by place, then time; empty if none lies in `time`."""
        return self._run(steps.rasters(geohash, collection, group, time))

    def decode(
        self,
        geohash: str,
        *,
        collection: str | None = None,
        time: Time = None,
        bands: Sequence[str] | None = None,
        group: str | None = None,
        tier: Tier = "best",
        within: Within | None = None,
    ) -> xr.Dataset:
        """A cell's rasters as a lazy Dataset; see `geostore.dataset.build`.

        Args:
            geohash: the cell.
            collection: needed only where several have the cell.
            time: "2020", "2020-06", "2020-06-14", an instant, a slice of these, or None for all.
            bands: by name; all of the group, if None.
            group: the native resolution; the finest that has all `bands`, if None.
            tier: "best" is what is kept now, "embedding" the embedding without what was added to keep a bound,
                "preview" the first of its layers alone, "original" what was put.
            within: errors allowed, as {"ndvi": 0.02} (its mean), {"mse": 1e-4, "ndvi_max": 0.1}: a raster is decoded
                at the coarsest tier whose certificate allows that, from its original if none does; `tier` along time
                says which. Values are decoded as they are looked at: PolicyMissed then, where there is no original.

        Raises:
            NotFound: no such cell, or no raster in that time.
            InvalidInput, BandMismatch: several cells or collections are meant, or bands of several groups.
        """
        from geostore import dataset  # xarray takes a quarter of the time to start, and few verbs need it

        steps.check_wanted(bands, tier, within)
        infos, product = self._run(steps.choose(geohash, collection, group, time, bands, within))

        def fetch(chosen: Sequence[RasterInfo]) -> list[Raster]:
            return [raster for _, raster in self.decode_rasters(chosen, bands=bands, tier=tier, within=within)]

        return dataset.build(provenance(infos, within, tier), fetch, bands=bands, product=product, within=within)

    def decode_rasters(
        self,
        infos: Sequence[RasterInfo],
        *,
        bands: Sequence[str] | None = None,
        tier: Tier = "best",
        within: Within | None = None,
    ) -> list[tuple[RasterInfo, Raster]]:
        """Stored values of `infos`, in order, with the facts and certificate that hold for `tier` or `within`."""
        return self._run(steps.decode_rasters(infos, bands, tier, within))

    def fit(
        self,
        *,
        collection: str | None = None,
        geohash: str | None = None,
        steps_max: int | None = None,
        seconds: float | None = None,
        seed: int | None = None,
        refit: bool = False,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Fit codecs and encode what waits; resumable. `progress` is told what is done and its share, 0..1."""
        request = steps.asked(
            messages.Fit,
            collection=collection,
            geohash=geohash,
            steps=steps_max,
            seconds=seconds,
            seed=seed,
            refit=refit,
            workers=workers,
        )
        return self._run(steps.job(request, progress))

    def similar(
        self,
        to: Any = None,
        *,
        like: Sequence[Any] = (),
        unlike: Sequence[Any] = (),
        k: int = 50,
        radius: int | None = None,
        level: searching.Level = "raster",
        explain: bool = False,
        text: str | None = None,
        words: str | None = None,
        near: tuple[float, float] | None = None,
        location: tuple[float, float] | None = None,
        **wanted: Unpack[Filters],
    ) -> Hits:
        """The rasters, chips or cells that look most like the examples.

        An example is (geohash, time) of a stored raster, a key, a hit, a file of a scene, a raster, a Dataset of one
        date, a descriptor, or `Hits`, whose point is looked near again. Stored rasters given as examples are not among
        the hits.

        Args:
            to: one example.
            like: several; what they have in common is looked for.
            unlike: counter-examples.
            k: hits at most; fewer mean that no more rasters meet the conditions.
            radius: bits of the signature that may differ.
            level: "raster"; "chip" for parts of rasters one geohash letter finer; or "cell" for cells by the votes of
                all their parts, which finds what is small, too: `Hit.votes` says what voted, and where.
            explain: tell how the hits were found, in `Hits.plan`.
            text: what it shows, compared with pixels where the index has an encoder with texts; else as `words`.
            words: looked for among labels, seasons, sensors and collections.
            near: longitude and latitude; the nearest cells come first, and a score is less the distance in km.
            location: longitude and latitude, compared with pixels by an encoder with locations.
            **wanted: conditions, see `Filters`.

        Raises:
            NotComparable: examples of other bands, descriptors or heads. NotFound: an example that is not stored.
            InvalidInput: an example or a condition that is none.
        """
        fields: dict[str, Any] = {"k": k, "radius": radius, "level": level, "explain": explain}
        fields |= {"text": text, "words": words, "near": near, "location": location}
        return self._run(searching.similar(to, like, unlike, wanted, self.decode_keys, **fields))

    def changes(self, geohash: str, *, to: Any = None, **wanted: Unpack[Filters]) -> PlaceChanges:
        """When one place changed, and when it looked like `to` (its newest date, if None).

        Args:
            geohash: a cell, or a chip one letter finer.
            to: an example, as for `similar`.
            **wanted: conditions on the dates, see `Filters`; `within` is not one of them.

        Raises:
            NotFound: nothing is stored there. InvalidInput: several cells are meant.
        """
        return self._run(searching.changes(geohash, to, wanted))

    def label(
        self,
        rasters: Iterable[Any],
        labels: Sequence[str],
        *,
        legend: searching.LegendName = "own",
        who: str = "",
        reason: str = "",
    ) -> dict[str, int]:
        """Say what rasters show; the labels replace those they had, and none takes them away.

        Args:
            rasters: hits, facts, keys, or (geohash, time).
            labels: words, or labels of the legend.
            legend: "own" for any words, or "corine-2018".
            who: whose opinion it is.
            reason: why.

        Returns:
            Counts of rasters `labelled` and `unchanged`.
        """
        return self._run(searching.label(rasters, labels, legend, who, reason))

    def index_status(self) -> dict[str, Any]:
        """What similarity search is made with: spaces, rows, bytes, how far behind the tables."""
        return self._run(steps.fields(messages.IndexStatus()))

    def index_build(self, *, anew: bool = False, progress: Progress | None = None) -> dict[str, Any]:
        """Bring every index level with the tables now, so that no question waits; `anew` from the tables alone."""
        return self._run(steps.job(steps.asked(messages.IndexBuild, anew=anew), progress))

    def index_upgrade(
        self,
        *,
        head: searching.HeadName | None = None,
        descriptor: str | None = None,
        encoder: str | Path | None = None,
        bits: int = 128,
        by: searching.LearnedFrom | None = None,
        steps_max: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """A new generation of signatures, by a head trained on what is stored.

        Args:
            head: "kernel" (regression on labels), "milan" (a trained network), "itq", "pca-sign", "rotation"; if None,
                "kernel" by eight sets of labels or more, else "milan".
            descriptor: name of another descriptor that is installed; as it is, if None.
            encoder: in place of a descriptor a folder with an `encoder.json`, whose files go into the store, or the
                name of an encoder that is installed or was put there before.
            bits: of a signature.
            by: "labels", or "unlabelled" to leave them aside; if None, whichever of the two finds more on places held
                out, where labels are many enough to be tried.
            steps_max: of the optimiser.
            seed: everything random follows from it.
            progress: told what is done.
        """
        fields = {"head": head, "descriptor": descriptor, "bits": bits, "by": by, "steps": steps_max, "seed": seed}
        return self._run(searching.index_upgrade(encoder, progress, fields))

    def decode_keys(self, keys: Sequence[RasterKey], bands: Sequence[str] | None = None) -> list[Decoded]:
        """Facts and stored values of rasters by their keys, in order; one request a raster."""
        return self._run(searching.decode_keys(keys, bands))

    def status(self, *, collection: str | None = None, partitions: bool = False) -> dict[str, Any]:
        """Rasters, partitions, bytes by tier, both ratios, measured errors; a row a partition if asked."""
        return self._run(steps.fields(steps.asked(messages.Status, collection=collection, partitions=partitions)))

    def verify(self, progress: Progress | None = None) -> dict[str, Any]:
        """Read everything and check it: `ok`, and `findings` that say what is wrong."""
        return self._run(steps.job(messages.Verify(), progress))

    def compact(self, *, now: bool = False, progress: Progress | None = None) -> dict[str, Any]:
        """Merge small table files; bytes before and after. `now` as for `prune`."""
        return self._run(steps.job(steps.asked(messages.Compact, now=now), progress))

    def prune(self, *, now: bool = False, progress: Progress | None = None) -> dict[str, Any]:
        """Drop what is superseded; bytes before and after.

        Files stay for `vacuum_days` for readers of an older version; with `now` they go at once.
        """
        return self._run(steps.job(steps.asked(messages.Prune, now=now), progress))

    def rebuild(self, progress: Progress | None = None) -> dict[str, Any]:
        """Make the view anew from the tables."""
        return self._run(steps.job(messages.Rebuild(), progress))

    def backup(
        self, url: str, *, options: dict[str, str] | None = None, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Copy what is missing at `url`."""
        return self._run(steps.job(steps.asked(messages.Backup, url=url, options=options or {}), progress))

    def table(self, kind: Kind) -> pa.Table:
        """All rows of one kind, as Arrow."""
        return self._run(steps.table(kind))

    def jobs(self, job: str | None = None) -> list[dict[str, Any]]:
        """Jobs, oldest first, or the one called `job`: state, progress and result."""
        return self._run(steps.listed(steps.asked(messages.Jobs, id=job), "jobs"))

    def cancel(self, job: str) -> dict[str, Any]:
        """Ask a job to stop; what it committed stays."""
        return self._run(steps.fields(steps.asked(messages.Cancel, id=job)))

    def resume(self, job: str, progress: Progress | None = None) -> dict[str, Any]:
        """Go on with a job that was cancelled, failed or lost, and wait for its result."""
        return self._run(steps.job(steps.asked(messages.Resume, id=job), progress))

    def close(self) -> None:
        """Let go of the store or the connection."""
        self._asker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
