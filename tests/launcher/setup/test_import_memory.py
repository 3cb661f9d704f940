"""Whose word counts for a run: every host's, for this code, this module and this environment."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher.code.application import known_imports
from launcher.code.application.known_imports import ImportFacts
from launcher.hosts.host_spec import HostSpec
from launcher.options import LaunchConf
from launcher.setup.import_memory import import_key, why_import_here

HARMLESS = ImportFacts(configs=False, resolvers=False, process=False)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def key(host: dict[str, Any] | None = None, root: Path | None = None, content: str = "a", **options: Any) -> str | None:
    """The key of a host and options."""
    spec = HostSpec(**{"name": "far", "address": "far", **(host or {})})
    project: Any = SimpleNamespace(hash=content * 64)
    return import_key(spec, LaunchConf().replaced(**options), project, "my_app", root, None)


def test_what_makes_another_environment_makes_another_key() -> None:
    """A place, a Python or set-up lines, of the host or of the run; and other code."""
    keys = [
        key(),
        key({"address": "near"}),
        key({"user": "me"}),
        key({"port": 2222}),
        key({"workdir": "/scratch"}),
        key({"python": "/opt/python"}),
        key({"setup": ("module load cuda",)}),
        key(python="/other/python"),
        key(setup=("module load gcc",)),
        key(content="b"),
    ]
    assert None not in keys
    assert len(set(keys)) == len(keys)
    assert key() == key({"name": "another name"}), "the name of a host is what the user calls it"


@pytest.mark.parametrize(
    ("host", "options"),
    [
        ({"address": "local"}, {}),
        ({"env": {"TOKEN": "secret"}}, {}),
        ({}, {"env": {"TOKEN": "secret"}}),
        ({}, {"forward_env": ("HOME",)}),
        ({}, {"code": "shared"}),
        ({}, {"environment": "no such file"}),
    ],
)
def test_some_hosts_are_never_known(host: dict[str, Any], options: dict[str, Any]) -> None:
    """Values of variables are not stored, not even in a hash; and code that is not sent has no hash."""
    assert key(host, **options) is None


def test_an_environment_counts_by_its_content(tmp_path: Path) -> None:
    """The same file with other packages is another environment."""
    (tmp_path / "my_app.py").write_text("")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("numpy==1\n")
    first = key(root=tmp_path / "my_app.py", environment=str(requirements))
    assert first is not None
    assert first == key(root=tmp_path / "my_app.py", environment=str(requirements))
    assert first != key(root=tmp_path / "my_app.py", environment=str(requirements), extras=("gpu",))
    requirements.write_text("numpy==2\n")
    assert first != key(root=tmp_path / "my_app.py", environment=str(requirements))


def test_every_host_must_be_known() -> None:
    """One that is not, or a run without hosts, means the import here, without a word about why."""
    one, other = key(), key({"address": "near"})
    assert one is not None
    known_imports.remember(one, HARMLESS)
    assert why_import_here([one], uses_process=True) is None
    assert why_import_here([one, other], uses_process=False) == ""
    assert why_import_here([one, None], uses_process=False) == ""
    assert why_import_here([], uses_process=False) == ""


@pytest.mark.parametrize(
    ("facts", "uses_process", "why"),
    [
        (HARMLESS._replace(configs=True), False, "puts configs into the ConfigStore"),
        (HARMLESS._replace(resolvers=True), False, "registers resolvers"),
        (HARMLESS._replace(process=True), True, "changes variables that the config refers to"),
        (HARMLESS._replace(process=True), False, None),
        (HARMLESS._replace(modules=("torch",)), True, None),
        (
            HARMLESS._replace(configs=True, resolvers=True),
            False,
            "puts configs into the ConfigStore and registers resolvers",
        ),
    ],
)
def test_what_is_needed_here_is_said(facts: ImportFacts, uses_process: bool, why: str | None) -> None:
    """One host's yes is enough."""
    one, other = key(), key({"address": "near"})
    assert one is not None
    assert other is not None
    known_imports.remember(one, HARMLESS)
    known_imports.remember(other, facts)
    assert why_import_here([one, other], uses_process=uses_process) == why
