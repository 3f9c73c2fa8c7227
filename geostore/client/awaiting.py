"""The client whose verbs are coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from geostore.client import searching, steps
from geostore.client.asker import Asker
from geostore.client.blocking import Client, Kind
from geostore.client.given import Filters
from geostore.client.hits import Decoded, Hits, PlaceChanges
from geostore.client.steps import AHEAD, Send, SendMany, Steps, T
from geostore.client.times import Time
from geostore.collection import Collection
from geostore.errors import Cancelled
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


class AsyncClient:
    """`Client` with coroutines: the same steps, awaited instead of waited for.

    The connection has a thread of its own, so any event loop may await its answers. `progress` is called in the
    event loop's thread by a daemon's jobs, in a worker thread by a store opened in this process. Cancelling a task
    that awaits long work ends that work in this process at its next step, as Ctrl-C does; a daemon's job goes on, as
    `jobs` shows and `cancel` ends it.
    """

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def ask(self, request: Request, arrays: Sequence[Array] = (), progress: Progress | None = None) -> Reply:
        """As `Client.ask`."""
        stopped = False

        def told(what: str, share: float) -> None:
            if stopped:
                raise Cancelled("the task that awaited this was cancelled; what was committed stays")
            if progress is not None:
                progress(what, share)

        try:
            return await asyncio.wrap_future(self._asker.submit(request, arrays, told))
        except asyncio.CancelledError:
            stopped = True
            raise

    async def _run(self, verb: Steps[T]) -> T:
        answer: Reply | list[Reply] | None = None
        while True:
            try:
                step = verb.send(answer)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if isinstance(step, Send):
                answer = await self.ask(step.request, step.arrays, step.progress)
            elif isinstance(step, SendMany):
                answer = await self._ask_many(step.requests)
            else:
                await asyncio.sleep(step.seconds)

    async def _ask_many(self, requests: Sequence[Request]) -> list[Reply]:
        room = asyncio.Semaphore(AHEAD)

        async def ask(request: Request) -> Reply:
            async with room:
                return await self.ask(request)

        tasks = [asyncio.ensure_future(ask(request)) for request in requests]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            raise

    async def hello(self) -> dict[str, Any]:
        """As `Client.hello`."""
        return await self._run(steps.fields(messages.Hello()))

    async def collections(self) -> list[Collection]:
        """As `Client.collections`."""
        return await self._run(steps.collections())

    async def put_collection(self, collection: Collection) -> Collection:
        """As `Client.put_collection`."""
        return await self._run(steps.put_collection(collection))

    async def put(self, collection: str, scene: SceneFields, splits: Iterable[Split]) -> dict[str, int]:
        """As `Client.put`."""
        return await self._run(steps.put(collection, scene, splits))

    async def put_scenes(
        self, collection: str, scenes: Sequence[tuple[SceneFields, Sequence[Split]]]
    ) -> dict[str, int]:
        """As `Client.put_scenes`."""
        return await self._run(steps.put_scenes(collection, scenes))

    async def withdraw(self, collection: str, scene: str) -> dict[str, Any]:
        """As `Client.withdraw`."""
        return await self._run(steps.fields(steps.asked(messages.Withdraw, collection=collection, scene=scene)))

    async def scenes(self, collection: str | None = None) -> list[dict[str, Any]]:
        """As `Client.scenes`."""
        return await self._run(steps.listed(steps.asked(messages.Scenes, collection=collection), "scenes"))

    async def cells(self, collection: str) -> dict[tuple[str, str], Grid]:
        """As `Client.cells`."""
        return await self._run(steps.cells(collection))

    async def rasters(
        self,
        geohash: str | None = None,
        *,
        collection: str | None = None,
        group: str | None = None,
        time: Time = None,
    ) -> list[RasterInfo]:
        """As `Client.rasters`."""
        return await self._run(steps.rasters(geohash, collection, group, time))

    async def decode(
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
        """As `Client.decode`; the Dataset's values are read with waiting, so load it in a thread."""
        from geostore import dataset  # xarray takes a quarter of the time to start, and few verbs need it

        steps.check_wanted(bands, tier, within)
        infos, product = await self._run(steps.choose(geohash, collection, group, time, bands, within))
        waiting = Client(self._asker)

        def fetch(chosen: Sequence[RasterInfo]) -> list[Raster]:
            return [raster for _, raster in waiting.decode_rasters(chosen, bands=bands, tier=tier, within=within)]

        return dataset.build(provenance(infos, within, tier), fetch, bands=bands, product=product, within=within)

    async def decode_rasters(
        self,
        infos: Sequence[RasterInfo],
        *,
        bands: Sequence[str] | None = None,
        tier: Tier = "best",
        within: Within | None = None,
    ) -> list[tuple[RasterInfo, Raster]]:
        """As `Client.decode_rasters`."""
        return await self._run(steps.decode_rasters(infos, bands, tier, within))

    async def fit(
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
        """As `Client.fit`."""
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
        return await self._run(steps.job(request, progress))

    async def similar(
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
        """As `Client.similar`; what the hits decode is read with waiting, so decode and plot them in a thread."""
        fields: dict[str, Any] = {"k": k, "radius": radius, "level": level, "explain": explain}
        fields |= {"text": text, "words": words, "near": near, "location": location}
        return await self._run(searching.similar(to, like, unlike, wanted, Client(self._asker).decode_keys, **fields))

    async def decode_keys(self, keys: Sequence[RasterKey], bands: Sequence[str] | None = None) -> list[Decoded]:
        """As `Client.decode_keys`."""
        return await self._run(searching.decode_keys(keys, bands))

    async def changes(self, geohash: str, *, to: Any = None, **wanted: Unpack[Filters]) -> PlaceChanges:
        """As `Client.changes`."""
        return await self._run(searching.changes(geohash, to, wanted))

    async def label(
        self,
        rasters: Iterable[Any],
        labels: Sequence[str],
        *,
        legend: searching.LegendName = "own",
        who: str = "",
        reason: str = "",
    ) -> dict[str, int]:
        """As `Client.label`."""
        return await self._run(searching.label(rasters, labels, legend, who, reason))

    async def index_status(self) -> dict[str, Any]:
        """As `Client.index_status`."""
        return await self._run(steps.fields(messages.IndexStatus()))

    async def index_build(self, *, anew: bool = False, progress: Progress | None = None) -> dict[str, Any]:
        """As `Client.index_build`."""
        return await self._run(steps.job(steps.asked(messages.IndexBuild, anew=anew), progress))

    async def index_upgrade(
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
        """As `Client.index_upgrade`."""
        fields = {"head": head, "descriptor": descriptor, "bits": bits, "by": by, "steps": steps_max, "seed": seed}
        return await self._run(searching.index_upgrade(encoder, progress, fields))

    async def status(self, *, collection: str | None = None, partitions: bool = False) -> dict[str, Any]:
        """As `Client.status`."""
        return await self._run(steps.fields(steps.asked(messages.Status, collection=collection, partitions=partitions)))

    async def verify(self, progress: Progress | None = None) -> dict[str, Any]:
        """As `Client.verify`."""
        return await self._run(steps.job(messages.Verify(), progress))

    async def compact(self, *, now: bool = False, progress: Progress | None = None) -> dict[str, Any]:
        """As `Client.compact`."""
        return await self._run(steps.job(steps.asked(messages.Compact, now=now), progress))

    async def prune(self, *, now: bool = False, progress: Progress | None = None) -> dict[str, Any]:
        """As `Client.prune`."""
        return await self._run(steps.job(steps.asked(messages.Prune, now=now), progress))

    async def rebuild(self, progress: Progress | None = None) -> dict[str, Any]:
        """As `Client.rebuild`."""
        return await self._run(steps.job(messages.Rebuild(), progress))

    async def backup(
        self, url: str, *, options: dict[str, str] | None = None, progress: Progress | None = None
    ) -> dict[str, Any]:
        """As `Client.backup`."""
        return await self._run(steps.job(steps.asked(messages.Backup, url=url, options=options or {}), progress))

    async def table(self, kind: Kind) -> pa.Table:
        """As `Client.table`."""
        return await self._run(steps.table(kind))

    async def jobs(self, job: str | None = None) -> list[dict[str, Any]]:
        """As `Client.jobs`."""
        return await self._run(steps.listed(steps.asked(messages.Jobs, id=job), "jobs"))

    async def cancel(self, job: str) -> dict[str, Any]:
        """As `Client.cancel`."""
        return await self._run(steps.fields(steps.asked(messages.Cancel, id=job)))

    async def resume(self, job: str, progress: Progress | None = None) -> dict[str, Any]:
        """As `Client.resume`."""
        return await self._run(steps.job(steps.asked(messages.Resume, id=job), progress))

    async def close(self) -> None:
        """As `Client.close`."""
        await asyncio.to_thread(self._asker.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
