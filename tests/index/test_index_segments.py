"""An index on disk holds the newest rows of each key, through merges, crashes and reopening, and sees damage."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_made import PRECISION, SPACE, rows_made

from geostore.errors import Corrupt, NotComparable, NotFound, UnsupportedFormat
from geostore.index import arrays, segment
from geostore.index.arrays import open_arrays, write_arrays
from geostore.index.labels import Legend
from geostore.index.rows import Rows, Space
from geostore.index.search import search
from geostore.index.segments import SEGMENTS_MAX, Segments, open_or_create


def _content(index):
    """{(key, cell, time): (signature, descriptor, valid fraction, sensor, labels)} of all rows that count."""
    out = {}
    for part in index.parts:
        alive = np.ones(len(part.segment), bool)
        if part.alive is not None:
            alive = np.unpackbits(part.alive.view(np.uint8), count=len(part.segment), bitorder="little").astype(bool)
        out |= _as_dict(part.segment.take(np.flatnonzero(alive)))
    return out


def _as_dict(rows):
    return {
        (rows.keys[int(rows.owners[i])], int(rows.cells[i]), int(rows.times_us[i])): (
            rows.signatures[:, i].tolist(),
            rows.descriptors[i].tolist(),
            float(rows.scales[i]),
            str(rows.numbers["valid_fraction"][i]),
            str(rows.categories["sensor"][i]),
            int(rows.labels[0, i]),
        )
        for i in range(len(rows))
    }


def _make(folder):
    return Segments.create(folder, SPACE, PRECISION)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["append", "again", "drop", "compact", "reopen"]), st.integers(0, 5)), max_size=14
    )
)
def test_any_history_leaves_the_newest_rows_of_each_key(tmp_path_factory, history):
    """Property: after appends, repeated keys, drops, merges and reopening, content is that of a dictionary."""
    folder = tmp_path_factory.mktemp("index")
    index, expected, given_ = _make(folder), {}, []
    for number, (what, seed) in enumerate(history):
        if what in ("append", "again"):
            rows = rows_made(20 + seed, seed=100 * number + seed, first=1000 * number)
            if what == "again" and given_:
                rows = _with_keys(rows, given_[seed % len(given_)])
            index.append(rows)
            expected = {k: v for k, v in expected.items() if k[0] not in set(rows.keys)} | _as_dict(rows)
            given_.append(rows.keys)
        elif what == "drop" and given_:
            gone = set(given_[seed % len(given_)][::2])
            index.drop(gone)
            expected = {k: v for k, v in expected.items() if k[0] not in gone}
        elif what == "compact":
            index.compact()
            assert len(index.parts) <= 1
        else:
            index = Segments.open(folder)
    assert _content(index) == expected == _content(Segments.open(folder))
    assert len(index) == len(expected)
    assert index.keys() == {k[0] for k in expected}
    assert len(index.parts) <= SEGMENTS_MAX + 1
    named = {p.segment.file.path.name for p in index.parts} | {p.dead_file for p in index.parts if p.dead_file}
    assert {p.name for p in folder.iterdir()} == {"manifest.json", *named}


def _with_keys(rows, keys):
    """The same rows for keys that were given before."""
    many = [keys[i % len(keys)] for i in range(len(rows.keys))]
    return Rows(**{**{f: getattr(rows, f) for f in rows.__dataclass_fields__}, "keys": many})


def test_rows_lie_in_order_of_cell_and_time(tmp_path):
    """Cells ascend, times within a cell too; a hit's key, cell and time are those that were given."""
    index, rows = _make(tmp_path), rows_made(500)
    index.append(rows)
    made = index.parts[0].segment
    order = np.lexsort((made.numbers["time"].values, made.cells))
    assert (order == np.arange(500)).all() or (np.diff(made.cells) >= 0).all()
    for i in (0, 17, 499):
        (hit,) = search(index, rows.signatures[:, i : i + 1].T, 1, space=SPACE).found[0]
        assert hit.distance == 0
        same = np.flatnonzero((rows.signatures == rows.signatures[:, i : i + 1]).all(axis=0))
        assert (hit.key, hit.time_us) in {(rows.keys[int(rows.owners[j])], int(rows.times_us[j])) for j in same}


def test_large_segments_carry_key_lists(tmp_path, monkeypatch):
    """Above a size, lists for radius search are stored; below it they are not."""
    monkeypatch.setattr(segment, "LISTS_MIN", 300)
    index = _make(tmp_path)
    index.append(rows_made(299))
    index.append(rows_made(301, seed=1, first=5000))
    assert [p.segment.lists is None for p in index.parts] == [True, False]
    assert (np.sort(index.parts[1].segment.lists.rows, axis=1) == np.arange(301)).all()


