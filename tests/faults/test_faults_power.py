"""Power loss on a real file system: what was acknowledged had reached the disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fault_disk import LoopDisk
from fault_power import power_round, red_without_flush

from geostore.storage import follow

pytestmark = pytest.mark.root
TRIES = 3


@pytest.fixture(autouse=True)
def same_boot_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests name the machine's runs themselves; give it its own name back."""
    monkeypatch.setattr(follow, "boot_id", follow.boot_id)


@pytest.mark.parametrize("seed", [21, 22, 23])
def test_power_loss_loses_no_acknowledged_write(loop_disk: Callable[[], LoopDisk], tmp_path: Path, seed: int) -> None:
    """ext4 that forgets what was not flushed still holds every acknowledged raster; the store verifies and goes on."""
    print(f"seed {seed}")
    account = power_round(loop_disk(), tmp_path / "world", seed)
    assert account.acknowledged > 0
    assert account.ok, account


def test_power_loss_is_noticed_without_flush(loop_disk: Callable[[], LoopDisk], tmp_path: Path) -> None:
    """With the fsync taken out of storage the same check goes red, so it does prove something."""
    assert any(red_without_flush(loop_disk(), tmp_path / str(seed), seed) for seed in range(TRIES))
