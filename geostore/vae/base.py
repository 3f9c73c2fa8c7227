"""A base: one network that many places share, named by its digest, and what is changed in it for one place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.codec import Lend
from geostore.errors import Corrupt, GeostoreError, InvalidInput, NotFound, UnsupportedFormat
from geostore.vae.model import Layout, decoder_layers
from geostore.vae.prior import Prior

VERSION = 1
GAIN_UNIT = 64  # a delta's scales and biases are whole multiples of 1 / GAIN_UNIT
FEW = ("out", "skip")  # layers whose scales and biases move in the smallest delta: 16 numbers at 4 bands
MOVED = ("head", "mid", "up1", "up2", "up3", *FEW)  # in the largest, and the weights of FEW one by one
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
        whole = {k: np.asarray(v) for k, v in self.tensors.items() if not k.startswith("prior.")}
        bands = self.layout.bands
        at = np.asarray(planes)
        for name in decoder_layers(self.layout):
            if name.startswith("see"):
                rest = np.arange(bands, whole[f"{name}.q"].shape[1])
                whole[f"{name}.q"] = whole[f"{name}.q"][:, np.concatenate([at, rest])]
        for name in FEW:
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
            version = int(header.get("version", 0))
            if version <= VERSION:
                fields: dict[str, Any] = {
                    k: tuple(v) if isinstance(v, list) else v for k, v in header["layout"].items()
                }
                slots = tuple(tuple(s) for s in header["slots"])
                return cls(data=data, layout=Layout(**fields), slots=slots, card=header["card"], tensors=load(data))
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Corrupt(f"a base of {len(data)} bytes does not open: {error}; restore the store") from error
        raise UnsupportedFormat(
            f"base format {version} is newer than {VERSION}, the newest read here; upgrade geostore"
        )


def pack_base(layout: Layout, slots: Sequence[Sequence[str]], card: Mapping[str, Any], tensors: Frozen) -> Base:
    """A base from its parts."""
    from safetensors.numpy import save

    header = {"version": VERSION, "layout": asdict(layout), "slots": [list(s) for s in slots], "card": dict(card)}
    arrays = {k: np.ascontiguousarray(v) for k, v in tensors.items()}
    return Base.from_bytes(save(arrays, {"geostore": json.dumps(header, sort_keys=True)}))


@dataclass(frozen=True, kw_only=True)
class Borrowed:
    """What a codec takes from a base.

    Attributes:
        base: the network.
        planes: the slot of each of the codec's bands.
        delta: what is changed in it, int8 arrays as `changed` reads them; empty if nothing is.
    """

    base: Base
    planes: tuple[int, ...]
    delta: Frozen

    @cached_property
    def weights(self) -> Tensors:
        """The weights as they are used."""
        return changed(self.base.taken(self.planes), self.delta)

    @cached_property
    def prior(self) -> Prior | None:
        """What latents are expected to be, as learned over the base's own places; None if the base has none."""
        whole = Prior.take({k: np.asarray(v) for k, v in self.base.tensors.items()})
        return None if whole is None else _prior_of(whole, self.planes, self.base.layout)

    def header(self, prior: Prior | None = None) -> dict[str, Any]:
        """What names it in a codec that expects its latents by `prior`."""
        size = "none" if not self.delta else "whole" if "head.s" in self.delta else "few"
        found = {"digest": self.base.digest, "planes": list(self.planes), "delta": size}
        return found | ({"prior": True} if prior is not None and prior is self.prior else {})

    def tensors(self) -> Tensors:
        """What a codec stores of it: one int8 row, empty without a delta."""
        parts = [np.asarray(self.delta[n], np.int8).reshape(-1) for n in sorted(self.delta)]
        return {"delta": np.concatenate(parts)} if parts else {}

    @classmethod
    def read(cls, header: Mapping[str, Any], tensors: Tensors, lend: Lend | None = None) -> Borrowed:
        """The inverse of `header` and `tensors`, out of which the row is taken.

        Raises:
            Corrupt: they do not belong together. NotFound: the package has no such base, and `lend` none either.
        """
        base = lookup(str(header.get("digest")), lend)
        try:
            planes = tuple(int(i) for i in header["planes"])
            shapes = _delta_shapes(base.taken(planes), str(header["delta"]))
            row, at, delta = tensors.pop("delta", np.zeros(0, np.int8)), 0, {}
            for name, shape in shapes.items():
                size = int(np.prod(shape))
                delta[name] = row[at : at + size].reshape(shape)
                at += size
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise Corrupt(f"a codec's delta on base {base.digest} does not read: {error}; fit again") from error
        return cls(base=base, planes=planes, delta=delta)


