"""What the commands import that only read: lists of modules, not times (`python -m benchmarks --only commands` has those)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.controllers import Project

ROOT = Path(__file__).parents[3]
#: Packages that no command may load which only reads: each takes longer than the rest of it.
HEAVY = {
    "asyncio", "asyncssh", "click", "cloudpickle", "cryptography", "fabric", "hydra", "invoke", "omegaconf", "paramiko", "pydantic",
    "pydantic_core", "rich", "typer", "yaml",
}  # fmt: skip
#: Parts of the standard library that take a tenth of Python's start and more.
SLOW = {
    "asyncio",
    "bz2",
    "concurrent",
    "lzma",
    "multiprocessing",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "unittest",
}
PROGRAM = """
import sys
before = set(sys.modules)
sys.path.insert(0, {root!r})
from launcher.cli.main import main
try:
    main({arguments!r})
except SystemExit as leaving:
    assert leaving.code == 0, leaving.code
loaded = set(sys.modules) - before
print("LOADED", *sorted(loaded), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder whose index has one run, of two jobs."""
    folder = tmp_path_factory.mktemp("past")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        made = Project(folder / "project")
        made.start(2).wait()
        made.close()
    return folder / "state"


def loaded(state: Path, *arguments: str) -> tuple[str, set[str]]:
    """What a command prints, and the modules that it loads beyond those of a bare Python."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(root=str(ROOT), arguments=list(arguments))],
        env={"XDG_STATE_HOME": str(state), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    told = next(line for line in done.stderr.splitlines() if line.startswith("LOADED"))
    return done.stdout, set(told.split()[1:])


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--help"], "multirun"),
        pytest.param(["--version"], "hydra-remote-launcher", marks=pytest.mark.slow),
        (["runs"], "completed"),
        pytest.param(["runs", "--json"], '"completed"', marks=pytest.mark.slow),
        (["show", "last"], "2 completed"),
        pytest.param(["show", "last", "--all"], "2 completed", marks=pytest.mark.slow),
        (["run", "--help"], "--config-name"),
        pytest.param(["show", "--help"], "--offline", marks=pytest.mark.slow),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_that_reads_imports_nothing_large(arguments: list[str], shown: str, state: Path) -> None:
    """Neither Hydra, OmegaConf, fabric nor rich, nothing of pydantic, and no slow part of the standard library."""
    printed, modules = loaded(state, *arguments)
    assert shown in printed
    large = {name.partition(".")[0] for name in modules} & (HEAVY | SLOW)
    # Values may be UUIDs, and the module of these needs it before 3.11.
    assert large <= ({"subprocess"} if sys.version_info < (3, 11) and arguments[0] == "show" else set())


def test_the_help_imports_no_command(state: Path) -> None:
    """The table of commands is enough for it."""
    _, modules = loaded(state, "--help")
    assert not [name for name in modules if name.startswith(("launcher.cli.commands.", "launcher.runs", "sqlite3"))]


@pytest.mark.parametrize("command", ["runs", "show"])
def test_reading_a_journal_loads_nothing_that_writes_one(command: str, state: Path) -> None:
    """The writer of a journal, sessions and transports are for those who run jobs."""
    _, modules = loaded(state, command)
    mine = {name for name in modules if name.startswith("launcher.")}
    assert not [
        name for name in mine if name.startswith(("launcher.session", "launcher.engine", "launcher.transports"))
    ]
    assert "launcher.runs.journal" not in mine
