"""Modules: which are installed, which have a name on a host, and which no host can have."""

from __future__ import annotations

import importlib
import json
import pathlib
import subprocess
import sys
import sysconfig
import types

import pytest

from launcher.code.application.task import where_from
from launcher.serialization import modules
from launcher.serialization.modules import is_installed, main_module_name, out_of_reach
from launcher.serialization.pickler import dumps

ROOT = pathlib.Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["-c", "{}"], "None"),
        (["dotted.name.py"], "None"),
        (["with-dash.py"], "with-dash"),
        (["-m", "pkg"], "pkg.__main__"),
    ],
)
def test_only_an_importable_script_has_a_name(tmp_path, command, expected):
    """Only a module that a host can import has a name."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from launcher.serialization.modules import main_module_name as n; print(n())"
    (tmp_path / "pkg").mkdir()
    for file in ("dotted.name.py", "with-dash.py", "pkg/__main__.py", "pkg/__init__.py"):
        (tmp_path / file).write_text(code if not file.endswith("__init__.py") else "")
    command = [code if part == "{}" else part for part in command]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip() == expected


def test_an_installed_program_has_no_name():
    """Under pytest, `__main__` belongs to pytest, which no host needs."""
    assert main_module_name() is None


@pytest.fixture
def command(monkeypatch):
    """Run this process as the command of an installed package."""
    main = types.ModuleType("__main__")
    main.__file__ = str(pathlib.Path(sysconfig.get_paths()["scripts"], "command_of_test"))
    monkeypatch.setitem(sys.modules, "__main__", main)
    return main.__file__


def test_the_command_of_an_installed_package_is_installed(command):
    """It has no name on a host, and the environment's `bin` is not a project."""
    assert is_installed(command)
    assert main_module_name() is None
    assert where_from(json.dumps) == (None, None)


def test_modules_out_of_reach_are_named(tmp_path, monkeypatch):
    """A module that is neither in the snapshot nor installed cannot be imported on a host."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "elsewhere_of_test.py").write_text("class Thing: pass\n")
    module = importlib.import_module("elsewhere_of_test")
    dumped = dumps([module.Thing(), json.JSONDecoder])
    file = str(tmp_path / "elsewhere_of_test.py")
    assert out_of_reach(dumped.modules, lambda path: False) == [("elsewhere_of_test", file)]
    assert out_of_reach(dumped.modules, lambda path: path == file) == []
    assert out_of_reach({"json", "builtins", "launcher.errors", "omegaconf"}, lambda path: False) == []


def test_what_is_installed_in_place_is_not_out_of_reach(tmp_path, monkeypatch):
    """Like any package, it may be installed on the host, wherever its files are here."""
    monkeypatch.syspath_prepend(tmp_path / "project" / "src")
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "project" / "src").mkdir(parents=True)
    (tmp_path / "project" / "src" / "in_place_of_test.py").write_text("class Thing: pass\n")
    info = tmp_path / "site" / "in_place_of_test-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: in_place_of_test\nVersion: 1\n")
    importlib.import_module("in_place_of_test")
    modules._editable_projects.cache_clear()
    assert out_of_reach({"in_place_of_test"}, lambda path: False)
    (info / "direct_url.json").write_text(
        json.dumps({"url": (tmp_path / "project").as_uri(), "dir_info": {"editable": True}})
    )
    modules._editable_projects.cache_clear()
    assert out_of_reach({"in_place_of_test"}, lambda path: False) == []
    modules._editable_projects.cache_clear()
