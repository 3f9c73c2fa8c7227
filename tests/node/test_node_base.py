"""A store whose codecs share a base: it lies there once, is counted once, and is missed when it is gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_node import BANDS, CELL, COLLECTION, decode, put, series

from geostore.codec import Effort, Series, quiet
from geostore.collection import collection_to_dict
from geostore.errors import NotFound
from geostore.keys import PartitionKey
from geostore.node import Node
from geostore.node.encode import Fitted, encode_series
from geostore.node.fit import _commit, _plan
from geostore.node.lending import Lending
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


def fit_on_a_base(node: Node, folder: Path) -> tuple[str, list[np.ndarray]]:
    """Put three dates, commit a codec on the shipped base as a fit would; its digest, and what decodes."""
    pixels, valid = series(3)
    for t in range(3):
        put(node, t, pixels[t], valid[t])
    plan = _plan(node, PARTITION, Effort(), False, folder)
    assert plan is not None
    made = Series(pixels=pixels, valid=valid, times_us=np.arange(3, dtype=np.int64), bands=BANDS)
    codec = borrow_codec(made, policy=COLLECTION.policy, effort=Effort())
    assert codec is not None
    kept = encode_series(codec, made, COLLECTION.policy, quiet)
    _commit(node, plan, Fitted(family="vae", codec=codec.to_bytes(), rasters=tuple(kept), facts={}))
    return codec.borrowed.base.digest, [decode(node, t)[1] for t in range(3)]


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
