"""Every bench runs, and writes a result that can be compared; nothing is timed here."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bench import compare
from bench.harness import RESULTS, Figure, interleaved, ratio, run

BENCHES = (
    "storage",
    "large_store",
    "ingest",
    "wire",
    "decode",
    "decode_codecs",
    "similar",
    "similar_daemon",
    "similar_faiss",
    "rate_distortion",
    "rate_distortion_fresh",
    "sizing",
    "sizing_networks",
    "seams",
    "loss_terms",
    "own_encoder",
    "fit_ways",
    "retrieval",
    "across",
)
NUMBER = {"type": ["number", "null"]}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "commit", "machine", "seed", "quick", "figures", "rows"],
    "properties": {
        "name": {"enum": list(BENCHES)},
        "commit": {"type": "string"},
        "machine": {"type": "object", "required": ["processor", "cores", "memory_gb", "load", "system", "python"]},
        "seed": {"type": "integer"},
        "quick": {"type": "boolean"},
        "figures": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["value", "bar", "better", "baseline", "n"],
                "properties": {
                    "value": NUMBER,
                    "bar": NUMBER,
                    "better": {"enum": ["lower", "higher"]},
                    "baseline": {"type": "string", "minLength": 1},
                    "n": {"type": "integer", "minimum": 1},
                },
            },
        },
        "rows": {"type": "array", "minItems": 1, "items": {"type": "object"}},
    },
}


@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_runs_and_writes_a_valid_result(name: str, tmp_path: Path) -> None:
    """Run quickly, on synthetic scenes, each bench writes a result that keeps to the schema."""
    module = importlib.import_module(f"bench.{name}")
    result = json.loads(run(module.measure, name, ["--quick", "--out", str(tmp_path)]).read_text())
    jsonschema.validate(result, SCHEMA)
    assert result["name"] == name
    assert result["quick"]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda p: p.stem)
def test_committed_results_are_valid_and_real(path: Path) -> None:
    """What is committed was not measured in a hurry, and every figure with a bar has a value."""
    result = json.loads(path.read_text())
    if path.stem not in BENCHES:
        return  # other long tests keep their records here too
    jsonschema.validate(result, SCHEMA)
    assert not result["quick"]
    assert all(f["value"] is not None for f in result["figures"].values() if f["bar"] is not None)


def test_a_bar_is_kept_on_its_own_side() -> None:
    """Lower is better or higher is better, and no bar or no value is neither kept nor missed."""
    made = {"baseline": "x", "n": 1}
    assert Figure(value=1.2, bar=1.3, better="lower", **made).kept is True  # type: ignore[arg-type]
    assert Figure(value=0.4, bar=0.5, better="higher", **made).kept is False  # type: ignore[arg-type]
    assert Figure(value=0.4, bar=None, better="higher", **made).kept is None  # type: ignore[arg-type]
    assert Figure(value=None, bar=0.5, better="higher", **made).kept is None  # type: ignore[arg-type]


def test_rounds_are_interleaved_after_one_warm_up() -> None:
    """Tasks take turns, so that a slow minute of the machine falls on all of them; ratios pair a round's own times."""
    seen: list[str] = []
    seconds = interleaved({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, rounds=2)
    assert seen == ["a", "b"] * 3
    assert [len(s) for s in seconds.values()] == [2, 2]
    assert ratio([2.0, 30.0, 8.0], [1.0, 10.0, 2.0]) == 3.0


def test_compare_puts_two_results_side_by_side(tmp_path: Path) -> None:
    """Each figure of both files is a line, with the change and whether the bar is kept."""
    for name, value in (("a", 0.4), ("b", 0.6)):
        figure = {"value": value, "bar": 0.5, "better": "higher", "baseline": "x", "n": 5}
        figures = {"ingest": figure, name: {**figure, "bar": None}}
        (tmp_path / f"{name}.json").write_text(json.dumps({"name": "ingest", "commit": name, "figures": figures}))
    lines = compare.lines(tmp_path / "a.json", tmp_path / "b.json")
    assert lines == [
        ["ingest", "0.4", "0.6", "1.5", ">= 0.5", "NO", "yes"],
        ["a", "0.4", "-", "-", "", "", ""],
        ["b", "-", "0.6", "-", "", "", ""],
    ]
