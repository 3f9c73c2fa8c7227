"""What an encoder of the place's own would save on a base, beside refining latents: `python -m bench.own_encoder`.

A reader never needs an encoder, so one of the place's own costs no bytes. On a base as it is, dates that nothing was
fitted on: the encoder of the base; the same trained on the seen dates, the decoder held; latents of either refined
raster by raster, as a fit of 1,500 steps has it. MSE at equal bytes of the embeddings, over that of the base's encoder,
not refined.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from bench.harness import Bench, run
from bench.sharing import SPREAD, STATIC_POLICY, Case, cases, curve, middle, mse_at
from geostore.codec import Effort
from geostore.vae.borrow import borrow_codec
from geostore.vae.codec import VaeCodec
from geostore.vae.fit import prepare, rounds_for
from geostore.vae.quantize import pack_encoder, unpack_decoder, unpack_encoder
from geostore.vae.shared import CROP, Draw, SharedVae, loss_of
from geostore.vae.teach import place_of

PLACES = ("romania", "romania-20m")
STEPS, RATE = 800, 4e-4


def measure(bench: Bench) -> None:
    """Four ways at each place, and their medians."""
    found: dict[str, list[float]] = {}
    for case in cases(bench.quick):
        if bench.quick or case.name in PLACES:
            for way, value in _ratios(bench, case).items():
                found.setdefault(way, []).append(value)
            bench.write()
    for way, values in found.items():
        baseline = "MSE of the base's encoder, not refined, at equal bytes; unseen dates"
        bench.figure(way, float(np.median(values)), better="lower", baseline=baseline, n=len(values))


def _ratios(bench: Bench, case: Case) -> dict[str, float]:
    seen, unseen = case.part(False), case.part(True)
    plain = borrow_codec(seen, policy=STATIC_POLICY, effort=Effort(seed=bench.seed))
    assert plain is not None
    plain, rounds = replace(plain, rounds=0), rounds_for(Effort())
    own = with_own_encoder(plain, case, 4 if bench.quick else STEPS, bench.seed)
    ways = {"plain": plain, "own_encoder": own}
    if not bench.quick:
        ways |= {"refined": replace(plain, rounds=rounds), "both": replace(own, rounds=rounds)}
    curves = {way: curve(codec, unseen, case.mse) for way, codec in ways.items()}
    size = middle(curves["plain"])
    errors = {way: mse_at(points, size) for way, points in curves.items()}
    ratios = {way: error / errors["plain"] for way, error in errors.items() if way != "plain"}
    bench.row(place=case.name, bytes_a_raster=size, mse_plain=errors["plain"], **ratios)
    return ratios


def with_own_encoder(codec: VaeCodec, case: Case, steps: int, seed: int) -> VaeCodec:
    """`codec` with the base's encoder trained on the dates a fit may see, for what its decoder gives."""
    samples = prepare(case.part(False), "grid", STATIC_POLICY)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = SharedVae(replace(codec.layout, height=CROP, width=CROP))
        vae.encoder = unpack_encoder(codec.layout, codec.tensors)
        vae.decoder = unpack_decoder(codec.layout, codec.tensors)
        assert codec.borrowed is not None
        with torch.no_grad():
            for name, parameter in (("log_scale", vae.log_scale), ("slope", vae.slope)):
                parameter.copy_(torch.from_numpy(codec.borrowed.base.tensors[f"latent.{name}"].astype(np.float32)))
        optimiser = torch.optim.Adam(vae.encoder.parameters(), lr=RATE, betas=(0.9, 0.98))
        draw = Draw([place_of("own", samples)], {"own": 1.0}, np.random.default_rng(seed), steps=SPREAD)
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = RATE * (0.5 + 0.5 * math.cos(math.pi * step / steps))
            optimiser.zero_grad(set_to_none=True)
            loss_of(vae, *draw.batch())[0].backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return replace(codec, tensors={**codec.tensors, **pack_encoder(vae.encoder)})


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(measure, "own_encoder")
