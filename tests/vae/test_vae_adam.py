"""Adam is torch's, bit for bit, and a fit imports no compiler."""

from __future__ import annotations

import subprocess
import sys

import torch

from geostore.vae.adam import Adam


def test_steps_are_torch_s_bit_for_bit():
    """Against `torch.optim.Adam` at changing rates, one parameter without a gradient now and then."""
    mine, theirs = ([torch.nn.Parameter(torch.arange(1.0, 1 + n) / n) for n in (6, 3, 1)] for _ in range(2))
    own, oracle = Adam(mine, betas=(0.9, 0.98)), torch.optim.Adam(theirs, lr=1.0, betas=(0.9, 0.98))
    for number in range(40):
        for parameters in (mine, theirs):
            a, b, c = parameters
            loss = (a**3).sum() + torch.sin(5 * b).sum() + (c.sum() if number % 3 else 0)
            loss.backward()
        rate = 0.1 / (1 + number)
        oracle.param_groups[0]["lr"] = rate
        own.step(rate)
        oracle.step()
        oracle.zero_grad(set_to_none=True)
        assert all(p.grad is None for p in mine)
        assert all(torch.equal(p, q) for p, q in zip(mine, theirs, strict=True)), number


FIT = """
import sys
from geostore.codec import Effort, quiet
from geostore.collection import Policy
from geostore.testing.codecs import synthetic_series
from geostore.vae.fit import fit_codec
from geostore.vae.sizing import sized
series = synthetic_series((4, 3, 16, 16), seed=1)
policy, plan = Policy(mse_max=1e-3, index_mae_max=None), sized(len(series.bands), 3)
codec = fit_codec(series, "grid", policy=policy, effort=Effort(steps=60), progress=quiet, plan=plan)
assert codec.rounds and codec.encode_series(series)
sys.exit("torch._dynamo" in sys.modules)
"""


def test_a_fit_imports_no_compiler():
    """A process that fits and refines never loads torch._dynamo, whose import takes two seconds."""
    assert subprocess.run([sys.executable, "-c", FIT], check=False, timeout=300).returncode == 0
