"""What a place's own network takes by its size and its latent channels: weights, embeddings, and both.

Every fourth date is left out, as for rate and distortion, and what is left is fitted and encoded whole. Rows that a
result already holds are not measured again; delete it to measure all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.harness import Bench, run
from bench.rd_places import load, part
from geostore.certificate import measure as measured
from geostore.classical.fit import coded_bytes
from geostore.codec import Effort, Series, decode_many, quiet
from geostore.collection import Policy
from geostore.vae.fit import fit_codec
from geostore.vae.sizing import NO_NETWORK, Plan, foreseen_embeddings, network_plan, sized

STEPS, ROUNDS = 750, 25  # of the optimiser, half of what a node takes by default; of refining, as a node does
FORMER = Plan(channels=8, widths=(16, 16, 12, 8), encoder=(8, 12))  # for all of these, before sizes followed complexity
_NONE = -1  # in place of a size: no network
_NARROW = ((8, 8, 6, 4), (8, 12))  # on which other numbers of channels are tried
_ASKED = {  # of SIZES; beside them FORMER
    ("romania", "MSE 5e-4"): (_NONE, 0, 1, 2),
    ("romania", "MSE 1e-4"): (1,),
    ("romania", "NDVI 0.02"): (1,),
    ("romania-20m", "MSE 5e-4"): (_NONE, 0, 1),
    ("romania-20m", "MSE 1e-4"): (_NONE, 0, 1),
    ("synthetic-soft", "MSE 5e-4"): (0, 1, 2),
    ("synthetic-fields", "MSE 5e-4"): (1,),
    ("naip", "MSE 5e-4"): (1, 2),
    ("naip", "MSE 1e-4"): (1,),
}
_CHANNELS = {"MSE 5e-4": tuple((channels, *_NARROW) for channels in (2, 4, 8, 16)), "MSE 1e-4": ((4, *_NARROW),)}


@dataclass(frozen=True)
class Cell:
    """One network on one place at one bound: mean squared error on n1, or mean error of NDVI."""

    place: str
    target: str
    plan: Plan
    steps: int

    @property
    def policy(self) -> Policy:
        """The bound as a policy."""
        name, value = self.target.split()
        mse, ndvi = (float(value), None) if name == "MSE" else (None, float(value))
        return Policy(mse_max=mse, index_mae_max=ndvi)

    def row(self) -> dict[str, Any]:
        """What tells it from others."""
        plan = self.plan
        network = {"channels": plan.channels, "widths": list(plan.widths), "encoder": list(plan.encoder)}
        return {"place": self.place, "target": self.target, **network, "steps": self.steps}


def cells(*, quick: bool) -> Iterator[Cell]:
    """Sizes of networks on every place, other numbers of channels on one, and one with all the steps of a node."""
    if quick:
        for plan in (sized(4, 0), FORMER):
            yield Cell("synthetic-small", "MSE 1e-3", plan, STEPS // 50)
        return
    for (place, target), sizes in _ASKED.items():
        for size in sizes:
            yield Cell(place, target, NO_NETWORK if size == _NONE else sized(4, size), STEPS)
        yield Cell(place, target, FORMER, STEPS)
    for target, plans in _CHANNELS.items():
        for channels, widths, encoder in plans:
            yield Cell("romania", target, Plan(channels=channels, widths=widths, encoder=encoder), STEPS)
    yield Cell("romania", "MSE 5e-4", replace(FORMER, channels=4), STEPS)
    yield Cell("romania", "MSE 1e-4", replace(FORMER, channels=16), STEPS)
    for plan in (replace(sized(1, 1), channels=2), replace(sized(1, 1), channels=4), replace(FORMER, channels=6)):
        yield Cell("modis", "MSE 5e-4", plan, STEPS)
    for target, channels in (("MSE 5e-4", 4), ("MSE 1e-4", 8)):
        yield Cell("romania-20m", target, Plan(channels=channels, widths=_NARROW[0], encoder=_NARROW[1]), STEPS)
    for place, plan in (("romania", sized(4, 1)), ("romania-20m", sized(4, 1)), ("romania-20m", FORMER)):
        yield Cell(place, "MSE 5e-4", plan, 2 * STEPS)


def take(cell: Cell) -> dict[str, Any] | None:
    """Fit, encode, decode; None where the place's data are not here."""
    found = load(cell.place)
    if found is None:
        return None
    series = part(found.series, ~found.unseen)
    effort = Effort(steps=cell.steps, device="cpu")
    codec = fit_codec(series, "grid", policy=cell.policy, effort=effort, progress=quiet, plan=cell.plan)
    if codec.layout.channels:
        codec = replace(codec, rounds=ROUNDS)
    encoded = codec.encode_series(series)
    dates = np.flatnonzero(series.valid.any(axis=(1, 2))).tolist()
    decoded = decode_many(codec, [(encoded[t].shared, (encoded[t].payload, series.valid[t])) for t in dates])
    errors = [
        measured(series.pixels[t], pixels, series.valid[t], series.bands, series.indices)
        for t, pixels in zip(dates, decoded, strict=True)
    ]
    whole, bare = len(codec.to_bytes()), len(replace(codec, tensors={}, prior=None).to_bytes())
    return {
        "weights": whole - bare if codec.layout.channels else 0,
        "codec": whole,
        "embeddings": coded_bytes(encoded),
        "total": whole + coded_bytes(encoded),
        "mse": float(np.mean([e.mse for e in errors])),
        "layered": sum(bool({"detail", "residual", "rounded"} & set(e.layers)) for e in encoded) / len(dates),
        "kept": all(e.keeps(cell.policy) for e in errors),
    }


