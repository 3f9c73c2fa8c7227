"""faiss gives the answers of our own scan, ties included, on a processor and on a graphics card where there is one."""

from __future__ import annotations

import numpy as np
import pytest
from signatures_made import clustered

from geostore.errors import InvalidInput, NotInstalled
from geostore.index import by_faiss
from geostore.index.by_faiss import FaissScan
from geostore.index.hamming import nearest

faiss = pytest.importorskip("faiss")


def _agree(device):
    for bits in (64, 128, 256):
        words = clustered(3000, bits=bits, seed=bits)
        words = np.ascontiguousarray(np.concatenate([words, words[:, :700], words[:, :700]], axis=1))  # ties
        queries = np.ascontiguousarray(words[:, :40].T)
        scan = FaissScan(words, device=device)
        for k in (1, 20, 900):
            for mine, theirs in zip(nearest(words, queries, k), scan.nearest(queries, k), strict=True):
                assert (mine.rows == theirs.rows).all()
                assert (mine.distances == theirs.distances).all()


def test_a_processor_gives_the_same_rows():
    """Against `hamming.nearest`: every row and distance, where thousands of rows tie too."""
    _agree("cpu")
    few = clustered(5)
    assert len(FaissScan(few).nearest(np.ascontiguousarray(few[:, :1].T), 20)[0]) == 5


def test_what_faiss_holds_goes_with_the_signatures():
    """An index is made once for the same signatures, and let go of with them."""
    words = clustered(500)
    query = np.ascontiguousarray(words[:, :1].T)
    (first,) = by_faiss.nearest(words, query, 5)
    held = by_faiss._held(words)
    assert first.rows.tolist() == nearest(words, query, 5)[0].rows.tolist()
    assert by_faiss._held(words) is held
    before = len(by_faiss._HELD)
    del words
    assert len(by_faiss._HELD) == before - 1


@pytest.mark.gpu
def test_a_graphics_card_gives_the_same_rows():
    """The same on a card."""
    if not hasattr(faiss, "GpuIndexBinaryFlat") or not faiss.get_num_gpus():
        pytest.skip("no faiss with a CUDA device")
    _agree("gpu")


def test_what_cannot_be_asked_is_refused(monkeypatch):
    """k, widths, devices; a missing package or card says what to install."""
    words = clustered(100)
    scan, query = FaissScan(words), np.ascontiguousarray(words[:, :1].T)
    for call in (
        lambda: scan.nearest(query, 0),
        lambda: scan.nearest(np.ascontiguousarray(query[:, :1]), 3),
        lambda: FaissScan(words, device="tpu"),
        lambda: FaissScan(words[:, :0]),
    ):
        with pytest.raises(InvalidInput):
            call()
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0, raising=False)
    with pytest.raises(NotInstalled, match=r"geostore\[gpu\]"):
        FaissScan(words, device="gpu")
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(NotInstalled, match="faiss-cpu"):
        FaissScan(words)
