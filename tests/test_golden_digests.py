"""The decode promise: what was stored once decodes to the same bytes, whatever the process, threads or processor.

Every mode of every codec has a golden file, and so have masks, and the tiers of all that have layers. A library upgrade
that changes one decoded bit fails here. `GEOSTORE_GOLDEN=write` adds the tiers of golden files that have none in
coarser.json; those of a file that was made anew are to be taken out first.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import golden_process
import pytest

HERE = Path(__file__).parent
MODES = (
    "raw",
    "masks",
    "klt-av1",
    "klt-av1-bounded",
    "klt-av1-stretched",
    "klt-dct",
    "klt-dct-uneven",
    "vae-grid",
    "vae-chain",
    "vae-log",
    "vae-bounded",
    "vae-index",
    "vae-shared",
    "vae-still",
    "vae-flat",
    "vae-single",
    "vae-shipped",
    "vae-many",
    "vae-float",
    "vae-bounded-near",
    "vae-index-near",
    "coarser",
)
OLDER = {  # what each library calls a processor of 2008: no AVX
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "DNNL_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "OPENBLAS_CORETYPE": "Nehalem",
    "NUMBA_CPU_NAME": "nehalem",
    "NUMBA_CPU_FEATURES": "",
}
RUNS = {  # threads, what else the process is told
    "one thread": (1, {}),
    "two threads": (2, {}),
    "four threads": (4, {}),
    "older instruction sets": (2, OLDER),
}


@pytest.mark.parametrize("run", RUNS)
def test_every_mode_decodes_to_the_bytes_it_decoded_to_when_it_was_stored(run: str) -> None:
    """Proves, in a process of its own, that each mode's payloads decode to the digests written down long ago."""
    threads, told = RUNS[run]
    if told and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("instruction sets are named for x86 only")
    command = [sys.executable, str(HERE / "golden_process.py"), str(threads), *MODES]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **told}
    seen = json.loads(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)
    if told:
        assert seen["limits"] == {"torch": "DEFAULT", "numba": "nehalem"}
    for name in MODES:
        file = json.loads((HERE / "golden" / f"{name}.json").read_text())
        assert seen[name] == [item["sha256"] for item in file.get("payloads", file.get("rasters"))], name


def test_every_golden_file_is_decoded() -> None:
    """Proves that no golden file is left out of the runs."""
    assert {p.stem for p in (HERE / "golden").glob("*.json")} == set(MODES)


@pytest.fixture(scope="module")
def coarser() -> list[dict[str, Any]]:
    """Golden digests of tiers, with what is new if that is asked for; what was written once stays."""
    path = HERE / "golden" / "coarser.json"
    if os.environ.get("GEOSTORE_GOLDEN") == "write":
        items = json.loads(path.read_text())["payloads"] if path.exists() else []
        there = {(item["of"], item["tier"]) for item in items}
        for name, tier in golden_process.tiers(MODES):
            if (name, tier) not in there:
                items.append({"of": name, "tier": tier, "sha256": golden_process.tier_digests(name, tier)})
        path.write_text(json.dumps({"payloads": items}, indent=1) + "\n")
    return list(json.loads(path.read_text())["payloads"])


def test_every_tier_is_golden(coarser: list[dict[str, Any]]) -> None:
    """Proves that tiers of all golden files with layers are written down, and are others than the whole rasters."""
    assert {(item["of"], item["tier"]) for item in coarser} == set(golden_process.tiers(MODES))
    for item in coarser:
        whole = [raster.sha256 for raster in golden_process.read(item["of"])]
        assert len(item["sha256"]) == len(whole)
        assert not {digest for digest in item["sha256"] if digest} & set(whole)


@pytest.mark.parametrize(
    ("tier", "names"),
    [
        ("preview", "grid chain log bounded index shared shipped many float bounded-near index-near"),
        ("embedding", "chain log bounded index shared still shipped many float bounded-near index-near"),
    ],
)
def test_golden_tiers_are_there(coarser: list[dict[str, Any]], tier: str, names: str) -> None:
    """Proves that some raster of each golden codec that should have a tier has it, and of klt-av1 with residuals."""
    found = {item["of"] for item in coarser if item["tier"] == tier and any(item["sha256"])}
    assert found == {*(f"vae-{name}" for name in names.split()), *(["klt-av1-bounded"] * (tier == "embedding"))}
