"""A full disk: an error, nothing lost, and the same command goes on once there is room."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_check import check
from fault_disk import SmallDisk
from fault_process import Victim
from fault_scenes import write_scenes
from fault_victim import SETTINGS, VERBS, Witness, arguments

from geostore.errors import StorageFull
from geostore.node import Node


@pytest.mark.root
def test_a_full_disk_loses_nothing(small_disk: SmallDisk, tmp_path: Path) -> None:
    """Noise is ingested until StorageFull; what was acknowledged stands and verifies; with room it ends well."""
    write_scenes(tmp_path / "scenes", 31, 6, size=320, noise=4000)
    store, ledger = small_disk.root / "store", tmp_path / "ledger.jsonl"
    args = arguments(["ingest", "--store", str(store), "--scenes", str(tmp_path / "scenes"), "--original", "keep"])
    with Node.open(str(store), settings=SETTINGS, create=True) as node:
        witness = Witness(ledger)
        witness.watch(node)
        with pytest.raises(StorageFull, match="room"):
            VERBS["ingest"](node, args)
        assert witness.count > 0
    full = check(store, witness.ledger)
    assert full.ok, full
    assert full.acknowledged > 0
    small_disk.make_room()
    victim = Victim("ingest", store, tmp_path / "stderr.txt", "--ledger", str(ledger), *_options(tmp_path))
    try:
        victim.finish()
    finally:
        victim.close()
    after = check(store, witness.ledger)
    assert after.ok, after
    assert after.acknowledged > full.acknowledged


def _options(tmp_path: Path) -> list[str]:
    return ["--scenes", str(tmp_path / "scenes"), "--original", "keep"]
