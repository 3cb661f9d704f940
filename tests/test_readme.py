"""What README.md and docs/ show is what runs and what is there.

Every file, script and command of the pages below, with `gpu1` and `gpu2` behind real SSH; tables, links and walks of the docs against the code.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from launcher.demo.server import DemoServer
from launcher.hosts.host_spec import HostSpec
from remote_agent.callbacks.base import HOOKS, HOST_HOOKS
from remote_agent.job import ERROR_KINDS, JobReturn
from tests import packages
from tests.packages import lock_project, make_wheel

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its language, the file it is (or empty), and its text."""

    language: str
    file: str
    text: str


def blocks(page: str = "README.md") -> list[Block]:
    """The fenced blocks of a page."""
    return [Block(*match) for match in _BLOCK.findall((ROOT / page).read_text())]


#: Pages whose Python blocks are whole scripts, and pages whose commands can be typed beside the README's files.
SCRIPT_PAGES = ("README.md", "docs/python.md", "docs/callbacks.md")
COMMAND_PAGES = ("README.md", "docs/command-line.md")
PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "examples/**/*.md", "docker/*.md")
    for path in ROOT.glob(pattern)
)
SCRIPTS = [
    block.text for page in SCRIPT_PAGES for block in blocks(page) if block.language == "python" and not block.file
]
#: The command lines of each block, which are typed one after the other in one folder.
COMMANDS = [
    [line[2:].partition("  #")[0].strip() for line in block.text.splitlines() if line.startswith("$ ")]
    for page in COMMAND_PAGES
    for block in blocks(page)
    if block.language == "console"
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Variables under which `launcher` and `python` are this checkout's, and ssh knows gpu1 and gpu2."""
    folder = tmp_path_factory.mktemp("readme-bin")
    with DemoServer("gpu1") as server:
        config = folder / "ssh_config"
        config.write_text(server.ssh_config.read_text().replace("Host gpu1", "Host gpu1 gpu2"))
        ssh = shutil.which("ssh")
        if ssh is None:
            pytest.skip("no ssh on this machine, whose configuration the README speaks of")
        for name, line in {
            "ssh": f'exec {ssh} -F {config} "$@"',
            "launcher": f'exec {sys.executable} -c "from launcher.cli.main import main; main()" "$@"',
            "python": f'exec {sys.executable} "$@"',
        }.items():
            program = folder / name
            program.write_text(f"#!/bin/sh\n{line}\n")
            program.chmod(0o755)
        yield {
            **os.environ,
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }


def make_project(folder: Path) -> Path:
    """A folder with the files that the README shows, as a project that is locked: with a package that no host has."""
    index = folder.parent / f"index-{folder.name}"
    make_wheel(index, "nowhere")
    lock_project(packages.make_project(folder, index, ("nowhere",)))
    for block in blocks():
        if block.file:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
    return folder


@pytest.fixture(scope="module")
def run_of(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[str]]]:
    """What came of each script and block: empty, or what went wrong. All are under way at once, two at a time."""

    def run(name: str, commands: list[str]) -> str:
        folder = make_project(tmp_path_factory.mktemp(name))
        shutil.copy(ROOT / "examples" / "sweep.py", folder)
        if name.startswith("script"):
            (folder / "script.py").write_text(SCRIPTS[int(name.removeprefix("script"))])
        own = {**environment, "XDG_STATE_HOME": str(folder / "state")}
        for command in commands:
            done = subprocess.run(
                ["sh", "-c", command], cwd=folder, env=own, capture_output=True, text=True, timeout=120
            )
            if done.returncode != 0:
                return f"{command}\n{done.stdout}{done.stderr}"
        return ""

    with ThreadPoolExecutor(2) as pool:
        work = {f"script{number}": ["python script.py"] for number in range(len(SCRIPTS))}
        work |= {f"block{number}": commands for number, commands in enumerate(COMMANDS)}
        work["example"] = [
            "python sweep.py gpu1 | tee out",
            "grep 'on gpu1 is the best so far' out",
            "grep '3 FAILED Overflow' out",
        ]
        yield {name: pool.submit(run, name, commands) for name, commands in work.items()}


def test_the_readme_has_what_these_tests_run() -> None:
    """A block that the pattern does not see would go unchecked."""
    for page in {*SCRIPT_PAGES, *COMMAND_PAGES}:
        assert (ROOT / page).read_text().count("```") == 2 * len(blocks(page)), page
    assert len(SCRIPTS) >= 4
    assert sum(len(commands) for commands in COMMANDS) >= 11
    assert {block.file for block in blocks() if block.file} == {"my_app.py", "conf/config.yaml", "hosts.yaml"}


def test_the_first_example_of_the_readme_is_on_the_first_screen() -> None:
    """A newcomer sees what it is, an app and its commands without scrolling; what is longer is on a page of docs/."""
    lines = (ROOT / "README.md").read_text().splitlines()
    ends = [number for number, line in enumerate(lines, 1) if line == "```"]
    assert blocks()[2].language == "console"
    assert ends[2] <= 42
    assert len(lines) < 180


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(SCRIPTS)))
def test_scripts_run(number: int, run_of: dict[str, Future[str]]) -> None:
    """Each Python block runs as a script of its own."""
    assert not run_of[f"script{number}"].result()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_commands_run(number: int, run_of: dict[str, Future[str]]) -> None:
    """The command lines of a block run one after the other, and their jobs complete."""
    assert not run_of[f"block{number}"].result()


