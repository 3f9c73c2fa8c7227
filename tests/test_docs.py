"""The documentation says what the code is: every verb, setting, error kind and exit code occurs where it should."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from geostore import exit_codes
from geostore.cli.app import app
from geostore.errors import KINDS
from geostore.query.messages import VERBS
from geostore.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ALL = "\n".join(p.read_text("utf-8") for p in PAGES)


def _commands() -> list[str]:
    root = typer.main.get_command(app)
    found = []
    for name, command in root.commands.items():
        inner = getattr(command, "commands", None)
        found += [f"{name} {sub}" for sub in inner] if inner else [name]
    return found


@pytest.mark.parametrize("command", _commands())
def test_every_command_is_in_the_guide(command):
    """The guide's table has a row for each command that the program has."""
    assert f"| `geostore {command}" in (ROOT / "docs/guides/cli.md").read_text("utf-8")


def test_the_guide_names_no_command_that_is_not_there():
    """Every `geostore WORD` at the head of a row of the guide is a command."""
    rows = re.findall(
        r"^\| `geostore ([a-z ]+?)(?: -o DIR| [A-Z\[].*?)?`", (ROOT / "docs/guides/cli.md").read_text(), re.M
    )
    assert sorted(rows) == sorted(_commands())


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_setting_is_in_its_guide_with_its_default(name):
    """A row of the settings guide equals what the code says: name, environment, default, description."""
    field = Settings.model_fields[name]
    default = field.get_default()
    shown = "" if default in ("", None) else f"`{default}`"
    row = f"| `{name}` | `GEOSTORE_{name.upper()}` | {shown} | {field.description} |"
    assert row in (ROOT / "docs/guides/settings.md").read_text("utf-8")


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_error_kind_is_in_its_guide_with_its_exit_code(kind):
    """A row of the error guide equals what the code says: kind, exit code, class, first line of its docstring."""
    cls = KINDS[kind]
    row = f"| `{kind}` | {exit_codes.CODES[kind]} | {cls.__name__} | {(cls.__doc__ or '').splitlines()[0]} |"
    assert row in (ROOT / "docs/guides/errors.md").read_text("utf-8")


@pytest.mark.parametrize("code", list(exit_codes.MEANINGS))
def test_every_exit_code_is_in_the_guide(code):
    """The guide's table of exit codes equals the code's."""
    assert f"| {code} | {exit_codes.MEANINGS[code]} |" in (ROOT / "docs/guides/cli.md").read_text("utf-8")


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_message_verb_is_in_the_docs(verb):
    """Each verb of the wire occurs as `verb` in some page."""
    assert f"`{verb}`" in ALL


def test_links_between_pages_lead_somewhere():
    """Every relative link in a page names a file that is there."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
