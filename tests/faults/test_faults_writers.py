"""One writer, many readers: a second writer is refused, readers in other processes go on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_process import Victim
from fault_scenes import collection
from fault_victim import SETTINGS, declare, hash_of, put_request

from geostore.errors import StoreLocked
from geostore.node import Node

Start = Callable[..., Victim]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts victims on one store; ends them all."""
    begun: list[Victim] = []

    def begin(verb: str, *options: str) -> Victim:
        begun.append(Victim(verb, tmp_path / "store", tmp_path / "stderr.txt", *options))
        return begun[-1]

    yield begin
    for victim in begun:
        victim.close()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Node]:
    """A store that this process writes."""
    with Node.open(str(tmp_path / "store"), settings=SETTINGS, create=True) as node:
        declare(node, collection())
        yield node


def test_a_second_writer_is_refused(tmp_path: Path, start: Start) -> None:
    """While another process writes, opening for writing says who holds the store and what to do; later it works."""
    holder = start("hold")
    with pytest.raises(StoreLocked, match=rf"process {holder.process.pid}.*read-only"):
        Node.open(str(tmp_path / "store"), settings=SETTINGS)
    holder.kill()
    Node.open(str(tmp_path / "store"), settings=SETTINGS).close()


def test_the_command_line_says_locked(writer: Node, tmp_path: Path) -> None:
    """`geostore compact` on a store that is being written ends with exit code 3 and the reason on stderr."""
    command = [sys.executable, "-m", "geostore.cli", "compact", "--store", str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "open for writing" in done.stderr
    assert "Traceback" not in done.stderr


def test_readers_go_on_during_writes(writer: Node, start: Start) -> None:
    """Two processes read everything after every put, see each one at once, and agree with the writer."""
    from fault_check import digests

    readers = [start("read", "--readonly") for _ in range(2)]
    for number in range(6):
        request, arrays = put_request(41, number)
        writer.answer(request, arrays)
        here = digests(writer)
        for reader in readers:
            assert reader.tell("all") == f"read {len(here)} {hash_of(here)}", reader.last_words()


def test_a_reader_goes_on_when_the_writer_is_killed(tmp_path: Path, start: Start) -> None:
    """kill -9 of the writer leaves a reader with what was acknowledged, and the store free for the next writer."""
    busy = start("put", "--count", "500", "--ledger", str(tmp_path / "ledger.jsonl"))
    busy.wait_for(2)
    reader = start("read", "--readonly")
    first = reader.tell("all")
    busy.kill()
    assert first.startswith("read "), reader.last_words()
    assert reader.tell("all").startswith("read "), reader.last_words()
    Node.open(str(tmp_path / "store"), settings=SETTINGS).close()
