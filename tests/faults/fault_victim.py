"""A real process that works on a store until it is done or something happens to it.

Run as a script: `python fault_victim.py VERB --store S --ledger L ...`. It prints `ready` once the store is open
and `ack N` after each acknowledgement, which is first appended to the ledger and flushed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from fault_ledger import Ledger
from fault_scenes import BANDS, CRS, collection, digest

from geostore.client import Client
from geostore.collection import Collection, collection_to_dict
from geostore.connection import Local
from geostore.node import Node
from geostore.query import messages
from geostore.query.messages import GridFields, Piece, SceneFields
from geostore.settings import Settings
from geostore.storage import tables

PUT_CELLS = ("u2ed1b", "u2ed1c", "u2ed1f", "u2ed1g", "u2ed40", "u2ed41")
PUT_SHAPE = (80, 90)
SETTINGS = Settings(threads=1, workers=1)


def say(text: str) -> None:
    """One line to whoever watches."""
    print(text, flush=True)


class Witness:
    """Notes every acknowledgement of this process in the ledger, then says so."""

    def __init__(self, path: Path) -> None:
        self.ledger = Ledger(path)
        self.count = 0

    def _note(self, entry: dict[str, Any]) -> None:
        self.ledger.append(entry)
        self.count += 1
        say(f"ack {self.count}")

    def watch(self, node: Node) -> None:
        """See every put answered and every fitted partition committed through `node`."""
        answer, commit = node.answer, node.store.commit

        def answered(request: Any, arrays: Any = (), progress: Any = None) -> Any:
            reply = answer(request, arrays, progress)
            if isinstance(request, messages.Put):
                entries = [put_entry(request, s.scene, p, arrays) for s in request.scenes for p in s.pieces]
                self._note({"rasters": entries})
            return reply

        def committed(rows: Any) -> None:
            commit(rows)
            fitted = [r for r in rows if getattr(r, "certificate", None) is not None]
            if fitted:
                self._note({"rasters": [{**key_entry(r.key), "generation": r.generation} for r in fitted]})

        node.answer = answered  # type: ignore[method-assign]
        node.store.commit = committed  # type: ignore[method-assign]


def put_entry(request: messages.Put, scene: SceneFields, piece: Piece, arrays: Any) -> dict[str, Any]:
    """What was acknowledged of one raster of a put: its key and the digest of its pixels and mask."""
    key = {"collection": request.collection, "geohash": piece.geohash, "group": piece.group}
    name = digest(np.asarray(arrays[piece.pixels]), np.asarray(arrays[piece.valid]))
    return {**key, "time_us": scene.time_us, "platform": scene.platform, "generation": 0, "digest": name}


def key_entry(key: Any) -> dict[str, Any]:
    """A raster key as plain values."""
    return {n: getattr(key, n) for n in ("collection", "geohash", "group", "time_us", "platform")}


def put_request(seed: int, number: int) -> tuple[messages.Put, list[np.ndarray]]:
    """The `number`-th put of a series: one scene, in every third put three, a raster in each of two to four cells."""
    rng = np.random.default_rng((seed, number))
    arrays: list[np.ndarray] = []
    first, *more = [put_scene(rng, number, part, arrays) for part in range(1 if number % 3 else 3)]
    return messages.Put(collection="faults", scene=first.scene, pieces=first.pieces, more=more), arrays


def put_scene(rng: np.random.Generator, number: int, part: int, arrays: list[np.ndarray]) -> messages.ScenePieces:
    """One scene of a put; what it adds to `arrays` are its pixels and masks."""
    pieces = []
    for place in sorted(rng.choice(len(PUT_CELLS), rng.integers(2, 5), replace=False).tolist()):
        cell = GridFields(crs=CRS, left=5e5 + 6e3 * place, top=5.1e6, xres=10, yres=10, height=100, width=120)
        at = len(arrays)
        pieces.append(Piece(geohash=PUT_CELLS[place], group="10m", cell=cell, row=3, col=5, pixels=at, valid=at + 1))
        high = 9000 if number % 2 else 30  # every other one too large to lie in its row
        arrays.append(rng.integers(1, high, (len(BANDS), *PUT_SHAPE), dtype=np.uint16))
        arrays.append((rng.random(PUT_SHAPE) < 0.9).astype(np.uint8))
    time_us = 1_600_000_000_000_000 + number * 86_400_000_000 + part * 3_600_000_000
    scene = SceneFields(id=f"put-{number:04d}-{part}", time_us=time_us)
    return messages.ScenePieces(scene=scene, pieces=pieces)


def declare(node: Node, wanted: Collection) -> None:
    """The collection, in the store."""
    node.answer(messages.PutCollection(collection=collection_to_dict(wanted)))


def put(node: Node, args: argparse.Namespace) -> None:
    """`--count` puts, one after the other; those stored already change nothing."""
    declare(node, collection(original=args.original))
    for number in range(args.count):
        request, arrays = put_request(args.seed, number)
        node.answer(request, arrays)


def ingest(node: Node, args: argparse.Namespace) -> None:
    """Every scene of `--scenes`, each in many small puts, or many in one if `--batch-bytes` is large."""
    from geostore.client import steps
    from geostore.ingest import ingest as take_in

    assert hasattr(steps, "BATCH_BYTES"), "the size of a put has another name now"
    steps.BATCH_BYTES = args.batch_bytes
    acquired = datetime.fromisoformat(args.acquired).replace(tzinfo=UTC) if args.acquired else None
    wanted = collection(original=args.original) if not args.preset else preset(args.preset)
    take_in(Client(Local(node)), [args.scenes], wanted, acquired=acquired)


def preset(name: str) -> Collection:
    """A collection that ships with geostore, for files that tell no processing baseline."""
    from geostore.scene import load_collection

    found = load_collection(name)
    return replace(found, files=replace(found.files, baseline="02.09"))


def fit(node: Node, args: argparse.Namespace) -> None:
    """Every partition that waits, a few steps each."""
    node.answer(messages.Fit(steps=args.steps, seed=args.seed, workers=1))


def hold(node: Node, args: argparse.Namespace) -> None:
    """Keep the store open until stdin closes."""
    sys.stdin.read()


def read(node: Node, args: argparse.Namespace) -> None:
    """For each line on stdin: decode every raster and say how many, and one digest over all."""
    from fault_check import digests

    for _ in sys.stdin:
        found = digests(node)
        say(f"read {len(found)} {hash_of(found)}")


def hash_of(found: dict[str, str]) -> str:
    """One name for many digests."""
    import hashlib

    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()


VERBS = {"put": put, "ingest": ingest, "fit": fit, "hold": hold, "read": read}


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line, or `words`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("--store", required=True)
    parser.add_argument("--ledger", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--scenes", default="")
    parser.add_argument("--acquired", default="")
    parser.add_argument("--preset", default="")
    parser.add_argument("--original", default="drop")
    parser.add_argument("--batch-bytes", type=int, default=48 * 1024)
    parser.add_argument("--readonly", action="store_true")
    parser.add_argument("--no-flush", action="store_true", help="break the promise on purpose")
    parser.add_argument("--boot", default="", help="what the machine calls its present run")
    return parser.parse_args(words)


def main() -> None:
    """Open, work, report the largest resident size."""
    args = arguments()
    tables.JOIN_EVERY = tables.CROWD = 2  # part files are joined all the time
    if args.no_flush:
        break_flush()
    if args.boot:
        boot_as(args.boot)
    with Node.open(args.store, settings=SETTINGS, readonly=args.readonly, create=not args.readonly) as node:
        if args.ledger:
            Witness(args.ledger).watch(node)
        say("ready")
        VERBS[args.verb](node, args)
    say(f"done {resident_peak_kb()}")


def resident_peak_kb() -> int:
    """The largest resident size of this program; getrusage would count the parent's before exec."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def break_flush() -> None:
    """Take the fsync out of geostore, in this process only: the mutation the power-loss test must notice."""
    from geostore.durable import flush

    for name, module in list(sys.modules.items()):
        if name.startswith("geostore.") and getattr(module, "flush", None) is flush:
            module.flush = lambda path: None  # type: ignore[attr-defined]


def boot_as(name: str) -> None:
    """As if the machine had been started anew under this id; a loop-mounted disk fails without that."""
    import geostore.storage.follow

    geostore.storage.follow.boot_id = lambda: name


if __name__ == "__main__":
    main()
