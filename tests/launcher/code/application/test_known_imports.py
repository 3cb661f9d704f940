"""What is kept of what hosts told of imports: checked when it comes, and when it is read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher.code.application import known_imports
from launcher.code.application.known_imports import ImportFacts

TOLD = {"configs": False, "resolvers": True, "process": False, "modules": ["numpy", "torch"]}
FACTS = ImportFacts(configs=False, resolvers=True, process=False, modules=("numpy", "torch"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own; returns the folder of what is kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "hydra-remote-launcher" / "imports"


def snapshot(content: str) -> Any:
    """A project with this content, as far as it is asked for."""
    return SimpleNamespace(hash=content * 64)


def test_what_is_kept_is_read_again(cache: Path) -> None:
    """Under its key alone. The folder and the file are for this user only."""
    key = known_imports.key_of({"place": "far"}, "a" * 64, "my_app")
    assert not known_imports.is_used()
    assert known_imports.look_up(key) is None
    known_imports.remember(key, FACTS)
    assert known_imports.look_up(key) == FACTS
    assert known_imports.is_used()
    assert known_imports.has_any(snapshot("a"))
    assert not known_imports.has_any(snapshot("b"))
    assert oct(cache.stat().st_mode & 0o777) == "0o700"
    assert oct((cache / f"{key}.json").stat().st_mode & 0o777) == "0o600"


def test_another_host_project_or_module_is_another_key() -> None:
    """What one of them told says nothing of another."""
    keys = {
        known_imports.key_of(host, project * 64, module)
        for host in ({"place": "far"}, {"place": "near"})
        for project in "ab"
        for module in ("my_app", "other")
    }
    assert len(keys) == 8


@pytest.mark.parametrize(
    "told",
    [
        {**TOLD, "configs": 1},
        {**TOLD, "resolvers": "no"},
        {**TOLD, "process": None},
        {**TOLD, "modules": "numpy"},
        {"modules": []},
        {},
    ],
)
def test_another_form_is_refused(told: dict[str, Any]) -> None:
    """A host says true or false, and a list."""
    with pytest.raises(ValueError, match="another form"):
        ImportFacts.of(told, most=10)


def test_only_names_of_modules_are_kept() -> None:
    """At most so many; what is no name is dropped."""
    names = ["numpy", "a; b", "../x", 5, "", "x" * 201, "torch", "jax"]
    assert ImportFacts.of({**TOLD, "modules": names}, most=7).modules == ("numpy", "torch")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        json.dumps({"version": 2, **TOLD}),
        json.dumps({"version": 1, **TOLD, "configs": 0}),
    ],
)
def test_a_damaged_file_is_as_none(content: str, cache: Path) -> None:
    """The application is then imported here, as without it."""
    key = known_imports.key_of({}, "a" * 64, "my_app")
    known_imports.remember(key, FACTS)
    (cache / f"{key}.json").write_text(content)
    assert known_imports.look_up(key) is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only home has no memory."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    known_imports.remember("key", FACTS)
    assert known_imports.look_up("key") is None
    assert not known_imports.has_any(snapshot("a"))


def test_the_oldest_are_forgotten(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder does not grow without end."""
    monkeypatch.setattr(known_imports, "_MAX_KEPT", 4)
    keys = [known_imports.key_of({"number": number}, "a" * 64, "my_app") for number in range(5)]
    for age, key in enumerate(keys):
        known_imports.remember(key, FACTS)
        os.utime(cache / f"{key}.json", (age, age))
    assert [known_imports.look_up(key) is not None for key in keys] == [False, False, True, True, True]