@pytest.mark.slow
def test_the_example_sweep_runs(run_of: dict[str, Future[str]]) -> None:
    """On a host given by name; one of its jobs fails as it should."""
    assert not run_of["example"].result()


def test_install_lines_name_extras_that_exist() -> None:
    """The two commands that a newcomer types first."""
    pyproject = (ROOT / "pyproject.toml").read_text()
    lines = [block.text for block in blocks() if block.language == "sh"]
    assert len(lines) == 2
    for line in lines:
        (extra,) = re.findall(r"'\.\[(\w+)\]'", line)
        assert re.search(rf"^{extra} = \[", pyproject, re.MULTILINE)


def test_contributing_has_every_marker() -> None:
    """Whoever looks for how to run a kind of tests finds its marker, and no marker that is gone."""
    ours = (ROOT / "pyproject.toml").read_text().partition("\nmarkers = [")[2].partition("\n]")[0]
    declared = re.findall(r'^    "(\w+):', ours, re.MULTILINE)
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(declared)


def test_the_readme_leads_to_every_page() -> None:
    """No page of docs/ can be found by its name alone."""
    text = (ROOT / "README.md").read_text()
    assert [path.name for path in (ROOT / "docs").glob("*.md") if f"docs/{path.name})" not in text] == []


def test_the_hosts_page_has_every_field() -> None:
    """Its table has the keys of a hosts file, each once."""
    text = (ROOT / "docs" / "hosts.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    keys = [key for row in rows for key in re.findall(r"`(\w+)`", row)]
    assert sorted(keys) == sorted(field.name for field in dataclasses.fields(HostSpec) if field.name != "name")


def test_the_architecture_names_every_folder() -> None:
    """A newcomer finds from it where a behaviour lives; a new folder needs a line there, or a word in the line of the one that holds it."""
    rows = dict(
        re.findall(r"^\| `(\w+/\w+)/` \| (.*) \|$", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    )
    for package in ("launcher", "remote_agent"):
        for file in sorted((ROOT / package).glob("*/**/__init__.py")):
            top, _, inner = str(file.parent.relative_to(ROOT / package)).partition("/")
            row = rows[f"{package}/{top}"]
            assert not inner or f"`{inner}/`" in row, (
                f"{package}/{top}/{inner} is not in its line of docs/architecture.md"
            )


def test_the_pages_name_no_file_that_is_not_there() -> None:
    """A file that was moved or renamed is not looked for in vain."""
    folders = ("launcher", "remote_agent", "hydra_plugins", "tests", "benchmarks", "examples")
    files = [f"/{path.relative_to(ROOT)}" for folder in folders for path in (ROOT / folder).rglob("*.py")]
    for page in PAGES:
        text = (ROOT / page).read_text()
        if page == "CHANGELOG.md":
            text = text.partition("\n## [0.1.0]")[0]
        for named in set(re.findall(r"`([\w/]+/\w+\.py)(?::[\w.]+)?`", text)):
            assert any(file.endswith(f"/{named}") for file in files), f"{page}: {named}"


@functools.cache
def functions(file: Path) -> set[str]:
    """The names of all functions and methods of a file."""
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}


def test_the_walks_name_functions_that_are_there() -> None:
    """Whoever follows a job through the code finds each function where the page says; a walk names nothing else."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    walks = re.findall(r"^\*\*(.*?)\*\*\n\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    assert len(walks) == 4
    for walk, steps in walks:
        named = re.findall(r"`([\w/]+\.py)(?::(\w+))?`", steps)
        assert len(named) >= 4, walk
        for file, function in named:
            assert function in functions(ROOT / file), f"{walk}: {file}:{function}"


def test_the_callback_page_has_every_hook_kind_and_field() -> None:
    """Its tables are the code's."""
    text = (ROOT / "docs" / "callbacks.md").read_text()
    for hook in HOOKS:
        (side,) = re.findall(rf"^\| `{hook}` \|[^|]*\| (\w+)", text, re.MULTILINE)
        assert side == ("host" if hook in HOST_HOOKS else "controller")
    kinds = re.findall(r"^`error.kind` is one of (.*)\.$", text, re.MULTILINE)[0]
    assert tuple(re.findall(r"`(\w+)`", kinds)) == ERROR_KINDS
    for field in dataclasses.fields(JobReturn):
        assert f"`{field.name.lstrip('_')}`" in text, field.name


#: What Hydra and Python say, not this package.
_OF_OTHERS = (
    "Could not override",
    "Sweeping over Hydra's configuration",
    "EOFError: EOF when reading",
    "No module named",
)


@pytest.mark.slow
def test_the_troubleshooting_page_quotes_what_is_said() -> None:
    """Whoever looks for a message finds the words that the code says; what stands for a name or a number is left out."""
    sources = "".join(
        path.read_text() for folder in ("launcher", "remote_agent") for path in sorted((ROOT / folder).rglob("*.py"))
    )
    said = re.sub(r'"\s*\n\s*f?"', "", sources)
    rows = re.findall(r"^\| (`.*?) \| ", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    quoted = [one for row in rows for one in re.findall(r"`([^`]+)`", row) if not one.startswith(_OF_OTHERS)]
    assert len(quoted) > 20
    pieces = [
        piece.strip(" '():")
        for one in quoted
        for piece in re.split(r"\.\.\.|\d[\d.]*(?: MiB)?|SIG[A-Z]+|: ", one)
        if piece
    ]
    missing = [piece for piece in pieces if piece not in said and piece not in _OF_OTHERS]
    assert not missing, "; ".join(missing)
