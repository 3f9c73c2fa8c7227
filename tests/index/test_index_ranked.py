"""However signatures are compared, the ranking is the same: compiled scan, key lists, NumPy, faiss."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from index_made import PRECISION, SPACE, rows_made
from signatures_made import brute

from geostore.errors import InvalidInput
from geostore.index import radius as lists_module
from geostore.index import ranked as module
from geostore.index import segment
from geostore.index.filters import Filter
from geostore.index.ranked import SCANS, Query, explained, ranked
from geostore.index.segments import Segments
from geostore.index.spatial import where

COUNT = 900


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An index of two segments, one of them with key lists, and its rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment, "LISTS_MIN", COUNT)
        index = Segments.create(tmp_path_factory.mktemp("index"), SPACE, PRECISION)
        parts = [rows_made(COUNT - 100), rows_made(COUNT, seed=1, first=5000)]
        for part in parts:
            index.append(part)
    assert [p.segment.lists is None for p in index.parts] == [True, False]
    return index, parts


def _query(parts):
    return Query(np.ascontiguousarray(parts[1].signatures[:, 5:6].T), np.ones(8, np.float32), SPACE)


@pytest.mark.parametrize("radius", [0, 2, 8, 40])
@pytest.mark.parametrize("wanted", [Filter(), Filter(within=where("6")), Filter(seasons=("summer",))])
def test_key_lists_and_numpy_rank_as_the_scan_does(made, radius, wanted, monkeypatch):
    """The same hits, scores and count; `explain` says what was read. Fewer candidates than hits leave no tie out."""
    index, parts = made
    for candidates in (10, 2000):
        given = {"wanted": wanted, "radius": radius, "candidates": candidates}
        scanned = ranked([index], _query(parts), 10, **given)
        plain = ranked([index], _query(parts), 10, **given, scan="numpy")
        if find_spec("faiss"):
            assert ranked([index], _query(parts), 10, **given, scan="faiss").found == plain.found
        monkeypatch.setattr(lists_module, "COST_CALL", -1)
        monkeypatch.setattr(lists_module, "COST_BUCKET", 0)
        monkeypatch.setattr(lists_module, "COST_CANDIDATE", 0)
        looked_up = ranked([index], _query(parts), 10, **given)
        monkeypatch.undo()
        assert scanned.found == plain.found == looked_up.found
        assert scanned.count == plain.count == looked_up.count
        paths = [step["path"] for step in explained(looked_up.plans)]
        assert paths[1] == "key lists" or radius > 31
        assert "key lists" not in [step["path"] for step in explained([*scanned.plans, *plain.plans])]
    if not wanted.seasons and wanted.within is None:
        far = np.concatenate([brute(p.signatures, _query(parts).signature[0]) for p in parts])
        assert len(scanned.found) == min(10, int((far <= radius).sum()))


def test_no_other_way_to_compare_is_there(made):
    """The scans are named by the setting; without a radius key lists are not asked."""
    from geostore.settings import Settings

    index, parts = made
    assert set(SCANS) == {"compiled", "numpy", "faiss"}
    with pytest.raises(InvalidInput, match=r"scan = 'cobol'.*'compiled', 'numpy' or 'faiss'"):
        Settings.load(scan="cobol")
    found = ranked([index], _query(parts), 700, candidates=700)
    assert module.ranked([index], _query(parts), 700, candidates=700, scan="numpy").found == found.found
