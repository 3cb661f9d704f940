"""Python's `.pyc` files on a host, on a full disk or after a power cut."""

from __future__ import annotations

import marshal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import launcher
from launcher.demo.server import DemoServer
from launcher.hosts.host_spec import HostSpec

ROOT = Path(__file__).parents[3]
#: More than a page of code, so that a disk may take a part of it.
_MODULE = "VALUE = 1\n" + "".join(f"def f{number}():\n    return 'f{number}'\n" for number in range(200))
#: What a process of ours does before it imports anything else.
_OURS = """
    import sys
    sys.path.insert(0, {root!r})
    sys.dont_write_bytecode = True
    from remote_agent.system.bytecode import keep_bytecode_whole
    keep_bytecode_whole()
"""
#: A file may have a page and no more: `write` takes that much, as on a full disk, and raises nothing.
_FULL = """
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
"""
_IMPORT = """
    sys.path.insert(0, {folder!r})
    import big
    print(big.VALUE)
"""


@pytest.fixture
def imports(tmp_path: Path) -> Callable[..., str]:
    """Import a module in one of our processes, after some lines. Returns what it prints."""
    (tmp_path / "big.py").write_text(_MODULE)

    def imported(*before: str, after: str = "") -> str:
        parts = [textwrap.dedent(part) for part in (_OURS, *before, _IMPORT)]
        program = "".join(parts).format(root=str(ROOT), folder=str(tmp_path)) + after
        command = [sys.executable, "-I", "-S", "-c", program]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    return imported


def kept(folder: Path) -> list[Path]:
    """The cache files, finished or not."""
    return sorted((folder / "__pycache__").iterdir())


def test_no_part_of_a_cache_file_stays_on_a_full_disk(imports: Callable[..., str], tmp_path: Path) -> None:
    """The import works, and no file is left on which the next import would fail. With room again, the complete file is kept."""
    assert imports(_FULL) == "1"
    assert kept(tmp_path) == []
    assert imports() == "1"
    (file,) = kept(tmp_path)
    marshal.loads(file.read_bytes()[16:])


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: data[:100] + bytes(len(data) - 100)])
def test_a_truncated_cache_file_is_made_again(
    imports: Callable[..., str], tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """A file that ends early, or in zeros as after a power cut, makes no import fail."""
    imports()
    (file,) = kept(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert imports() == "1"
    assert imports() == "1"
    assert file.read_bytes() == whole


def test_an_error_in_the_source_is_reported_as_usual(imports: Callable[..., str], tmp_path: Path) -> None:
    """Null bytes and wrong syntax in a module give Python's own errors."""
    told = "\ntry:\n    import {0}\nexcept Exception as error:\n    print(type(error).__name__)\n"
    (tmp_path / "wrong.py").write_text("def\n")
    (tmp_path / "null.py").write_bytes(b"x = '\0'\n")
    assert imports(after=told.format("wrong")).split() == ["1", "SyntaxError"]
    assert imports(after=told.format("null")).split()[1] in ("SyntaxError", "ValueError")


def test_no_bytecode_is_written_if_it_is_switched_off(imports: Callable[..., str], tmp_path: Path) -> None:
    """A process that was told to write none still writes none."""
    assert imports("keep_bytecode_whole(is_off=True)") == "1"
    assert not (tmp_path / "__pycache__").exists()


@pytest.mark.slow
def test_a_run_works_with_truncated_cache_files_of_the_bundle(
    demo_server: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agent and zygote start over SSH, and a job completes."""
    folder = tmp_path / "work"
    spec = HostSpec(demo_server.alias, demo_server.alias, ssh_config=str(demo_server.ssh_config), workdir=str(folder))
    monkeypatch.chdir(tmp_path)

    def result() -> object:
        return launcher.run("builtins:str", {"x": 1}, host=spec, folder=tmp_path / "out", callbacks=[]).return_value

    assert result() == "{'x': 1}"
    files = list((folder / "cache").rglob("*.pyc"))
    assert len(files) > 20
    for file in files:
        file.write_bytes(file.read_bytes()[:60])
    assert result() == "{'x': 1}"
