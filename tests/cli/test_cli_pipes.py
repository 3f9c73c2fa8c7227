"""The command line as a shell meets it: closed pipes, full disks, Ctrl-C in a fit, completion, a disk to read only."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

COMMAND = [sys.executable, "-m", "geostore.cli"]


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_reader_that_stops_reading_is_no_fault(world, more):
    """stdout closed before the answer comes, as by `| head`: exit code 0 and nothing on stderr."""
    done = subprocess.Popen(
        [*COMMAND, "status", "--store", str(world.store), *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert done.stdout is not None
    done.stdout.close()
    assert done.stderr is not None
    assert done.stderr.read() == b""
    done.stderr.close()
    assert done.wait() == 0


def test_an_answer_that_finds_no_room_is_told(world):
    """stdout on a full device: exit code 8 and one line."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "status", "--json", "--store", str(world.store)],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr.count(b"\n")) == (8, 1), done.stderr
    assert done.stderr.startswith(b"storage-full: ")


def _group(number: int) -> list[psutil.Process]:
    """Processes of a group that live; one that only waits to be reaped does not."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == number and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.mark.parametrize("to_all", [True, False])
def test_an_interrupted_fit_leaves_no_worker(world, tmp_path, to_all):
    """SIGINT to the group, as a terminal sends it, or SIGTERM to the command, while a worker fits: 130, nobody left."""
    store = shutil.copytree(world.store, tmp_path / "store")
    code = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys\nfrom geostore.cli import verb\nfrom geostore.cli.session import Session\n"
        "from contextlib import contextmanager\n"
        "@contextmanager\ndef loud(self, verb):\n    yield lambda what, share: print(what, share, flush=True)\n"
        "Session.progress = loud\nfrom geostore.cli import main\nmain()\n"
    )
    arguments = ["fit", "--refit", "--store", str(store), "--steps", "100000"]
    fit = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert fit.stdout is not None
    assert fit.stdout.readline()  # it says what it fits
    if to_all:
        os.killpg(fit.pid, signal.SIGINT)
    else:
        os.kill(fit.pid, signal.SIGTERM)
    _, err = fit.communicate(timeout=60)
    assert (fit.returncode, err.count("\n")) == (130, 1), err
    assert err.startswith("cancelled: interrupted")
    assert not psutil.wait_procs(_group(fit.pid), timeout=30)[1]  # nobody of the group is left
    subprocess.run([*COMMAND, "verify", "--store", str(store)], check=True, capture_output=True)


def _stderr_of(command: list[str], *, terminal: bool) -> str:
    """What a command that succeeds says on stderr: a terminal of 100 columns, or a pipe."""
    reader, writer = pty.openpty() if terminal else os.pipe()
    named = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=writer, env=named) as process:
        os.close(writer)
        said = b""
        with contextlib.suppress(OSError):  # a terminal whose other end closed gives an error in place of an end
            while part := os.read(reader, 65_536):
                said += part
        os.close(reader)
        assert process.wait() == 0, said
    return said.decode()


def test_long_work_shows_how_far_it_is_on_a_terminal_and_nowhere_else(world):
    """A bar with percent and times on a terminal, wiped at the end; not one byte of it in a pipe."""
    command = [*COMMAND, "verify", "--store", str(world.store)]
    said = _stderr_of(command, terminal=True)
    percents = [int(n) for n in re.findall(r"(\d+) %", said)]
    assert percents
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert re.search(r"\d:\d\d:\d\d", said)
    assert said.rstrip().endswith("\x1b[2K")  # the line is clear again
    assert _stderr_of(command, terminal=False) == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_verbs(shell):
    """The script a shell loads is printed; asked as bash asks, `geostore de` completes to decode."""
    named = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # a test has no shell above it
    command = [*COMMAND, "--show-completion", shell]
    script = subprocess.run(command, capture_output=True, text=True, check=True, env=named).stdout
    assert "_GEOSTORE_COMPLETE" in script
    if shell == "bash":
        asks = {"_GEOSTORE_COMPLETE": "complete_bash", "COMP_WORDS": "geostore dec", "COMP_CWORD": "1"}
        code = "import sys; sys.argv[0] = 'geostore'; from geostore.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**named, **asks}
        )
        assert "decode" in done.stdout.split()


def test_a_first_scene_that_does_not_fit_makes_no_store(run, world, tmp_path):
    """A text file named like a raster, with nothing stored yet: refused, and no empty store is left behind."""
    (tmp_path / "notes.tif").write_text("these are not pixels")
    done = run("ingest", tmp_path / "notes.tif", "--store", tmp_path / "s", "-c", world.collection)
    assert (done.code, done.err.split(":")[0]) == (2, "bad-scene")
    assert not (tmp_path / "s").exists()


@pytest.mark.root
def test_a_store_on_a_disk_to_read_only(world, tmp_path):
    """status and decode answer; what would write is told that it may only be read; exit code 2, one line."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "--bind", str(world.store), str(place)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no mounts here: {mounted.stderr!r}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
        subprocess.run([*COMMAND, "status", "--store", str(place)], check=True, capture_output=True)
        written = subprocess.run(
            [*COMMAND, "prune", "--store", str(place)], capture_output=True, text=True, check=False
        )
        assert (written.returncode, written.stderr.count("\n")) == (2, 1), written.stderr
        assert "may be read" in written.stderr
    finally:
        subprocess.run(["umount", str(place)], check=True)
