"""Power loss: a kill, a second run, the cut, and what the disk holds afterwards."""

from __future__ import annotations

import random
from pathlib import Path

from fault_check import Account, check
from fault_disk import LoopDisk
from fault_process import World
from fault_scenes import collection
from fault_victim import SETTINGS, boot_as, declare

from geostore.errors import GeostoreError
from geostore.node import Node

PUTS = 14
BEFORE, AFTER = "before-the-cut", "after-the-cut"


def power_world(disk: LoopDisk, folder: Path, seed: int) -> World:
    """A store on the disk, empty but for its collection, and all of it flushed; its ledger is elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    boot_as(BEFORE)
    world = World("put", folder, seed, steps=4, pause_s=0.1, place=disk.root / "store")
    with Node.open(str(world.store), settings=SETTINGS, create=True) as node:
        declare(node, collection(original="keep"))
    disk.settle()
    return world


def lose_power(world: World, disk: LoopDisk, *options: str) -> None:
    """Kill one run, cut the power under the next, start again."""
    rng = random.Random(world.seed)
    command = ("--count", str(PUTS), "--original", "keep", "--boot", BEFORE, *options)
    world.kill_once(rng, *command)
    victim = world.victim(*command)
    try:
        victim.wait_for(rng.randrange(2, 10))
        victim.run_out(rng.random() * world.pause_s)
        disk.cut_power()
    finally:
        victim.close()
    disk.start_again()
    boot_as(AFTER)


def power_round(disk: LoopDisk, folder: Path, seed: int) -> Account:
    """One loss of power; then what was acknowledged is checked, and the same command goes on to its end."""
    world = power_world(disk, folder, seed)
    lose_power(world, disk)
    account = check(world.store, world.ledger)
    last = world.finish("--count", str(PUTS), "--original", "keep", "--boot", AFTER)
    account.lost += last.lost
    account.findings += last.findings
    for line in (*account.lost, *account.findings):
        print(f"power, seed {seed}: {line}")
    return account


def red_without_flush(disk: LoopDisk, folder: Path, seed: int) -> bool:
    """Whether the same check notices that storage does not flush."""
    world = power_world(disk, folder, seed)
    lose_power(world, disk, "--no-flush")
    try:
        return not check(world.store, world.ledger).ok
    except GeostoreError as error:
        print(f"power without flush, seed {seed}: {error}")
        return True
