"""Filters choose the rows that a look at each row would choose, and a search under them finds the first k of these."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_made import LEGEND, PRECISION, SPACE, meets, rows_made
from signatures_made import brute

from geostore.errors import InvalidInput, NotComparable
from geostore.index import segment
from geostore.index.columns import STEPS, category, numbers
from geostore.index.filters import Filter, plan
from geostore.index.labels import AtLeast, Exactly, Legend, Some, corine, labelled
from geostore.index.rows import Rows, Space, seasons
from geostore.index.search import search, search_radius
from geostore.index.segments import Segments
from geostore.index.spatial import where
from geostore.keys import time_us
from geostore.partition.geohash import code_of

COUNT = 250


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """(index of three segments, the first and last as large ones are; all rows as they were given)."""
    made = Segments.create(tmp_path_factory.mktemp("index"), SPACE, PRECISION)
    parts = [rows_made(COUNT, seed=s, first=10_000 * s) for s in range(3)]
    for number, part in enumerate(parts):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(segment, "LISTS_MIN", COUNT if number != 1 else COUNT + 1)
            made.append(part)
    return made, parts


def _month(year, month):
    return datetime(year, month, 1, tzinfo=UTC)


boxes = st.none() | st.tuples(st.floats(-60, -55), st.floats(-10, 0), st.floats(-55, -50), st.floats(0, 10))
times = st.none() | st.builds(_month, st.integers(2014, 2022), st.integers(1, 12))
labels = st.none() | st.builds(
    lambda kind, names: kind(*names),
    st.sampled_from([Some, AtLeast, Exactly]),
    st.lists(st.sampled_from([*LEGEND.labels, *LEGEND.groups]), min_size=1, max_size=3),
)


@settings(max_examples=30, deadline=None)
@given(
    box=boxes,
    start=times,
    end=times,
    seasons=st.lists(st.sampled_from(["winter", "spring", "summer", "autumn"]), max_size=2).map(tuple),
    sensor=st.lists(st.sampled_from(["sentinel-2a", "landsat-8", "spot"]), max_size=2).map(tuple),
    valid=st.none() | st.tuples(st.floats(0, 0.5), st.floats(0.5, 1)),
    labels=labels,
    k=st.integers(1, 60),
)
def test_any_filter_gives_the_first_k_of_the_rows_that_meet_it(index, box, k, **conditions):
    """Property, against a look at every row: the count is exact; hits are the nearest of these rows, by key."""
    made, parts = index
    sensor, valid = conditions["sensor"], conditions["valid"]
    wanted = Filter(
        within=None if box is None else where(box),
        start=conditions["start"],
        end=conditions["end"],
        seasons=conditions["seasons"],
        categories={"sensor": sensor} if sensor else {},
        numbers={"valid_fraction": valid} if valid else {},
        labels=conditions["labels"],
    )
    query = parts[1].signatures[:, :1].T
    answer = search(made, query, k, space=SPACE, wanted=wanted)
    met = [(p, i) for p, part in enumerate(parts) for i in range(COUNT) if meets(part, i, box=box, **conditions)]
    far = _far(parts, met, query)
    assert answer.count == len(met)
    assert [f.distance for f in answer.found[0]] == sorted(far)[:k]
    wanted_keys = {parts[p].keys[int(parts[p].owners[i])] for p, i in met}
    assert all(f.key in wanted_keys for f in answer.found[0])
    near = search_radius(made, query, 30, space=SPACE, wanted=wanted)
    assert [f.distance for f in near.found[0]] == sorted(d for d in far if d <= 30)


def _far(parts, met, query):
    every = [brute(p.signatures, query[0]) for p in parts]
    return [int(every[p][i]) for p, i in met]


def test_the_plan_tells_what_it_did(index):
    """Explain names each condition, the rows it left, and how the rest is read."""
    made, _ = index
    wanted = Filter(within=where("6z"), seasons=("summer",), labels=Exactly("forest", "lake"))
    lines = search(made, np.zeros((1, 2), np.uint64), 5, space=SPACE, wanted=wanted).explain()
    assert any(line.startswith("  area: 1 run of rows:") for line in lines)
    assert any(line.startswith("  season: summer:") for line in lines)
    assert any(line.startswith("  labels: Exactly('forest', 'lake'):") for line in lines)
    assert lines[-1].endswith("rows searched")


def test_a_filter_that_nothing_meets_gives_an_empty_answer(index):
    """No hits, a count of 0, and the search is not made."""
    made, _ = index
    answer = search(made, np.zeros((2, 2), np.uint64), 5, space=SPACE, wanted=Filter(within=where((100, 50, 101, 51))))
    assert (answer.found, answer.count) == ([[], []], 0)
    assert {p.path for p in answer.plans} == {"nothing"}


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_ranges_of_numbers_equal_a_comparison(dtype):
    """Bitmaps from steps and order are those of comparing every value, ties and NaN included."""
    rng = np.random.default_rng(5)
    values = rng.integers(-50, 50, 999).astype(dtype)
    if dtype == np.float64:
        values[::7] = np.nan
    column = numbers(values)
    assert len(column.steps) == STEPS - 1
    for low, high in [(None, None), (-3, 3), (0, 0), (None, -49), (49.5, None), (5, -5), (-60, 60)]:
        wanted = ~np.isnan(values.astype(float)) & (values >= (low if low is not None else -99))
        wanted &= values <= (high if high is not None else 99)
        found = np.unpackbits(column.between(low, high).view(np.uint8), count=999, bitorder="little")
        assert (found.astype(bool) == wanted).all()


def test_a_range_is_read_in_the_order_of_its_column(index):
    """Few rows of a large segment are a list, ties in their order as ever; a column of one value keeps no copy."""
    made, parts = index
    year = Filter(start=_month(2016, 1), end=_month(2016, 12))
    answer = search(made, parts[0].signatures[:, :1].T, 40, space=SPACE, wanted=year)
    assert [p.path for p in answer.plans] == ["list", "masked scan", "list"]
    assert any("time: 2016" in line for line in answer.explain())
    order = [(f.distance, f.part, f.row) for f in answer.found[0]]
    assert order == sorted(order)
    rows = search_radius(made, parts[0].signatures[:, :1].T, 128, space=SPACE, wanted=year).found[0]
    assert [(f.distance, f.part, f.row) for f in rows][:40] == order
    assert numbers(np.zeros(9), parts[0].signatures[:, :9]).signatures is None


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.integers(-30, 30), max_size=400),
    low=st.none() | st.integers(-35, 35),
    high=st.none() | st.integers(-35, 35),
    half=st.sampled_from((0.0, 0.5)),
)
def test_the_rows_of_a_range_are_counted_by_its_ends(values, low, high, half):
    """Property, against a comparison of every value, whole and other bounds on both kinds of column."""
    for dtype in (np.int64, np.float64):
        column = numbers(np.array(values, dtype))
        least, most = (None if b is None else b + half for b in (low, high))
        start, stop = column.span(least, most)
        kept = [v for v in values if (least is None or v >= least) and (most is None or v <= most)]
        assert stop - start == len(kept)
        assert sorted(values[i] for i in column.listed(start, stop).rows) == sorted(kept)


def test_times_compare_to_the_microsecond():
    """Times do not pass through floats that would round them."""
    at = time_us(_month(2020, 1)) + 1
    column = numbers(np.array([at - 1, at, at + 1], np.int64))
    assert column.between(at, at)[0] == 0b010


def test_names_among_others():
    """A category knows the names that occur; others add nothing."""
    made = category(["b", "", "a", "b"])
    assert made.names == ("", "a", "b")
    assert made.among(["b", "zz"])[0] == 0b1001


def test_corine_has_three_levels():
    """44 classes in 15 groups in 5; a class answers to its name in any case, and to its code."""
    legend = corine()
    assert len(legend.labels) == 44
    assert legend.words == 1
    assert len(legend.groups["Artificial surfaces"]) == 11
    assert (
        legend.positions("31")
        == legend.positions("forest")
        == tuple(legend.positions(c)[0] for c in ("311", "312", "313"))
    )
    assert len({p for top in "12345" for p in legend.positions(top)}) == 44
    assert legend.positions("Forests") == legend.positions("3.1") == legend.positions("31")
    assert legend.positions("Forest and semi natural areas") == legend.positions("3")
    both = Legend("own", ("road", "roads", "Oak-wood"), {}, {})
    assert [both.positions(n) for n in ("road", "Roads", "oak woods")] == [(0,), (1,), (2,)]
    with pytest.raises(InvalidInput, match=r"did you mean.*Coniferous forest"):
        legend.positions("conifer forest")


def test_legends_of_more_than_64_labels():
    """The second word counts: Exactly sees labels in both."""
    legend = type(LEGEND)("many", tuple(f"l{i}" for i in range(70)), {}, {})
    marked = labelled(legend, legend.pack([["l1", "l69"], ["l1"], ["l69"], ["l1", "l69", "l3"]]))
    assert marked.meeting(Exactly("l1", "l69"))[0] == 0b0001
    assert marked.meeting(AtLeast("l1", "l69"))[0] == 0b1001
    assert marked.meeting(Some("l69"))[0] == 0b1101


def test_seasons_turn_round_at_the_equator():
    """July is summer in the north and winter in the south."""
    july = np.full(2, time_us(_month(2020, 7)))
    assert seasons(july, np.array([code_of("s0000"), code_of("kpbpb")]), 5).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("call", "error", "wanted"),
    [
        (lambda i: Filter(seasons=("monsoon",)), InvalidInput, "winter, spring"),
        (lambda i: Filter(numbers={"mse": (float("nan"), 1)}), InvalidInput, "None for no bound"),
        (lambda i: Filter(labels="forest"), InvalidInput, "AtLeast"),
        (lambda i: Some(), InvalidInput, "at least one"),
        (lambda i: _search(i, Filter(labels=Some("desert"))), InvalidInput, "no label 'desert'"),
        (lambda i: _search(i, Filter(numbers={"snow": (0, 1)})), InvalidInput, "valid_fraction"),
        (lambda i: _search(i, space=Space("other", "d", "rotation", "h", 128, 8)), NotComparable, "'spectral-1'"),
        (lambda i: search(i, np.zeros((1, 1), np.uint64), 5, space=SPACE), NotComparable, "2 words"),
    ],
)
def test_what_makes_no_sense_is_refused(index, call, error, wanted):
    """Unknown seasons, labels, columns, spaces: the message says what there is."""
    with pytest.raises(error, match=wanted):
        call(index[0])


def _search(index, wanted=None, space=SPACE):
    return search(index, np.zeros((1, 2), np.uint64), 5, space=space, wanted=wanted or Filter())


def test_the_largest_error_stands_for_those_that_older_segments_lack(tmp_path):
    """A segment without the mean error of values is asked for the largest, also once it is joined with newer ones."""
    made = Segments.create(tmp_path / "i", SPACE, PRECISION)
    older, newer = (replace(rows_made(50, seed=s), keys=[b"%d" % s + k for k in rows_made(50).keys]) for s in (1, 2))
    largest = np.linspace(0, 0.98, 50)
    made.append(replace(older, numbers={"max_error": largest}))
    for name in ("mae", "p99"):
        assert _search(made, Filter(numbers={name: (None, 0.5)})).count == 26
    made.append(replace(newer, numbers={"max_error": largest, "mae": largest / 10, "p99": largest / 2}))
    for _ in range(2):
        assert _search(made, Filter(numbers={"mae": (None, 0.05)})).count == 3 + 26
        assert _search(made, Filter(numbers={"p99": (None, 0.25)})).count == 13 + 26
        made.compact()
    assert len(made.parts) == 1
    made.append(replace(rows_made(9, seed=3), keys=[b"3" + k for k in rows_made(9).keys], numbers={}))
    assert _search(made, Filter(numbers={"mae": (None, 0.05)})).count == 3 + 26


def test_rows_without_labels_meet_no_condition_on_them(tmp_path):
    """Where no segment has labels the question is refused; where another has, such rows are left out."""
    made = Segments.create(tmp_path / "i", SPACE, PRECISION)
    with_labels = rows_made(50)
    plain = Rows(signatures=with_labels.signatures, cells=with_labels.cells, times_us=with_labels.times_us,
                 owners=with_labels.owners, keys=[b"p" + k for k in with_labels.keys])  # fmt: skip
    made.append(plain)
    with pytest.raises(NotComparable, match="without labels"):
        _search(made, Filter(labels=Some("oak")))
    assert plan(made.parts[0].segment, Filter(labels=Some("oak"))).selection.count == 0
