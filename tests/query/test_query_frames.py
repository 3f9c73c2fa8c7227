from __future__ import annotations

import contextlib
import itertools

import msgpack
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geostore.errors import BadRequest, Overloaded
from geostore.query.bodies import Body, Inbox, Pieces, check_shapes, outgoing, read_body
from geostore.query.frames import FRAMES_MAX, INLINE_BYTES, Header, pack, unpack
from geostore.query.messages import ARRAY_DTYPES

HEAD: Header = {"v": 1, "type": "request", "id": 1, "attempt": 0, "session": "s", "verb": "put"}
ARRAYS = st.lists(
    st.sampled_from(sorted(ARRAY_DTYPES, key=str)).flatmap(
        lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    ),
    max_size=12,
)


def travel(fields, arrays, *, bytes_max: int = 65_536, chunk_bytes: int = 4096):
    content, body = outgoing(fields, arrays, bytes_max=bytes_max)
    head = unpack(pack(HEAD, content), bytes_max=bytes_max)
    inbox = Inbox(head, bytes_max=2**30)
    for start in range(0, body.nbytes, chunk_bytes):
        frames = body.frames(start, start + chunk_bytes)
        assert len(frames) <= FRAMES_MAX
        assert sum(map(len, frames)) == min(chunk_bytes, body.nbytes - start)
        inbox.add(frames)
    return head, inbox


@settings(deadline=None, max_examples=60)
@given(arrays=ARRAYS, chunk_bytes=st.integers(1, 300))
def test_arrays_come_back_bit_for_bit_however_the_body_is_cut(arrays, chunk_bytes):
    """Round trip over dtypes, ranks, empty arrays and any chunk size."""
    _, inbox = travel({"a": [1, None, "x"]}, arrays, chunk_bytes=chunk_bytes)
    fields, back = inbox.read()
    assert fields == {"a": [1, None, "x"]}
    assert len(back) == len(arrays)
    for sent, got in zip(arrays, back, strict=True):
        assert got.shape == sent.shape
        assert got.dtype == sent.dtype
        assert got.tobytes() == sent.tobytes()


def test_fields_too_large_for_the_header_travel_in_the_body():
    """A put of 4,096 pieces has more than 64 KiB of fields: header small, fields whole."""
    fields = {"pieces": [{"geohash": "u4pru", "pixels": i} for i in range(4096)]}
    head, inbox = travel(fields, [np.arange(5, dtype=np.int16)])
    assert len(pack(head)) < 1024
    assert head["facts_bytes"] > 65_536
    back, arrays = inbox.read()
    assert back == fields
    assert arrays[0].tolist() == [0, 1, 2, 3, 4]


def test_large_arrays_are_not_copied_on_their_way_out():
    """The frames of a large body are views of the array itself."""
    array = np.zeros(2**20, np.uint16)
    _, body = outgoing({}, [array], bytes_max=65_536)
    frames = body.frames(0, 2**20)
    assert len(frames) == 1
    assert np.shares_memory(np.frombuffer(frames[0], np.uint8), array)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=400))
def test_any_bytes_are_a_header_or_a_bad_request(data):
    """No byte string makes `unpack` raise anything else."""
    with contextlib.suppress(BadRequest):
        unpack(data, bytes_max=65_536)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xdd\xff\xff\xff\xff",  # a list that claims 2^32 items
        b"\xdf\xff\xff\xff\xff",
        b"\x91" * 60_000,  # deep nesting
        msgpack.packb({1: 2}),
        msgpack.packb([1]),
        msgpack.packb(msgpack.Timestamp(2**33, 1)),
        b"\xc7\x0c\xff" + b"\xff" * 12,  # a timestamp out of range
        pack(HEAD) + b"\0",
        pack({"type": "request"}),
        pack({**HEAD, "bytes": -1}),
        pack({**HEAD, "bytes": 2**60}),
        pack({**HEAD, "bytes": True}),  # type: ignore[typeddict-item]
        pack({**HEAD, "bytes": 0, "verb": 7}),  # type: ignore[typeddict-item]
        pack({**HEAD, "bytes": 0, "session": "s" * 65}),
        pack({**HEAD, "bytes": 0, "type": "shout"}),
        msgpack.packb({**HEAD, "bytes": 0, "blob": b"x"}),
    ],
)
def test_hostile_headers_are_refused(frame):
    """Each known way to send a bad header ends in BadRequest."""
    with pytest.raises(BadRequest):
        unpack(frame, bytes_max=65_536)


def test_unknown_fields_of_a_header_pass():
    """What a later version adds does not disturb this one."""
    header = unpack(msgpack.packb({**HEAD, "bytes": 0, "colour": "blue"}), bytes_max=65_536)
    assert header["verb"] == "put"


