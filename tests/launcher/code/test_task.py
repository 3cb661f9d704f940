"""Which files travel with a task."""

import json
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher.code.task import where_from


def test_the_program_that_started_is_not_taken_for_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the task is of an installed package, and so is the program: nothing of either is the user's."""
    program = Path(sysconfig.get_paths()["scripts"]) / "some-tool"
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=str(program), __spec__=None))
    assert where_from(json.dumps) == (None, None)
