"""The decode promise: what was stored once decodes to the same bytes, whatever the process, threads or processor.

Every mode of every codec has a golden file, and so have masks. A library upgrade that changes one decoded bit fails
here.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

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
