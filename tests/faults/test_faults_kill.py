"""kill -9 at random moments: nothing acknowledged is lost, and the same command goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_check import check
from fault_process import ORPHAN_S, children, kill_rounds, make_world

from geostore.errors import Unavailable


@pytest.mark.parametrize(("verb", "seed", "kills"), [("put", 11, 4), ("ingest", 12, 4), ("fit", 13, 2)])
def test_kill_loses_no_acknowledged_write(tmp_path: Path, verb: str, seed: int, kills: int) -> None:
    """Every raster a ledger outside the store promises is there after each kill -9, and after the run to the end."""
    print(f"seed {seed}")
    outcome = kill_rounds(verb, tmp_path, seed, kills)
    assert (outcome.kills, outcome.lost, outcome.findings) == (kills, 0, 0)
    assert outcome.acknowledged > 0


def test_a_killed_fit_worker_is_an_error_and_the_fit_goes_on(tmp_path: Path) -> None:
    """kill -9 of a worker ends the fit as Unavailable with nothing lost; the same fit then comes to its end."""
    world = make_world("fit", tmp_path / "world", 14)
    victim = world.victim()
    try:
        victim.wait_for(1)
        workers = [p for p in children(victim.process.pid) if "spawn_main" in " ".join(p.cmdline())]
        for worker in workers:
            worker.kill()
        assert victim.process.wait(ORPHAN_S) == 1
    finally:
        victim.close()
    assert Unavailable.__name__ in victim.last_words()
    assert "again" in victim.last_words()
    assert check(world.store, world.ledger).ok
    last = world.finish()
    assert last.ok, last
