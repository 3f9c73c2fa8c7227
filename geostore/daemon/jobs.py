"""Long work: begun at once, done one after the other, remembered across restarts."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from geostore.errors import Cancelled, Conflict, GeostoreError, NotFound
from geostore.query.messages import Progress, Reply, Request, parse
from geostore.storage import JobRow

FINISHED = ("done", "failed", "cancelled", "lost")
KEPT = 256  # finished jobs shown from memory; the store has them all
_log = logging.getLogger(__name__)

Work = Callable[[Request, Progress], Reply]
Save = Callable[[JobRow], None]


@dataclass
class _Job:
    row: JobRow
    request: Request
    what: str = "waiting"
    share: float = 0.0
    cancel: bool = False


class Jobs:
    """The jobs of one daemon.

    States: queued -> running -> done | failed | cancelled; a job that was queued or running when its daemon ended is
    `lost`. Work is idempotent and commits part by part, so failed, cancelled and lost jobs may be resumed.

    Args:
        work: carries a request out, in the jobs' own thread; its progress may raise Cancelled.
        save: makes a job's state durable, when it is begun and when it ends. The answer to `start` does not wait for
            it: a job's record is advice, its work has commits of its own.
        remembered: the rows an earlier daemon left.
        now_us: UTC microseconds.
    """

    def __init__(self, work: Work, save: Save, remembered: list[JobRow], now_us: Callable[[], int]) -> None:
        self._work, self._save, self._now_us = work, save, now_us
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stopping = False
        self._unsaved: queue.SimpleQueue[JobRow | None] = queue.SimpleQueue()
        for row in sorted(remembered, key=lambda r: r.made_us)[-KEPT:]:
            lost = row.state not in FINISHED
            row = replace(row, state="lost", changed_us=now_us()) if lost else row
            self._jobs[row.id] = _Job(row, parse(row.verb, row.fields), what="", share=float(row.state == "done"))
            if lost:
                self._unsaved.put(row)
        self._thread = threading.Thread(target=self._run, name="geostore-jobs", daemon=True)
        self._saver = threading.Thread(target=self._save_all, name="geostore-jobs-saver", daemon=True)
        self._thread.start()
        self._saver.start()

    def start(self, request: Request, ticket: str) -> Reply:
        """Begin `request`; the same ticket again names the same job."""
        number = hashlib.sha256(ticket.encode()).hexdigest()[:12]
        with self._lock:
            if number not in self._jobs:
                now_us = self._now_us()
                fields = request.model_dump(mode="json", exclude_defaults=True)
                row = JobRow(
                    id=number, verb=request.verb, fields=fields, state="queued", made_us=now_us, changed_us=now_us
                )
                self._jobs[number] = _Job(row, request)
                self._enqueue(self._jobs[number])
        return Reply({"job": number})

    def resume(self, number: str) -> Reply:
        """Go on with a job that ended early; one that still runs, or is done, is left as it is."""
        with self._lock:
            job = self._get(number)
            if job.row.state in ("failed", "cancelled", "lost"):
                job.cancel, job.what, job.share = False, "waiting", 0.0
                self._enqueue(job)
        return Reply({"job": number})

    def cancel(self, number: str) -> Reply:
        """Ask a job to stop at its next safe point; one that has ended is left as it is."""
        with self._lock:
            job = self._get(number)
            job.cancel = True
            if job.row.state == "queued":
                self._change(job, "cancelled", {})
            return Reply({"job": number, "state": job.row.state})

    def list(self, number: str | None = None) -> Reply:
        """Every job, oldest first, or one of them: its row, and `what` is done with which `share`, 0..1."""
        with self._lock:
            chosen = [self._get(number)] if number else sorted(self._jobs.values(), key=lambda j: j.row.made_us)
            return Reply({"jobs": [{**asdict(j.row), "what": j.what, "share": j.share} for j in chosen]})

    def verb_of(self, number: str) -> type[Request]:
        """The request class of a job."""
        with self._lock:
            return type(self._get(number).request)

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        with self._lock:
            states = [j.row.state for j in self._jobs.values()]
        return {state: states.count(state) for state in ("queued", "running", *FINISHED)}

    def stop(self, seconds: float) -> bool:
        """Cancel what runs at its next safe point and take nothing new; False if that took longer than `seconds`."""
        with self._lock:
            self._stopping = True
            self._queue.put(None)
        self._thread.join(seconds)
        self._unsaved.put(None)
        self._saver.join(seconds)
        return not (self._thread.is_alive() or self._saver.is_alive())

    def _get(self, number: str) -> _Job:
        if number not in self._jobs:
            raise NotFound(f"no job {number!r}; `geostore jobs` lists them")
        return self._jobs[number]

    def _enqueue(self, job: _Job) -> None:
        if self._stopping:
            raise Conflict("this daemon is stopping; ask again after its restart")
        self._change(job, "queued", {})
        self._queue.put(job.row.id)

    def _change(self, job: _Job, state: str, result: dict[str, Any]) -> None:
        job.row = replace(job.row, state=state, result=result, changed_us=self._now_us())
        if state != "running":
            self._unsaved.put(job.row)

    def _save_all(self) -> None:
        """Save rows in their order, away from the lock: a save may wait for a long change of the store."""
        while (row := self._unsaved.get()) is not None:
            try:
                self._save(row)
            except GeostoreError as error:
                _log.error("job %s: its state %s was not saved: %s", row.id, row.state, error)

    def _run(self) -> None:
        while (number := self._queue.get()) is not None:
            with self._lock:
                job = self._jobs[number]
                if self._stopping or job.row.state != "queued":
                    continue  # one left in the queue is found `lost` by the next daemon
                self._change(job, "running", {})
            state, result = self._carry_out(job)
            with self._lock:
                job.share = 1.0 if state == "done" else job.share
                self._change(job, state, result)

    def _carry_out(self, job: _Job) -> tuple[str, dict[str, Any]]:
        def progress(what: str, share: float) -> None:
            job.what, job.share = what, share
            if job.cancel or self._stopping:
                raise Cancelled(f"job {job.row.id} was asked to stop")

        begun = time.monotonic()
        try:
            reply = self._work(job.request, progress)
        except Cancelled as error:
            return "cancelled", {"kind": error.kind, "message": str(error)}
        except GeostoreError as error:
            return "failed", {"kind": error.kind, "message": str(error)}
        except Exception:  # noqa: BLE001  one fault must not end the thread
            _log.exception("fault in job %s", job.row.id)
            return "failed", {"kind": GeostoreError.kind, "message": "a fault in the daemon; its log says more"}
        _log.info("job %s (%s) done in %.1f s", job.row.id, job.row.verb, time.monotonic() - begun)
        return "done", reply.fields
