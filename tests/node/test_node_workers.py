"""Workers do not run the script that asks for them, however it asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import operator
from geostore.node.workers import Workers
print("begun", __name__, flush=True)
with Workers(2) as pool:
    print(sorted(pool.map(operator.neg, range(3))), flush=True)
"""


def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    """At the top level of a script, from a pipe, and by -c: one line of its own, and the answers."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    for arguments, given in (([str(path)], ""), (["-"], SCRIPT), (["-c", SCRIPT], "")):
        done = subprocess.run(
            [sys.executable, *arguments], input=given, capture_output=True, text=True, timeout=120, check=True
        )
        assert done.stdout.splitlines() == ["begun __main__", "[-2, -1, 0]"]
