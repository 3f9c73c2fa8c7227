"""kill -9 at random moments: nothing acknowledged is lost, and the same command goes on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fault_check import check, torn_scenes
from fault_process import ORPHAN_S, World, children, kill_rounds, make_world
from fault_scenes import write_scenes

from geostore.errors import Unavailable


@pytest.mark.parametrize(("verb", "seed", "kills"), [("put", 11, 4), ("ingest", 12, 4), ("fit", 13, 2)])
def test_kill_loses_no_acknowledged_write(tmp_path: Path, verb: str, seed: int, kills: int) -> None:
    """Every raster a ledger outside the store promises is there after each kill -9, and after the run to the end."""
    print(f"seed {seed}")
    outcome = kill_rounds(verb, tmp_path, seed, kills)
    assert (outcome.kills, outcome.lost, outcome.findings) == (kills, 0, 0)
    assert outcome.acknowledged > 0


def test_kill_in_a_group_of_scenes_leaves_each_whole_or_absent(tmp_path: Path) -> None:
    """kill -9 in commits that several scenes share: what was acknowledged is there, and no scene is there in part."""
    folder, seed, count = tmp_path / "world", 16, 24
    print(f"seed {seed}")
    folder.mkdir()
    write_scenes(folder / "scenes", seed, count)
    world, rng = World("ingest", folder, seed, steps=3, pause_s=0.4), random.Random(seed)
    groups = ("--batch-bytes", "900000")  # of eight scenes
    for _ in range(2):
        world.kill_once(rng, *groups)
        account = check(world.store, world.ledger)
        assert account.ok, account
        assert torn_scenes(world.store) == []
    last = world.finish(*groups)
    assert last.ok, last
    assert torn_scenes(world.store) == []
    assert len(world.ledger.entries()) < count  # puts; scenes did share them
    assert last.acknowledged > count


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
