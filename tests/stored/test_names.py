"""Names of ours in what is stored: all of them are on docs/stored.md, and lead to something."""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher.config.lazy import LazyConfig
from launcher.runs import record
from launcher.runs.record import FORMER_KINDS
from launcher.serialization import pickler
from launcher.setup.from_journal import _kinds
from launcher.setup.kinds.run_setup import RunSetup
from remote_agent import CurrentJob, EarlierAttempt, JobError, JobReturn, JobStatus, RemoteJobError, ResourcesUsed
from remote_agent.hydra.compat import as_hydra
from remote_agent.job import LateValue
from tests.stored.names import names_in, names_in_folder
from tests.stored.places import EACH, ROOT, put_back

PAGE = Path(__file__).parents[2] / "docs" / "stored.md"
_PICKLED = set(re.findall(r"`([\w.]+:\w+)`", PAGE.read_text().partition("## Names in pickles")[2]))
_NOW = set(
    re.findall(
        r"`([\w.]+:\w+)`", PAGE.read_text().partition("What this version writes")[2].partition("What earlier")[0]
    )
)
_KINDS = re.findall(r"^\| `(\w+)` \|.*\| `([\w.]+:\w+)` \|$", PAGE.read_text(), re.MULTILINE)
#: As text has them: with a dot, and what is said to stand in text.
_TEXT = {name.replace(":", ".") for name in _PICKLED} | set(re.findall(r"`([\w.]+)`", PAGE.read_text()))


def _found(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", sorted(_PICKLED))
def test_every_name_leads_to_something(name: str) -> None:
    """Names of now and of then are found as pickle finds them."""
    assert callable(_found(name))


def test_former_names_lead_to_what_is_there_now() -> None:
    """A class is one class under either name: what is unpickled is an instance of what users import."""
    for name in ("JobReturn", "JobStatus", "JobError", "RemoteJobError"):
        assert _found(f"remote_agent.job:{name}") is getattr(launcher, name)
    for name in ("LogJobReturnCallback", "PickleJobInfoCallback"):
        for module in ("builtin_callbacks", "callbacks"):
            assert _found(f"remote_agent.{module}:{name}") is getattr(launcher, name)
    assert _found("remote_agent.callback:Callback") is launcher.Callback


def test_old_pickles_find_former_places_without_this_project_having_been_imported() -> None:
    """A user's own `pickle.load` in a fresh process: no unpickler of ours is asked."""
    old = b"clauncher.late_config\nmade_now\n(cremote_agent.callback\nCallback\ntR."
    program = f"import pickle; print(pickle.loads({old!r}))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=PAGE.parents[1], check=False
    )
    assert done.stdout.strip() == "<class 'remote_agent.Callback'>", done.stderr


@pytest.mark.parametrize("version", EACH)
def test_what_was_stored_has_names_of_the_page(version: str) -> None:
    """In pickles, also within pickles, and in text: journals, spools, files of jobs."""
    with put_back(version):
        pickled, _ = names_in_folder(ROOT)
        _, text = names_in_folder(ROOT / "runs")
    assert pickled - _PICKLED == set()
    modules = {name.partition(":")[0] for name in _PICKLED} | {name.partition(":")[0] for _, name in _KINDS}
    assert text - _TEXT - modules == set()
    assert "remote_agent.by_reference:resolve" in pickled  # it was looked into


@pytest.mark.slow
def test_what_is_stored_now_has_names_of_now(tmp_path: Path) -> None:
    """Runs of each kind, made by this version: none of their pickles asks for a name that is only kept for older ones."""
    archive = tmp_path / "now.tar.xz"
    script = Path(__file__).parent / "make.py"
    done = subprocess.run(
        [sys.executable, str(script), str(archive)],
        env={**os.environ, "PYTHONPATH": str(PAGE.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "now", filter="data")
    pickled, _ = names_in_folder(tmp_path / "now")
    assert pickled - _NOW == set()
    assert {"remote_agent:JobStatus", "remote_agent:Callback", "remote_agent.by_reference:caching"} <= pickled


class _Held(launcher.Callback):
    """A callback of this module."""


def _values() -> dict[str, Any]:
    error = JobError("exception", "ValueError", "no")
    returned = JobReturn(status=JobStatus.COMPLETED, _return_value=LateValue(lambda: 1), error=error)
    return {
        "a JobReturn": returned,
        "one of Hydra's": as_hydra(returned),
        "one that says what it used": JobReturn(status=JobStatus.COMPLETED, resources_used=ResourcesUsed(1.0)),
        "an error": RemoteJobError(error),
        "the current job": CurrentJob(0, "r#0", 2, "h", "/x", (EarlierAttempt(1, "h", "preempted", None),)),
        "a callback": _Held(),
        "built-in callbacks": [launcher.LogJobReturnCallback(), launcher.PickleJobInfoCallback()],
        "a late config": LazyConfig({"x": 1}, {}),
        "a config that cannot be pickled": record.Unpicklable("no"),
    }


@pytest.mark.parametrize("what", _values())
def test_each_value_names_what_the_page_has(what: str) -> None:
    """However it is pickled: by pickle itself, and as we do it."""
    value = _values()[what]
    for data in (pickle.dumps(value), pickle.dumps(value, 2), pickler.dumps(value).data):
        names = {name for name in names_in(data) if name.startswith(("launcher", "remote_agent", "hydra_plugins"))}
        assert names <= _NOW
        pickle.loads(data)


def test_a_made_late_config_is_pickled_as_what_was_made() -> None:
    """It needs no name of ours then but one."""
    late = LazyConfig({"x": 1}, {})
    late.made.x = 2
    assert pickle.loads(pickle.dumps(late)).x == 2


def test_what_functools_made_names_what_the_page_has() -> None:
    """By value: caches, dispatch by type, cached properties."""
    names: set[str] = set()
    exec("def f(x):\n    return x", scope := {"__name__": "__main__"})
    for value in (
        functools.lru_cache(scope["f"]),
        functools.singledispatch(scope["f"]),
        functools.cached_property(scope["f"]),
    ):
        names |= names_in(pickler.dumps(value).data)
    ours = {name for name in names if name.startswith("remote_agent")}
    assert ours == {f"remote_agent.by_reference:{name}" for name in ("caching", "dispatching", "cached_property")}


def test_kinds_of_run_are_those_of_the_page() -> None:
    """Each kind has one name, and what the first version wrote leads to it."""
    assert {name for name, _ in _KINDS} == set(_kinds())
    assert {former: name for name, former in _KINDS} == FORMER_KINDS


def test_every_setup_has_a_kind_of_its_own() -> None:
    """A setup that forgot to say its kind would be taken up as what it derives from."""
    known = list(_kinds().values())
    waiting, found = [RunSetup], []
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        if not cls.__name__.startswith("_") and cls.__module__.startswith("launcher"):
            found.append(cls)
    assert set(found) == set(known)
    assert len({cls.kind for cls in known}) == len(known)
