"""Which files are sent with a task."""

import json
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher.code.application.task import where_from


def test_an_installed_program_is_not_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the task and the program both belong to installed packages, neither is the user's code."""
    program = Path(sysconfig.get_paths()["scripts"]) / "some-tool"
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=str(program), __spec__=None))
    assert where_from(json.dumps) == (None, None)
