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
from geostore.query.bodies import outgoing, read_inline
from geostore.query.bundle import (
    BUNDLE_BYTES_MAX,
    Bundle,
    asked_entry,
    is_bundle,
    replies,
    replies_in,
    requests_in,
    told_entry,
)
from geostore.query.dealer import Dealer
from geostore.query.frames import INLINE_BYTES
from geostore.query.router import Router
from geostore.settings import Settings

SHARED = {"v": 1, "type": "request", "session": "s", "credit": 8, "chunk_bytes": 65_536}
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


def bundled(*entries: list[object], body: bytes = b"", **shared: object) -> bytes:
    """A frame as docs/PROTOCOL.md describes it, made without the code under test."""
    head = msgpack.packb({**SHARED, **shared, "messages": list(entries)})
    return struct.pack("<B3xI", 0xC1, len(head)) + head + bytes(-len(head) % 8) + body


def entry(number: int, verb: str = "status", nbytes: int = 0) -> list[object]:
    return [number, 0, nbytes, verb, 60_000, {}, []]


TEXT = st.text(max_size=12)
FIELDS = st.dictionaries(TEXT, st.integers(0, 2**40) | TEXT | st.none(), max_size=4)
ARRAYS = st.lists(st.integers(0, 40).map(lambda n: np.arange(n, dtype=np.int16)), max_size=3)
MESSAGE = st.tuples(st.integers(0, 2**53 - 1), st.integers(0, 9), TEXT, st.integers(1, 10**6), FIELDS, ARRAYS)


@settings(deadline=None)
@given(st.lists(MESSAGE, min_size=1, max_size=40))
def test_requests_come_out_of_a_bundle_as_they_went_in(items):
    """Round trip over any fields and arrays, none included; the frame is what an independent writer makes."""
    bundle, plain, bodies = Bundle(SHARED), [], b""
    for number, attempt, verb, deadline_ms, fields, arrays in items:
        content, body = outgoing(fields, arrays, bytes_max=65_536)
        assert bundle.add(asked_entry(number, attempt, verb, deadline_ms, content), body.frames(0, 2**16), body.nbytes)
        shapes = [[a.dtype.name, list(a.shape)] for a in arrays]
        plain.append([number, attempt, body.nbytes, verb, deadline_ms, fields, shapes])
        bodies += b"".join(body.frames(0, 2**16))
    frame = bundle.frame()
    assert is_bundle(frame)
    assert len(frame) <= bundle.nbytes
    assert frame == bundled(*plain, body=bodies)
    for (header, said, body), (number, attempt, verb, deadline_ms, fields, arrays) in zip(
        requests_in(memoryview(frame)), items, strict=True
    ):
        assert {**SHARED, "id": number, "attempt": attempt, "verb": verb}.items() <= header.items()
        assert header["deadline_ms"] == deadline_ms
        found, read = read_inline(msgpack.unpackb(said.fields), msgpack.unpackb(said.arrays), body)
        assert found == fields
        assert [a.tolist() for a in read] == [a.tolist() for a in arrays]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**53 - 1), FIELDS, ARRAYS), min_size=1, max_size=40))
def test_replies_come_out_of_a_bundle_as_they_went_in(items):
    """Round trip over any fields and arrays; what is read is a copy that may be written to."""
    bundle = replies()
    for number, fields, arrays in items:
        content, body = outgoing(fields, arrays, bytes_max=65_536)
        assert bundle.add(told_entry(number, 1, content), body.frames(0, 2**16), body.nbytes)
    for (told, body), (number, fields, arrays) in zip(replies_in(memoryview(bundle.frame())), items, strict=True):
        assert (told.id, told.attempt) == (number, 1)
        found, read = read_inline(told.fields, told.arrays, body)
        assert found == fields
        assert [a.tolist() for a in read] == [a.tolist() for a in arrays]
        assert all(a.flags.writeable for a in read)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200), st.sampled_from([requests_in, replies_in]))
