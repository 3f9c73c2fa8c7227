"""The verbs of a node on a real store: put, fit, decode, status, withdraw, prune, verify."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from geostore.certificate import measure
from geostore.collection import Collection, Policy, collection_to_dict
from geostore.errors import Cancelled, Forbidden, InvalidInput, NotFound, OutOfRange, StoreLocked
from geostore.node import Node
from geostore.partition.grid import cell_grid
from geostore.query import messages
from geostore.query.messages import GridFields, Key, Piece, Put, PutCollection, Reply, SceneFields
from geostore.raster import Band, Bands, Grid
from geostore.settings import Settings

CELL = "u8hks"
DAY_US = 86_400_000_000
NAMES = ("blue", "green", "red", "nir")
BANDS = Bands(tuple(Band(n, n, 10.0, valid_max=20_000, scale=1e-4) for n in NAMES))
COLLECTION = Collection(name="farm", groups={"10m": BANDS}, policy=Policy(mse_max=5e-4, index_mae_max=0.05))


def grid() -> Grid:
    return cell_grid(CELL, "EPSG:32634", 10.0, 10.0, (0.0, 0.0))


def series(dates: int, height: int = 40, width: int = 48, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth place with a seasonal gain, a little noise, and a cloud that moves; DN and usable mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 16
    place = 1000 + 400 * np.stack([np.sin(x + b) + np.cos(y - b) for b in range(4)]) + np.arange(4)[:, None, None] * 500
    gains = 1 + 0.2 * np.sin(np.arange(dates))
    pixels = gains[:, None, None, None] * place + rng.normal(0, 8, (dates, 4, height, width))
    valid = np.ones((dates, height, width), bool)
    for t in range(dates):
        valid[t, t % height : t % height + 4, :10] = False
    return np.clip(pixels, 1, 20_000).astype(np.uint16), valid


def put(node: Node, t: int, pixels: np.ndarray, valid: np.ndarray, *, scene: str = "", revision: int = 0) -> Reply:
    piece = Piece(
        geohash=CELL,
        group="10m",
        cell=GridFields.model_validate(grid(), from_attributes=True),
        row=5,
        col=7,
        pixels=0,
        valid=1,
    )
    facts = SceneFields(id=scene or f"scene-{t}", time_us=t * DAY_US, revision=revision)
    return node.answer(Put(collection="farm", scene=facts, pieces=[piece]), [pixels, valid.astype(np.uint8)])


def key(t: int) -> Key:
    return Key(collection="farm", geohash=CELL, group="10m", time_us=t * DAY_US)


def decode(node: Node, t: int, tier: str = "best") -> tuple[dict, np.ndarray, np.ndarray]:
    reply = node.answer(messages.Decode(keys=[key(t)], tier=tier))  # type: ignore[arg-type]
    return reply.fields["rasters"][0], reply.arrays[0], reply.arrays[1].astype(bool)


@pytest.fixture
def settings() -> Settings:
    return Settings(workers=1, fit_steps=60)


@pytest.fixture
def node(tmp_path: Path, settings: Settings) -> Iterator[Node]:
    with Node.open(str(tmp_path / "store"), settings=settings, create=True) as node:
        node.answer(PutCollection(collection=collection_to_dict(COLLECTION)))
        yield node


def test_put_then_decode_is_bit_for_bit(node: Node) -> None:
    """What was put comes back, masked pixels too, on the grid it was put on."""
    pixels, valid = series(3)
    for t in range(3):
        assert put(node, t, pixels[t], valid[t]).fields["stored"] == 1
    for t in range(3):
        facts, seen, usable = decode(node, t)
        assert np.array_equal(seen, pixels[t])
        assert np.array_equal(usable, valid[t])
        assert facts["tier"] == "waiting"
        assert facts["grid"] == {**facts["grid"], "left": grid().left + 70, "top": grid().top - 50}


def test_put_again_changes_nothing(node: Node) -> None:
    """The same scene twice: nothing stored, the durable bytes the same."""
    pixels, valid = series(1)
    put(node, 0, pixels[0], valid[0])
    before = sum(node.store.bytes_durable().values())
    reply = put(node, 0, pixels[0], valid[0])
    assert reply.fields["stored"] == 0
    assert reply.fields["unchanged"] == 1
    assert sum(node.store.bytes_durable().values()) == before


def test_the_newest_processing_is_current_whatever_comes_first(node: Node) -> None:
    """A later processing replaces an earlier one, and an earlier one that arrives late does not."""
    pixels, valid = series(3)
    put(node, 0, pixels[1], valid[1], scene="new", revision=2000)
    put(node, 0, pixels[0], valid[0], scene="old", revision=1000)
    assert np.array_equal(decode(node, 0)[1], pixels[1])
    put(node, 0, pixels[2], valid[2], scene="newest", revision=3000)
    assert np.array_equal(decode(node, 0)[1], pixels[2])


def test_fit_keeps_the_policy_on_what_really_decodes(node: Node) -> None:
    """After fit, prune and reopening of the rows every raster decodes within the policy, as its certificate says."""
    pixels, valid = series(12)
    valid[4] = False
    for t in range(12):
        put(node, t, pixels[t], valid[t])
    shares: list[float] = []
    node.answer(messages.Fit(), progress=lambda _what, share: shares.append(share))
    assert shares[-1] == 1.0
    node.answer(messages.Prune(now=True))
    node.answer(messages.Compact())
    for t in range(12):
        facts, seen, usable = decode(node, t)
        top, left = (facts["grid"]["height"] - 40, facts["grid"]["width"] - 48)
        assert (top, left) == (0, 0)
        assert np.array_equal(usable, valid[t])
        truth = measure(pixels[t], seen, valid[t], BANDS, ("NDVI",))
        assert truth.keeps(COLLECTION.policy)
        assert truth.mse == pytest.approx(facts["certificate"]["mse"], rel=1e-5)
        assert facts["certificate"]["mse"] >= truth.mse * (1 - 1e-6)
    account = node.answer(messages.Status(partitions=True)).fields
    assert account["quality"]["missed"] == 0
    assert account["tiers"]["empty"] == 1
    assert account["ratio_embeddings"] > 1
    assert account["ratio_durable"] > 0
    assert account["bytes"]["durable"] == sum(node.store.bytes_durable().values())
    assert account["per_partition"][0]["geohash"] == CELL
    assert node.answer(messages.Verify()).fields["ok"]


def test_a_cancelled_fit_leaves_the_store_as_it_was(node: Node) -> None:
    """Cancelled stops the fit; every raster still decodes exactly, and the same command finishes the work."""
    pixels, valid = series(8)
    for t in range(8):
        put(node, t, pixels[t], valid[t])

    def stop(_what: str, _share: float) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        node.answer(messages.Fit(), progress=stop)
    assert all(np.array_equal(decode(node, t)[1], pixels[t]) for t in range(8))
    assert node.answer(messages.Fit()).fields["rasters"] == 8
    assert node.answer(messages.Fit()).fields["rasters"] == 0


def test_new_dates_use_the_frozen_codec(node: Node) -> None:
    """Dates that come after a fit join its generation when they keep the policy, else a new one is made."""
    pixels, valid = series(16)
    for t in range(12):
        put(node, t, pixels[t], valid[t])
    first = node.answer(messages.Fit()).fields
    for t in range(12, 16):
        put(node, t, pixels[t], valid[t])
    second = node.answer(messages.Fit()).fields
    assert second["rasters"] == 4
    assert all(decode(node, t)[0]["certificate"]["mse"] <= 5e-4 for t in range(16))
    if first["fitted"]:
        assert second["encoded"] + second["fitted"] + second["lossless"] == 1


def test_a_refit_without_originals_changes_nothing(node: Node) -> None:
    """After a prune only a date under clouds is exact: a refit leaves partition, codec and pixels, and says so."""
    pixels, valid = series(4)
    valid[3] = False
    for t in range(4):
        put(node, t, pixels[t], valid[t])
    first = node.answer(messages.Fit(steps=30)).fields
    assert (first["partitions"], first["left"]) == (1, 0)
    node.answer(messages.Prune(now=True))
    before = node.store.codec(node.store.partitions()[0]).generation
    again = node.answer(messages.Fit(steps=30, refit=True)).fields
    assert (again["partitions"], again["rasters"], again["left"]) == (0, 0, 1)
    assert node.store.codec(node.store.partitions()[0]).generation == before


def test_withdraw_takes_a_scene_back_and_a_new_put_brings_it_again(node: Node) -> None:
    """A withdrawn scene is gone from every answer; put again, it is current again, fitted or not."""
    pixels, valid = series(6)
    for t in range(6):
        put(node, t, pixels[t], valid[t])
    node.answer(messages.Fit())
    assert node.answer(messages.Withdraw(collection="farm", scene="scene-2")).fields["withdrawn"] == 1
    with pytest.raises(NotFound):
        decode(node, 2)
    assert len(node.answer(messages.Rasters(collection="farm")).fields["rasters"]) == 5
    with pytest.raises(NotFound, match="scene-2"):
        node.answer(messages.Withdraw(collection="farm", scene="scene-2"))
    put(node, 2, pixels[2], valid[2])
    assert np.array_equal(decode(node, 2)[1], pixels[2])


def test_a_raster_withdrawn_during_a_fit_stays_withdrawn(node: Node) -> None:
    """The fit's commit brings back neither a raster that was withdrawn nor an older processing of one."""
    pixels, valid = series(6)
    for t in range(6):
        put(node, t, pixels[t], valid[t])
    done = []

    def meanwhile(_what: str, _share: float) -> None:
        if not done:
            done.append(node.answer(messages.Withdraw(collection="farm", scene="scene-2")))
            put(node, 3, pixels[5], valid[5], scene="scene-3-anew", revision=1000)

    node.answer(messages.Fit(), progress=meanwhile)
    assert done
    with pytest.raises(NotFound):
        decode(node, 2)
    facts, seen, _ = decode(node, 3)
    assert facts["tier"] == "waiting"
    assert np.array_equal(seen, pixels[5])


