from __future__ import annotations

import contextlib
import os
import socket
import threading
from concurrent.futures import wait

import msgpack
import numpy as np
import pytest
import zmq
from wire_service import Echo

from geostore.errors import (
    BadRequest,
    DeadlineExpired,
    GeostoreError,
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
    Unreachable,
    UnsupportedFormat,
)
from geostore.query import messages
from geostore.query.dealer import Dealer
from geostore.query.router import Router
from geostore.settings import Settings

SCENE = messages.SceneFields(id="a", time_us=0)


def free(**more) -> Settings:
    return Settings(listen="tcp://127.0.0.1:0", **more)


@pytest.fixture
def echo():
    service = Echo()
    yield service
    service.gate.set()


@pytest.fixture
def router(echo):
    with Router(echo, free()) as router:
        yield router


@pytest.fixture
def dealer(router):
    with Dealer(router.address) as dealer:
        yield dealer


def put(*arrays):
    return messages.Put(collection="c", scene=SCENE, pieces=[]), arrays


def test_small_and_large_answers_come_back_whole(dealer, echo):
    """1 KiB rides with its header, 6 MiB comes in chunks; both bit for bit."""
    assert dealer.ask(messages.Status()).fields == {"verb": "status"}
    for _ in range(3):
        (got,) = dealer.ask(messages.Decode(keys=[])).arrays
        np.testing.assert_array_equal(got, np.arange(echo.reply_bytes // 2, dtype=np.uint16))


def test_uploads_small_and_large_arrive_whole(dealer):
    """A body that rides with its header, and 20 MB that waits for grants."""
    small, large = np.arange(10, dtype=np.int32), np.ones((5, 1000, 1000), np.float32)
    reply = dealer.ask(*put(small, large))
    assert reply.fields == {"sums": [45.0, 5e6], "shapes": [[10], [5, 1000, 1000]]}


def test_many_requests_at_once_each_get_their_own_answer(dealer):
    """500 under way from one client, among them large ones, both ways."""
    arrays = [np.full(1000 * (1 + i % 90), i % 7, np.uint8) for i in range(500)]
    futures = [dealer.submit(*put(a)) for a in arrays]
    for array, future in zip(arrays, futures, strict=True):
        assert future.result().fields["sums"] == [float(array.sum())]


def test_many_threads_share_one_client(dealer):
    """The dealer may be used from any thread."""
    found: list[float] = []

    def work(n: int) -> None:
        found.extend(dealer.ask(*put(np.full(n, 1, np.uint8))).fields["sums"][0] - n for _ in range(20))

    threads = [threading.Thread(target=work, args=(i * 30_000,)) for i in range(1, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == [0.0] * 80


def test_fields_larger_than_a_header_come_back(dealer):
    """20,000 entries are 0.5 MB of fields."""
    reply = dealer.ask(messages.Cells(collection="c"))
    assert reply.fields["cells"][19_999] == {"geohash": "u19999", "n": 19_999}


def test_errors_keep_their_kind_and_message(dealer):
    """A NotFound there is a NotFound here; a bug there is `internal`, told without its text."""
    with pytest.raises(NotFound, match="no scene 'x'"):
        dealer.ask(messages.Withdraw(collection="y", scene="x"))
    with pytest.raises(GeostoreError, match="a fault in the daemon") as raised:
        dealer.ask(messages.Collections())
    assert raised.value.kind == "internal"
    assert dealer.ask(messages.Status()).fields == {"verb": "status"}


def test_hello_agrees_on_a_version_and_tells_the_limits(dealer):
    """Versions 1 to 1 here; a client of the future is told to upgrade us."""
    header = dealer.hello()
    assert header["version"] == 1
    assert header["limits"]["chunk_bytes"] == 1_048_576
    with pytest.raises(UnsupportedFormat):
        dealer.ask(messages.Hello(versions=(2, 3)))
    with pytest.raises(BadRequest):
        dealer.ask(messages.Hello(versions=(3, 2)))


def test_a_deadline_that_passes_is_told_and_the_service_goes_on(router, echo):
    """Waiting in the queue or being worked on: DeadlineExpired, and the next request is answered."""
    with Dealer(router.address) as dealer:
        futures = [dealer.submit(messages.Scenes(), deadline_s=0.2) for _ in range(4)]
        for future in futures:
            with pytest.raises(DeadlineExpired, match="scenes"):
                future.result()
        echo.gate.set()
        assert dealer.ask(messages.Status()).fields == {"verb": "status"}


def test_too_many_requests_are_refused_not_queued(echo):
    """queue_max names itself; what was accepted is answered."""
    with Router(echo, free(queue_max=3)) as router, Dealer(router.address) as dealer:
        futures = [dealer.submit(messages.Scenes()) for _ in range(5)]
        for future in futures[3:]:
            with pytest.raises(Overloaded, match="queue_max"):
                future.result()
        echo.gate.set()
        assert [f.result().fields["verb"] for f in futures[:3]] == ["scenes"] * 3


def test_too_many_requests_of_one_client_are_refused(echo):
    """inflight_max holds per connection; a client that said hello keeps to it by itself."""
    with (
        Router(echo, free(inflight_max=2, threads=4)) as router,
        Dealer(router.address) as rude,
        Dealer(router.address) as polite,
    ):
        futures = [rude.submit(messages.Scenes()) for _ in range(3)]
        with pytest.raises(Overloaded, match="inflight_max"):
            futures[2].result()
        polite.hello()
        echo.gate.set()
        assert len(wait([polite.submit(messages.Scenes()) for _ in range(9)], timeout=30).done) == 9


def test_an_upload_above_the_limit_is_refused_before_it_is_sent(echo):
    """The declared total is checked; not a byte of the body travels."""
    with Router(echo, free(upload_bytes_max=2**20)) as router, Dealer(router.address) as dealer:
        with pytest.raises(Overloaded, match="upload_bytes_max"):
            dealer.ask(*put(np.zeros(2**21, np.uint8)))
        assert dealer.ask(*put(np.zeros(2**19, np.uint8))).fields["sums"] == [0.0]
    assert len(echo.asked) == 1


def test_uploads_wait_for_room_and_all_arrive(echo):
    """Six uploads of 600 kB where only one fits at a time."""
    with Router(echo, free(upload_bytes_max=2**20)) as router, Dealer(router.address) as dealer:
        futures = [dealer.submit(*put(np.full(600_000, i, np.uint8))) for i in range(6)]
        assert [f.result().fields["sums"][0] for f in futures] == [600_000.0 * i for i in range(6)]


def test_replies_beyond_the_memory_limit_go_through_files_unchanged(echo):
    """Twelve replies of 6 MiB with 1 MiB of memory for replies; nothing stays behind."""
    with Router(echo, free(reply_bytes_max=2**20)) as router, Dealer(router.address) as dealer:
        futures = [dealer.submit(messages.Decode(keys=[])) for _ in range(12)]
        for future in futures:
            np.testing.assert_array_equal(future.result().arrays[0], np.arange(echo.reply_bytes // 2, dtype=np.uint16))
        dealer.hello()  # after it, the daemon has taken every grant before it
        assert (router.spool.memory_bytes, router.spool.disk_bytes) == (0, 0)


def test_a_reply_beyond_all_limits_is_refused(echo):
    """No memory, no disk: Overloaded, and small answers go on."""
    settings = free(reply_bytes_max=2**20, spool_bytes_max=2**20)
    with Router(echo, settings) as router, Dealer(router.address) as dealer:
        with pytest.raises(Overloaded, match="spool_bytes_max"):
            dealer.ask(messages.Decode(keys=[]))
        assert dealer.ask(messages.Status()).fields == {"verb": "status"}


def test_nobody_at_the_address_is_unreachable():
    """A port where nothing listens: Unreachable with the address, well before the deadline."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with Dealer(address, connect_s=0.3) as dealer, pytest.raises(Unreachable, match=address):
            dealer.ask(messages.Status())


@pytest.mark.parametrize("address", ["", "127.0.0.1:7070", "tcp://127.0.0.1:port", "carrier://pigeon"])
def test_an_address_that_is_none_is_told_to_the_client(address):
    """A client names the address and the form it should have."""
    with pytest.raises(InvalidInput, match="tcp://host:port"):
        Dealer(address)


def test_a_client_that_is_closed_says_so(router):
    """What was under way fails, what comes later is refused."""
    dealer = Dealer(router.address)
    future = dealer.submit(messages.Scenes())
    dealer.close()
    with pytest.raises(Unreachable):
        future.result()
    with pytest.raises(Unreachable):
        dealer.ask(messages.Status())


@pytest.mark.parametrize("attempt", range(20))  # what is sent while the connection breaks is a race
def test_requests_survive_the_daemons_restart(echo, attempt):
    """The daemon goes away with requests under way; they are asked again at its successor and answered."""
    with Router(echo, free(threads=1)) as first:
        address = first.address
        dealer = Dealer(address)
        futures = [dealer.submit(messages.Scenes(), deadline_s=30) for _ in range(3)]
        assert echo.entered.wait(30)
    echo.gate.set()
    successor = Echo()
    successor.gate.set()
    with Router(successor, Settings(listen=address)), dealer:
        assert [f.result().fields["verb"] for f in futures] == ["scenes"] * 3


def test_a_retry_while_the_work_runs_does_the_work_once(echo):
    """The same id again, on a new connection: one handler call, and the answer goes to the new connection."""
    context = zmq.Context()
    with Router(echo, free()) as router:
        ask = {"v": 1, "type": "request", "id": 1, "session": "s", "verb": "scenes", "fields": {}, "bytes": 0}
        old, new = context.socket(zmq.DEALER), context.socket(zmq.DEALER)
        for attempt, peer in enumerate((old, new)):
            peer.linger = 0
            peer.connect(router.address)
            peer.send(msgpack.packb({**ask, "attempt": attempt}))
            assert echo.entered.wait(30)
        new.send(msgpack.packb({**ask, "id": 2, "attempt": 0, "verb": "status"}))
        assert msgpack.unpackb(new.recv_multipart()[0])["id"] == 2  # the retry was taken before this
        echo.gate.set()
        reply = msgpack.unpackb(new.recv_multipart()[0])
        assert (reply["id"], reply["attempt"], reply["status"]) == (1, 1, "ok")
        assert [a.request.verb for a in echo.asked] == ["scenes", "status"]
        old.close()
        new.close()
    context.term()


def test_a_stopping_daemon_finishes_what_it_took_and_refuses_the_rest(router, dealer, echo):
    """drain: the running request is answered, a new one is Unavailable."""
    running = dealer.submit(messages.Scenes())
    assert echo.entered.wait(30)
    assert not router.drain(0.0)
    with pytest.raises(Unavailable, match="stopping"):
        dealer.ask(messages.Status())
    echo.gate.set()
    assert router.drain(30)
    assert running.result().fields == {"verb": "scenes"}


def test_random_bytes_on_the_port_do_not_disturb(router, dealer):
    """Garbage over plain TCP and over ZeroMQ; the service answers before and after."""
    host, port = router.address.removeprefix("tcp://").split(":")
    rng = np.random.default_rng(7)
    for size in (1, 10, 64, 1000, 100_000):
        with socket.create_connection((host, int(port)), timeout=10) as raw, contextlib.suppress(OSError):
            raw.sendall(rng.bytes(size))
    context = zmq.Context()
    stranger = context.socket(zmq.DEALER)
    stranger.linger = 0
    stranger.connect(router.address)
    sent = [[rng.bytes(int(n))] for n in rng.integers(1, 300, 50)] + [[b"x"] * 40, [b""], [os.urandom(70_000)]]
    for frames in sent:
        stranger.send_multipart(frames)
        reply = msgpack.unpackb(stranger.recv_multipart()[0])
        assert (reply["id"], reply["status"], reply["kind"]) == (0, "error", "bad-request")
        assert dealer.ask(messages.Status()).fields == {"verb": "status"}
    stranger.close()
    context.term()


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"verb": "explode"}, "bad-request"),
        ({"v": 9}, "unsupported-format"),
        ({"bytes": 8}, "bad-request"),
        ({"bytes": 2**40}, "overloaded"),
        ({"fields": {"collection": 7, "scene": []}}, "bad-request"),
        ({"arrays": [["object", [1]]]}, "bad-request"),
        ({"arrays": [["uint8", [1]]]}, "bad-request"),
        ({"facts_bytes": 4}, "bad-request"),
        ({"deadline_ms": -1}, "bad-request"),
    ],
)
def test_a_malformed_request_is_told_what_is_wrong(router, change, kind):
    """Each comes back with its id and the kind of its fault."""
    context = zmq.Context()
    stranger = context.socket(zmq.DEALER)
    stranger.linger = 0
    stranger.connect(router.address)
    ask = {"v": 1, "type": "request", "id": 5, "attempt": 0, "session": "s", "verb": "withdraw", "bytes": 0, **change}
    stranger.send(msgpack.packb(ask))
    reply = msgpack.unpackb(stranger.recv_multipart()[0])
    assert (reply["status"], reply["kind"]) == ("error", kind)
    assert reply["message"]
    stranger.close()
    context.term()


def test_an_oversized_frame_ends_only_its_connection(router, dealer):
    """MAXMSGSIZE: the sender is cut off, the others are served."""
    context = zmq.Context()
    stranger = context.socket(zmq.DEALER)
    stranger.linger = 0
    stranger.connect(router.address)
    stranger.send(bytes(4 * 2**20))
    assert dealer.ask(messages.Status()).fields == {"verb": "status"}
    stranger.close()
    context.term()


@pytest.mark.parametrize("listen", ["tcp://0.0.0.0:0", "tcp://*:0", "tcp://[::]:0", "tcp://203.0.113.5:7070"])
def test_an_open_address_without_keys_is_refused(echo, listen):
    """Neither keys nor --insecure: the daemon does not listen."""
    with pytest.raises(InvalidInput, match="--insecure"):
        Router(echo, Settings(listen=listen))


def test_an_open_address_may_be_stated_insecure(echo):
    """--insecure is the operator's word."""
    with Router(echo, Settings(listen="tcp://0.0.0.0:0", insecure=True)) as router:
        port = router.address.rpartition(":")[2]
        with Dealer(f"tcp://127.0.0.1:{port}") as dealer:
            assert dealer.ask(messages.Status()).fields == {"verb": "status"}


@pytest.mark.parametrize("listen", ["http://127.0.0.1:1", "7070", "tcp://"])
def test_an_address_that_is_none_is_refused(echo, listen):
    """Only tcp:// and ipc:// are listened on."""
    with pytest.raises(InvalidInput, match="cannot listen"):
        Router(echo, Settings(listen=listen))


def test_a_taken_address_is_refused(router, echo):
    """A second daemon on one port is told to choose another."""
    with pytest.raises(InvalidInput, match="choose another"):
        Router(echo, Settings(listen=router.address))


def test_an_ipc_address_serves_the_same(echo, tmp_path):
    """ipc:// needs no keys: the file system guards it."""
    with Router(echo, Settings(listen=f"ipc://{tmp_path}/s")) as router, Dealer(router.address) as dealer:
        assert dealer.ask(messages.Decode(keys=[])).arrays[0].nbytes == echo.reply_bytes


def test_a_reply_in_one_message_lies_where_it_was_received(router):
    """6 MiB asked for in chunks of 8 come as one frame, granted once, and are the caller's to write to."""
    with Dealer(router.address) as dealer:
        first, second = (dealer.ask(messages.Decode(keys=[])).arrays[0] for _ in range(2))
        assert first.flags.writeable
        first[:] = 1
        np.testing.assert_array_equal(second, np.arange(second.size, dtype=np.uint16))
    ask = {"v": 1, "type": "request", "id": 1, "attempt": 0, "session": "s", "verb": "decode", "bytes": 0}
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.linger = 0
        stranger.connect(router.address)
        for chunk_bytes, sizes in ((2**40, [6 * 2**20]), (5 * 2**20, [5 * 2**20, 2**20]), (1, [2**20] * 6)):
            stranger.send(msgpack.packb({**ask, "credit": 8, "chunk_bytes": chunk_bytes, "fields": {"keys": []}}))
            assert [len(stranger.recv_multipart()[1]) for _ in sizes] == sizes
            grant = {"v": 1, "type": "grant", "id": 1, "attempt": 0, "chunks": len(sizes), "session": "s"}
            stranger.send(msgpack.packb(grant))
