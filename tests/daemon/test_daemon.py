from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from daemon_process import Daemon
from small_store import CELL, DATES, fill

from geostore import exit_codes
from geostore.connection import connect, connect_async
from geostore.daemon.main import main
from geostore.errors import Cancelled, Forbidden, InvalidInput, NotFound, Unreachable
from geostore.query import messages
from geostore.query.auth import new_client_key, new_server_key, read_pair

STEPS = 40


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    with connect(path, create=True) as client:
        fill(client)
    return path


@pytest.fixture
def daemon(store: Path) -> Iterator[Daemon]:
    with Daemon(store, "--workers", "1") as daemon:
        yield daemon


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for tests that leave its store as it is."""
    path = tmp_path_factory.mktemp("shared") / "store"
    with connect(path, create=True) as client:
        fill(client)
    with Daemon(path) as daemon:
        yield daemon


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    new_server_key(folder)
    new_client_key(folder, "reader", "read")
    new_client_key(folder, "boss", "admin")
    return folder


def answers(client) -> dict[str, object]:
    """Everything a reader can ask, in comparable form."""
    infos = client.rasters()
    ds = client.decode(CELL).load()
    return {
        "hello": {k: v for k, v in client.hello().items() if k != "readonly"},
        "collections": client.collections(),
        "scenes": client.scenes(),
        "cells": client.cells("farm"),
        "rasters": infos,
        "decoded": [(i, r.pixels.tobytes(), r.valid.tobytes(), r.grid) for i, r in client.decode_rasters(infos)],
        "dataset": ds.to_dict(encoding=True),
        "status": client.status(partitions=True),
        "table": client.table("raster").to_pydict(),
    }


def test_in_process_tcp_and_curve_give_identical_answers(store: Path, keys: Path) -> None:
    """Every reading verb, three ways, compared value by value; pixels byte by byte."""
    with connect(store, readonly=True) as client:
        here = answers(client)
    with Daemon(store) as daemon, connect(daemon.address) as client:
        over_tcp = answers(client)
    server_key = read_pair(keys / "server.key").public
    with (
        Daemon(store, "--keys", str(keys)) as daemon,
        connect(daemon.address, key=keys / "reader.key", server_key=server_key) as client,
    ):
        over_curve = answers(client)
    for name, answer in here.items():
        np.testing.assert_equal(over_tcp[name], answer, err_msg=name)
        np.testing.assert_equal(over_curve[name], answer, err_msg=name)
    assert len(here["rasters"]) == 2 * DATES  # type: ignore[arg-type]


def test_a_store_filled_over_the_wire_is_the_store_filled_here(store: Path, tmp_path: Path) -> None:
    """put through a daemon, then read in process, against put in process."""
    with Daemon(tmp_path / "far", "--create") as daemon, connect(daemon.address) as client:
        fill(client)
        fill(client)
    with connect(tmp_path / "far", readonly=True) as far, connect(store, readonly=True) as near:
        assert far.rasters() == near.rasters()
        xr.testing.assert_identical(far.decode(CELL).load(), near.decode(CELL).load())


def test_roles_hold_at_the_daemon(store: Path, keys: Path) -> None:
    """A reader reads; it may neither put, fit, nor cancel or resume the boss's job. Strangers do not get in."""
    server_key = read_pair(keys / "server.key").public
    with Daemon(store, "--keys", str(keys)) as daemon:
        with connect(daemon.address, key=keys / "boss.key", server_key=server_key) as boss:
            assert boss.verify()["ok"]
            job = boss.jobs()[0]["id"]
        with connect(daemon.address, key=keys / "reader.key", server_key=server_key) as reader:
            assert reader.status()["scenes"] == DATES
            assert reader.jobs(job)[0]["state"] == "done"
            for forbidden in (lambda: fill(reader), reader.fit, reader.prune, lambda: reader.cancel(job)):
                with pytest.raises(Forbidden, match="needs role"):
                    forbidden()
        with pytest.raises((Forbidden, Unreachable)):
            connect(daemon.address)
        with pytest.raises(InvalidInput, match="give both"):
            connect(daemon.address, server_key=server_key)


