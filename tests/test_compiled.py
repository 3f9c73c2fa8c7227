"""Machine code kept for the next process: that of these sources, wherever it can be written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import numpy.typing as npt
import pytest

import geostore
from geostore.compiled import compiled, folder_of_code

_SOURCES = Path(geostore.__file__).parent
_CALLEE = "from geostore.compiled import compiled\n\n\n@compiled\ndef inner(value):\n    return value + {}\n"
_CALLER = "from geostore.compiled import compiled\nfrom geostore.callee import inner\n\n\n@compiled\ndef outer(value):\n    return inner(value)\n"  # noqa: E501


def _package(folder: Path) -> Path:
    """A geostore of three modules alone."""
    package = folder / "geostore"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copy(_SOURCES / "compiled.py", package)
    (package / "callee.py").write_text(_CALLEE.format(1))
    (package / "caller.py").write_text(_CALLER)
    return package


def _asked(folder: Path, **environment: str) -> list[str]:
    """What a new process gets for 1, and where its code is kept."""
    code = "from geostore.caller import outer; from geostore.compiled import folder_of_code as f; print(outer(1), f())"
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME")}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


def test_a_changed_function_is_compiled_anew_where_it_is_called_from(tmp_path: Path) -> None:
    package = _package(tmp_path)
    assert _asked(tmp_path)[0] == "2"
    (package / "callee.py").write_text(_CALLEE.format(10))  # the caller's file is as it was
    assert _asked(tmp_path)[0] == "11"
    assert len(list((package / "__pycache__").glob("compiled-*"))) == 2


def test_code_is_kept_where_numba_is_told_to_and_old_states_are_forgotten(tmp_path: Path) -> None:
    _package(tmp_path)
    kept = tmp_path / "kept"
    old, recent = kept / "compiled-old", kept / "compiled-recent"
    for folder in (old, recent):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    answer, folder = _asked(tmp_path, NUMBA_CACHE_DIR=str(kept))
    assert answer == "2"
    assert Path(folder).parent == kept
    assert list(Path(folder).rglob("*.nbi"))
    assert recent.exists()
    assert not old.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_sources_that_may_not_be_written_to_keep_code_in_the_users_cache(tmp_path: Path) -> None:
    package = _package(tmp_path / "installed")
    package.chmod(0o555)
    try:
        _, folder = _asked(tmp_path / "installed", XDG_CACHE_HOME=str(tmp_path / "cache"))
        assert Path(folder).parent == tmp_path / "cache/geostore"
    finally:
        package.chmod(0o755)


def test_where_nothing_can_be_written_code_is_made_anew(tmp_path: Path) -> None:
    _package(tmp_path)
    (tmp_path / "file").touch()
    assert _asked(tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "file/below")) == ["2", "None"]


def test_the_callers_own_functions_are_kept_where_they_were() -> None:
    before = numba.config.CACHE_DIR

    @compiled(lean=True)
    def doubled(values: npt.NDArray[np.int64]) -> int:
        total = 0
        for value in values:
            total += 2 * value
        return total

    assert before == numba.config.CACHE_DIR
    assert doubled(np.arange(4)) == 12
    assert folder_of_code() == folder_of_code()
