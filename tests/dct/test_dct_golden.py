"""Golden streams of klt-dct that are long, uneven and moved: how they were made, and what occurs in them.

`GEOSTORE_GOLDEN=write` adds those of codecs that are not there yet. tests/test_golden_digests.py decodes them.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from geostore.codec import Series, decode_many
from geostore.collection import Policy
from geostore.dct.codec import KltDctCodec
from geostore.dct.fit import make_codec
from geostore.dct.order import REFERENCES, Turn
from geostore.dct.shift import PARTS, move
from geostore.dct.stream import Coder, decode_group
from geostore.testing.codecs import reflectance_bands

GOLDEN = Path(__file__).parents[1] / "golden" / "klt-dct-uneven.json"


@dataclass(frozen=True)
class Made:
    """What one golden codec was made of: (dates, bands, height, width), and how it codes them."""

    shape: tuple[int, int, int, int]
    step: int
    side: int = 32
    dtype: str = "uint16"
    per_mille: int = 0
    version: int = 4


MADE = {
    "long": Made((20, 4, 37, 71), step=52, version=3),
    "smaller": Made((5, 6, 37, 71), step=52, side=16, per_mille=30, version=3),
    "one": Made((5, 1, 33, 100), step=52, dtype="uint8", version=3),
    "before": Made((5, 2, 69, 40), step=52, version=1),
    "wide": Made((5, 1, 150, 251), step=60, version=3),
    "packed": Made((5, 2, 69, 40), step=52),
}
POLICY = Policy(mse_max=6e-5, index_mae_max=None)  # some dates need a finer step than is theirs


def drifting_place(made: Made) -> Series:
    """One texture seen from further on at each date, under another sun; clouds on every third, all of the third."""
    rng = np.random.default_rng(17)
    dates, bands, height, width = made.shape
    texture = ndimage.gaussian_filter(rng.normal(size=(bands, height + 16, width + 16)), (0.6, 1.2, 1.2))
    whole = np.rint(texture / texture.std() * 3000)
    pixels, valid = np.empty(made.shape), np.ones((dates, height, width), np.bool_)
    for date in range(dates):
        seen = move(whole, rng.integers(-6, 7, 2))[:, 8 : 8 + height, 8 : 8 + width] / 3000
        pixels[date] = 0.2 + 0.05 * seen * rng.uniform(0.8, 1.2) + rng.normal(0, 0.02, (bands, 1, 1))
        if date % 3 == 1:
            valid[date, date : date + height // 3, : width // 2] = False
    if dates > 16:
        valid[3] = False
    pixels += rng.normal(0, 0.002, made.shape)
    pixels[~np.broadcast_to(valid[:, None], made.shape)] = 0.9
    described = reflectance_bands(bands, made.dtype)
    times = np.arange(dates, dtype=np.int64)
    return Series(pixels=described.to_stored(pixels), valid=valid, times_us=times, bands=described)


def golden_codec(made: Made, series: Series) -> KltDctCodec:
    """What codes it."""
    codec = make_codec(series, POLICY, made.per_mille)
    return replace(codec, step=made.step, side=made.side, version=made.version)


def _write() -> None:
    """Add what is not there yet: what was written once stays, whatever codecs are made of the series now."""
    nothing: dict[str, Any] = {"codecs": {}, "streams": [], "rasters": []}
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else nothing
    for name, made in ((n, m) for n, m in MADE.items() if n not in golden["codecs"]):
        series = drifting_place(made)
        codec = golden_codec(made, series)
        golden["codecs"][name] = codec.to_bytes().hex()
        encoded = [*codec.encode_series(series), codec.encode(series.pixels[0], series.valid[0])]
        masks = [*series.valid, series.valid[0]]
        items = [(e.shared, (e.payload, mask)) for e, mask in zip(encoded, masks, strict=True)]
        for e, mask, pixels in zip(encoded, masks, decode_many(codec, items), strict=True):
            item = {"codec": name, "shape": mask.shape, "payload": e.payload.hex()}
            if not mask.all():
                item["valid"] = np.packbits(mask).tobytes().hex()
            if e.shared:
                stream = e.shared.hex()
                golden["streams"] += [] if stream in golden["streams"] else [stream]
                item["stream"] = golden["streams"].index(stream)
            golden["rasters"].append({**item, "sha256": sha256(pixels.tobytes()).hexdigest()})
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


@dataclass(frozen=True)
class Seen:
    """One date of a stream: its turn, the steps by which it is finer than usual, its shift, its further references."""

    turn: Turn
    finer: int
    at: tuple[int, ...]
    further: tuple[int, ...]


def dates_of(stream: bytes, codec: KltDctCodec, monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """What the decoder of a stream is told of each date, in the order of coding."""
    steps: list[tuple[int, tuple[int, ...]]] = []
    found: list[Seen] = []

    def told(coder: Coder, turn: Turn, step: int, at: Any) -> Any:
        step, at = _TOLD(coder, turn, step, at)
        steps.append((coder.usual_step(turn) - step, tuple(at.tolist())))
        return step, at

    def further(coder: Coder, turn: Turn, also: int | None, *, encode: bool) -> Turn:
        whole = _FURTHER(coder, turn, also, encode=encode)
        found.append(Seen(turn, *steps[-1], whole.references[len(turn.references) :]))
        return whole

    with monkeypatch.context() as patched:
        patched.setattr(Coder, "told", told)
        patched.setattr(Coder, "further", further)
        count = int.from_bytes(stream[:2], "little")
        dict(decode_group(stream, codec.blocks, codec.klt.components, range(count)))
    return found


_TOLD, _FURTHER = Coder.told, Coder.further


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    """The file, with what is new in it if that is asked for."""
    if os.environ.get("GEOSTORE_GOLDEN") == "write":
        _write()
    return dict(json.loads(GOLDEN.read_text()))


@pytest.fixture(scope="module")
def codecs(golden: dict[str, Any]) -> dict[str, KltDctCodec]:
    """Its codecs, by name."""
    return {name: KltDctCodec.from_bytes(bytes.fromhex(data)) for name, data in golden["codecs"].items()}


def streams(golden: dict[str, Any], name: str) -> list[bytes]:
    """Those that the rasters of a codec share."""
    numbers = {i["stream"] for i in golden["rasters"] if i["codec"] == name and "stream" in i}
    return [bytes.fromhex(golden["streams"][n]) for n in sorted(numbers)]


def test_golden_blocks_are_uneven_and_padded(codecs: dict[str, KltDctCodec]) -> None:
    """Proves, by how each golden codec cuts its planes, that sizes, sides, components and formats are many."""
    blocks = {name: codec.blocks for name, codec in codecs.items()}
    assert {n: (b.rows, b.columns, *b.side) for n, b in blocks.items()} == {
        "long": (1, 2, 37, 36),
        "smaller": (2, 4, 19, 18),
        "one": (1, 3, 33, 34),
        "before": (2, 1, 35, 40),
        "wide": (4, 7, 38, 36),
        "packed": (2, 1, 35, 40),
    }
    for cut in blocks.values():
        assert cut.padded != (cut.height, cut.width)
    assert [codec.klt.components for codec in codecs.values()] == [4, 6, 1, 2, 1, 2]
    assert [codec.to_bytes()[5] for codec in codecs.values()] == [3, 3, 3, 1, 3, 4]


def test_golden_long_group_has_every_level(
    golden: dict[str, Any], codecs: dict[str, KltDctCodec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proves, by what its decoder is told, that a golden stream has two dates far apart and the tree between them."""
    (stream,) = streams(golden, "long")
    seen = dates_of(stream, codecs["long"], monkeypatch)
    assert [s.turn.level for s in seen] == [0, 1, 2, 3, 4, 5, 5, 4, 5, 5, 3, 4, 5, 5, 4, 5, 5, 1, 2]
    assert max(len(s.turn.references) for s in seen) == REFERENCES
    assert 0 < sum(s.finer > 0 for s in seen) < len(seen)