def test_a_header_above_the_limit_is_refused():
    """The header's limit holds before anything is decoded."""
    with pytest.raises(BadRequest, match="at most 1024"):
        unpack(b"\x80" * 2000, bytes_max=1024)


@pytest.mark.parametrize(
    "arrays",
    [
        [["object", [1]]],
        [["complex128", [1]]],
        [["uint8"]],
        [["uint8", [-1]]],
        [["uint8", [True]]],
        [["uint8", [1.5]]],
        [["uint8", [1] * 5]],
        [["uint8", [2**41]]],
        [[["uint8"], [1]]],
        ["uint8"],
        [["uint8", [1]]] * 70_000,
    ],
)
def test_hostile_array_descriptors_are_refused(arrays):
    """dtype whitelist, dimensions and count."""
    with pytest.raises(BadRequest):
        check_shapes(arrays)


@pytest.mark.parametrize("shape", [[3], [5], [2**39, 2**39, 2**39, 2**39]])
def test_shape_product_must_be_the_bytes_that_came(shape):
    """A descriptor that promises other than what the body holds is refused, without making room for it."""
    inbox = Inbox({**HEAD, "bytes": 8, "fields": {}, "arrays": [["uint16", shape]]}, bytes_max=2**20)
    inbox.add([bytes(8)])
    if shape in ([3],):  # 6 bytes and 2 of padding
        assert inbox.read()[1][0].shape == (3,)
    else:
        with pytest.raises(BadRequest, match="shape product"):
            inbox.read()


def test_a_body_keeps_to_what_its_header_declared():
    """More bytes, too few bytes, too large a declaration: each refused."""
    inbox = Inbox({**HEAD, "bytes": 8, "fields": {}, "arrays": []}, bytes_max=100)
    with pytest.raises(BadRequest):
        inbox.read()
    with pytest.raises(BadRequest):
        inbox.add([bytes(9)])
    with pytest.raises(Overloaded, match="upload_bytes_max"):
        Inbox({**HEAD, "bytes": 101}, bytes_max=100)


def test_a_declared_body_costs_no_memory_before_it_comes():
    """Ten declarations of 1 GiB are address space only; one beyond any machine is refused."""
    process = psutil.Process()
    before = process.memory_info().rss
    inboxes = [Inbox({**HEAD, "bytes": 2**30}, bytes_max=2**31) for _ in range(10)]
    assert process.memory_info().rss - before < 2**26
    assert sum(i.filled for i in inboxes) == 0
    with pytest.raises(Overloaded, match="no memory"):
        Inbox({**HEAD, "bytes": 2**50}, bytes_max=2**52)


def test_small_parts_are_joined_into_few_frames():
    """A thousand tiny masks do not make a thousand frames."""
    body = Body([bytes([i % 256] * 3) for i in range(1000)])
    assert len(body.frames(0, INLINE_BYTES)) == 1
    assert body.nbytes == 8000


def test_arrays_that_do_not_travel_are_refused_by_the_sender():
    """bool and object arrays are the caller's mistake, found before they are sent."""
    for array in (np.zeros(3, bool), np.array([None]), np.zeros((1,) * 5, np.uint8)):
        with pytest.raises(BadRequest, match="does not travel"):
            outgoing({}, [array], bytes_max=65_536)


@settings(deadline=None, max_examples=60)
@given(arrays=ARRAYS, cuts=st.lists(st.integers(0, 2000), max_size=7))
def test_a_body_is_read_from_whatever_buffers_it_came_in(arrays, cuts):
    """Round trip over any division into buffers."""
    content, body = outgoing({"a": 1}, arrays, bytes_max=65_536)
    whole = b"".join(body.frames(0, body.nbytes))
    at = [0, *sorted(c for c in cuts if c < len(whole)), len(whole)]
    parts = [memoryview(bytearray(whole[low:high])) for low, high in itertools.pairwise(at)]
    fields, back = read_body(unpack(pack(HEAD, content), bytes_max=65_536), Pieces(parts))
    assert fields == {"a": 1}
    for sent, got in zip(arrays, back, strict=True):
        assert got.tobytes() == sent.tobytes()
        assert not got.size or got.flags.writeable


def test_an_array_that_came_in_one_buffer_is_a_view_of_it():
    """No copy between the socket's memory and the caller."""
    parts = [memoryview(bytearray(n)) for n in (16, 8)]
    head = {**HEAD, "fields": {}, "arrays": [["uint16", [2, 4]], ["uint8", [8]]]}
    _, back = read_body(head, Pieces(parts))
    for array, part in zip(back, parts, strict=True):
        assert np.shares_memory(array, np.frombuffer(part, np.uint8))
