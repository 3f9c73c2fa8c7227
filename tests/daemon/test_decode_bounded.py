"""One decode holds a bounded amount of memory: many keys in one request are refused, many requests are spooled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgpack
import numpy as np
import psutil
import pytest
import zmq
from daemon_process import Daemon
from small_store import Piece

import geostore
from geostore.collection import Collection
from geostore.errors import Overloaded
from geostore.partition.grid import cell_grid
from geostore.query.messages import Decode, SceneFields
from geostore.raster import Band, Bands, Raster

CELL, SIDE, DATES = "u8h", 1024, 8
BANDS = Bands((Band("red", "B04", 10.0), Band("nir", "B08", 10.0)))
RASTER_BYTES = SIDE * SIDE * 5  # two bands of uint16 and the mask
LIMIT = 2**25


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    store: Path = tmp_path_factory.mktemp("bounded") / "store"
    cell = cell_grid(CELL, "EPSG:32634", 10.0, 10.0, (0.0, 0.0))
    valid = np.ones((SIDE, SIDE), bool)
    with geostore.connect(store, create=True) as client:
        client.put_collection(Collection(name="flat", precision=3, groups={"10m": BANDS}))
        for t in range(DATES):
            pixels = np.full((2, SIDE, SIDE), t + 1, np.uint16)
            raster = Raster(pixels=pixels, valid=valid, bands=BANDS, grid=cell.window(0, 0, SIDE, SIDE))
            client.put("flat", SceneFields(id=f"s{t}", time_us=t), [Piece(CELL, "10m", cell, 0, 0, raster)])
    with Daemon(store, "--config", str(_config(store.parent)), "--drain-s", "0") as running:
        yield running


def _config(folder: Path) -> Path:
    path = folder / "geostore.toml"
    path.write_text(f"decode_bytes_max = {LIMIT}\n")
    return path


def test_a_decode_beyond_the_limit_is_refused_and_the_client_splits_its_own(daemon: Daemon) -> None:
    """The refusal names the limit and how many rasters fit; `decode_rasters` of more than that gets them all."""
    with geostore.connect(daemon.address) as client:
        infos = client.rasters(CELL)
        fitting = LIMIT // RASTER_BYTES
        assert fitting < DATES
        with pytest.raises(Overloaded, match=f"decode_bytes_max.*at most {fitting} of them"):
            client.ask(Decode(keys=[i.to_key() for i in infos]))
        found = client.decode_rasters(infos)
        assert [int(raster.pixels.max()) for _, raster in found] == [t + 1 for t in range(DATES)]


def test_readers_that_ask_for_much_and_read_nothing_cost_the_daemon_little(daemon: Daemon) -> None:
    """Twelve decodes of 30 MB each, unread, and one of 500 keys: the daemon grows by far less than all replies."""
    with geostore.connect(daemon.address) as client, zmq.Context() as context:
        infos = client.rasters(CELL)
        client.decode_rasters(infos)  # what every daemon needs once
        process = psutil.Process(daemon.process.pid)
        before = process.memory_info().rss
        keys = [dict(i.to_key()) for i in infos]
        with context.socket(zmq.DEALER) as peer:
            peer.linger, peer.rcvhwm, peer.rcvbuf = 0, 1, 16_384
            peer.connect(daemon.address)
            for number in range(12):
                peer.send(_asking(number + 1, keys[:6]))
            peer.send(_asking(13, [keys[0]] * 500))
            while len(client.ask(Decode(keys=[infos[0].to_key()])).arrays) and _answered(daemon) < 13:
                assert process.memory_info().rss - before < 6 * LIMIT
        assert process.memory_info().rss - before < 6 * LIMIT


def _asking(number: int, keys: list[dict[str, object]]) -> bytes:
    head = {"v": 1, "type": "request", "id": number, "attempt": 0, "session": "stalled", "verb": "decode", "bytes": 0}
    return bytes(msgpack.packb({**head, "credit": 1, "fields": {"keys": keys}, "deadline_ms": 50_000}))


def _answered(daemon: Daemon) -> int:
    """Large decodes that have an answer so far, and the refused one."""
    lines = daemon.get("/metrics")[1].splitlines()
    spooled = next(float(n.split()[1]) for n in lines if n.startswith("geostore_reply_spooled_bytes "))
    kept = next(float(n.split()[1]) for n in lines if n.startswith("geostore_reply_memory_bytes "))
    refused = any('outcome="overloaded"' in n and "_count" in n and not n.endswith(" 0.0") for n in lines)
    return round((spooled + kept) / (6 * RASTER_BYTES)) + refused
