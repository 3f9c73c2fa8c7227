"""fit: per partition a codec, embeddings and certificates, in worker processes, one commit a partition."""

from __future__ import annotations

import multiprocessing
import os
import queue
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geostore.codec import Effort, Series
from geostore.collection import Policy
from geostore.errors import NotFound, Unavailable
from geostore.keys import PartitionKey
from geostore.node.declared import check_fittable
from geostore.node.decode import exact_row, read_original
from geostore.node.encode import Fitted, encode_series, families_lent, fit_series
from geostore.node.lending import Lending, offer_bases
from geostore.node.survey import Survey
from geostore.node.workers import Workers
from geostore.query import messages
from geostore.query.messages import Array, Progress, Reply
from geostore.raster import Bands
from geostore.storage import CodecRow, RasterRow
from geostore.storage.scratch import Scratch
from geostore.storage.stacks import Stack, read_stack, stack_path, write_stack

if TYPE_CHECKING:
    from geostore.node.node import Node
    from geostore.vae.base import Base

_POLL_S = 0.2
_STATE = "fit"  # a stack lives for one fit
_worker_queue: Any = None


@dataclass(frozen=True)
class Plan:
    """A partition's work, and the exact rows it was gathered from, in the series' order."""

    work: Work
    rows: list[RasterRow]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a worker needs to fit one partition: plain values, no store; the pixels lie in an HDF5 stack."""

    partition: PartitionKey
    window: tuple[int, int, int, int]  # row, col, height, width in the cell
    stack: Path
    bands: Bands
    indices: tuple[str, ...]
    policy: Policy
    effort: Effort
    parent: tuple[str, bytes] | None  # family and bytes of the codec before
    networks: dict[str, bytes]  # what the parent shares with other codecs, by digest
    frozen: bool  # encode new dates with the parent as it is, or give the work back


def fit(node: Node, request: messages.Fit, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """Fit every chosen partition that has rasters waiting (all, with `refit`); resumable: done ones are skipped.

    Raises:
        NotFound: no such partition. InvalidInput, NotInstalled: a collection, which is named, cannot be fitted here.
        Cancelled: `progress` said so; partitions committed before stay fitted.
        Unavailable: a worker was killed; run it again.
    """
    bases = offer_bases(node.settings.bases)
    partitions = _wanted(node, request)
    survey = Survey(node, partitions)
    chosen = [p for p in partitions if request.refit or p in survey.waiting]
    check_fittable(node, chosen)
    effort = Effort(
        steps=node.settings.fit_steps if request.steps is None else request.steps,
        seconds=request.seconds or node.settings.fit_seconds,
        seed=node.settings.seed if request.seed is None else request.seed,
        device=node.settings.device,
    )
    workers = request.workers or node.settings.workers or os.cpu_count() or 1
    summary: dict[str, Any] = {"partitions": 0, "fitted": 0, "encoded": 0, "lossless": 0, "rasters": 0}
    begun = time.monotonic()
    lending = Lending(node, survey.counts, chosen, bases)
    for plan, fitted in _run(node, chosen, effort, lending, request.refit, min(workers, max(len(chosen), 1)), progress):
        with node.changing:
            _commit(node, plan, fitted)
        lending.note(plan.work.partition, fitted)
        survey.note(plan.rows, fitted, plan.work.policy)
        summary["partitions"] += 1
        summary["rasters"] += len(plan.rows)
        kind = "encoded" if fitted.facts.get("frozen") else "lossless" if fitted.family == "raw" else "fitted"
        summary[kind] += 1
    summary["left"] = len(chosen) - summary["partitions"]  # no original is at hand
    summary |= {**survey.beyond(), "superseded": node.store.bytes_counted()[1]}
    return Reply({**summary, "seconds": round(time.monotonic() - begun, 3)})


def _wanted(node: Node, request: messages.Fit) -> list[PartitionKey]:
    partitions = node.store.partitions(request.collection, request.geohash or "")
    if request.collection is not None:
        node.store.collection(request.collection)
    if not partitions and request.geohash:
        raise NotFound(f"no partition {request.geohash!r} to fit; `geostore status` lists what is stored")
    return partitions


def _plan(node: Node, partition: PartitionKey, effort: Effort, refit: bool, folder: Path) -> Plan | None:
    """Gather a partition's exact rasters into a stack on the box of them all; None if none of them has a pixel."""
    collection = node.store.collection(partition.collection)
    exact = [exact_row(node, r) for r in node.store.rasters(partition) if refit or r.generation == 0]
    rows = [r for r in exact if r is not None]
    if not any(r.generation == 0 or r.certificate is None or r.certificate.pixels for r in rows):
        return None
    newest = node.store.codec(partition)
    window, learned = _box(rows), newest.generation > 0 and newest.family in collection.policy.codecs
    frozen = learned and not refit and _holds(newest, window)
    if frozen:
        window = (newest.row, newest.col, newest.height, newest.width)
    bands = collection.groups[partition.group]
    work = Work(
        partition=partition,
        window=window,
        stack=stack_path(folder, partition),
        bands=bands,
        indices=collection.indices_of(partition.group),
        policy=collection.policy,
        effort=effort,
        parent=(newest.family, newest.data) if learned else None,
        networks=node.families.networks(newest.family, newest.data) if learned else {},
        frozen=frozen,
    )
    write_stack(work.stack, _stack(node, rows, bands, window), state=_STATE)
    return Plan(work, rows)


