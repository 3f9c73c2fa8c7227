"""A step of many places' deltas: one by one, grouped as a fit does it, by torch.vmap: `python -m bench.fit_ways`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from bench.fit_many import PLACES, lessons, shared
from bench.harness import Bench, interleaved, ratio, run
from geostore.vae.adapt import Deltas, Lesson, _Crops, _Fitting
from geostore.vae.device import Device

ROUNDS = 5
SIDES = (16, 32, 64)  # pixels
Grads = dict[str, Tensor]  # (P, ...) by parameter


def measure(bench: Bench) -> None:
    """Each size in turn, synthetic places."""
    for side in SIDES[:1] if bench.quick else SIDES:
        few = 3 if bench.quick else PLACES if side <= 32 else PLACES // 4
        _size(bench, lessons(side, few), side)


def _size(bench: Bench, places: Sequence[Lesson], side: int) -> None:
    """Seconds of forward and backward pass of one step, each way on the same crops; a row, and ratios to the loop."""
    layout, tensors = shared(side)
    fitting = _Fitting(layout, tensors, places, Device.named("cpu"), whole=True, seed=bench.seed)
    crops, count = fitting._batch(), len(places)  # noqa: SLF001 - what a fit's step sees
    together, one = fitting.deltas, Deltas(layout, tensors, 1, whole=True)
    names = [n for n, p in one.named_parameters() if p.requires_grad]
    ways: dict[str, Callable[[], Grads]] = {
        "loop": lambda: _loop(one, crops, count),
        "grouped": lambda: _grads(together, crops),
        "vmap": lambda: _vmap(one, crops, count),
    }
    found = {way: step() for way, step in ways.items()}
    scale = max(float(found["loop"][n].abs().max()) for n in names)
    apart = max(float((found[w][n] - found["loop"][n]).abs().max()) for w in ways for n in names) / scale
    seconds = interleaved(dict(ways), rounds=1 if bench.quick else ROUNDS)
    ratios = {way: ratio(seconds[way], seconds["loop"]) for way in ("grouped", "vmap")}
    bench.row(step_of_px=side, places=count, loop_s=sum(seconds["loop"]) / ROUNDS, gradients_apart=apart, **ratios)
    for way, value in ratios.items():
        what = (
            f"forward and backward pass of one step of {count} places, one after the other; gradients apart {apart:.0e}"
        )
        bench.figure(f"step.{way}_over_loop.{side}px", value, better="lower", baseline=what, n=ROUNDS)


def _loss(found: Tensor, residual: Tensor, mask: Tensor) -> Tensor:
    """The sum over places of what a fit's step follows."""
    return ((found - residual) ** 2 * mask).sum()


def _grads(deltas: Deltas, crops: _Crops) -> Grads:
    moving = {n: p for n, p in deltas.named_parameters() if p.requires_grad}
    loss = _loss(deltas(crops.z, crops.seen, crops.log_step), crops.residual, crops.mask)
    return dict(zip(moving, torch.autograd.grad(loss, list(moving.values())), strict=True))


def _of(crops: _Crops, place: int, count: int) -> _Crops:
    each = len(crops.z) // count
    at = slice(place * each, (place + 1) * each)
    seen = tuple(s[place : place + 1] for s in crops.seen)
    return _Crops(crops.residual[at], crops.mask[at], crops.z[at], seen, crops.log_step[at])


def _loop(one: Deltas, crops: _Crops, count: int) -> Grads:
    each = [_grads(one, _of(crops, place, count)) for place in range(count)]
    return {name: torch.cat([g[name] for g in each]) for name in each[0]}


def _vmap(one: Deltas, crops: _Crops, count: int) -> Grads:
    fixed = {n: p for n, p in one.named_parameters() if not p.requires_grad} | dict(one.named_buffers())
    moving = {n: p.detach().expand(count, *p.shape) for n, p in one.named_parameters() if p.requires_grad}

    def loss(
        own: Grads, z: Tensor, seen: tuple[Tensor, ...], log_step: Tensor, residual: Tensor, mask: Tensor
    ) -> Tensor:
        return _loss(functional_call(one, {**fixed, **own}, (z, seen, log_step)), residual, mask)

    parts = [t.unflatten(0, (count, -1)) for t in (crops.z, crops.log_step, crops.residual, crops.mask)]
    seen = tuple(s[:, None] for s in crops.seen)
    found: Grads = vmap(grad(loss))(moving, parts[0], seen, *parts[1:])
    return {name: g.flatten(0, 1) for name, g in found.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(measure, "fit_ways")
