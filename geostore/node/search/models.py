"""What rasters with the same bands are searched by: a descriptor and a head, in generations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geostore import plugins
from geostore.errors import NotComparable
from geostore.index.bits import Words
from geostore.index.descriptors import GROUP, Descriptor, Trainable
from geostore.index.encoders import Encoder, Side, sides
from geostore.index.encoders.described import Encoded
from geostore.index.kernel import KernelHead, kernel_from_bytes
from geostore.index.learned import learned_from_bytes
from geostore.index.rerank import quantise
from geostore.index.rows import Space
from geostore.index.signatures import Head, LinearHead, digest, linear_from_bytes, rotation, signatures
from geostore.raster import Bands
from geostore.storage import EventRow

if TYPE_CHECKING:
    from geostore.node.node import Node

EVENT = "search-model"
DESCRIPTOR, BITS = "spectral", 128  # of generation 0, which needs no training
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SearchModel:
    """One generation of what makes descriptors and signatures for a set of bands.

    Attributes:
        bands: by name and kind; how they are stored does not matter.
        descriptor: pixels to numbers.
        head: numbers to bits.
        generation: 0 is the `spectral` descriptor and a rotation around 0, the same in every store.
    """

    bands: Bands
    descriptor: Descriptor
    head: Head
    generation: int

    @cached_property
    def space(self) -> Space:
        """What its signatures are comparable with."""
        name, bits = f"{self.descriptor.name}-{self.descriptor.version}", self.head.bits
        return Space(name, self.descriptor.digest(self.bands), self.head.name, digest(self.head), bits, self.head.width)

    @cached_property
    def name(self) -> str:
        """16 hexadecimal digits that name the space, in answers and as a folder."""
        return hashlib.sha256(json.dumps(asdict(self.space), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def encoder(self) -> Encoder | None:
        """What describes rasters, where that is an encoder."""
        return self.descriptor.encoder if isinstance(self.descriptor, Encoded) else None

    @property
    def sides(self) -> tuple[Side, ...]:
        """What can be looked for beside rasters and vectors."""
        return () if self.encoder is None else sides(self.encoder)

    def pack(self, descriptors: Floats) -> tuple[npt.NDArray[np.int8], Floats, Words]:
        """(N, D) descriptors of length 1 as int8, scales that keep the length, and (W, N) signatures of these."""
        small, _ = quantise(descriptors)
        scales = (1 / np.maximum(np.linalg.norm(small.astype(np.float32), axis=1), 1)).astype(np.float32)
        return small, scales, self.sign(small, scales)

    def sign(self, small: npt.NDArray[np.int8], scales: Floats) -> Words:
        """(W, N) signatures of int8 descriptors: they need no pixels, and come out the same whenever they are made."""
        return signatures(self.head, small.astype(np.float32) * scales[:, None])

    def to_fields(self) -> dict[str, Any]:
        """The space as an answer names it."""
        space = self.space
        return {
            "name": self.name,
            "generation": self.generation,
            "descriptor": space.descriptor,
            "head": space.head,
            "bits": space.bits,
            "width": space.width,
            "bands": list(self.bands.names),
            "encoder": None if self.encoder is None else self.encoder.name,
            "sides": list(self.sides),
        }


def first_model(bands: Bands) -> SearchModel:
    """Generation 0 for these bands."""
    descriptor: Descriptor = plugins.find(GROUP, DESCRIPTOR)
    return SearchModel(bands, descriptor, plain_head(descriptor.width(bands)), 0)


def plain_head(width: int, bits: int = BITS) -> LinearHead:
    """Random directions around 0: of descriptors of length 1 the bits that differ tell the angle; nothing to fit."""
    return rotation(np.zeros((2, width), np.float32), bits)


def head_from_bytes(data: bytes) -> Head:
    """A head as its model blob holds it. Raises Corrupt."""
    if data.startswith(KernelHead.magic):
        return kernel_from_bytes(data)
    return linear_from_bytes(data) if data.startswith(LinearHead.magic) else learned_from_bytes(data)


def model_event(model: SearchModel, blobs: Sequence[str], *, time_us: int, facts: Mapping[str, Any]) -> EventRow:
    """The row that makes `model` the newest generation of its bands; blobs hold its head, and weights, if any."""
    fields = {
        "bands": bands_digest(model.bands),
        "generation": model.generation,
        "descriptor": model.descriptor.name,
        "models": list(blobs),
        **facts,
    }
    return EventRow(time_us=time_us, who="geostore", what=EVENT, fields=fields)


def bands_digest(bands: Bands) -> str:
    """What two rasters must have in common to be compared: names and kinds of bands, in order."""
    return hashlib.sha256(json.dumps([(b.name, b.kind) for b in bands]).encode()).hexdigest()[:32]


def newest_model(node: Node, bands: Bands, events: Iterable[EventRow]) -> SearchModel:
    """The newest generation for these bands.

    Raises:
        NotInstalled: its descriptor's plug-in is not here. NotFound, Corrupt: its head's blob is gone or damaged.
    """
    wanted = bands_digest(bands)
    found = [e.fields for e in events if e.what == EVENT and e.fields["bands"] == wanted]
    if not found:
        return first_model(bands)
    newest = max(found, key=lambda f: int(f["generation"]))
    head, *weights = (node.store.blob("models", digest) for digest in newest["models"])
    return _checked(
        SearchModel(bands, _descriptor(newest["descriptor"], weights), head_from_bytes(head), int(newest["generation"]))
    )


def learned_by(model: SearchModel, events: Iterable[EventRow]) -> dict[str, Any] | None:
    """How the head of this generation was learned, as its event says; None of generation 0, which learned nothing."""
    wanted = bands_digest(model.bands), model.generation
    for event in events:
        if event.what == EVENT and (event.fields["bands"], event.fields["generation"]) == wanted:
            return {name: event.fields.get(name) for name in ("by", "rows", "views", "method", "labels")}
    return None


def _descriptor(name: str, weights: Sequence[bytes]) -> Descriptor:
    """A descriptor by name, with the weights it was given in training, if it has any."""
    found: Descriptor | Trainable = plugins.find(GROUP, name)
    if weights:
        assert isinstance(found, Trainable)
        return found.from_bytes(weights[0])
    assert isinstance(found, Descriptor)
    return found


def _checked(model: SearchModel) -> SearchModel:
    descriptor, bands = model.descriptor, model.bands
    if descriptor.width(bands) != model.head.width:
        raise NotComparable(
            f"descriptor {descriptor.name} has {descriptor.width(bands)} components here, the head of generation "
            f"{model.generation} takes {model.head.width}; run `geostore index upgrade`"
        )
    return model
