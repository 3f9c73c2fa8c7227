"""The long run: a hundred kills and twenty power losses, resumable, into bench/results/soak.json.

Progress lies in pytest's cache, so a run that was interrupted goes on; `--cache-clear` begins anew, and so does another
commit: a result is of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fault_disk import LoopDisk
from fault_power import power_round, red_without_flush
from fault_process import kill_rounds

from geostore.storage import follow

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]
SEED = 1000
VERBS = ("put", "ingest", "put", "ingest", "fit")
WORLDS, KILLS = 20, 5
CUTS, BROKEN = 20, 5
KEY = "geostore/soak"
Rows = dict[str, list[dict[str, Any]]]


class Progress:
    """Rows done so far at this commit, kept across runs."""

    def __init__(self, config: pytest.Config) -> None:
        from bench.harness import commit

        assert config.cache is not None, "the soak keeps its progress in pytest's cache; run it with the cache on"
        self._cache, self._commit = config.cache, commit()
        kept: Rows = self._cache.get(KEY, {})
        self.rows: Rows = {
            part: [row for row in kept.get(part, []) if row["commit"] == self._commit]
            for part in ("kill", "power", "broken")
        }

    def todo(self, part: str, seeds: range) -> Iterator[int]:
        """Seeds of `part` that are not done, each told before its turn."""
        done = {row["seed"] for row in self.rows[part]}
        print(f"{part}: {len(done)} of {len(seeds)} done at {self._commit}", flush=True)
        for seed in seeds:
            if seed not in done:
                print(f"{part}, seed {seed} ...", flush=True)
                yield seed

    def add(self, part: str, row: dict[str, Any]) -> None:
        """Keep one row, with the commit it was measured at."""
        self.rows[part].append({**row, "commit": self._commit})
        self._cache.set(KEY, self.rows)
        print(part, row, flush=True)

    def finish(self) -> None:
        """Write the result once every part is whole, and forget the progress."""
        wanted = {"kill": WORLDS, "power": CUTS, "broken": BROKEN}
        if all(len(self.rows[part]) == count for part, count in wanted.items()):
            write(self.rows)
            self._cache.set(KEY, {"kill": [], "power": [], "broken": []})


@pytest.fixture
def progress(request: pytest.FixtureRequest) -> Progress:
    """The soak's progress."""
    return Progress(request.config)


@pytest.fixture(autouse=True)
def same_boot_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The power rounds name the machine's runs themselves; give it its own name back."""
    monkeypatch.setattr(follow, "boot_id", follow.boot_id)


def test_a_hundred_kills_lose_nothing(progress: Progress, tmp_path: Path) -> None:
    """kill -9 at random moments of put, ingest and fit: every acknowledged raster is there, every store verifies."""
    for seed in progress.todo("kill", range(SEED, SEED + WORLDS)):
        outcome = kill_rounds(VERBS[seed % len(VERBS)], tmp_path / str(seed), seed, KILLS)
        progress.add("kill", asdict(outcome))
    lost = [row for row in progress.rows["kill"] if row["lost"] or row["findings"]]
    progress.finish()
    assert lost == []


@pytest.mark.root
def test_twenty_power_losses_lose_nothing(
    progress: Progress, loop_disk: Callable[[], LoopDisk], tmp_path: Path
) -> None:
    """Power cut under a writer twenty times, after a kill each: every acknowledged raster is there and verifies."""
    for seed in progress.todo("power", range(SEED, SEED + CUTS)):
        disk = loop_disk()
        account = power_round(disk, tmp_path / str(seed), seed)
        disk.close()
        row = {"seed": seed, "acknowledged": account.acknowledged, "lost": len(account.lost)}
        progress.add("power", {**row, "findings": len(account.findings)})
    lost = [row for row in progress.rows["power"] if row["lost"] or row["findings"]]
    progress.finish()
    assert lost == []


@pytest.mark.root
def test_power_losses_without_flush_are_noticed(
    progress: Progress, loop_disk: Callable[[], LoopDisk], tmp_path: Path
) -> None:
    """The same check on a storage whose flush does nothing goes red."""
    for seed in progress.todo("broken", range(SEED, SEED + BROKEN)):
        disk = loop_disk()
        progress.add("broken", {"seed": seed, "red": red_without_flush(disk, tmp_path / str(seed), seed)})
        disk.close()
    red = [row for row in progress.rows["broken"] if row["red"]]
    progress.finish()
    assert red


def write(rows: Rows) -> None:
    """bench/results/soak.json."""
    from bench.harness import Bench

    bench = Bench("soak", SEED)
    kills, cuts, broken = rows["kill"], rows["power"], rows["broken"]
    told = {"better": "higher", "baseline": "what was asked for"}
    bench.figure("kills", sum(r["kills"] for r in kills), bar=WORLDS * KILLS, n=len(kills), **told)
    bench.figure("power_losses", len(cuts), bar=CUTS, n=len(cuts), **told)
    for name, part in (("kills", kills), ("power_losses", cuts)):
        seen = {"better": "higher", "baseline": "rasters the ledger promises", "n": len(part)}
        bench.figure(f"{name}_acknowledged", sum(r["acknowledged"] for r in part), **seen)
        for what in ("lost", "findings"):
            held = {"better": "lower", "baseline": "nothing", "n": len(part)}
            bench.figure(f"{name}_{what}", sum(r[what] for r in part), bar=0, **held)
    noticed = {"better": "higher", "baseline": "power losses with the fsync taken out", "n": len(broken)}
    bench.figure("red_without_flush", sum(r["red"] for r in broken), bar=1, **noticed)
    for part, items in rows.items():
        for row in items:
            bench.row(fault=part, **row)
    bench.write()
    bench.show()
