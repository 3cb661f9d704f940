"""Which variables a process that waits is started with, and which ones a command may not have."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from launcher.cli.waiting.variables import at_start, import_recording


def test_only_what_python_and_its_libraries_read_is_given() -> None:
    """No secret of the user is in a process that waits."""
    given = {
        "HOME": "/h",
        "PYTHONPATH": "p",
        "LC_ALL": "C",
        "LD_PRELOAD": "x",
        "PATH": "/bin",
        "AWS_SECRET_ACCESS_KEY": "k",
    }
    assert at_start(given) == {"HOME": "/h", "PYTHONPATH": "p", "LC_ALL": "C", "LD_PRELOAD": "x"}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that can be imported, and is forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "reads_variables", raising=False)
    monkeypatch.setenv("KNOWN", "1")
    return tmp_path / "reads_variables.py"


@pytest.mark.parametrize(
    "text", ["os.environ['KNOWN']", "os.environ.get('KNOWN')", "os.getenv('KNOWN')", "'KNOWN' in os.environ"]
)
def test_what_a_module_reads_while_it_is_imported_is_noted(module: Path, text: str) -> None:
    """In whichever way it reads."""
    module.write_text(f"import os\nfound = {text}\nos.environ['SET'] = '2'\n")
    read = import_recording(["reads_variables"])
    assert read is not None
    assert "KNOWN" in read
    assert os.environ.pop("SET") == "2"


def test_a_variable_that_is_not_there_is_noted_too(module: Path) -> None:
    """Another command may have it."""
    module.write_text("import os\nos.environ.get('UNKNOWN_ONE')\n")
    assert "UNKNOWN_ONE" in (import_recording(["reads_variables"]) or ())


@pytest.mark.parametrize("text", ["dict(os.environ)", "os.environ.copy()", "list(os.environ)"])
def test_a_module_that_reads_all_is_noted(module: Path, text: str) -> None:
    """Then no command fits."""
    module.write_text(f"import os\n{text}\n")
    assert import_recording(["reads_variables"]) is None


def test_afterwards_nothing_is_noted(module: Path) -> None:
    """And `os.environ` is what it was."""
    before = os.environ._data  # type: ignore[attr-defined]
    module.write_text("")
    import_recording(["reads_variables", "a_module_that_is_not_there"])
    assert os.environ._data is before  # type: ignore[attr-defined]
    assert os.environ["KNOWN"] == "1"


def test_what_is_read_after_the_imports_is_noted_too() -> None:
    """What is done ahead may read variables as an import does."""
    assert "READ_LATER" in (import_recording([], lambda: print(os.environ.get("READ_LATER"))) or ())