@pytest.mark.parametrize("keep", range(1, 7))
def test_a_crash_at_any_write_leaves_the_old_or_the_new(tmp_path, monkeypatch, keep):
    """Fault: writing stops before the n-th file is put in place; what opens then is the index before, or after."""
    index = _make(tmp_path)
    index.append(rows_made(60))
    before, calls, whole = _content(index), [], arrays.write_whole

    def dies(path, write):
        calls.append(path)
        if len(calls) == keep:
            path.with_name(f".tmp-1-{path.name}").write_bytes(b"half")
            raise KeyboardInterrupt
        whole(path, write)

    again = _with_keys(rows_made(40, seed=9, first=70_000), rows_made(60).keys)
    with monkeypatch.context() as patch:
        patch.setattr(arrays, "write_whole", dies)
        patch.setattr("geostore.index.segments.write_whole", dies)
        try:
            index.append(again)
        except KeyboardInterrupt:
            assert len(calls) == keep
    after = {k: v for k, v in before.items() if k[0] not in set(again.keys)} | _as_dict(again)
    opened = Segments.open(tmp_path)
    assert _content(opened) in (before, after)
    opened.append(again)
    assert _content(Segments.open(tmp_path)) == after
    assert not list(tmp_path.glob(".tmp-*"))


def test_damage_is_seen(tmp_path):
    """Fault: any flipped byte of a segment is found by opening or by `verify`; of the manifest, by opening."""
    index = _make(tmp_path / "good")
    index.append(rows_made(200))
    name = index.parts[0].segment.file.path.name
    raw = (tmp_path / "good" / name).read_bytes()
    used = _covered(index.parts[0].segment.file, len(raw))
    for at in [*range(0, 40, 3), *np.random.default_rng(0).choice(used, 25).tolist()]:
        _copy(tmp_path, name, raw[:at] + bytes([raw[at] ^ 64]) + raw[at + 1 :])
        with pytest.raises(Corrupt):
            Segments.open(tmp_path / "bad").verify()
    for size in (0, 10, 100, len(raw) - 300):
        _copy(tmp_path, name, raw[:size])
        with pytest.raises(Corrupt):
            Segments.open(tmp_path / "bad").verify()
    _copy(tmp_path, "manifest.json", (tmp_path / "good" / "manifest.json").read_bytes().replace(b"200", b"201"))
    with pytest.raises(Corrupt, match="checksum"):
        Segments.open(tmp_path / "bad")


def _covered(file, size):
    """Positions of bytes that some checksum covers: all but the padding between arrays."""
    header = json.loads(
        file.path.read_bytes()[24:].split(b"\0" * 8)[0].decode("utf-8", "ignore").rsplit("]}", 1)[0] + "]}"
    )
    spans = [np.arange(24, 24 + 100)]
    for entry in header["arrays"]:
        count = int(np.prod(entry["shape"])) * np.dtype(entry["dtype"]).itemsize
        spans.append(np.arange(entry["offset"], entry["offset"] + count))
    return np.concatenate(spans)[: size - 1]


def _copy(tmp_path, name, raw):
    shutil.rmtree(tmp_path / "bad", ignore_errors=True)
    shutil.copytree(tmp_path / "good", tmp_path / "bad")
    (tmp_path / "bad" / name).write_bytes(raw)


def test_a_missing_file_and_a_newer_format_are_told_apart(tmp_path):
    """No folder, a lost segment, a manifest of tomorrow: each has its own kind."""
    with pytest.raises(NotFound, match="index build"):
        Segments.open(tmp_path / "nothing")
    index = _make(tmp_path)
    index.append(rows_made(20))
    index.parts[0].segment.file.path.unlink()
    with pytest.raises(Corrupt, match="lacks a file"):
        Segments.open(tmp_path)
    found = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**found, "format": 2}))
    with pytest.raises(UnsupportedFormat):
        Segments.open(tmp_path)


def test_other_spaces_and_legends_do_not_mix(tmp_path):
    """Signatures of another width, descriptors of another length, another precision or legend are refused."""
    index, rows = _make(tmp_path), rows_made(30)
    index.append(rows)
    fields = {f: getattr(rows, f) for f in rows.__dataclass_fields__}
    wrong = [
        {"signatures": rows.signatures[:1]},
        {"descriptors": rows.descriptors[:, :5]},
        {"legend": Legend("other", rows.legend.labels, {}, {})},
    ]
    for change in wrong:
        with pytest.raises(NotComparable):
            index.append(Rows(**{**fields, **change}))
    with pytest.raises(NotComparable, match="'spectral-1'"):
        open_or_create(tmp_path, Space("other-1", "d", "rotation", "h", 128, 8), PRECISION)
    with pytest.raises(NotComparable, match="6 were asked"):
        open_or_create(tmp_path, SPACE, 6)
    assert len(open_or_create(tmp_path, SPACE, PRECISION)) == 30


def test_arrays_turn_round(tmp_path):
    """Every dtype and shape comes back, empty ones too, and views are read-only."""
    made = {
        "a": np.arange(10, dtype=np.int64),
        "empty": np.zeros((3, 0), np.uint8),
        "b": np.random.default_rng(0).random((3, 5), np.float32),
        "c": np.asfortranarray(np.arange(12, dtype=">u4").reshape(3, 4)),
    }
    write_arrays(tmp_path / "x", made, {"kind": "test", "n": 1})
    found = open_arrays(tmp_path / "x")
    found.verify()
    assert found.facts == {"kind": "test", "n": 1}
    for name, array in made.items():
        assert (found.arrays[name] == array).all()
        assert found.arrays[name].shape == array.shape
        assert not found.arrays[name].flags.writeable
