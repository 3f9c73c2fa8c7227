"""Vectors of others on the command line: what a file holds, into an index of their own, nearest of a row or a place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

COUNT, WIDTH = 40, 16
VECTORS = np.random.default_rng(0).normal(size=(COUNT, WIDTH)).astype(np.float32)


def written(path: Path, **more: object) -> Path:
    """A file in Earth Index's columns, or others."""
    columns = {
        "id": [f"e{i}" for i in range(COUNT)],
        "lon": np.linspace(10, 12, COUNT),
        "lat": np.linspace(44, 46, COUNT),
        "embedding": pa.array(VECTORS.tolist(), pa.list_(pa.float32())),
        **more,
    }
    pq.write_table(pa.table({name: column for name, column in columns.items() if column is not None}), path)
    return path


def test_vectors_go_in_and_are_asked(run, tmp_path) -> None:
    """A dry run writes nothing; an import says what it took; a row, its place and a filter ask it, without a store."""
    file, into = written(tmp_path / "a.parquet"), tmp_path / "index"
    dry = run("index", "import", file, "--into", into, "--time", "2021-06-01", "--dry-run")
    assert (dry.code, into.exists()) == (0, False), dry.err
    assert "earth-index" in dry.out
    assert "as given" in dry.out
    made = run("index", "import", file, "--into", into, "--time", "2021-06-01", "--model", "earth-index v2")
    assert (made.code, made.out) == (0, f"40 vectors of 16 components by earth-index v2 in {into}\n"), made.err
    found = run("index", "nearest", into, "e7", "-k", 3, "--json").json
    assert (found["model"], found["rows"], found["hits"][0]["id"]) == ("earth-index v2", 40, "e7")
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    assert [h["id"] for h in found["hits"]] == [f"e{i}" for i in np.argsort(-unit @ unit[7])[:3]]
    shown = run("index", "nearest", into, "--at", "10.0,44.0", "--within", "10,44,11,45", "--time", "2021", "-k", 2)
    assert shown.code == 0, shown.err
    assert "2 nearest by earth-index v2" in shown.out
    assert "e0" in shown.out
    none = run("index", "nearest", into, "e7", "--time", "2019", "--json").json
    assert none["hits"] == []


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "tells no time"),
        (("--time", "soon"), "is not a time"),
        (("--time", "2021-06-01", "--bits", "7"), "7"),
        (("none.parquet", "--time", "2021-06-01"), "no file 'none.parquet'"),
    ],
)
def test_an_import_that_cannot_be_says_why(run, tmp_path, flags, says) -> None:
    """No time, no date, no width, no such file: one line, exit code 2 or 3, nothing written."""
    answer = run("index", "import", written(tmp_path / "a.parquet"), *flags, "--into", tmp_path / "index")
    assert answer.code != 0
    assert says in answer.err
    assert not (tmp_path / "index").exists()


def test_a_question_that_cannot_be_says_why(run, tmp_path) -> None:
    """Neither row nor place, both, a row that is not there, a folder that holds no vectors, an index in a store."""
    into = tmp_path / "index"
    run("index", "import", written(tmp_path / "a.parquet"), "--into", into, "--time", "2021-06-01")
    for flags, says in (
        ((into,), "give one of the two"),
        ((into, "e7", "--at", "1,2"), "give one of the two"),
        ((into, "e99"), "no row 'e99'"),
        ((into, "--at", "here"), "longitude, latitude"),
        ((tmp_path, "e7"), "no imported vectors"),
    ):
        answer = run("index", "nearest", *flags)
        assert answer.code != 0
        assert says in answer.err
    inside = run("index", "import", tmp_path / "a.parquet", "--into", tmp_path / "s" / "v", "--store", tmp_path / "s")
    assert "lies in the store" in inside.err
