"""A user's type checker sees our types: those of the installed packages, as strictly as it can be asked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import requirements

API = Path(__file__).parent / "typed_api.py"

pytestmark = pytest.mark.slow


@pytest.fixture
def users_file(tmp_path: Path) -> Path:
    """A file of a user, in a folder from which nothing of this tree is seen."""
    return Path(shutil.copy(API, tmp_path / "typed_api.py"))


def test_mypy(users_file: Path) -> None:
    """`--strict`, without any configuration of ours."""
    requirements.need_module("mypy")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir=.mypy", users_file.name],
        cwd=users_file.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright(users_file: Path) -> None:
    """Its strict mode, with a comment that silences nothing as an error."""
    requirements.need_module("pyright")
    settings: dict[str, object] = {
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": "error",
        "enableTypeIgnoreComments": False,
    }
    # Reading a value that raises is how a user looks at a failure.
    settings |= {"reportUnusedExpression": "none", "include": [users_file.name]}
    (users_file.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable],
        cwd=users_file.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_says_that_it_is_typed() -> None:
    """Or a type checker looks at none of its types (PEP 561)."""
    for package in ("launcher", "remote_agent", "hydra_plugins/hydra_remote_launcher"):
        assert (API.parents[1] / package / "py.typed").is_file()
