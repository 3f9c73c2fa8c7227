"""Kept answers: given again while the store is as it was, and never after."""

from __future__ import annotations

import numpy as np
import pytest

from geostore.query import messages
from geostore.query.answers import Answers
from geostore.query.bodies import outgoing
from geostore.query.dealer import Dealer
from geostore.query.frames import INLINE_BYTES, Content
from geostore.query.handlers import Asked
from geostore.query.messages import Reply
from geostore.query.router import Router
from geostore.query.spool import Spool
from geostore.settings import Settings

SPOOL = Spool(memory_bytes_max=2**20, disk_bytes_max=0)


class Counting:
    """A service whose answer says how many requests it worked on."""

    def __init__(self) -> None:
        self.state: int | None = 0
        self.worked = 0

    def __call__(self, asked: Asked) -> Reply:
        self.worked += 1
        size = INLINE_BYTES + 8 if asked.request.verb == "cells" else 16
        return Reply({"n": self.worked}, (np.full(size, self.worked % 100, np.uint8),))


def answer(n: int, size: int = 0) -> tuple[Content, object]:
    content, body = outgoing({"n": n}, [np.zeros(size, np.uint8)], bytes_max=65_536)
    return content, SPOOL.keep(body)


@pytest.fixture
def service():
    return Counting()


@pytest.fixture
def dealer(service):
    answers = Answers(lambda: service.state, bytes_max=2**20)
    with Router(service, Settings(listen="tcp://127.0.0.1:0"), answers=answers) as router, Dealer(router.address) as it:
        it.hello()
        service.worked = 0
        yield it


def numbers(dealer, request, times):
    found = []
    for _ in range(times):
        reply = dealer.ask(request)
        assert set(reply.arrays[0].tolist()) == {reply.fields["n"]}
        found.append(reply.fields["n"])
    return found


def test_an_equal_request_is_worked_on_once_while_the_store_is_the_same(service, dealer):
    """The second is the first one's bytes; another request, and the same one in another state, are worked on."""
    here, there = (messages.Rasters(geohash=g) for g in ("u8hks", "u8hkt"))
    assert numbers(dealer, here, 3) == [1, 1, 1]
    assert numbers(dealer, there, 2) == [2, 2]
    service.state = 1
    assert numbers(dealer, here, 2) == [3, 3]
    service.state = None
    assert numbers(dealer, here, 2) == [4, 5]


@pytest.mark.parametrize("request_", [messages.Status(), messages.Jobs(), messages.Cells(collection="c")])
def test_what_may_differ_or_is_large_is_worked_on_each_time(dealer, request_):
    """Verbs that speak of more than the rows, and answers above INLINE_BYTES, are not kept."""
    assert numbers(dealer, request_, 2) == [1, 2]


def test_an_answer_made_while_the_store_changed_is_not_kept():
    """The state when the request came must be the state when its answer is ready."""
    state = [3]
    answers = Answers(lambda: state[0], bytes_max=2**20)
    state[0] = 4
    answers.keep(b"a", 3, *answer(1))
    assert answers.recall(b"a", 4) is None
    answers.keep(b"a", 4, *answer(2))
    assert answers.recall(b"a", 4) is not None
    assert answers.recall(b"a", None) is None


def test_answers_keep_to_their_memory_and_the_least_recently_asked_goes_first():
    """Room for three: the one not asked for since is gone when a fourth comes."""
    answers = Answers(lambda: 0, bytes_max=3 * 1700)
    for name in (b"a", b"b", b"c"):
        answers.keep(name, 0, *answer(1, 1024))
    assert answers.recall(b"a", 0) is not None
    answers.keep(b"d", 0, *answer(1, 1024))
    assert [n for n in (b"a", b"b", b"c", b"d") if answers.recall(n, 0)] == [b"a", b"c", b"d"]
    off = Answers(lambda: 0, bytes_max=0)
    off.keep(b"a", 0, *answer(1))
    assert off.recall(b"a", 0) is None
