"""Workers do not run the script that asks for them, leave Ctrl-C to it, and end when it was killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from geostore.node.workers import Workers

SCRIPT = """
import operator
from geostore.node.workers import Workers
print("begun", __name__, flush=True)
with Workers(2) as pool:
    print(sorted(pool.map(operator.neg, range(3))), flush=True)
"""


def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    """At the top level of a script, from a pipe, and by -c: one line of its own, and the answers."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    for arguments, given in (([str(path)], ""), (["-"], SCRIPT), (["-c", SCRIPT], "")):
        done = subprocess.run(
            [sys.executable, *arguments], input=given, capture_output=True, text=True, timeout=120, check=True
        )
        assert done.stdout.splitlines() == ["begun __main__", "[-2, -1, 0]"]


INTERRUPTED = """
import operator, os, signal
from geostore.node.workers import Workers
signal.signal(signal.SIGINT, lambda *_: print("told", flush=True))
with Workers(2) as pool:
    asked = [pool.submit(operator.neg, n) for n in range(4)]
    os.killpg(0, signal.SIGINT)
    print([a.result() for a in asked], flush=True)
"""


def test_ctrl_c_reaches_the_one_that_asked_alone() -> None:
    """SIGINT to the whole group while workers begin: the caller is told once, workers answer all the same."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120, check=True,
        start_new_session=True,
    )  # fmt: skip
    assert (done.stdout.splitlines(), done.stderr) == (["told", "[0, -1, -2, -3]"], "")


KILLED = """
import threading
from geostore.node.workers import Workers
with Workers(1) as pool:
    pool.submit(int).result()
    pool.submit(threading.Event().wait)
    print(*pool._processes, flush=True)
    threading.Event().wait()
"""


def test_workers_end_when_the_one_that_asked_was_killed() -> None:
    """kill -9 of the caller while a worker would go on for ever: the worker ends by itself."""
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        worker = psutil.Process(int(asking.stdout.readline()))
        asking.kill()
    assert not psutil.wait_procs([worker], timeout=60)[1]


def test_workers_compute_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a worker is told so before it loads any library, and that its caller's own setting stays."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    pool = Workers(1)
    assert pool.submit(os.getenv, "OMP_NUM_THREADS").result() == "1"
    pool.end(now=False)
    assert os.environ["OMP_NUM_THREADS"] == "3"
