"""Whose fault a failed import is: the project's, or that of what is installed here."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from launcher.code.application.foreign_imports import is_foreign_failure


@pytest.fixture
def failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Imports `failing_app` from a project of these files, beside installed modules; returns the error and the project's folder."""

    def failure(files: dict[str, str]) -> tuple[Exception, Path]:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        root = tmp_path / "project"
        monkeypatch.setattr(sys, "path", [str(root), str(tmp_path / "installed"), *sys.path])
        importlib.invalidate_caches()
        known = set(sys.modules)
        try:
            with pytest.raises(Exception) as raised:
                importlib.import_module("failing_app")
        finally:
            for name in set(sys.modules) - known:
                del sys.modules[name]
        return raised.value, root

    return failure


@pytest.mark.parametrize(
    "files",
    [
        {"project/failing_app.py": "import surely_not_installed"},
        {"project/failing_app.py": "from surely_not_installed.part import name"},
        {"project/failing_app.py": "from os import surely_not_there"},
        {"project/failing_app.py": "import helping", "project/helping.py": "import surely_not_installed"},
        {
            "project/failing_app.py": "try:\n    import surely_not\nexcept ImportError:\n    raise ImportError('install it')"
        },
        {"project/failing_app.py": "import broken_lib", "installed/broken_lib.py": "raise ImportError('libcuda.so')"},
        {"project/failing_app.py": "import broken_lib", "installed/broken_lib.py": "raise OSError('libcuda.so')"},
        {
            "project/failing_app.py": "import helping",
            "project/helping.py": "from broken_lib import (\n    one,\n    two,\n)",
            "installed/broken_lib/__init__.py": "from broken_lib import inner",
            "installed/broken_lib/inner.py": "def load():\n    raise RuntimeError('no driver')\nload()",
        },
    ],
)
def test_what_is_not_the_projects_is_left_to_hosts(failure, files: dict[str, str]) -> None:
    """A package that is missing or broken here may be whole on a host."""
    error, root = failure(files)
    assert is_foreign_failure(error, root)


@pytest.mark.parametrize(
    "files",
    [
        {"project/failing_app.py": "1 / 0"},
        {"project/failing_app.py": "def broken(:"},
        {"project/failing_app.py": "open('surely not there')"},
        {"project/failing_app.py": "import helping.part", "project/helping/__init__.py": ""},
        {"project/failing_app.py": "from helping import name", "project/helping.py": ""},
        {"project/failing_app.py": "from . import helping", "project/helping.py": ""},
        {"project/failing_app.py": "import helping", "project/helping.py": "1 / 0"},
        {"project/failing_app.py": "import os\nos.listdir('surely not there')"},
        {"project/failing_app.py": "import lib\nlib.load()", "installed/lib.py": "def load():\n    raise ValueError"},
    ],
)
def test_an_error_of_the_project_is_its_own(failure, files: dict[str, str]) -> None:
    """A typing error, a name that one of its modules lacks, or a call that fails would fail on every host, too."""
    error, root = failure(files)
    assert not is_foreign_failure(error, root)
