"""Parts of the retrieval bench are kept: what was measured once is read, with the commit that measured it."""

from __future__ import annotations

import bench.retrieval_parts as module
from bench.retrieval import _generated
from bench.retrieval_parts import Parts, all_scores


def test_a_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """A second run has the scores of the first, of every width it kept, without describing or training again."""
    path = _generated(tmp_path)
    parts = Parts(path=path, descriptor="spectral", seed=0, steps=5, published_steps=5,
                  methods=("rotation", "learned"), work=tmp_path / "work")  # fmt: skip
    first = all_scores(parts, (32,))
    assert [s.method for s, _ in first[0]] == ["descriptor", "rotation", "ceiling", "learned"]
    assert first[1] == 4

    def measured_again(*_, **__):
        raise AssertionError("this part was measured before")

    monkeypatch.setattr(module, "evaluate", measured_again)
    monkeypatch.setattr(module, "read_described", measured_again)
    assert all_scores(parts, (32,)) == first