def _box(rows: list[RasterRow]) -> tuple[int, int, int, int]:
    """(row, col, height, width) of the smallest window that holds them all."""
    top, left = min(r.row for r in rows), min(r.col for r in rows)
    return top, left, max(r.row + r.height for r in rows) - top, max(r.col + r.width for r in rows) - left


def _holds(codec: CodecRow, window: tuple[int, int, int, int]) -> bool:
    row, col, height, width = window
    inside = codec.row <= row and codec.col <= col
    return inside and codec.row + codec.height >= row + height and codec.col + codec.width >= col + width


def _stack(node: Node, rows: list[RasterRow], bands: Bands, window: tuple[int, int, int, int]) -> Stack:
    top, left, height, width = window
    pixels = np.zeros((len(rows), len(bands), height, width), bands.dtype)
    valid = np.zeros((len(rows), height, width), np.bool_)
    for i, row in enumerate(rows):
        _, _, raster = read_original(node, row.key)
        at = (slice(row.row - top, row.row - top + row.height), slice(row.col - left, row.col - left + row.width))
        pixels[(i, slice(None), *at)] = raster.pixels
        valid[(i, *at)] = raster.valid
    return Stack(pixels=pixels, valid=valid, time_us=np.array([r.key.time_us for r in rows], np.int64))


def _series(work: Work) -> Series:
    """The stack of `work`, read in its worker; it is deleted then."""
    stack = read_stack(work.stack, state=_STATE)
    work.stack.unlink(missing_ok=True)
    if stack is None:
        raise Unavailable(f"the stack of {work.partition} was lost from {work.stack}; run `geostore fit` again")
    return Series(
        pixels=stack.pixels, valid=stack.valid, times_us=stack.time_us, bands=work.bands, indices=work.indices
    )


def _run(
    node: Node,
    chosen: list[PartitionKey],
    effort: Effort,
    lending: Lending,
    refit: bool,
    workers: int,
    progress: Progress,
) -> Iterator[tuple[Plan, Fitted]]:
    """Fit `chosen` in spawned workers, one partition more than there are workers made ready; yield each as done."""
    if not chosen:
        return
    scratch = Scratch("stacks")
    context = multiprocessing.get_context("spawn")
    reports = context.Queue()
    pool = Workers(workers, initializer=_begin_worker, initargs=(reports, lending.bases))
    running: dict[Future[Fitted | None], Plan] = {}
    shares: dict[str, float] = {}
    todo, done = iter(chosen), 0

    def bearing(partition: PartitionKey) -> Effort:
        return replace(effort, network_share=lending.share(partition))

    try:
        while True:
            while len(running) < workers + 1 and (partition := next(todo, None)) is not None:
                plan = _plan(node, partition, bearing(partition), refit, scratch.path)
                if plan is None:
                    done += 1
                    continue
                running[pool.submit(fit_partition, plan.work)] = plan
            if not running:
                break
            finished, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            for future in finished:
                plan, fitted = running.pop(future), future.result()
                shares.pop(str(plan.work.partition), None)
                if fitted is None:  # the frozen codec missed: fit anew, with all that is still at hand exactly
                    partition = plan.work.partition
                    again = _plan(node, partition, bearing(partition), True, scratch.path)
                    assert again is not None, "rasters that wait are at hand"
                    running[pool.submit(fit_partition, again.work)] = again
                    continue
                done += 1
                yield plan, fitted
            what = _drain(reports, shares)
            progress(what, min(1.0, (done + sum(shares.values())) / len(chosen)))
    except BrokenProcessPool as error:
        raise Unavailable(
            "a fit worker ended before its work did (killed, or out of memory); partitions committed so far stay: "
            "run `geostore fit` again, with fewer workers if memory is short"
        ) from error
    finally:
        pool.end(now=bool(running))
        scratch.close()
        reports.close()
        reports.cancel_join_thread()


