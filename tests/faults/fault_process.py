"""Victims as processes: started, watched, killed at a seeded random moment."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
from fault_check import Account, check
from fault_ledger import Ledger
from fault_scenes import write_scenes

VICTIM = Path(__file__).with_name("fault_victim.py")
FIT_SIZE = 112  # pixels a side: a few cells, some of them large enough for the learned codec to win
ORPHAN_S = 20.0  # a fit worker imports torch before it can notice that its parent is gone


class Victim:
    """One run of `fault_victim.py`; its stderr goes to a file that outlives it."""

    def __init__(self, verb: str, store: Path | str, errors: Path, *options: str) -> None:
        command = [sys.executable, str(VICTIM), verb, "--store", str(store), *options]
        self.errors = errors
        with errors.open("ab") as stream:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        self.line()  # "ready", or nothing if it could not begin

    def line(self) -> str:
        """The next line it says; empty once it is gone."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, text: str) -> str:
        """Send one line; its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.line()

    def wait_for(self, acks: int) -> None:
        """Return once it has said so many acknowledgements, or is gone."""
        while acks > 0 and self.line().startswith("ack"):
            acks -= 1

    def run_out(self, seconds: float) -> bool:
        """Let it go on for so long; True if it ended before."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> list[psutil.Process]:
        """kill -9, the process alone; the workers it leaves behind."""
        workers = children(self.process.pid)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        return workers

    def finish(self, seconds: float = 240) -> list[str]:
        """Let it run to its end; the lines it said. Raises AssertionError with its stderr if it failed."""
        out, _ = self.process.communicate(timeout=seconds)
        assert self.process.returncode == 0, f"exit {self.process.returncode}: {self.last_words()}"
        return out.splitlines()

    def last_words(self) -> str:
        """The end of its stderr."""
        return self.errors.read_text()[-2000:]

    def close(self) -> None:
        """End what is left of it and its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


def children(pid: int) -> list[psutil.Process]:
    """Every process below `pid`."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@dataclass
class World:
    """A store, what was promised of it, and the command that works on it.

    `steps` bounds how many acknowledgements a victim may give before it is killed, `pause_s` how long after the
    last of them. The store lies at `place`, if given, else in `folder`.
    """

    verb: str
    folder: Path
    seed: int
    steps: int
    pause_s: float
    place: Path | None = None

    @property
    def store(self) -> Path:
        """Where the store lies."""
        return self.place or self.folder / "store"

    @property
    def ledger(self) -> Ledger:
        """What was acknowledged in it."""
        return Ledger(self.folder / "ledger.jsonl")

    def victim(self, *options: str) -> Victim:
        """The command, once more."""
        given = ["--ledger", str(self.ledger.path), "--seed", str(self.seed), "--scenes", str(self.folder / "scenes")]
        return Victim(self.verb, self.store, self.folder / "stderr.txt", *given, *options)

    def kill_once(self, rng: random.Random, *options: str) -> bool:
        """Run the command and kill it at a random moment; False if it came to its end before that."""
        acks, pause = rng.randrange(self.steps), rng.random() * self.pause_s
        victim = self.victim(*options)
        try:
            victim.wait_for(acks)
            ended = victim.run_out(pause)
            if ended:
                assert victim.process.returncode == 0, victim.last_words()
                return False
            _, left = psutil.wait_procs(victim.kill(), timeout=ORPHAN_S)
            assert not left, f"{len(left)} workers outlived their parent by {ORPHAN_S} s: {left}"
            return True
        finally:
            victim.close()

    def finish(self, *options: str) -> Account:
        """The same command to its end, then a check."""
        victim = self.victim(*options)
        try:
            victim.finish()
        finally:
            victim.close()
        return check(self.store, self.ledger)


def make_world(verb: str, folder: Path, seed: int) -> World:
    """A fresh place for `verb`; for a fit, rasters are ingested first."""
    folder.mkdir(parents=True)
    if verb == "put":
        return World(verb, folder, seed, steps=6, pause_s=0.15)
    if verb == "ingest":
        write_scenes(folder / "scenes", seed, 4)
        return World(verb, folder, seed, steps=8, pause_s=0.2)
    write_scenes(folder / "scenes", seed, 4, size=FIT_SIZE)
    account = World("ingest", folder, seed, steps=1, pause_s=0.0).finish()
    assert account.ok, account
    return World(verb, folder, seed, steps=3, pause_s=1.0)


@dataclass
class Outcome:
    """What a series of kills in one world came to."""

    verb: str
    seed: int
    kills: int = 0
    unharmed: int = 0
    acknowledged: int = 0
    lost: int = 0
    findings: int = 0


def kill_rounds(verb: str, folder: Path, seed: int, kills: int) -> Outcome:
    """Kill the command `kills` times at random moments, checking after each, then let it come to its end.

    A run that ends before its moment counts as unharmed; after one, the world is made anew.
    """
    rng, outcome = random.Random(seed), Outcome(verb, seed)
    world = make_world(verb, folder / "0", seed)
    while outcome.kills < kills:
        killed = world.kill_once(rng)
        _add(outcome, check(world.store, world.ledger) if world.store.exists() else Account())
        outcome.kills += killed
        outcome.unharmed += not killed
        if not killed:
            world = make_world(verb, folder / str(outcome.unharmed), seed + 1000 * outcome.unharmed)
    last = world.finish()
    _add(outcome, last)
    outcome.acknowledged = last.acknowledged
    return outcome


def _add(outcome: Outcome, account: Account) -> None:
    outcome.lost += len(account.lost)
    outcome.findings += len(account.findings)
    for line in (*account.lost, *account.findings):
        print(f"{outcome.verb}, seed {outcome.seed}: {line}")