@pytest.mark.parametrize("original", ["keep", "drop"])
def test_the_original_is_kept_as_the_policy_says(tmp_path: Path, settings: Settings, original: str) -> None:
    """keep: every pixel back after prune; drop: refused."""
    policy = Policy(mse_max=5e-4, original=original)  # type: ignore[arg-type]
    mine = Collection(name="farm", groups={"10m": BANDS}, policy=policy)
    with Node.open(str(tmp_path / "store"), settings=settings, create=True) as node:
        node.answer(PutCollection(collection=collection_to_dict(mine)))
        pixels, valid = series(6)
        for t in range(6):
            put(node, t, pixels[t], valid[t])
        node.answer(messages.Fit())
        node.answer(messages.Prune(now=True))
        if original == "keep":
            assert np.array_equal(decode(node, 1, "original")[1], pixels[1])
        elif decode(node, 1)[0]["tier"] != "lossless":
            with pytest.raises(NotFound, match="not kept"):
                decode(node, 1, "original")


def test_bad_pieces_are_refused_and_nothing_is_stored(node: Node) -> None:
    """Range, dtype, shape, window, group, precision, grid: each refused by kind, the store empty as before."""
    pixels, valid = series(1)
    with pytest.raises(OutOfRange, match="30000"):
        put(node, 0, np.full_like(pixels[0], 30_000), valid[0])
    with pytest.raises(InvalidInput, match="int32"):
        put(node, 0, pixels[0].astype(np.int32), valid[0])
    with pytest.raises(InvalidInput, match="bands"):
        put(node, 0, pixels[0][:2], valid[0])
    with pytest.raises(InvalidInput, match="cell"):
        put(node, 0, np.ones((4, 9000, 4), np.uint16), np.ones((9000, 4), bool))
    piece = Piece(
        geohash="u8", group="10m", cell=GridFields.model_validate(grid(), from_attributes=True), row=0, col=0,
        pixels=0, valid=1,
    )  # fmt: skip
    request = Put(collection="farm", scene=SceneFields(id="s", time_us=0), pieces=[piece])
    with pytest.raises(InvalidInput, match="characters"):
        node.answer(request, [pixels[0], valid[0].astype(np.uint8)])
    with pytest.raises(NotFound, match="nowhere"):
        node.answer(request.model_copy(update={"collection": "nowhere"}), [pixels[0], valid[0].astype(np.uint8)])
    assert node.answer(messages.Status()).fields["pieces"] == 0


def test_readers_see_commits_and_may_not_write(node: Node, tmp_path: Path, settings: Settings) -> None:
    """A read-only node beside the writer answers from the last commit; a second writer is refused."""
    pixels, valid = series(2)
    put(node, 0, pixels[0], valid[0])
    with Node.open(str(tmp_path / "store"), settings=settings, readonly=True) as reader:
        assert np.array_equal(decode(reader, 0)[1], pixels[0])
        put(node, 1, pixels[1], valid[1])
        assert np.array_equal(decode(reader, 1)[1], pixels[1])
        with pytest.raises(Forbidden, match="read-only"):
            put(reader, 2, pixels[0], valid[0])
    with pytest.raises(StoreLocked):
        Node.open(str(tmp_path / "store"), settings=settings)


def test_tables_are_arrow(node: Node) -> None:
    """`table` gives the rows of a kind as one Arrow stream."""
    import pyarrow as pa

    pixels, valid = series(2)
    put(node, 0, pixels[0], valid[0])
    put(node, 1, pixels[1], valid[1])
    reply = node.answer(messages.Table(kind="raster"))
    table = pa.ipc.open_stream(reply.arrays[0].tobytes()).read_all()
    assert table.num_rows == reply.fields["rows"] == 2
