"""What a daemon counts, and the loopback page that shows it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from geostore.errors import InvalidInput
from geostore.query.auth import is_loopback

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters of one daemon; an Observer of its router."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "geostore_request_seconds",
            "From the request's arrival to its answer being ready",
            ["verb", "outcome"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._bytes = Counter("geostore_body_bytes", "Bytes of bodies moved", ["way"], registry=self.registry)
        self._recalls = Counter(
            "geostore_answers_recalled", "Requests answered with an answer that was kept", registry=self.registry
        )
        self._stalls = Counter("geostore_credit_stalls", "Replies that waited for their reader", registry=self.registry)
        self._ways = {way: self._bytes.labels(way) for way in ("in", "out")}
        self._outcomes: dict[tuple[str, str], Histogram] = {}

    def answered(self, verb: str, outcome: str, seconds: float) -> None:
        """A request was answered: "ok" or the kind of its error."""
        kept = self._outcomes.get((verb, outcome))
        if kept is None:
            kept = self._outcomes[verb, outcome] = self._seconds.labels(verb, outcome)
        kept.observe(seconds)

    def recalled(self) -> None:
        """A request was answered with an answer that was kept."""
        self._recalls.inc()

    def moved(self, way: str, nbytes: int) -> None:
        """Bytes of bodies came "in" or went "out"."""
        if nbytes:
            self._ways[way].inc(nbytes)

    def stalled(self) -> None:
        """A reply had to wait for its reader's credit."""
        self._stalls.inc()

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show `read()` as geostore_`name`."""
        Gauge(f"geostore_{name}", text, registry=self.registry).set_function(read)

    def jobs(self, read: Callable[[], dict[str, int]]) -> None:
        """Show jobs by state."""
        gauge = Gauge("geostore_jobs", "Jobs by state", ["state"], registry=self.registry)
        for state in read():
            gauge.labels(state).set_function(partial(_count, read, state))

    def page(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)


def _count(read: Callable[[], dict[str, int]], state: str) -> float:
    return read()[state]


class Page:
    """/livez, /readyz and /metrics over HTTP, on loopback only.

    Args:
        address: host:port; port 0 takes a free one.
        metrics: what /metrics shows.
        live, ready: whether /livez and /readyz answer 200 or 503.

    Raises:
        InvalidInput: not a loopback address, or it is taken.
    """

    def __init__(self, address: str, metrics: Metrics, *, live: Callable[[], bool], ready: Callable[[], bool]) -> None:
        host, _, port = address.rpartition(":")
        if not is_loopback(host.strip("[]")) or not port.isdigit():
            raise InvalidInput(f"http = {address!r}; use a loopback address and a port, 127.0.0.1:7071")
        answers: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/livez": lambda: _said(live()),
            "/readyz": lambda: _said(ready()),
            "/metrics": lambda: (200, CONTENT_TYPE_LATEST, metrics.page()),
        }
        try:
            self._server = ThreadingHTTPServer((host.strip("[]"), int(port)), _handler(answers))
        except OSError as error:
            raise InvalidInput(f"cannot serve http on {address}: {error}; choose another port") from error
        self._server.daemon_threads = True
        self.address = f"{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="geostore-http", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _said(well: bool) -> tuple[int, str, bytes]:
    return (200, "text/plain", b"ok\n") if well else (503, "text/plain", b"no\n")


def _handler(answers: dict[str, Callable[[], tuple[int, str, bytes]]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            status, kind, text = answer() if answer else (404, "text/plain", b"/livez /readyz /metrics\n")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it
            """Not logged: probes come every few seconds."""

    return Handler
