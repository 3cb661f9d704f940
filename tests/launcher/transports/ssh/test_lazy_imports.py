"""`launcher.transports.ssh.lazy_imports`: paramiko and fabric without what a connection never uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]

#: Runs `statement` when a module is about to be imported, as another thread may at that moment. A thread would wait
#: here, because Python looks for one module at a time.
MEANWHILE = """
import sys

class Meanwhile:
    def __init__(self, at, statement):
        self.at, self.statement, self.is_done = at, statement, False

    def find_spec(self, name, path=None, target=None):
        if name == self.at and not self.is_done:
            self.is_done = True
            exec(self.statement, {})
"""


def python(script: str) -> str:
    """Run a script in a fresh process. Return its stdout."""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_nothing_is_imported_that_a_connection_does_not_use() -> None:
    """Importing the transport imports no paramiko, and importing paramiko no fabric. The modules that were left out are
    the real ones when something uses them.
    """
    python(
        "import sys, launcher.transports.ssh.transport\n"
        "left_out = {'invoke', 'importlib.metadata', 'email', 'unittest.mock', 'asyncio'}\n"
        "assert not ({'fabric', 'paramiko'} | left_out) & set(sys.modules)\n"
        "from launcher.transports.ssh.lazy_imports import import_fabric, import_paramiko\n"
        "import_paramiko()\n"
        "import paramiko\n"
        "assert not ({'fabric'} | left_out) & set(sys.modules)\n"
        "import_fabric()\n"
        "assert 'fabric' in sys.modules and not {'unittest.mock', 'asyncio'} & set(sys.modules)\n"
        "import importlib.metadata, unittest.mock, invoke.context\n"
        "assert paramiko.__version__ == importlib.metadata.version('paramiko')\n"
        "assert paramiko.config.invoke.run is invoke.run\n"
        "assert unittest.mock.Mock().anything() is not None and unittest.mock.patch\n"
        "assert invoke.context.MockContext(run=True).run is not None\n"
    )


@pytest.mark.parametrize(
    ("at", "statement", "check"),
    [
        ("paramiko.client", "import invoke.context", "invoke.context.Context is invoke.Context and invoke.run"),
        pytest.param("paramiko.client", "from invoke import context", "invoke.context.Context is invoke.Context", marks=pytest.mark.slow),
        pytest.param("paramiko.client", "import invoke; invoke.run", "invoke.run", marks=pytest.mark.slow),
        pytest.param("paramiko.client", "import importlib.metadata as m; m.version('fabric')", "importlib.metadata.version('fabric')", marks=pytest.mark.slow),
        pytest.param("paramiko.client", "import importlib.metadata; importlib.metadata.files", "importlib.metadata.files", marks=pytest.mark.slow),
        pytest.param("paramiko.client", "from importlib import metadata; metadata.entry_points", "importlib.metadata.entry_points", marks=pytest.mark.slow),
        pytest.param("invoke.exceptions", "from unittest.mock import patch, Mock; Mock()", "unittest.mock.patch", marks=pytest.mark.slow),
        pytest.param("invoke.exceptions", "import unittest.mock; unittest.mock.patch", "isinstance(unittest.mock.Mock().a, unittest.mock.Mock)", marks=pytest.mark.slow),
        pytest.param("invoke.exceptions", "from unittest import mock; mock.Mock().a", "unittest.mock.Mock", marks=pytest.mark.slow),
        pytest.param("invoke.exceptions", "import unittest; unittest.TestCase", "unittest.mock.sentinel.x is unittest.mock.sentinel.x", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_another_thread_may_import_the_same_meanwhile(at: str, statement: str, check: str) -> None:
    """It gets what a plain import gives, and so do later imports."""
    python(
        f"{MEANWHILE}\n"
        "from launcher.transports.ssh.lazy_imports import import_fabric, import_paramiko\n"
        f"meanwhile = Meanwhile({at!r}, {statement!r})\n"
        "sys.meta_path.insert(0, meanwhile)\n"
        "import_paramiko()\n"
        "import_fabric()\n"
        "assert meanwhile.is_done\n"
        "import importlib.metadata, unittest.mock, invoke, invoke.context\n"
        f"assert {check}\n"
        "for module in importlib.metadata, unittest.mock, invoke:\n"
        "    assert type(module) is type(sys) and module is sys.modules[module.__name__]\n"
    )


@pytest.mark.slow
def test_a_late_import_gives_the_same_modules() -> None:
    """The three packages have the same modules, with the same public names, as after a plain import."""
    names = "fabric", "invoke", "paramiko"
    told = (
        "print(sorted((name, sorted(one for one in vars(module) if one[0] != '_')) for name, module in sys.modules.items()\n"
        f"             if name.partition('.')[0] in {names}))\n"
    )
    late = "from launcher.transports.ssh.lazy_imports import import_fabric, import_paramiko\nimport_paramiko()\nimport_fabric()\n"
    assert python(f"import sys\n{late}{told}") == python(f"import sys\nimport paramiko, fabric\n{told}")
