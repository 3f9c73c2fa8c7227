from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator

import pytest

from geostore.daemon.jobs import Jobs
from geostore.errors import Conflict, NotFound, PolicyMissed
from geostore.query import messages
from geostore.query.messages import Progress, Reply, Request
from geostore.storage import JobRow

FIT, VERIFY = messages.Fit(steps=7), messages.Verify()


class Desk:
    """Jobs over work that the test steps through: each job reports and waits for `go`."""

    def __init__(self, remembered: list[JobRow] | None = None) -> None:
        self.saved: list[JobRow] = []
        self.began, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.outcome: Callable[[], Reply] = lambda: Reply({"ok": True})
        clock = itertools.count(1)
        self.jobs = Jobs(self.work, self.saved.append, remembered or [], lambda: next(clock))

    def work(self, request: Request, progress: Progress) -> Reply:
        progress("begin", 0.25)
        self.began.release()
        assert self.go.acquire(timeout=30)
        progress("go on", 0.5)
        return self.outcome()

    def state(self, number: str) -> str:
        return str(self.jobs.list(number).fields["jobs"][0]["state"])

    def end(self, number: str) -> str:
        while (state := self.state(number)) in ("queued", "running"):
            pass
        return state


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    for _ in range(20):
        desk.go.release()
    assert desk.jobs.stop(30)


def test_jobs_run_one_after_the_other_and_tell_their_progress(desk: Desk) -> None:
    """Queued, running with what and share, done with the result; the second waits for the first."""
    first = desk.jobs.start(FIT, "a").fields["job"]
    second = desk.jobs.start(VERIFY, "b").fields["job"]
    assert desk.began.acquire(timeout=30)
    told = desk.jobs.list(first).fields["jobs"][0]
    assert (told["state"], told["what"], told["share"]) == ("running", "begin", 0.25)
    assert (told["verb"], told["fields"]) == ("fit", {"steps": 7})
    assert desk.state(second) == "queued"
    desk.go.release()
    assert desk.end(first) == "done"
    desk.go.release()
    assert desk.end(second) == "done"
    assert desk.jobs.list(second).fields["jobs"][0]["result"] == {"ok": True}
    assert [j["id"] for j in desk.jobs.list().fields["jobs"]] == [first, second]
    assert desk.jobs.counts()["done"] == 2


def test_one_ticket_is_one_job(desk: Desk) -> None:
    """A retry of the same request names the job that runs already."""
    assert desk.jobs.start(FIT, "a") == desk.jobs.start(FIT, "a")
    assert desk.jobs.start(FIT, "b") != desk.jobs.start(FIT, "a")


def test_a_running_job_stops_at_its_next_safe_point_and_can_be_resumed(desk: Desk) -> None:
    """cancel raises Cancelled in the work's next progress; resume runs it again under its id."""
    number = desk.jobs.start(FIT, "a").fields["job"]
    assert desk.began.acquire(timeout=30)
    desk.jobs.cancel(number)
    desk.go.release()
    assert desk.end(number) == "cancelled"
    assert desk.jobs.resume(number).fields == {"job": number}
    desk.go.release()
    assert desk.end(number) == "done"
    desk.jobs.resume(number)
    desk.jobs.cancel(number)
    assert desk.state(number) == "done"


def test_a_queued_job_is_cancelled_at_once(desk: Desk) -> None:
    """It never begins."""
    desk.jobs.start(FIT, "a")
    second = desk.jobs.start(VERIFY, "b").fields["job"]
    assert desk.jobs.cancel(second).fields == {"job": second, "state": "cancelled"}
    assert desk.began.acquire(timeout=30)
    desk.go.release()
    assert desk.state(second) == "cancelled"


def test_failures_keep_their_kind_and_a_bug_its_text_to_itself(desk: Desk) -> None:
    """An expected error is told whole; a bug as internal; the next job runs."""

    def miss() -> Reply:
        raise PolicyMissed("no tier keeps it")

    def bug() -> Reply:
        raise ZeroDivisionError("secret")

    results = []
    for ticket, outcome in (("a", miss), ("b", bug), ("c", lambda: Reply({"ok": True}))):
        desk.outcome = outcome
        number = desk.jobs.start(FIT, ticket).fields["job"]
        desk.go.release()
        state = desk.end(number)
        results.append((state, desk.jobs.list(number).fields["jobs"][0]["result"]))
    assert results[0] == ("failed", {"kind": "policy-missed", "message": "no tier keeps it"})
    assert results[1][0] == "failed"
    assert results[1][1]["kind"] == "internal"
    assert "secret" not in str(results[1])
    assert results[2] == ("done", {"ok": True})


def test_a_new_daemon_shows_what_was_running_as_lost_and_resumes_it() -> None:
    """Rows left as queued are lost, done ones stay done; a lost one runs again under its id."""
    rows = [
        JobRow(id="one", verb="fit", fields={"steps": 7}, state="queued", made_us=1, changed_us=1),
        JobRow(id="two", verb="verify", state="done", made_us=2, changed_us=3, result={"ok": True}),
    ]
    desk = Desk(rows)
    assert [(j["id"], j["state"]) for j in desk.jobs.list().fields["jobs"]] == [("one", "lost"), ("two", "done")]
    desk.jobs.resume("one")
    desk.go.release()
    assert desk.end("one") == "done"
    assert desk.jobs.stop(30)
    assert [(r.id, r.state) for r in desk.saved] == [("one", "lost"), ("one", "queued"), ("one", "done")]


def test_stopping_cancels_what_runs_and_takes_nothing_new() -> None:
    """The running job ends as cancelled at its next safe point and is saved; a new one is a Conflict."""
    desk = Desk()
    number = desk.jobs.start(FIT, "a").fields["job"]
    waiting = desk.jobs.start(VERIFY, "b").fields["job"]
    assert desk.began.acquire(timeout=30)
    assert not desk.jobs.stop(0.0)
    with pytest.raises(Conflict, match="stopping"):
        desk.jobs.start(FIT, "c")
    desk.go.release()
    assert desk.end(number) == "cancelled"
    assert desk.state(waiting) == "queued"


def test_an_unknown_job_is_not_found(desk: Desk) -> None:
    """list, cancel and resume name it."""
    for ask in (desk.jobs.list, desk.jobs.cancel, desk.jobs.resume):
        with pytest.raises(NotFound, match="'nobody'"):
            ask("nobody")
