"""Reads a store whose LMDB pages rot: `python fault_view_reader.py STORE TRUTH FIRST COUNT`, one line a flip.

A process of its own, since LMDB may end the process that walks rotten pages.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from fault_rot import Tally, flipped, look


def main() -> None:
    """Flip, look, say; the seed of each flip is its number."""
    store, truth, first, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    wanted = json.loads(truth.read_text())
    for number in range(first, first + count):
        tally = Tally()
        with flipped(store / ".view" / "data.mdb", random.Random(number)) as where:
            print(f"flip {number}", flush=True)
            look(store, wanted, tally, where)
        print(json.dumps({"seen": tally.seen, "lies": tally.lies, "strange": tally.strange}), flush=True)


if __name__ == "__main__":
    main()
