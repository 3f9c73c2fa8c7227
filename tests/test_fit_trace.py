"""Loss terms of a fit: kept with the codec's row, told by status, drawn by the report."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from PIL import Image

from geostore.codec import Effort, Traced, quiet
from geostore.collection import Policy
from geostore.errors import Corrupt
from geostore.fit_trace import POINTS, FitTrace
from geostore.node.encode import LOSS_TERMS, fit_series
from geostore.node.status import _fits
from geostore.report.loss_terms import fits_of, terms_over_steps
from geostore.storage import CodecRow
from geostore.testing.codecs import synthetic_series
from geostore.vae import choose
from geostore.vae.fit import fit_codec
from geostore.vae.sizing import sized

STEPS = 40


def fitted(policy: Policy) -> FitTrace:
    """How the fit of a small network went."""
    series = synthetic_series((6, 4, 24, 24), indices=("NDVI",))
    effort, plan = Effort(steps=STEPS), sized(len(series.bands), 3)
    codec = fit_codec(series, "grid", policy=policy, effort=effort, progress=quiet, plan=plan)
    assert isinstance(codec, Traced)
    assert codec.trace is not None
    return codec.trace


@pytest.fixture(scope="module")
def traces() -> dict[str, FitTrace]:
    bounds = {"without": None, "with": 0.02}
    return {name: fitted(Policy(mse_max=5e-4, index_mae_max=index)) for name, index in bounds.items()}


def test_a_fit_tells_every_term_whether_it_steers_by_it_or_not(traces: dict[str, FitTrace]) -> None:
    """Proves that rate, squared and index error are seen with and without an index term, and only targets differ."""
    for trace in traces.values():
        assert trace.steps[-1] == STEPS
        assert set(trace.terms) == {"rate", "mse", "index_NDVI"}
    assert set(traces["without"].targets) == {"mse"}
    assert traces["with"].targets["index_NDVI"] == pytest.approx(0.8 * 0.02)
    assert traces["with"].terms["index_NDVI"][-1] < traces["without"].terms["index_NDVI"][-1]


def test_a_long_fit_keeps_few_points() -> None:
    """Proves that a trace holds at most POINTS steps, the first and the last among them, and reads back from text."""
    seen = [(20 * i, {"rate": 1 / i, "mse": 1e-3 / i}) for i in range(1, 200)]
    trace = FitTrace.of(seen, {"mse": 4e-4})
    assert trace is not None
    assert (trace.steps[0], trace.steps[-1], len(trace.steps)) == (20, 3980, POINTS)
    again = FitTrace.from_text(trace.to_text())
    assert (again.steps, again.targets) == (trace.steps, trace.targets)
    assert again.terms["mse"] == pytest.approx(trace.terms["mse"], rel=0.01)
    assert len(trace.to_text()) < 400
    assert FitTrace.of([], {}) is None


def test_many_terms_leave_few_points_of_each() -> None:
    """Proves that the text of a fit that looks at twenty indices stays short: two points of each."""
    terms = {"rate": 12.3456, "mse": 1.23456e-4} | {f"index_INDEX{i}": 0.0123456 for i in range(20)}
    trace = FitTrace.of([(20 * i, terms) for i in range(1, 200)], dict(terms))
    assert trace is not None
    assert (trace.steps[0], trace.steps[-1], len(trace.steps)) == (20, 3980, 2)
    assert len(FitTrace.of([(i, {"mse": 1.0}) for i in range(99)], {}).steps) == POINTS
    assert len(trace.to_text()) < 1400


@pytest.mark.parametrize("text", ["", "steps:1 2;mse:3", "steps:one", "mse:1"])
def test_text_that_is_no_trace_is_corrupt(text: str) -> None:
    """Proves that what does not read as a trace raises Corrupt with the next step."""
    with pytest.raises(Corrupt, match="fit the place again"):
        FitTrace.from_text(text)


def test_the_fit_of_a_delta_is_kept_with_its_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a partition stored with a base and a delta has the squared error of that fit among its facts."""
    monkeypatch.setattr(choose, "_own_weights", lambda *args: math.inf)  # no own network is fitted after the delta
    series = synthetic_series((30, 4, 40, 40), indices=("NDVI",))
    policy = Policy(mse_max=1e-4, index_mae_max=None, rivals=())
    found = fit_series("vae", None, series, policy, Effort(steps=24), quiet)
    assert found.family == "vae"
    trace = FitTrace.from_text(str(found.facts[LOSS_TERMS]))
    assert trace.steps == (1, 21)
    assert set(trace.terms) == {"mse"}
    assert min(trace.terms["mse"]) > 0


def test_the_report_draws_fits_with_and_without_the_index_term(traces: dict[str, FitTrace], tmp_path: Path) -> None:
    """Proves that fits of one place come on one chart, each called by its index term and, where so, not kept."""
    rows = [_row(i + 1, trace, kept=i > 0) for i, trace in enumerate(traces.values())]
    place = {
        "collection": "farm",
        "geohash": "u8hks",
        "group": "10m",
        "fits": [fit for row in rows for fit in _fits(row)],
    }
    fits = fits_of({"per_partition": [place, {**place, "geohash": "u8hkt"}]}, "u8hks", "10m")
    assert [name for name, _ in fits] == [
        "generation 1, without an index term (vae, not kept)",
        "generation 2, with the NDVI term",
    ]
    chart = terms_over_steps(tmp_path, "terms", "farm/u8hks/10m", fits)
    assert chart is not None
    assert "2 fits" in chart.alt
    with Image.open(tmp_path / chart.light) as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or []}
    assert {(0x3B, 0x82, 0xC4), (0xD1, 0x49, 0x5B)} <= colours
    assert terms_over_steps(tmp_path, "none", "farm", []) is None


def _row(generation: int, trace: FitTrace, *, kept: bool) -> CodecRow:
    from geostore.keys import PartitionKey
    from geostore.raster import Grid

    return CodecRow(
        partition=PartitionKey("farm", "u8hks", "10m"),
        generation=generation,
        family="vae" if kept else "klt-av1",
        cell=Grid("EPSG:32634", 0.0, 0.0, 10.0, 10.0, 24, 24),
        row=0,
        col=0,
        height=24,
        width=24,
        data=b"",
        facts={LOSS_TERMS if kept else f"{LOSS_TERMS}_vae": trace.to_text()},
    )
