"""Bundles: many small messages in one frame arrive as they were, and no frame does harm."""

from __future__ import annotations

import contextlib
import struct
import threading
from collections.abc import Iterator

import msgpack
import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_service import Echo

from geostore.errors import BadRequest
from geostore.query import messages
from geostore.query.bundle import BUNDLE_BYTES_MAX, Bundle, is_bundle, unbundle
from geostore.query.dealer import Dealer
from geostore.query.frames import INLINE_BYTES
from geostore.query.router import Router
from geostore.settings import Settings

ASK = {"v": 1, "type": "request", "attempt": 0, "session": "s", "verb": "status", "fields": {}, "bytes": 0}
SCENE = messages.SceneFields(id="a", time_us=0)


@pytest.fixture
def router() -> Iterator[Router]:
    with Router(Echo(), Settings(listen="tcp://127.0.0.1:0")) as router:
        yield router


@contextlib.contextmanager
def stranger(address: str) -> Iterator[zmq.Socket[bytes]]:
    """A bare connection."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.linger = 0
        peer.connect(address)
        yield peer


def bundled(*items: tuple[bytes, bytes]) -> bytes:
    bundle = Bundle()
    for head, body in items:
        assert bundle.add(head, [body], len(body))
    return bundle.frame()


def opened(frame: bytes) -> list[tuple[bytes, bytes]]:
    return [(bytes(head), bytes(body)) for head, body in unbundle(memoryview(frame))]


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=90), st.binary(max_size=300)), min_size=1, max_size=40))
def test_messages_come_out_of_a_bundle_as_they_went_in(items):
    """Round trip over any headers and bodies, empty ones included."""
    frame = bundled(*items)
    assert is_bundle(frame)
    assert opened(frame) == items


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_bundle_or_a_bad_request(data):
    """No byte string behind the mark makes `unbundle` raise anything else, or give out what is not there."""
    with contextlib.suppress(BadRequest):
        assert sum(len(h) + len(b) + 8 for h, b in opened(b"\xc1" + data)) == len(data)


def test_a_bundle_keeps_to_its_size():
    """What does not fit is left for the next one; a single message above the size too."""
    bundle = Bundle()
    assert not bundle.add(b"", [bytes(BUNDLE_BYTES_MAX)], BUNDLE_BYTES_MAX)
    while bundle.add(b"head", [bytes(60_000)], 60_000):
        pass
    assert len(bundle.frame()) == bundle.nbytes <= BUNDLE_BYTES_MAX
    assert bundle.count == 4


@pytest.mark.parametrize(
    "frame",
    [
        b"\xc1",
        b"\xc1\0",
        b"\xc1" + struct.pack("<II", 5, 0),
        b"\xc1" + struct.pack("<II", 0, 2**32 - 1),
        b"\xc1" + struct.pack("<II", 2**32 - 1, 2**32 - 1),
        b"\xc1" + struct.pack("<II", 0, INLINE_BYTES + 1) + bytes(INLINE_BYTES + 1),
        b"\xc1" + struct.pack("<II", 0, 0),
        b"\xc1" + struct.pack("<II", 1, 0) + b"\xc1",
    ],
)
def test_hostile_bundles_are_refused_and_the_service_goes_on(router, frame):
    """Each known way to send a bad bundle is told so, and the next request is answered."""
    with stranger(router.address) as peer:
        peer.send(frame)
        reply = msgpack.unpackb(peer.recv_multipart()[0])
        assert (reply["id"], reply["status"], reply["kind"]) == (0, "error", "bad-request")
        peer.send(msgpack.packb({**ASK, "id": 1}))
        assert msgpack.unpackb(peer.recv_multipart()[0])["status"] == "ok"


def test_what_is_wrong_with_one_message_leaves_the_others_alone(router):
    """Of three requests in a bundle the broken one is refused, the others are answered, in bundles."""
    heads = [{**ASK, "id": 1}, {**ASK, "id": 2, "verb": "explode"}, {**ASK, "id": 3}]
    with stranger(router.address) as peer:
        peer.send(bundled(*[(msgpack.packb(h), b"") for h in heads]))
        found = {}
        while len(found) < 3:
            (first, *rest) = peer.recv_multipart()
            for head, body in opened(first) if is_bundle(first) else [(first, b"".join(rest))]:
                reply = msgpack.unpackb(head)
                found[reply["id"]] = (reply["status"], len(body), is_bundle(first))
    assert found == {1: ("ok", 1024, True), 2: ("error", 0, False), 3: ("ok", 1024, True)}


def test_after_hello_requests_of_every_size_get_their_own_answers(router):
    """500 under way from one client, empty, small and chunked ones mixed, each answered as it should be."""
    with Dealer(router.address) as dealer:
        dealer.hello()
        arrays = [np.full(700 * (i % 130), i % 7, np.uint8) for i in range(500)]
        request = messages.Put(collection="c", scene=SCENE, pieces=[])
        futures = [dealer.submit(request, (a,)) for a in arrays]
        for array, future in zip(arrays, futures, strict=True):
            assert future.result().fields["sums"] == [float(array.sum())]


def test_a_small_answer_may_be_written_to(router):
    """The arrays of a bundled reply are the caller's own."""
    with Dealer(router.address) as dealer:
        dealer.hello()
        first, second = (dealer.ask(messages.Status()).arrays[0] for _ in range(2))
        first[:] = 7
        assert not second.any()


def test_an_older_daemon_behind_the_same_address_gets_no_bundles(router):
    """The client greets its successor again; until that takes bundles it sends every request by itself."""
    dealer = Dealer(router.address)
    dealer.hello()
    assert dealer.ask(messages.Status()).fields == {"verb": "status"}
    address = router.address
    router.close()
    seen: list[bytes] = []
    with zmq.Context() as context, context.socket(zmq.ROUTER) as older:
        older.linger = 0
        older.bind(address)
        answering = threading.Thread(target=answer_plainly, args=(older, seen, 21))
        answering.start()
        futures = [dealer.submit(messages.Status()) for _ in range(20)]
        assert [f.result().fields for f in futures] == [{"old": True}] * 20
        answering.join()
        dealer.close()
    assert not any(is_bundle(frame) for frame in seen)
    assert sum(msgpack.unpackb(frame)["verb"] == "hello" for frame in seen) == 1


def answer_plainly(socket: zmq.Socket[bytes], seen: list[bytes], count: int) -> None:
    """Answer as a daemon did that knew no bundles."""
    for _ in range(count):
        route, frame = socket.recv_multipart()
        seen.append(frame)
        asked = msgpack.unpackb(frame)
        reply = {"v": 1, "type": "reply", "id": asked["id"], "attempt": asked["attempt"], "status": "ok", "bytes": 0}
        limits = {"limits": {"inflight_max": 256}} if asked["verb"] == "hello" else {}
        socket.send_multipart([route, msgpack.packb({**reply, **limits, "fields": {"old": True}})])
