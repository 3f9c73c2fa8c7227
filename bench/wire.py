"""Round trips and MB/s of the wire against bare zmq in the same run, and what stalled readers cost."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from bench.harness import ROUNDS, Bench, interleaved, median, ratio, run, workplace
from geostore.client import Client
from geostore.client.steps import AHEAD
from geostore.daemon.memory import keep_freed_memory
from geostore.daemon.service import Service
from geostore.partition.grid import cell_grid
from geostore.partition.split import Split
from geostore.query import bodies, frames
from geostore.query.auth import KeyPair, Keys, new_client_key, new_pair, new_server_key, read_pair, secure_client
from geostore.query.dealer import Dealer
from geostore.query.handlers import Asked
from geostore.query.messages import PROTOCOL_VERSION, Collections, Decode, Key, Rasters, Reply, Request, SceneFields
from geostore.query.router import Router
from geostore.raster import Band, Bands, Raster
from geostore.settings import Settings

IN_FLIGHT = 64
_SMALL_ROUNDS = 3 * ROUNDS  # which core which thread is on moves one round of small messages by half
CREDIT, CHUNK = 8, 2**20
LARGE = 6 * 2**20
STALLED = 64
CELL = "u33db"
ECHO_BAR, STREAM_BAR, CURVE_BAR, STALL_BAR_MB = 0.35, 0.6, 0.8, 150.0
_BANDS = Bands(tuple(Band(n, n, 10.0, scale=1e-4) for n in ("red", "nir")))
_LOOPBACK: dict[str, Any] = {"listen": "tcp://127.0.0.1:0", "http": "127.0.0.1:0"}


def measure(bench: Bench) -> None:
    """Small gets, large replies plain and under CURVE, stalled readers; every server is a process of its own."""
    with workplace() as folder:
        _small(bench, folder)
        _large(bench, folder, curve=False)
        _large(bench, folder, curve=True)
    _stalled(bench)


# --- small gets ------------------------------------------------------------------------------------------------------


def _small(bench: Bench, folder: Path) -> None:
    """Gets of about 1 kB, IN_FLIGHT at once: bare echo, the wire alone, daemons that keep answers and that do not.

    One and the same request comes again and again, so the first daemon works on it once; the second shows what
    an answer costs that nobody had asked for.
    """
    count = 20 if bench.quick else 3000
    key = Key(collection="small", geohash=CELL, group="10m", time_us=0)
    facts = Rasters(collection="small", geohash=CELL, start_us=0, end_us=1)
    with ExitStack() as stack:
        bare = stack.enter_context(served(_bare_echo))
        wire = _greeted(stack, stack.enter_context(served(_wire, {})))
        daemon = _greeted(stack, stack.enter_context(served(_daemon, str(folder / "small.store"), {})))
        fresh = {"answers_bytes_max": 0}
        worker = _greeted(stack, stack.enter_context(served(_daemon, str(folder / "fresh.store"), fresh)))
        sizes = {"facts": _reply_bytes(daemon, facts), "pixels": _reply_bytes(daemon, Decode(keys=[key]))}
        tasks: dict[str, Callable[[], object]] = {
            "bare zmq echo, 1 kB": lambda: _echo(bare, count, 1024),
            f"bare zmq echo, {sizes['facts']} B": lambda: _echo(bare, count, sizes["facts"]),
            f"bare zmq echo, {sizes['pixels']} B": lambda: _echo(bare, count, sizes["pixels"]),
            "wire alone, 1 kB": lambda: _ask(wire, Collections(), count),
            "daemon, rasters: facts of one raster": lambda: _ask(daemon, facts, count),
            "daemon, decode: 1 kB of pixels": lambda: _ask(daemon, Decode(keys=[key]), count),
            "daemon, rasters, no answer kept": lambda: _ask(worker, facts, count),
            "daemon, decode, no answer kept": lambda: _ask(worker, Decode(keys=[key]), count),
        }
        seconds = interleaved(tasks, rounds=0 if bench.quick else _SMALL_ROUNDS)
    for name, taken in seconds.items():
        rate = None if bench.quick else count / median(taken)
        bench.row(what=name, in_flight=IN_FLIGHT, requests=count, per_second=rate)
    names = list(seconds)
    figures = {"wire_alone": (0, 3), "get_facts": (1, 4), "get_pixels": (2, 5)}
    for figure, (theirs, ours) in {**figures, "get_facts_worked": (1, 6), "get_pixels_worked": (2, 7)}.items():
        value = None if bench.quick else ratio(seconds[names[theirs]], seconds[names[ours]])
        what = f"requests/s of a {names[theirs]}, {IN_FLIGHT} in flight; {names[ours]}"
        bar, n = ECHO_BAR if figure in figures else None, len(seconds[names[0]])
        bench.figure(f"small.{figure}", value, bar=bar, better="higher", baseline=what, n=n)


def _greeted(stack: ExitStack, address: str) -> Dealer:
    """A connection that has agreed with its daemon, as `geostore.connect` makes them."""
    dealer = stack.enter_context(Dealer(address, Settings()))
    dealer.hello()
    return dealer


def _reply_bytes(dealer: Dealer, request: Request) -> int:
    reply = dealer.ask(request)
    content, body = bodies.outgoing(reply.fields, reply.arrays, bytes_max=65_536)
    return len(frames.pack({}, content)) + body.nbytes


def _ask(dealer: Dealer, request: Request, count: int) -> None:
    """`count` requests, IN_FLIGHT at once, from one thread."""
    waiting = deque(dealer.submit(request) for _ in range(min(IN_FLIGHT, count)))
    for _ in range(count - len(waiting)):
        waiting.popleft().result()
        waiting.append(dealer.submit(request))
    while waiting:
        waiting.popleft().result()


def _echo(address: str, count: int, size: int) -> None:
    payload = bytes(size)
    with _bare_client(address) as socket:
        for _ in range(min(IN_FLIGHT, count)):
            socket.send(payload)
        for i in range(count):
            assert len(socket.recv()) == size
            if i + IN_FLIGHT < count:
                socket.send(payload)


# --- large replies -----------------------------------------------------------------------------------------------


def _large(bench: Bench, folder: Path, *, curve: bool) -> None:
    """Replies of 6 MB, one after another, against as many bytes in bare 1 MiB chunks with credit 8."""
    count = 1 if bench.quick else (10 if curve else 40)
    keys = folder / f"keys-{curve}"
    pair, settings = _keys(keys) if curve else (None, {})
    server_key = read_pair(keys / "server.key").public if curve else ""
    with ExitStack() as stack:
        bare_pair = new_pair() if curve else None
        bare = stack.enter_context(served(_bare_stream, bare_pair))
        address = stack.enter_context(served(_wire, settings))
        dealer = stack.enter_context(Dealer(address, Settings(), pair=pair, server_key=server_key))
        tasks: dict[str, Callable[[], object]] = {
            "bare": lambda: _stream(bare, count * LARGE, bare_pair),
            "wire": lambda: _replies(dealer, count, AHEAD),
            "one by one": lambda: _replies(dealer, count, 1),
        }
        seconds = interleaved(tasks, rounds=0 if bench.quick else ROUNDS)
    under = "CURVE" if curve else "plain"
    names = {
        "bare": f"bare 1 MiB chunks, 8 in flight, {under}",
        "wire": f"wire: 6 MB replies, {AHEAD} under way as the client asks, {under}",
        "one by one": f"wire: 6 MB replies, one by one, {under}",
    }
    for name, taken in seconds.items():
        rate = None if bench.quick else count * LARGE / 1e6 / median(taken)
        bench.row(large=names[name], mb=count * LARGE / 1e6, mb_s=rate)
    bar, figure = (CURVE_BAR, "large.curve") if curve else (STREAM_BAR, "large.plain")
    for name, key, bound in (("wire", figure, bar), ("one by one", f"{figure}.one_by_one", None)):
        value = None if bench.quick else ratio(seconds["bare"], seconds[name])
        what = f"MB/s of {names['bare']}; {names[name]}"
        bench.figure(key, value, bar=bound, better="higher", baseline=what, n=len(seconds["bare"]))


def _replies(dealer: Dealer, count: int, ahead: int) -> None:
    """Take `count` large replies, `ahead` under way, keeping none, as `_stream` keeps no chunk."""
    waiting = deque(dealer.submit(Decode(keys=[])) for _ in range(min(ahead, count)))
    for number in range(count):
        assert waiting.popleft().result().arrays[0].nbytes == LARGE
        if number + ahead < count:
            waiting.append(dealer.submit(Decode(keys=[])))


def _keys(folder: Path) -> tuple[KeyPair, dict[str, Any]]:
    new_server_key(folder)
    return new_client_key(folder, "bench", "read"), {"keys": folder}


def _stream(address: str, nbytes: int, pair: KeyPair | None) -> None:
    """Take `nbytes` in chunks, granting one for each that came."""
    with _bare_client(address, pair) as socket:
        chunks = nbytes // CHUNK
        for _ in range(min(CREDIT, chunks)):
            socket.send(b"grant")
        for i in range(chunks):
            assert len(socket.recv(copy=False).buffer) == CHUNK
            if i + CREDIT < chunks:
                socket.send(b"grant")


# --- stalled readers ---------------------------------------------------------------------------------------------


def _stalled(bench: Bench) -> None:
    """How much memory the answering process takes more while readers ask for 6 MB each and read nothing."""
    readers = 4 if bench.quick else STALLED
    with _Served(_fresh) as server, Dealer(server.address, Settings()) as dealer:
        dealer.ask(Decode(keys=[]))
        before, peak = server.rss_mb(), server.rss_mb()
        with _Readers(server.address, readers):
            until_s = time.monotonic() + (0.2 if bench.quick else 10)
            while time.monotonic() < until_s:
                dealer.ask(Collections())
                peak = max(peak, server.rss_mb())
                time.sleep(0.05)
    bench.row(stalled_readers=readers, rss_mb_before=before, rss_mb_peak=peak)
    what = f"resident memory of the process before {readers} readers asked for 6 MB each and stalled"
    bench.figure("stalled.rss_growth_mb", peak - before, bar=STALL_BAR_MB, better="lower", baseline=what)


class _Readers:
    """Connections that ask for a large reply, grant the usual credit, and never read."""

    def __init__(self, address: str, count: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []
        request: frames.Header = {
            "v": PROTOCOL_VERSION,
            "type": "request",
            "id": 1,
            "attempt": 0,
            "verb": "decode",
            "bytes": 0,
            "credit": CREDIT,
            "fields": {"keys": []},
            "deadline_ms": 60_000,
        }
        for i in range(count):
            socket = self._context.socket(zmq.DEALER)
            socket.linger, socket.rcvhwm, socket.rcvbuf = 0, 1, 65_536
            socket.connect(address)
            socket.send(frames.pack({**request, "session": f"stalled-{i}"}))
            self._sockets.append(socket)

    def __enter__(self) -> _Readers:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)


# --- servers, each in a process of its own -------------------------------------------------------------------------


@dataclass
class _Served:
    """A process that serves `target` at `address` until it is left."""

    target: Callable[..., None]
    args: tuple[Any, ...] = ()
    address: str = ""

    def __enter__(self) -> _Served:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=self.target, args=(theirs, *self.args), daemon=True)
        self._process.start()
        theirs.close()
        self.address = self._ours.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._process.join(30)
        if self._process.is_alive():
            self._process.terminate()

    def rss_mb(self) -> float:
        """Resident memory of the process."""
        import psutil

        return float(psutil.Process(self._process.pid).memory_info().rss / 2**20)


@contextmanager
def served(target: Callable[..., None], *args: Any) -> Iterator[str]:
    """The address at which `target` is served."""
    with _Served(target, args) as server:
        yield server.address


def _until_left(pipe: Connection, address: str) -> None:
    pipe.send(address)
    try:
        pipe.recv()
    except EOFError:
        return


def _wire(pipe: Connection, settings: dict[str, Any]) -> None:
    """A router whose handler answers from memory: `decode` 6 MB, always the same, every other verb 1 kB."""
    large, small = np.ones(LARGE, np.uint8), np.ones(1024, np.uint8)
    _route(pipe, settings, lambda asked: Reply({}, (large if asked.request.verb == "decode" else small,)))


def _fresh(pipe: Connection) -> None:
    """The same, with 6 MB of its own for each `decode`, as decoding gives."""
    keep_freed_memory()
    small = np.ones(1024, np.uint8)

    def handle(asked: Asked) -> Reply:
        return Reply({}, (np.ones(LARGE, np.uint8) if asked.request.verb == "decode" else small,))

    _route(pipe, {}, handle)


def _route(pipe: Connection, settings: dict[str, Any], handle: Callable[[Asked], Reply]) -> None:
    chosen = Settings(listen="tcp://127.0.0.1:0", **settings)
    with Router(handle, chosen, keys=Keys(chosen.keys) if chosen.keys is not None else None) as router:
        _until_left(pipe, router.address)


def _daemon(pipe: Connection, url: str, settings: dict[str, Any]) -> None:
    """A daemon on a store with one tiny raster."""
    keep_freed_memory()
    service = Service(Settings(store=url, **_LOOPBACK, **settings), create=True)
    client = Client(Dealer(service.router.address, Settings()))
    _put_tiny(client)
    client.close()
    _until_left(pipe, service.router.address)
    service.close()


def serve_store(pipe: Connection, url: str) -> None:
    """A daemon on the store at `url`, as `geostore-node` runs it."""
    keep_freed_memory()
    service = Service(Settings(store=url, **_LOOPBACK))
    _until_left(pipe, service.router.address)
    service.close()


def _put_tiny(client: Client) -> None:
    """One raster of 16 x 16 pixels and two bands: 1 kB of pixels."""
    from geostore.collection import Collection

    client.put_collection(Collection(name="small", groups={"10m": _BANDS}))
    cell = cell_grid(CELL, "EPSG:32633", 10.0, 10.0, (0.0, 0.0))
    pixels = np.random.default_rng(0).integers(1000, 1100, (2, 16, 16)).astype(np.uint16)
    raster = Raster(pixels=pixels, valid=np.ones((16, 16), np.bool_), bands=_BANDS, grid=cell.window(8, 8, 16, 16))
    piece = Split(geohash=CELL, group="10m", cell=cell, row=8, col=8, raster=raster)
    client.put("small", SceneFields(id="tiny", time_us=0), [piece])


def _bare_echo(pipe: Connection) -> None:
    _bare(pipe, None, lambda socket, route, payload: socket.send_multipart([route, payload], copy=False))


def _bare_stream(pipe: Connection, pair: KeyPair | None) -> None:
    chunk = bytes(CHUNK)
    _bare(pipe, pair, lambda socket, route, _: socket.send_multipart([route, chunk], copy=False))


def _bare(pipe: Connection, pair: KeyPair | None, answer: Callable[[Any, Any, Any], object]) -> None:
    """A bare ROUTER in a loop: receive, answer."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    if pair is not None:
        socket.curve_server = True
        socket.curve_secretkey = pair.secret.encode()
        socket.curve_publickey = pair.public.encode()
    socket.bind("tcp://127.0.0.1:0")

    def loop() -> None:
        try:
            while True:
                answer(socket, *socket.recv_multipart(copy=False))
        except zmq.ContextTerminated:
            socket.close()

    address = socket.getsockopt_string(zmq.LAST_ENDPOINT)
    thread = threading.Thread(target=loop)
    thread.start()
    _until_left(pipe, address)
    context.term()
    thread.join()


@contextmanager
def _bare_client(address: str, pair: KeyPair | None = None) -> Iterator[Any]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    if pair is not None:
        secure_client(socket, new_pair(), pair.public)
    socket.connect(address)
    try:
        yield socket
    finally:
        socket.close()
        context.term()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    run(measure, "wire")