def test_any_bytes_are_a_bundle_or_a_bad_request(data, opened):
    """No byte string behind the mark makes a reader raise anything else."""
    with contextlib.suppress(BadRequest):
        list(opened(memoryview(b"\xc1" + data)))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_damaged_bundle_is_a_bundle_or_a_bad_request(data):
    """A byte changed anywhere, or the end cut off, makes no other error and gives out no bytes that are not there."""
    frame = bytearray(bundled(entry(1), entry(2, nbytes=16), entry(3, nbytes=8), body=bytes(24)))
    frame[data.draw(st.integers(1, len(frame) - 1))] = data.draw(st.integers(0, 255))
    cut = memoryview(frame)[: data.draw(st.integers(1, len(frame)))]
    with contextlib.suppress(BadRequest):
        assert sum(len(body) for *_, body in requests_in(cut)) <= len(cut)


def test_a_bundle_keeps_to_its_size():
    """What does not fit is left for the next one; a single message above the size too."""
    bundle = replies()
    assert not bundle.add(b"", [bytes(BUNDLE_BYTES_MAX)], BUNDLE_BYTES_MAX)
    while bundle.add(b"head", [bytes(60_000)], 60_000):
        pass
    assert len(bundle.frame()) <= bundle.nbytes <= BUNDLE_BYTES_MAX
    assert bundle.count == 4


@pytest.mark.parametrize(
    "frame",
    [
        b"\xc1",
        b"\xc1" + bytes(7),
        struct.pack("<B3xI", 0xC1, 5),
        struct.pack("<B3xI", 0xC1, 2**32 - 1) + bytes(16),
        struct.pack("<B3xI", 0xC1, 1) + b"\xc1",
        bundled(),
        bundled(entry(1), type="reply"),
        bundled(entry(1), type=7),
        bundled(entry(1), v="1"),
        bundled(entry(1), session="s" * 65),
        bundled(entry(1), credit=-1),
        bundled(7),
        bundled([]),
        bundled(entry(1)[:-1]),
        bundled(["1", *entry(1)[1:]]),
        bundled([-1, *entry(1)[1:]]),
        bundled(entry(1, nbytes=8)),
        bundled(entry(1, nbytes=INLINE_BYTES + 8), body=bytes(INLINE_BYTES + 8)),
        bundled(entry(1, nbytes=2**63)),
    ],
)
def test_hostile_bundles_are_refused_and_the_service_goes_on(router, frame):
    """Each known way to send a bad bundle is told so, and the next request is answered."""
    with stranger(router.address) as peer:
        peer.send(frame)
        reply = msgpack.unpackb(peer.recv_multipart()[0])
        assert (reply["id"], reply["status"], reply["kind"]) == (0, "error", "bad-request")
        peer.send(bundled(entry(1)))
        ((told, _),) = replies_in(memoryview(peer.recv()))
        assert told.id == 1


def test_what_is_wrong_with_one_message_leaves_the_others_alone(router):
    """Broken ones in a bundle are refused by their ids, the others answered, also one with items of later versions."""
    unmapped, binary = [*entry(3)[:5], 7, []], [*entry(4)[:5], {"a": b"1"}, []]
    unlisted, later = [*entry(5)[:6], {}], [*entry(6), "later"]
    found = {}
    with stranger(router.address) as peer:
        peer.send(bundled(entry(1), entry(2, "explode"), unmapped, binary, unlisted, later))
        while len(found) < 6:
            frame = peer.recv()
            if is_bundle(frame):
                found.update({told.id: len(body) for told, body in replies_in(memoryview(frame))})
            else:
                reply = msgpack.unpackb(frame)
                found[reply["id"]] = reply["kind"]
    assert found == {1: 1024, 6: 1024, **dict.fromkeys((2, 3, 4, 5), "bad-request")}


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
