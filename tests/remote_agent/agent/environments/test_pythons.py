"""The Pythons of a host are found, asked once, and looked at again when they change."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from remote_agent.agent.environments import pythons
from remote_agent.agent.environments.pythons import find_pythons, host_facts


def shim(path: Path, text: str) -> Path:
    """A program that stands for a Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho asked >> {path}.log\n{text}\n")
    path.chmod(0o755)
    return path


def asked(path: Path) -> int:
    """How often it was started."""
    log = Path(f"{path}.log")
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_a_python_is_asked_once(tmp_path: Path) -> None:
    """Until its file changes; what is none is not asked again either."""
    good = shim(tmp_path / "good", f'exec {sys.executable} "$@"')
    bad = shim(tmp_path / "bad", "exit 1")
    known = str(tmp_path / "pythons.json")
    for _ in range(2):
        (found,) = find_pythons(known, str(good))
        assert (found.path, found.version) == (str(good), "{}.{}.{}".format(*sys.version_info[:3]))
        assert find_pythons(known, str(bad)) == []
    assert (asked(good), asked(bad)) == (1, 1)
    shim(good, f'exec {sys.executable} "$@"  # newer')
    find_pythons(known, str(good))
    assert asked(good) == 2


def test_one_that_is_gone_is_not_told(tmp_path: Path) -> None:
    """However well it was known."""
    good = shim(tmp_path / "good", f'exec {sys.executable} "$@"')
    known = str(tmp_path / "pythons.json")
    assert find_pythons(known, str(good))
    good.unlink()
    assert find_pythons(known, str(good)) == []


@pytest.mark.parametrize("text", ["[]", "x", '{"version": 9, "pythons": {}}', '{"version": 1, "pythons": []}'])
def test_facts_that_were_damaged_are_asked_again(text: str, tmp_path: Path) -> None:
    """They are only a cache."""
    good = shim(tmp_path / "good", f'exec {sys.executable} "$@"')
    known = tmp_path / "pythons.json"
    known.write_text(text)
    assert find_pythons(str(known), str(good))


def test_the_agents_own_comes_first_and_each_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the file that it is in the end."""
    shim(tmp_path / "bin" / "python3.12", f'exec {sys.executable} "$@"')
    os.symlink("python3.12", tmp_path / "bin" / "python3")
    home = tmp_path / "home"
    shim(home / ".pyenv" / "versions" / "3.9.1" / "bin" / "python3", f'exec {sys.executable} "$@"')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(pythons, "_PLACES", [one for one in pythons._PLACES if one.startswith("~")])
    found = [one.path for one in find_pythons(str(tmp_path / "pythons.json"), None)]
    assert found == [sys.executable, str(tmp_path / "bin/python3"), str(home / ".pyenv/versions/3.9.1/bin/python3")]


def test_facts_of_this_host(tmp_path: Path) -> None:
    """System, machine and libc as wheels name them."""
    facts = host_facts(str(tmp_path), sys.executable)
    assert facts.system in ("Linux", "Darwin")
    assert facts.libc.split(" ")[0] in ("glibc", "musl", "macos")
    assert facts.free > 0