def test_a_fit_is_a_job_with_progress_and_reads_go_on(daemon: Daemon) -> None:
    """Progress is told from 0 to 1; while it runs other clients are answered; the result is the job's."""
    shares: list[float] = []
    reads = 0
    with connect(daemon.address) as client, connect(daemon.address) as reader:
        found: list[dict] = []
        thread = threading.Thread(
            target=lambda: found.append(client.fit(steps_max=STEPS, progress=lambda _, share: shares.append(share)))
        )
        thread.start()
        while thread.is_alive():
            assert reader.rasters(CELL, group="10m")
            reads += 1
            thread.join(0.01)
        (job,) = reader.jobs()
        assert job["state"] == "done"
        assert job["verb"] == "fit"
        assert job["fields"] == {"steps": STEPS}
        assert job["result"] == found[0]
        assert reads > 10
        assert all(0 <= s <= 1 for s in shares)
        assert {i.generation > 0 for i in reader.rasters()} == {True}
        assert reader.decode(CELL)["ndvi_mae"].max() < 0.05


def test_a_job_can_be_cancelled_and_resumed(daemon: Daemon) -> None:
    """Cancelled from another client it ends as Cancelled here; resumed, it finishes the work."""
    with connect(daemon.address) as client, connect(daemon.address) as other:

        def stop(_what: str, _share: float) -> None:
            for job in other.jobs():
                other.cancel(job["id"])

        with pytest.raises(Cancelled, match="geostore resume"):
            client.fit(steps_max=1_000_000, seconds=3600.0, progress=stop)
        (job,) = other.jobs()
        assert job["state"] == "cancelled"
        assert other.verify()["ok"]
        assert other.ask(messages.Resume(id=job["id"])).fields == {"job": job["id"]}
        assert other.jobs(job["id"])[0]["state"] in ("queued", "running")
        with pytest.raises(Cancelled):
            client.resume(job["id"], progress=stop)
        with pytest.raises(NotFound):
            other.cancel("nobody")


def test_asking_twice_for_one_job_begins_it_once(shared: Daemon) -> None:
    """The job of one request has one id; another request another."""
    with connect(shared.address) as client:
        before = len(client.jobs())
        client.verify()
        client.verify()
        assert len({j["id"] for j in client.jobs()}) == before + 2


