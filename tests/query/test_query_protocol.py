from __future__ import annotations

import re
from pathlib import Path

import pytest

from geostore.errors import KINDS
from geostore.query import bodies, frames, messages
from geostore.query.messages import VERBS

TEXT = (Path(__file__).parents[2] / "docs" / "PROTOCOL.md").read_text()


def row_of(word: str, section: str) -> str:
    part = TEXT.split(f"\n## {section}")[1].split("\n## ")[0].split("### Answers")[0]
    found = [line for line in part.splitlines() if line.startswith(f"| `{word}` |")]
    assert len(found) == 1, f"{word} has {len(found)} rows under {section}"
    return found[0]


def test_the_version_is_the_documents():
    """The page and the code speak of one version."""
    assert f"Version {messages.PROTOCOL_VERSION}." in TEXT


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_is_described_field_by_field(verb):
    """Role, job and exactly the fields of the message class, optional ones marked."""
    cells = [c.strip() for c in row_of(verb, "Verbs").split("|")[1:-1]]
    request = VERBS[verb]
    assert cells[1] == request.role
    assert (cells[2] == "job") == request.job
    wanted = {name + ("" if field.is_required() else "?") for name, field in request.model_fields.items()}
    assert {f.replace("`", "") for f in re.findall(r"`\w+`\??", cells[3])} == wanted


PARTS = [messages.Piece, messages.SceneFields, messages.GridFields, messages.Key]
ASKED = [messages.Example, messages.Wanted, messages.AreaFields, messages.LabelFields]


@pytest.mark.parametrize("model", PARTS + ASKED)
def test_every_field_of_the_parts_is_named(model):
    """Pieces, scenes, grids and keys; examples, filters, areas and labels."""
    section = TEXT.split("## Verbs")[1].split("### Answers")[0]
    assert [f for f in model.model_fields if f"`{f}`" not in section] == []


@pytest.mark.parametrize("message", sorted(frames.FIELDS_OF))
def test_every_message_is_described_field_by_field(message):
    """Required and optional header fields as the code checks them, each explained."""
    cells = row_of(message, "Messages").split("|")[1:-1]
    for cell, names in zip(cells[2:], frames.FIELDS_OF[message], strict=True):
        assert re.findall(r"`(\w+)`", cell) == list(names)
    explained = TEXT.split("| field | type | meaning |")[1].split("### Bodies")[0]
    for name in frames.FIELDS_OF[message][0] + frames.FIELDS_OF[message][1]:
        assert f"`{name}`" in explained


def test_every_kind_of_error_is_named():
    """The error tree and the page list the same kinds."""
    part = TEXT.split("## Error kinds")[1]
    assert set(re.findall(r"^\| `([\w-]+)` \|", part, re.M)) == set(KINDS)


def test_the_numbers_are_the_codes():
    """Limits and dtypes that the page states are those of the code."""
    assert f"{frames.INLINE_BYTES:,} bytes the body rides" in TEXT
    assert f"up to {frames.FRAMES_MAX} buffer frames" in TEXT
    assert f"at most {bodies.NDIM_MAX} dimensions" in TEXT
    assert f"multiple of {bodies.ALIGN} bytes" in TEXT
    for dtype in messages.ARRAY_DTYPES:
        assert dtype.name in TEXT