def _planned(series: Series, policy: Policy) -> Plan:
    return network_plan(len(series.bands), foreseen_embeddings(series, policy).expected)


def figures(bench: Bench) -> None:
    """Bytes with the size that is planned, or the nearest measured, over those with the former, and over the best."""
    over_former, over_best = [], []
    for place, target in dict.fromkeys((r["place"], r["target"]) for r in bench.rows):
        rows = [r for r in bench.rows if (r["place"], r["target"]) == (place, target)]
        networks = [r for r in rows if r["channels"] and r["steps"] == rows[0]["steps"]]
        former = [r for r in networks if r["widths"] == list(FORMER.widths) and r["channels"] in (6, 8)]
        found = load(place)
        if not former or found is None:
            continue
        policy = Cell(place, target, NO_NETWORK, 0).policy
        plan = _planned(part(found.series, ~found.unseen), policy)
        near = min(networks, key=lambda r: _apart(r, plan))
        best = min(r["total"] for r in networks)
        over_former.append(near["total"] / former[0]["total"])
        over_best.append(near["total"] / best)
    for key, values in (("planned_over_former", over_former), ("planned_over_best", over_best)):
        if values:
            mean = float(np.exp(np.mean(np.log(values))))
            bench.figure(
                key, mean, better="lower", n=len(values),
                baseline="codec and embeddings; geometric mean over places and bounds",
            )  # fmt: skip


def _apart(row: dict[str, Any], plan: Plan) -> tuple[float, int]:
    """How far a row's network is from `plan`: in width first, then in channels."""
    return abs(float(np.log(sum(row["widths"]) / sum(plan.widths)))), abs(row["channels"] - plan.channels)


def measure(bench: Bench) -> None:
    """Each cell in turn."""
    path = bench.folder / f"{bench.name}.json"
    known = json.loads(path.read_text())["rows"] if path.exists() else []
    for cell in cells(quick=bench.quick):
        wanted = cell.row()
        row = next((r for r in known if all(r.get(k) == v for k, v in wanted.items())), None)
        result = row or take(cell)
        if result is not None:
            bench.row(**(wanted | result))
            bench.write()
    figures(bench)


if __name__ == "__main__":
    run(measure, "sizing_networks")
