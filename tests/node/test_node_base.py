"""A store whose codecs share a base: it lies there once, is counted once, and is missed when it is gone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from test_node import BANDS, CELL, COLLECTION, decode, key, put, series

from geostore.certificate import measure
from geostore.codec import Effort, Series, quiet
from geostore.collection import Policy, collection_to_dict
from geostore.errors import NotFound
from geostore.keys import PartitionKey
from geostore.node import Node
from geostore.node.encode import Fitted, encode_series
from geostore.node.fit import _commit, _plan
from geostore.node.lending import Lending, offer_bases
from geostore.query import messages
from geostore.settings import Settings
from geostore.vae import base as bases
from geostore.vae.borrow import borrow_codec
from geostore.vae.choose import choose_codec

PARTITION = PartitionKey("farm", CELL, "10m")


@pytest.fixture
def node(tmp_path: Path):
    with Node.open(str(tmp_path / "store"), settings=Settings(workers=1), create=True) as node:
        node.answer(messages.PutCollection(collection=collection_to_dict(COLLECTION)))
        yield node


def fit_on_a_base(
    node: Node, folder: Path, made: Series | None = None, policy: Policy = COLLECTION.policy, held: tuple = ()
) -> tuple[str, list[np.ndarray]]:
    """Put `made` (three smooth dates), commit a codec on a base as a fit would; its digest, and what decodes."""
    if made is None:
        pixels, valid = series(3)
        made = Series(pixels=pixels, valid=valid, times_us=np.arange(3, dtype=np.int64), bands=BANDS)
    for t in range(len(made)):
        put(node, t, made.pixels[t], made.valid[t])
    plan = _plan(node, PARTITION, Effort(), False, folder)
    assert plan is not None
    codec = borrow_codec(made, policy=policy, effort=Effort(), held=held)
    assert codec is not None
    kept = encode_series(codec, made, policy, quiet)
    _commit(node, plan, Fitted(family="vae", codec=codec.to_bytes(), rasters=tuple(kept), facts={}))
    return codec.borrowed.base.digest, [decode(node, t)[1] for t in range(len(made))]


def test_the_base_lies_in_the_store_and_is_counted_once(node: Node, tmp_path: Path) -> None:
    """Proves that a codec brings its base, that status counts it beside the codecs, and that verify finds no fault."""
    digest, _ = fit_on_a_base(node, tmp_path)
    stored = node.store.blob("models", digest)
    account = node.answer(messages.Status()).fields["bytes"]
    assert account["bases"] == len(stored) == account["durable_blobs/models"]
    assert node.answer(messages.Verify()).fields["findings"] == []


def test_the_store_is_read_without_the_package_that_brought_the_base(node: Node, tmp_path: Path, monkeypatch) -> None:
    """Proves that decoding gives the same bits from the store's own copy of the base."""
    _, seen = fit_on_a_base(node, tmp_path)
    monkeypatch.setattr(bases, "shipped", tuple)
    with Node.open(str(tmp_path / "store"), settings=Settings(workers=1), readonly=True) as reader:
        for t in range(3):
            np.testing.assert_array_equal(decode(reader, t)[1], seen[t])


def test_a_base_that_is_gone_is_missed(node: Node, tmp_path: Path, monkeypatch) -> None:
    """Proves that verify names the file of a missing base, and that decoding says which digest it needs."""
    digest, _ = fit_on_a_base(node, tmp_path)
    path = f"blobs/models/{digest}.safetensors"
    (tmp_path / "store" / path).unlink()
    assert [f["path"] for f in node.answer(messages.Verify()).fields["findings"]] == [path]
    monkeypatch.setattr(bases, "shipped", tuple)
    with (
        Node.open(str(tmp_path / "store"), settings=Settings(workers=1), readonly=True) as reader,
        pytest.raises(NotFound, match=digest),
    ):
        decode(reader, 0)


def test_a_base_nobody_has_yet_is_borne_by_all_and_then_by_nobody(node: Node, tmp_path: Path) -> None:
    """Proves that partitions of the same bands bear a base by their rasters, and nothing once the store holds it."""
    digest, _ = fit_on_a_base(node, tmp_path)
    with Node.open(str(tmp_path / "other"), settings=Settings(workers=1), create=True) as fresh:
        fresh.answer(messages.PutCollection(collection=collection_to_dict(COLLECTION)))
        pixels, valid = series(3)
        for t in range(3):
            put(fresh, t, pixels[t], valid[t])
        lending = Lending(fresh, {}, [PARTITION])
        assert lending.share(PARTITION) == 1.0
        codec = node.store.codec(PARTITION)
        lending.note(PARTITION, Fitted(family="vae", codec=codec.data, rasters=(), facts={}))
        assert lending.share(PARTITION) == 0.0
    assert Lending(node, {}, [PARTITION]).share(PARTITION) == 0.0
    assert len(node.store.blob("models", digest)) > 0