def _prior_of(whole: Prior, planes: Sequence[int], layout: Layout) -> Prior:
    """A base's prior for the bands at hand: the static features and the gains and levels of their slots."""
    at, bands = np.asarray(planes), layout.bands
    rows = np.concatenate([at, at + bands])
    head = whole.head[:, rows]
    if not whole.first.size:
        return replace(whole, head=head)
    last = whole.first.shape[1] - 1  # features end with the static image's, and a constant
    columns = np.concatenate([np.arange(last - 2 * bands), rows + last - 2 * bands, [last]])
    return replace(whole, first=whole.first[:, columns], head=head)


def _delta_shapes(tensors: Frozen, size: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a delta, sorted by name."""
    moved = {"none": (), "few": FEW, "whole": MOVED}[size]
    found = {f"{n}.{part}": tensors[f"{n}.{part}"].shape for n in moved for part in ("s", "b")}
    if size == "whole":
        found |= {f"{n}.q": tensors[f"{n}.q"].shape for n in FEW}
    return dict(sorted(found.items()))


@cache
def shipped() -> tuple[Base, ...]:
    """The bases that come with the package, those of few bands first."""
    folder = resources.files("geostore.vae") / _SHIPPED
    files = folder.iterdir() if folder.is_dir() else ()
    found = [Base.from_bytes(p.read_bytes()) for p in files if p.name.endswith(".safetensors")]
    return tuple(sorted(found, key=lambda b: (b.layout.bands, b.digest)))


def from_folder(folder: Path) -> list[Base]:
    """The bases that lie in `folder` as *.safetensors, by name.

    Raises:
        InvalidInput: there is no such folder, no base in it, or a file that does not read as one, which is named.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        what = "holds no *.safetensors" if folder.is_dir() else "is no folder"
        raise InvalidInput(f"bases = {str(folder)!r} {what}; `geostore base train` makes one, or leave the setting out")
    found = []
    for file in files:
        try:
            found.append(Base.from_bytes(file.read_bytes()))
        except GeostoreError as error:
            raise InvalidInput(f"{file}, where the setting bases looks, is no base ({error}); take it out") from error
    return found


_offered: dict[str, Base] = {}  # by digest


def offer(base: Base) -> None:
    """Have the fits of this process share this base too, before those that ship."""
    _offered[base.digest] = base


def find(names: Sequence[str], held: Sequence[Base] = ()) -> tuple[Base, tuple[int, ...]] | None:
    """The base that fits of these bands share, and the slot of each band.

    One of `held`; if none of them takes the bands, the one with the fewest slots of those that were offered and those
    that ship, an offered one before one that ships with as many.
    """
    for base in (*held, *sorted((*_offered.values(), *shipped()), key=lambda b: b.layout.bands)):
        planes = base.planes_of(names)
        if planes is not None:
            return base, planes
    return None


def lookup(digest: str, lend: Lend | None = None) -> Base:
    """The base of that digest: the package's, one that was offered, or what `lend` gives.

    Raises:
        NotFound: nobody has it.
    """
    known = next((base for base in (*shipped(), *_offered.values()) if base.digest == digest), None)
    if known is not None:
        return known
    try:
        if lend is not None:
            return _opened(lend(digest))
    except NotFound as error:
        raise NotFound(_missing(digest)) from error
    raise NotFound(_missing(digest))


def _missing(digest: str) -> str:
    return (
        f"this codec needs base {digest}, which is neither in the store (blobs/models/{digest}.safetensors) nor in "
        "this package; restore that file from a backup"
    )


@lru_cache(maxsize=8)
def _opened(data: bytes) -> Base:
    return Base.from_bytes(data)


def changed(tensors: Tensors, delta: Frozen) -> Tensors:
    """`tensors` of a base with a place's `delta` laid over.

    `delta` holds int8 arrays: `<layer>.s` scales times (1 + value / GAIN_UNIT), `<layer>.b` added / GAIN_UNIT,
    `<layer>.q` added to the weights. Each is exact in float64 and rounded once: the same on every machine.
    """
    out = dict(tensors)
    for name, value in delta.items():
        if name.endswith(".s"):
            factor = 1.0 + value.astype(np.float64) / GAIN_UNIT
            out[name] = (tensors[name].astype(np.float64) * factor).astype(np.float16)
        elif name.endswith(".b"):
            out[name] = (tensors[name].astype(np.float64) + value.astype(np.float64) / GAIN_UNIT).astype(np.float16)
        else:
            moved = tensors[name].astype(np.int16) + value.astype(np.int16)
            out[name] = np.clip(moved, -127, 127).astype(np.int8)
    return out
