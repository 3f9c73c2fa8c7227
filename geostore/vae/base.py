"""A base: one network that many places share, named by its digest, and what is changed in it for one place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.errors import Corrupt, NotFound, UnsupportedFormat
from geostore.vae.model import Layout, decoder_layers

VERSION = 1
GAIN_UNIT = 64  # a delta's scales and biases are whole multiples of 1 / GAIN_UNIT
_WHOLE = ("out", "skip")  # layers whose weights a delta may change one by one
_SHIPPED = "bases"
Tensors = dict[str, npt.NDArray[np.generic]]
Frozen = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Base:
    """A shared network. Immutable; a codec that uses it names its digest, and a store holds it once.

    Attributes:
        data: the file: a safetensors table whose metadata `geostore` is JSON (version, layout, slots, card).
        layout: the network over all slots; height and width say nothing.
        slots: for each band the network sees, the band names that may take its place.
        card: what it was trained on and what it reached, for people.
        tensors: encoder, decoder and prior as stored.
    """

    data: bytes
    layout: Layout
    slots: tuple[tuple[str, ...], ...]
    card: dict[str, Any]
    tensors: Frozen

    @cached_property
    def digest(self) -> str:
        """The first 128 bits of SHA-256 of the file, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()[:32]

    def planes_of(self, names: Sequence[str]) -> tuple[int, ...] | None:
        """Which slot each of these bands takes; None where one finds none, or less than half of the slots are taken."""
        taken: list[int] = []
        for name in names:
            free = [i for i, slot in enumerate(self.slots) if name in slot and i not in taken]
            if not free:
                return None
            taken.append(free[0])
        return tuple(taken) if 2 * len(taken) >= len(self.slots) else None

    def narrowed(self, planes: Sequence[int], height: int, width: int) -> Layout:
        """The layout of the network over these slots alone, for one window."""
        return replace(self.layout, bands=len(planes), height=height, width=width)

    def taken(self, planes: Sequence[int]) -> Tensors:
        """The weights over these slots alone: other slots are as if always 0, and are not computed."""
        whole, bands = {k: np.asarray(v) for k, v in self.tensors.items()}, self.layout.bands
        at = np.asarray(planes)
        for name in decoder_layers(self.layout):
            if name.startswith("see"):
                rest = np.arange(bands, whole[f"{name}.q"].shape[1])
                whole[f"{name}.q"] = whole[f"{name}.q"][:, np.concatenate([at, rest])]
        for name in _WHOLE:
            for part in ("q", "s", "b"):
                whole[f"{name}.{part}"] = whole[f"{name}.{part}"][at]
        step = 2 * bands
        whole["encoder.first.weight.q"] = whole["encoder.first.weight.q"][:, [*at, *(at + bands), step]]
        whole["encoder.skip.weight.q"] = whole["encoder.skip.weight.q"][:, at]
        return whole

    @classmethod
    def from_bytes(cls, data: bytes) -> Base:
        """Read a base. Raises Corrupt or UnsupportedFormat."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            size = int.from_bytes(data[:8], "little")
            header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["geostore"])
            tensors = load(data)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise Corrupt(f"a base of {len(data)} bytes does not open: {error}; restore the store") from error
        if header.get("version", 0) > VERSION:
            raise UnsupportedFormat(
                f"base format {header['version']} is newer than {VERSION}, the newest read here; upgrade geostore"
            )
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in header["layout"].items()}
        slots = tuple(tuple(s) for s in header["slots"])
        return cls(data=data, layout=Layout(**fields), slots=slots, card=header["card"], tensors=tensors)


def pack_base(layout: Layout, slots: Sequence[Sequence[str]], card: Mapping[str, Any], tensors: Frozen) -> Base:
    """A base from its parts."""
    from safetensors.numpy import save

    header = {"version": VERSION, "layout": asdict(layout), "slots": [list(s) for s in slots], "card": dict(card)}
    arrays = {k: np.ascontiguousarray(v) for k, v in tensors.items()}
    return Base.from_bytes(save(arrays, {"geostore": json.dumps(header, sort_keys=True)}))


@cache
def shipped() -> tuple[Base, ...]:
    """The bases that come with the package, those of few bands first."""
    folder = resources.files("geostore.vae") / _SHIPPED
    found = [Base.from_bytes(p.read_bytes()) for p in folder.iterdir() if p.name.endswith(".safetensors")]
    return tuple(sorted(found, key=lambda b: (b.layout.bands, b.digest)))


def find(names: Sequence[str], held: Sequence[Base] = ()) -> tuple[Base, tuple[int, ...]] | None:
    """The base with the fewest slots that takes these bands, and the slot of each; `held` ones before shipped ones."""
    for base in (*sorted(held, key=lambda b: b.layout.bands), *shipped()):
        planes = base.planes_of(names)
        if planes is not None:
            return base, planes
    return None


def lookup(digest: str, held: Sequence[Base] = ()) -> Base:
    """The base of that digest.

    Raises:
        NotFound: neither the store nor this package has it.
    """
    for base in (*held, *shipped()):
        if base.digest == digest:
            return base
    raise NotFound(
        f"this codec needs base {digest}, which is neither in the store (blobs/models/{digest}.safetensors) nor in "
        "this package; restore it from a backup"
    )


def changed(layout: Layout, tensors: Tensors, delta: Frozen) -> Tensors:
    """`tensors` of a base with a place's `delta` laid over: scales and biases per channel, weights of `out` and `skip`.

    `delta` holds int8 arrays: `<layer>.s` scales times (1 + value / GAIN_UNIT), `<layer>.b` added / GAIN_UNIT,
    `<layer>.q` added to the weights. float16 products of float16 are rounded once: the same on every machine.
    """
    out = dict(tensors)
    for name in decoder_layers(layout):
        if f"{name}.s" in delta:
            factor = 1.0 + delta[f"{name}.s"].astype(np.float64) / GAIN_UNIT
            out[f"{name}.s"] = (tensors[f"{name}.s"].astype(np.float64) * factor).astype(np.float16)
        if f"{name}.b" in delta:
            moved = delta[f"{name}.b"].astype(np.float64) / GAIN_UNIT
            out[f"{name}.b"] = (tensors[f"{name}.b"].astype(np.float64) + moved).astype(np.float16)
        if f"{name}.q" in delta:
            moved = delta[f"{name}.q"].astype(np.int16)
            out[f"{name}.q"] = np.clip(tensors[f"{name}.q"].astype(np.int16) + moved, -127, 127).astype(np.int8)
    return out
