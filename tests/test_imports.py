"""The agent's files run on a bare Python 3.8: its grammar, and at module level its standard library.

What .ci/run's import-linter does not see is held here: imports inside functions are allowed, at module level they are not.
"""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.requirements import need_python

ROOT = Path(__file__).resolve().parent.parent
AGENT = sorted((ROOT / "remote_agent").rglob("*.py"))
BARE = [*AGENT, ROOT / "launcher" / "__init__.py"]
#: What a job needs is imported inside functions; `remote_agent` and `launcher` name each other's contract lazily.
OWN = {"remote_agent"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """The file as Python 3.8 reads it."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 8))


def module_level_imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and top-level package of each import that runs when the module is imported."""

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                for other in child.orelse:
                    yield other
                    yield from walk(other)
                continue
            yield child
            yield from walk(child)

    for node in walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, (node.module or "").partition(".")[0] if not node.level else "remote_agent"


def all_imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of each import, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""


def test_parses_as_python_3_8() -> None:
    """No syntax that is younger than 3.8: the error of one that is names the file and the line."""
    assert all(tree_of(path) for path in BARE)


def test_imports_only_the_standard_library_at_module_level() -> None:
    """On a bare host every module of the agent can be imported."""
    allowed = OWN | set(sys.stdlib_module_names) | {"__future__"}
    found = [(name_of(path), line, name) for path in BARE for line, name in module_level_imports(tree_of(path))]
    assert [one for one in found if one[2] not in allowed] == []


def test_imports_nothing_of_the_launcher() -> None:
    """Not inside functions either: of `launcher` only the lazy table of contents is on a host."""
    found = [(name_of(path), line, name) for path in AGENT for line, name in all_imports(tree_of(path))]
    assert [one for one in found if one[2].partition(".")[0] in ("launcher", "hydra_plugins")] == []


@pytest.mark.pythons
@pytest.mark.parametrize("version", ["3.8", "3.13"])
def test_every_module_of_the_agent_imports_without_any_package(version: str) -> None:
    """`python -I -S` has no site-packages: the standard library is all there is."""
    python = need_python(version)
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in AGENT
        if path.name not in ("__init__.py", "__main__.py") and path.name != "entry.py"
    ]
    program = (
        "import importlib, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "sys.dont_write_bytecode = True\n"
        f"for name in ['launcher', 'remote_agent', *{modules!r}]:\n"
        "    importlib.import_module(name)\n"
        "print(sorted(n for n in sys.modules if n.split('.')[0] in ('omegaconf', 'hydra', 'cloudpickle', 'yaml')))\n"
    )
    answer = subprocess.run(
        [python, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "[]"


def test_importing_the_launcher_is_cheap() -> None:
    """`import launcher` loads neither fabric nor Hydra nor anything that they bring."""
    program = (
        "import sys, launcher\n"
        "print(sorted({n.split('.')[0] for n in sys.modules} & "
        "{'fabric', 'paramiko', 'hydra', 'omegaconf', 'rich', 'pydantic', 'cloudpickle', 'asyncio'}))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert answer.stdout.strip() == "[]"


def test_a_session_imports_only_what_every_run_needs() -> None:
    """What only some runs need comes when it is needed: SSH and each way of it, environments, output that is shown, the text of an application."""
    program = (
        "import sys, launcher\n"
        "launcher.Session, launcher.run, launcher.multirun\n"
        "print(*(n for n in sys.modules if n.startswith(('launcher.', 'remote_agent.'))))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    found = answer.stdout.split()
    folders = ("cli", "demo", "display", "environments", "live", "reproduce", "transports.ssh", "transports.openssh")
    modules = (
        "launcher.agents.environment",
        "launcher.code.application.application",
        "launcher.code.application.application_text",
        "launcher.code.application.known_imports",
        "launcher.code.files.missing_modules",
        "launcher.config.interpolations",
        "launcher.serialization.diagnosis",
        "launcher.transports.local",
    )
    assert not [one for one in found if one.startswith(tuple(f"launcher.{name}" for name in folders))]
    assert not set(found) & set(modules)


def test_little_is_imported_before_the_spare_is_started() -> None:
    """The jobs' Python takes longest to start, so `connect` starts it before it imports what the agent needs."""
    program = (
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "import remote_agent.__main__, remote_agent.system.logind\n"
        "from remote_agent.agent.link.listener import other_agent\n"
        "from remote_agent.agent.zygotes.spare import start_spare\n"
        "print(sorted({'ctypes', 'dataclasses', 'inspect', 'platform', 'shutil'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
