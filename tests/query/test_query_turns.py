"""Whoever waits drives the connection: every answer comes, whoever asks, stops, is interrupted or closes."""

from __future__ import annotations

import _thread
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np
import pytest
from wire_service import Echo

from geostore.errors import Unreachable
from geostore.query import messages
from geostore.query.dealer import Dealer
from geostore.query.router import Router
from geostore.settings import Settings

SLOW = messages.Scenes(collection="c")


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.gate.set()


@pytest.fixture
def dealer(echo) -> Iterator[Dealer]:
    settings = Settings(listen="tcp://127.0.0.1:0")
    with Router(echo, settings) as router, Dealer(router.address, settings) as dealer:
        dealer.hello()
        yield dealer


def test_one_who_leaves_serves_the_others_on(echo, dealer):
    """One thread waits long, another asks and goes a hundred times: both get their own answers."""
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(dealer.ask, SLOW)
        assert echo.entered.wait(60)
        for n in range(100):
            array = np.full(8, n, np.uint8)
            put = messages.Put(collection="c", scene=messages.SceneFields(id="a", time_us=0), pieces=[])
            assert dealer.ask(put, (array,)).fields["sums"] == [8.0 * n]
        assert not slow.done()
        echo.gate.set()
        assert slow.result(60).fields == {"verb": "scenes"}


def test_answers_that_nobody_waits_for_come_too(dealer):
    """After somebody led, futures of which nobody asks the result are done all the same, and their callbacks run."""
    told = []
    for _ in range(5):
        dealer.ask(messages.Status())
        futures = [dealer.submit(messages.Status()) for _ in range(20)]
        for future in futures:
            future.add_done_callback(lambda f: told.append(f.exception()))
        assert len(list(as_completed(futures, 60))) == 20
    assert told == [None] * 100


def test_many_threads_share_one_connection(dealer):
    """Sixteen threads ask at once, small and large, and each gets what it asked for."""

    def ask(n: int) -> bool:
        array = np.full(1 + 30_000 * (n % 7), n % 5, np.uint8)
        put = messages.Put(collection="c", scene=messages.SceneFields(id="a", time_us=0), pieces=[])
        return dealer.ask(put, (array,)).fields["sums"] == [float(array.sum())]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(320)))


def test_closing_ends_the_wait_of_whoever_leads(echo, dealer):
    """Another thread closes: the one that waits is told, and does not hang."""
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(dealer.ask, SLOW)
        assert echo.entered.wait(60)
        dealer.close()
        with pytest.raises(Unreachable, match="was closed"):
            slow.result(60)


def test_a_timeout_is_kept_while_nobody_answers(echo, dealer):
    """`result(timeout)` of a future gives up in time, and the answer still comes."""
    slow = dealer.submit(SLOW)
    with pytest.raises(TimeoutError):
        slow.result(0.01)
    echo.gate.set()
    assert slow.result().fields == {"verb": "scenes"}


def test_an_interrupt_ends_the_wait_and_harms_nothing(echo, dealer):
    """Ctrl-C in the main thread: KeyboardInterrupt there, the request is given up, the next ones are answered."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    try:
        threading.Thread(target=lambda: echo.entered.wait(60) and _thread.interrupt_main()).start()
        with pytest.raises(KeyboardInterrupt):
            dealer.ask(SLOW)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert [dealer.ask(messages.Status()).fields for _ in range(20)] == [{"verb": "status"}] * 20
    finally:
        signal.signal(signal.SIGINT, previous)


INTERRUPTED = """
import signal, sys
from geostore.query import messages
from geostore.query.dealer import Dealer
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupts, told = 0, False
with Dealer(sys.argv[1]) as dealer:
    dealer.hello()
    while interrupts < 100:
        try:
            while True:
                if not told:  # the next interrupt comes after this
                    told = True
                    print(interrupts, flush=True)
                assert dealer.submit(messages.Status()).result().fields == {"verb": "status"}
        except KeyboardInterrupt:
            interrupts, told = interrupts + 1, False
    assert [dealer.ask(messages.Status()).fields for _ in range(20)] == [{"verb": "status"}] * 20
    print("well", flush=True)
"""


def test_a_hundred_interrupts_at_any_moment_lose_no_answer():
    """SIGINT again and again in a process that asks all the time: every interrupt is one, every answer comes."""
    with Router(Echo(), Settings(listen="tcp://127.0.0.1:0")) as router:
        command = [sys.executable, "-c", INTERRUPTED, router.address]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking:
            assert asking.stdout is not None
            for n in range(100):
                assert asking.stdout.readline() == f"{n}\n"
                asking.send_signal(signal.SIGINT)
            assert asking.stdout.read() == "well\n"
        assert asking.returncode == 0