def _drain(reports: Any, shares: dict[str, float]) -> str:
    what = "fit"
    while True:
        try:
            partition, step, share = reports.get_nowait()
        except queue.Empty:
            return what
        if partition not in shares or share >= shares[partition] or step != what:
            shares[partition] = share
        what = f"{step} {partition}"


def _begin_worker(reports: Any, bases: Sequence[Base]) -> None:
    global _worker_queue
    _worker_queue = reports
    import torch

    from geostore.vae.base import offer

    torch.set_num_threads(1)
    for base in bases:
        offer(base)


def fit_partition(work: Work) -> Fitted | None:
    """Run in a worker: a new generation, or the frozen codec on new dates; None if that misses the policy."""
    name = str(work.partition)

    def report(step: str, share: float) -> None:
        if _worker_queue is not None:
            _worker_queue.put((name, step, share))

    series = _series(work)
    family, data = work.parent or ("", None)
    if work.frozen and data is not None:
        codec = families_lent(family, work.networks).items[family].from_bytes(data)
        kept = encode_series(codec, series, work.policy, report)
        missed = any(s.lossless and s.payload for s in kept)
        return None if missed else Fitted(family=family, codec=data, rasters=tuple(kept), facts={"frozen": 1})
    start = data if family == work.policy.codec else None
    return fit_series(work.policy.codec, start, series, work.policy, work.effort, report, work.networks)


def _commit(node: Node, plan: Plan, fitted: Fitted) -> None:
    """One commit: the codec's generation (unless the frozen one served) and a row for each raster."""
    newest = node.store.codec(plan.work.partition)
    frozen = bool(fitted.facts.get("frozen"))
    generation = newest.generation if frozen else newest.generation + 1
    row, col, height, width = plan.work.window
    networks = node.families.networks(fitted.family, fitted.codec)
    for network in networks.values():
        node.store.put_blob("models", network)
    codec = CodecRow(
        partition=plan.work.partition,
        generation=generation,
        family=fitted.family,
        cell=newest.cell,
        row=row,
        col=col,
        height=height,
        width=width,
        data=fitted.codec,
        parent=newest.generation if newest.generation > 0 else None,
        made_us=time.time_ns() // 1000,
        facts={**fitted.facts, **({"networks": ",".join(sorted(networks))} if networks else {})},
    )
    rasters = [
        replace(
            source,
            generation=generation,
            row=row,
            col=col,
            height=height,
            width=width,
            valid=kept.valid,
            payload=kept.payload,
            shared=kept.shared,
            vector=kept.vector,
            layers=kept.layers,
            lossless=kept.lossless,
            bytes_lzw=min(source.bytes_lzw, kept.bytes_lzw),
            bytes_jxl=kept.bytes_lossless,
            certificate=kept.certificate,
            coarser=kept.coarser,
        )
        for source, kept in zip(plan.rows, fitted.rasters, strict=True)
        if _still_stands(node, source)
    ]
    node.store.commit([*([] if frozen else [codec]), *rasters])


def _still_stands(node: Node, source: RasterRow) -> bool:
    """False if the raster was withdrawn or processed anew while the fit went on."""
    try:
        now = node.store.raster(source.key)
    except NotFound:
        return False
    return (now.revision, now.scene) == (source.revision, source.scene)
