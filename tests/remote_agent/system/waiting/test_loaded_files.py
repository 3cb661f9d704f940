"""The files that a process was made of: what counts, and that a change of one is seen."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from remote_agent.system.waiting.loaded_files import changed_of, loaded_files, stamps_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the native libraries of a process")


def test_modules_their_folders_native_libraries_and_python_count() -> None:
    """Of each, a new one would make another process."""
    found = loaded_files()
    assert {json.__file__, os.path.dirname(json.__file__), sys.executable} <= found
    assert any(".so" in path for path in found)


def test_a_change_a_replacement_and_a_removal_are_seen(tmp_path: Path) -> None:
    """So is a file that appears."""
    names = ("same", "edited", "replaced", "removed")
    for name in names:
        (tmp_path / name).write_text("x")
    stamps = stamps_of(str(tmp_path / name) for name in (*names, "new"))
    (tmp_path / "edited").write_text("xy")
    (tmp_path / "other").write_text("x")
    (tmp_path / "other").replace(tmp_path / "replaced")
    (tmp_path / "removed").unlink()
    (tmp_path / "new").write_text("")
    assert changed_of(stamps) == [str(tmp_path / name) for name in ("edited", "new", "removed", "replaced")]