@pytest.mark.parametrize("name", MADE)
def test_golden_dates_lie_off_and_lean_on_further_ones(
    name: str, golden: dict[str, Any], codecs: dict[str, KltDctCodec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proves, by what their decoder is told, that golden dates are moved by parts of a pixel and name one date more."""
    seen = [s for stream in streams(golden, name) for s in dates_of(stream, codecs[name], monkeypatch)]
    assert any(part % PARTS for s in seen for part in s.at)
    assert len({s.at for s in seen}) > 2
    assert any(s.further for s in seen)


@pytest.mark.parametrize("name", MADE)
def test_golden_rasters_are_grouped_alone_and_masked(name: str, golden: dict[str, Any]) -> None:
    """Proves that each golden codec has one group, one raster that is alone, and some pixels that do not matter."""
    items = [i for i in golden["rasters"] if i["codec"] == name]
    assert len(streams(golden, name)) == 1
    assert [i["payload"] for i in items if "stream" not in i and i["payload"]] == [items[-1]["payload"]]
    assert any("valid" in i for i in items)
    assert any(not i["payload"] for i in items) is (name == "long")


def test_golden_rasters_decode_one_by_one(golden: dict[str, Any], codecs: dict[str, KltDctCodec]) -> None:
    """Proves that each golden raster, its stream read no further than it needs, decodes to its digest."""
    for item in golden["rasters"]:
        valid = np.ones(item["shape"], np.bool_)
        shared = bytes.fromhex(golden["streams"][item["stream"]]) if "stream" in item else b""
        pixels = codecs[item["codec"]].decode(bytes.fromhex(item["payload"]), valid, shared)
        assert sha256(pixels.tobytes()).hexdigest() == item["sha256"]