def test_a_codec_on_a_base_is_charged_its_part() -> None:
    """Proves that a series that bears a base alone is not put on it where a codec without takes less."""
    pixels, valid = series(3)
    made = Series(pixels=pixels, valid=valid, times_us=np.arange(3, dtype=np.int64), bands=BANDS)
    chosen = {
        share: choose_codec(made, policy=COLLECTION.policy, effort=Effort(steps=0, network_share=share), progress=quiet)
        for share in (0.0, 1.0)
    }
    assert chosen[1.0].borrowed is None
    assert len(chosen[1.0].to_bytes()) < len(shipped_bytes(made))


def shipped_bytes(made: Series) -> bytes:
    """The base that would be borrowed."""
    codec = borrow_codec(made, policy=COLLECTION.policy, effort=Effort())
    assert codec is not None
    return codec.borrowed.base.data


def moving(dates: int) -> Series:
    """Something broad comes and goes: what a network is good for."""
    pixels, valid = series(dates, 48, 48)
    fields = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=(dates, 1, 48, 48)), (0, 0, 6, 6))
    change = 400 * fields / fields.std() * np.array([1, 0.9, 1.2, -1.5])[None, :, None, None]
    stored = np.clip(pixels + change, 1, 20_000).astype(np.uint16)
    return Series(pixels=stored, valid=valid, times_us=np.arange(dates, dtype=np.int64), bands=BANDS)


def test_a_preview_is_gain_and_level_of_the_static_image(node: Node, tmp_path: Path) -> None:
    """Proves that a preview decodes the first layer alone, with errors of its own that a reader's budget may allow."""
    made = moving(4)
    _, whole = fit_on_a_base(node, tmp_path, made, Policy(mse_max=5e-4, index_mae_max=None))
    for t in range(4):
        facts, pixels, _ = decode(node, t, "preview")
        assert (facts["tier"], facts["layers"]) == ("preview", "gain")
        errors = [measure(made.pixels[t], p, made.valid[t], BANDS, ()).mse for p in (pixels, whole[t])]
        assert errors[0] > 2 * errors[1]
        assert errors[0] <= facts["certificate"]["mse"] <= errors[0] * (1 + 1 / 128)
        for factor, tier in ((1.01, "preview"), (0.99, "embedding")):
            budget = {"mse": factor * facts["certificate"]["mse"]}
            reply = node.answer(messages.Decode(keys=[key(t)], within=budget))
            assert reply.fields["rasters"][0]["tier"] == tier
            np.testing.assert_array_equal(reply.arrays[0], pixels if tier == "preview" else whole[t])


@pytest.fixture
def own(tmp_path: Path) -> bases.Base:
    """A base of one's own in a folder: the one that ships under another title, so that it is as good."""
    ships, _ = bases.find(BANDS.names)
    base = bases.pack_base(ships.layout, ships.slots, {"title": "own"}, ships.tensors)
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "own.safetensors").write_bytes(base.data)
    return base


@pytest.fixture
def unoffered(monkeypatch) -> None:
    """What a test offers is forgotten after it."""
    monkeypatch.setattr(bases, "_offered", {})


@pytest.mark.usefixtures("unoffered")
def test_fits_share_a_base_of_ones_own_before_those_that_ship(own: bases.Base, tmp_path: Path) -> None:
    """Proves that workers choose a base from the setting's folder, and that its store is read without it."""
    policy = Policy(mse_max=5e-4, index_mae_max=None, rivals=())
    settings = Settings(workers=1, fit_steps=0, bases=tmp_path / "bases")
    made = moving(6)
    with Node.open(str(tmp_path / "store"), settings=settings, create=True) as node:
        node.answer(messages.PutCollection(collection=collection_to_dict(replace(COLLECTION, policy=policy))))
        offer_bases(settings.bases)
        fit_on_a_base(node, tmp_path, made, policy, (own,))
        node.answer(messages.Fit(refit=True))
        fitted = node.store.codec(PARTITION)
        assert (fitted.generation, fitted.facts["networks"]) == (2, own.digest)
        seen = [decode(node, t)[1] for t in range(6)]
    bases._offered.clear()
    with Node.open(str(tmp_path / "store"), settings=Settings(workers=1), readonly=True) as reader:
        for t in range(6):
            np.testing.assert_array_equal(decode(reader, t)[1], seen[t])


@pytest.mark.usefixtures("unoffered")
def test_a_store_that_holds_the_shipped_base_still_pays_for_ones_own(
    node: Node, own: bases.Base, tmp_path: Path
) -> None:
    """Proves that what is paid for is the base that a fit would borrow, not any base of the same bands."""
    fit_on_a_base(node, tmp_path)
    held = offer_bases(tmp_path / "bases")
    assert [base.digest for base in held] == [own.digest]
    assert Lending(node, {}, [PARTITION]).share(PARTITION) == 0.0
    assert Lending(node, {}, [PARTITION], held).share(PARTITION) == 1.0
