"""The controller's names on a host, which has only the table of contents of `launcher`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from remote_agent.job import IMPORTING

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bare(tmp_path: Path):
    """Runs a program with only what the bundle brings."""
    shutil.copytree(ROOT / "remote_agent", tmp_path / "remote_agent", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "launcher").mkdir()
    shutil.copy(ROOT / "launcher" / "__init__.py", tmp_path / "launcher")

    def run(program: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-S", "-c", program],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_the_names_can_be_imported(bare):
    """A script that imports them in its first line runs there, because its task does not use them."""
    done = bare(
        "from launcher import Callback, Job, LaunchConf, LauncherError, Session, multirun, run\n"
        "class Mine(Callback): pass\n"
        "def report(session: Session) -> Job: ...\n"
        "try:\n    1 / 0\nexcept (LauncherError, ZeroDivisionError):\n    print('caught', isinstance(1, Session))\n"
    )
    assert done.stdout == "caught False\n", done.stderr


@pytest.mark.parametrize("use", ["multirun(print, [])", "run(print, {})", "Session.open()", "LaunchConf(retries=1)"])
def test_a_used_name_says_where_it_belongs(bare, use):
    """The error has the name that was used."""
    done = bare(f"import launcher\nlauncher.{use}")
    name = use.partition("(")[0].partition(".")[0]
    assert f"RuntimeError: launcher.{name} belongs to the controller and does not exist on a host" in done.stderr


def test_a_run_that_starts_at_import_is_a_clear_error(bare):
    """The script lacks the guard, so it starts a run while the zygote imports the application."""
    done = bare("from launcher import multirun\nmultirun(print, [])", **{IMPORTING: "train"})
    assert "train starts a run when it is imported" in done.stderr
    assert "`if __name__ == '__main__':`" in done.stderr


def test_an_unknown_name_is_an_attribute_error(bare):
    """As in any module."""
    done = bare("import launcher\nlauncher.sweep")
    assert "AttributeError: module 'launcher' has no attribute 'sweep'" in done.stderr