def test_a_daemon_killed_in_a_fit_shows_the_job_lost_and_resumes_it(store: Path) -> None:
    """kill -9, a new daemon on the same store: nothing stored is lost, the job is `lost`, resume completes it."""
    with Daemon(store, "--workers", "1") as daemon, connect(daemon.address) as client:
        reply = client.ask(messages.Fit(steps=STEPS))
        job = reply.fields["job"]
        while not client.table("job").num_rows:
            pass
        daemon.stop(signal.SIGKILL)
    with Daemon(store, "--workers", "1") as daemon, connect(daemon.address) as client:
        assert client.jobs(job)[0]["state"] in ("lost", "done")
        client.resume(job)
        assert client.jobs(job)[0]["state"] == "done"
        assert len(client.rasters()) == 2 * DATES
        assert client.verify()["ok"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(store: Path, number: int) -> None:
    """A running fit is cancelled at a safe point, the exit code is 0, and the store is free and whole."""
    with Daemon(store, "--workers", "1", "--drain-s", "50") as daemon, connect(daemon.address) as client:
        job = client.ask(messages.Fit(steps=1_000_000)).fields["job"]
        assert daemon.stop(number) == 0
        assert [line["event"] for line in daemon.log()][-1] == "stopped"
    with Daemon(store) as daemon, connect(daemon.address) as client:
        assert client.jobs(job)[0]["state"] in ("cancelled", "lost")
        assert client.verify()["ok"]


def test_a_second_daemon_on_the_store_is_refused(store: Path, daemon: Daemon) -> None:
    """Exit code 3 and a message that says why; the first goes on."""
    command = [sys.executable, "-m", "geostore.daemon", "--store", str(store), "--listen", "tcp://127.0.0.1:0"]
    second = subprocess.run([*command, "--http", "127.0.0.1:0"], capture_output=True, text=True, timeout=60)
    assert second.returncode == exit_codes.CONFLICT
    (line,) = second.stderr.splitlines()
    assert json.loads(line)["kind"] == "store-locked"
    with connect(daemon.address) as client:
        assert client.status()["scenes"] == DATES
    with Daemon(store, "--readonly") as reader, connect(reader.address) as client:
        assert client.status()["scenes"] == DATES
        with pytest.raises(Forbidden, match="read-only"):
            client.put_collection(client.collections()[0])


@pytest.mark.parametrize(
    ("flags", "said", "code"),
    [
        ((), "no store", 2),
        (("--store", "nowhere"), "nowhere", 4),
        (("--store", "{newer}"), "format 999", 10),
        (("--store", "{store}", "--listen", "tcp://0.0.0.0:0"), "--insecure", 2),
        (("--store", "{store}", "--http", "0.0.0.0:0"), "loopback", 2),
        (("--store", "{store}", "--threads", "0"), "setting threads = '0': Input should be greater", 2),
        (("--store", "{store}", "--keys", "nowhere"), "geostore keys new", 4),
        (("--store", "{store}", "--port-file", "nowhere/port"), "no folder nowhere", 2),
    ],
)
def test_wrong_settings_are_told(
    store: Path,
    tmp_path: Path,
    flags: tuple[str, ...],
    said: str,
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The exit code that the command line has for it too, one line that names the value, and nothing is served."""
    monkeypatch.chdir(tmp_path)
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "geostore.json").write_text('{"format": "geostore", "version": 999}')
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        given = [f.format(store=store, newer=newer) for f in flags]
        assert main([*given, *(() if "--listen" in flags else ("--listen", "tcp://127.0.0.1:0"))]) == code
    finally:
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
    (line,) = capsys.readouterr().err.splitlines()
    assert said in json.loads(line)["reason"]


def test_probes_and_metrics_are_served_on_loopback(shared: Daemon) -> None:
    """/livez and /readyz are ok; /metrics counts what was asked."""
    with connect(shared.address) as client:
        client.decode(CELL).load()
        client.verify()
        with pytest.raises(InvalidInput, match="not a geohash"):
            client.ask(messages.Decode(keys=[messages.Key(collection="farm", geohash="ai", group="10m", time_us=0)]))
        assert shared.get("/livez") == (200, "ok\n")
        assert shared.get("/readyz") == (200, "ok\n")
        assert shared.get("/nothing")[0] == 404
        text = shared.get("/metrics")[1]
    for wanted in (
        'geostore_request_seconds_count{outcome="ok",verb="decode"}',
        'geostore_body_bytes_total{way="out"}',
        'geostore_jobs{state="done"}',
        "geostore_credit_stalls_total",
        "geostore_in_flight",
        "geostore_queued",
    ):
        assert wanted in text


def test_the_log_is_json_lines_and_flags_win_over_the_file(store: Path, tmp_path: Path) -> None:
    """Each line parses; the first names the addresses and the store of the flag, not of the file."""
    config = tmp_path / "node.toml"
    config.write_text('store = "elsewhere"\nthreads = 3\n')
    with Daemon(store, "--config", str(config)) as daemon:
        assert daemon.stop() == 0
        lines = [json.loads(line) for line in daemon.log_file.read_text().splitlines()]
    ready = next(line for line in lines if line["event"] == "ready")
    assert ready["address"] == daemon.address
    assert ready["store"] == str(store)
    assert {"time", "level", "logger", "event"} <= set(lines[-1])


def test_the_async_client_runs_jobs_over_the_wire(shared: Daemon) -> None:
    """Awaited: several reads at once beside a verify job with progress."""
    import asyncio

    async def ask() -> tuple:
        async with connect_async(shared.address) as client:
            return await asyncio.gather(client.verify(), *(client.rasters(CELL) for _ in range(20)))

    verified, *rasters = asyncio.run(ask())
    assert verified["ok"]
    assert all(len(found) == 2 * DATES for found in rasters)
