"""Fits at half precision and on a GPU: as good as on a processor, and what they store decodes to the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256

import numpy as np
import pytest
import torch

from geostore.codec import Effort, quiet
from geostore.collection import Policy
from geostore.errors import InvalidInput
from geostore.testing.codecs import synthetic_series
from geostore.vae.adapt import fit_deltas
from geostore.vae.base import find
from geostore.vae.borrow import borrow_codec, lesson_of
from geostore.vae.codec import VaeCodec
from geostore.vae.device import Device
from geostore.vae.fit import choose_layout, fit_codec, goal_of, prepare
from geostore.vae.model import Vae
from geostore.vae.sizing import sized
from geostore.vae.train import train

POLICY = Policy(mse_max=5e-4, index_mae_max=0.05)
CPU = torch.device("cpu")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
_DECODE = """
import sys
from hashlib import sha256
from pathlib import Path
import numpy as np
from geostore.vae.codec import VaeCodec
folder = Path(sys.argv[1])
codec = VaeCodec.from_bytes((folder / "codec").read_bytes())
valid = np.load(folder / "valid.npy")
print(sha256(codec.decode((folder / "payload").read_bytes(), valid).tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def series():
    return synthetic_series((8, 4, 40, 40), indices=("NDVI",))


def trained(series, device):
    """The loss terms at the end of 60 steps."""
    samples = prepare(series, "grid", POLICY)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = Vae(choose_layout(series, "grid", sized(len(series.bands), 3)))
        goal, effort = goal_of(POLICY, "grid"), Effort(steps=60)
        return train(vae, samples, goal=goal, effort=effort, progress=quiet, device=device)


def test_half_precision_trains_as_well(series):
    """Proves, on the processor with what a GPU would run, that bfloat16 networks end within a tenth of float32 ones."""
    whole, half = (trained(series, Device(CPU, half=half)) for half in (False, True))
    assert half != whole
    for term in ("rate", "mse", "index_NDVI"):
        assert half[term] == pytest.approx(whole[term], rel=0.1), term


def test_half_precision_fits_deltas_as_well():
    """Proves the same of a base's deltas: in whole numbers most are equal, and none is far off."""
    series = synthetic_series((8, 4, 40, 40))
    base, planes = find(series.bands.names)
    codec = borrow_codec(series, policy=POLICY, effort=Effort(steps=0, device="cpu"))
    lessons = [lesson_of(codec, series)]
    made = [
        fit_deltas(
            base.narrowed(planes, 40, 40),
            base.taken(planes),
            lessons,
            whole=False,
            steps=20,
            seed=0,
            progress=quiet,
            device=Device(CPU, half=half),
        )[0]
        for half in (False, True)
    ]
    for name, values in made[0].items():
        assert np.abs(values.astype(int) - made[1][name]).max() <= 8, name


def test_devices_are_named():
    """Proves that auto is a processor in float32 where there is no GPU, and that a GPU that is not there is refused."""
    assert Device.named("cpu") == Device(CPU, half=False)
    with pytest.raises(InvalidInput, match="use auto, cpu or cuda"):
        Device.named("tpu")
    if not torch.cuda.is_available():
        assert Device.named("auto") == Device(CPU, half=False)
        with pytest.raises(InvalidInput, match="no CUDA device"):
            Device.named("cuda")


@pytest.mark.gpu
@GPU
def test_a_gpu_trains_as_a_processor_does(series):
    """Proves that a fit on a GPU, in bfloat16 where it has that, ends within a fifth of the processor's loss terms."""
    here, there = trained(series, Device(CPU, half=False)), trained(series, Device.named("cuda"))
    for term in ("rate", "mse", "index_NDVI"):
        assert there[term] == pytest.approx(here[term], rel=0.2), term


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("kind", ["own", "delta"])
def test_what_a_gpu_encodes_decodes_to_the_same_bytes_without_one(kind, series, tmp_path):
    """Proves that a stream of a codec fitted on a GPU decodes alike there and in a process that sees none."""
    effort = Effort(steps=40, device="cuda")
    if kind == "own":
        plan = sized(len(series.bands), 3)
        codec = fit_codec(series, "grid", policy=POLICY, effort=effort, progress=quiet, plan=plan)
    else:
        codec = borrow_codec(series, policy=POLICY, effort=effort, delta="whole")
    codec = VaeCodec.from_bytes(codec.to_bytes())
    encoded = codec.encode(series.pixels[1], series.valid[1])
    decoded = codec.decode(encoded.payload, series.valid[1])
    (tmp_path / "codec").write_bytes(codec.to_bytes())
    (tmp_path / "payload").write_bytes(encoded.payload)
    np.save(tmp_path / "valid.npy", series.valid[1])
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "ATEN_CPU_CAPABILITY": "default"}
    command = [sys.executable, "-c", _DECODE, str(tmp_path)]
    seen = subprocess.run(command, check=True, capture_output=True, env=hidden, text=True).stdout.strip()
    assert seen == sha256(decoded.tobytes()).hexdigest()
