"""Train a base codec: `python -m bench.train_base 4 --folder WORK --seconds 3600`; run it again to go on."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bench.base_places import HELD_OUT, NAMES, examples, places
from geostore.vae.base import Base
from geostore.vae.shared import Draw, Place, Training
from geostore.vae.teach import finished, layout_of, taken_up, train

SHARES = {"real": 0.45, "seasons": 0.4, "synthetic": 0.15}
SLOTS = {
    4: (("blue", "swir16"), ("green",), ("red",), ("nir", "nir08")),
    13: tuple((name,) for name in NAMES[13]),
}
TRAINED_ON = {
    4: "NAIP, North Dakota, 10 dates (public domain); Landsat 5-8, Pucallpa, 8 dates (public domain), swir16 as blue",
    13: "none",
}
_MANY = len(NAMES[13])
SUBSETS: dict[int, list[list[int]]] = {
    4: [],
    13: [
        list(range(_MANY)),
        [i for i, n in enumerate(NAMES[13]) if n != "cirrus"],
        [i for i, n in enumerate(NAMES[13]) if n not in ("coastal", "nir09", "cirrus")],
        [i for i, n in enumerate(NAMES[13]) if n.startswith("rededge") or n in ("nir08", "swir16", "swir22")],
    ],
}


def main(argv: Sequence[str] | None = None) -> None:
    """Gather the places, once; train until `--seconds` have been spent in all runs together; leave `state.pt`."""
    asked = _asked(argv)
    asked.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    saved, about = asked.folder / "state.pt", {"bands": asked.bands, "seed": asked.seed}
    training = taken_up(layout_of(asked.bands), asked.seed, saved, about)
    if asked.export is not None:
        asked.export.write_bytes(_base(training, asked).data)
        return
    rng = np.random.default_rng((asked.seed, training.steps))
    draw = Draw(_places(asked), SHARES, rng, SUBSETS[asked.bands])

    def show() -> None:
        shown = " ".join(f"{k} {v:.4f}" for k, v in training.shown.items())
        print(f"{training.steps} steps {training.seconds:.0f} s {shown}", flush=True)

    train(training, draw, asked.seconds, saved, about, show)


def _asked(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bands", type=int, choices=sorted(SLOTS))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3600.0, help="of one core, in all runs together")
    parser.add_argument("--export", type=Path, help="write the base as it stands to this file, and train no further")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def _base(training: Training, asked: argparse.Namespace) -> Base:
    """The averaged weights as a base, and what they come from."""
    with np.load(asked.folder / "places.npz") as arrays:
        kinds = Counter(n.split("/")[1] for n in arrays if n.endswith("/map"))
    card = {
        "title": f"{asked.bands} bands, Sentinel-2 like",
        "trained_on": {
            "real dates": TRAINED_ON[asked.bands],
            "one real date, the others invented": "Sentinel-2 L1C, Virginia (CC0; contains Copernicus Sentinel data)",
            "synthetic": "geostore.scene.synthetic, seeds 1000-1035",
            "places": dict(kinds),
        },
        "held_out": list(HELD_OUT),
        "steps": training.steps,
        "core_seconds": round(training.seconds),
        "loss": {name: round(value, 4) for name, value in training.shown.items()},
        "command": f"python -m bench.train_base {asked.bands} --folder WORK --seconds {asked.seconds:.0f}",
    }
    series = examples(asked.bands, np.random.default_rng(asked.seed))
    return finished(training, SLOTS[asked.bands], card, series, asked.seed)


def _places(asked: argparse.Namespace) -> list[Place]:
    kept = asked.folder / "places.npz"
    if not kept.exists():
        found = list(places(asked.bands, np.random.default_rng(asked.seed)))
        arrays = {f"{i}/{p.kind}/{n}": getattr(p, n) for i, p in enumerate(found) for n in ("residual", "map")}
        np.savez(kept, **arrays)
    with np.load(kept) as arrays:
        names = [n.removesuffix("/map") for n in arrays if n.endswith("/map")]
        return [Place(n.split("/")[1], arrays[f"{n}/residual"], arrays[f"{n}/map"]) for n in names]


if __name__ == "__main__":
    main()
