from __future__ import annotations

import multiprocessing

import msgpack
import numpy as np
import psutil
import zmq
from wire_service import Echo

from geostore.query import messages
from geostore.query.dealer import Dealer
from geostore.query.router import Router
from geostore.settings import Settings

READERS, REPLY_BYTES = 64, 6 * 2**20


def serve(pipe) -> None:
    with Router(Echo(reply_bytes=REPLY_BYTES), Settings(listen="tcp://127.0.0.1:0")) as router:
        pipe.send(router.address)
        pipe.recv()


def test_readers_that_stop_reading_cost_the_daemon_little():
    """64 connections ask for 6 MiB each with full credit and read nothing; another client goes on being served.

    The daemon's resident memory may grow by 150 MB; all replies together are 400 MB.
    """
    pipe, other = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(other,))
    process.start()
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 2048)
    try:
        assert pipe.poll(60), "the daemon did not start"
        address = pipe.recv()
        with Dealer(address) as dealer:
            dealer.ask(messages.Decode(keys=[]))  # buffers every daemon needs once
            resident = psutil.Process(process.pid).memory_info
            before = resident().rss
            stalled = [stop_reading(context, address, i) for i in range(READERS)]
            while sum(peer.getsockopt(zmq.EVENTS) & zmq.POLLIN for peer in stalled) < READERS:
                dealer.ask(messages.Status())  # until each has its first chunk before it
            for _ in range(3):
                (got,) = dealer.ask(messages.Decode(keys=[])).arrays
                np.testing.assert_array_equal(got, np.arange(REPLY_BYTES // 2, dtype=np.uint16))
            grown = resident().rss - before
            assert grown < 150e6, f"{grown / 1e6:.0f} MB"
            print(f"daemon grew by {grown / 1e6:.0f} MB for {READERS} stalled readers")
            read_on(stalled[0])
            for peer in stalled:
                peer.close()
        pipe.send("stop")
        process.join(30)
        assert process.exitcode == 0
    finally:
        context.destroy(linger=0)
        process.kill()
        process.join()
        process.close()


def stop_reading(context: zmq.Context, address: str, number: int) -> zmq.Socket:
    """A connection that asks for a large reply with the largest credit and then takes one message, no more."""
    peer = context.socket(zmq.DEALER)
    peer.linger, peer.rcvhwm, peer.rcvbuf = 0, 1, 16_384
    peer.connect(address)
    ask = {"v": 1, "type": "request", "id": 1, "attempt": 0, "session": str(number), "verb": "decode", "bytes": 0}
    peer.send(msgpack.packb({**ask, "credit": 64, "chunk_bytes": 2**30, "fields": {"keys": []}}))
    return peer


def read_on(peer: zmq.Socket) -> None:
    """A reader that comes back gets the rest, unchanged: header, then chunk by chunk against grants."""
    header, *frames = peer.recv_multipart()
    session = str(0)
    data = b"".join(frames)
    total = msgpack.unpackb(header)["bytes"]
    while len(data) < total:
        grant = {"v": 1, "type": "grant", "id": 1, "attempt": 0, "chunks": 1, "session": session}
        peer.send(msgpack.packb(grant))
        _, *frames = peer.recv_multipart()
        data += b"".join(frames)
    assert data == np.arange(REPLY_BYTES // 2, dtype=np.uint16).tobytes()
