"""Every way to end gives one JobReturn with all hooks fired, and reading it gives what docs/outcomes.md says."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher.demo.server import DemoServer
from launcher.hosts.inventory import load_hosts
from tests.outcomes.cases import CASES, Case
from tests.outcomes.table import APP, PAGE, page


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The imported application, in its own project folder."""
    project = tmp_path / "project"
    project.mkdir()
    (project / APP.name).write_bytes(APP.read_bytes())
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))
    yield importlib.import_module(APP.stem)
    sys.modules.pop(APP.stem, None)


@pytest.fixture(params=["local", "ssh"])
def hosts(request: pytest.FixtureRequest, demo_server: DemoServer) -> list[Any]:
    """This machine, or a host behind SSH with its own home."""
    if request.param == "local":
        return ["local/4"]
    return list(
        load_hosts({"demo": {"address": "demo", "ssh_config": str(demo_server.ssh_config), "slots": 4}}, "test")
    )


def read(one: Any) -> str:
    """Return the result of reading the value, in the page's words."""
    try:
        value = one.return_value
    except BaseException as error:
        return f"raises {type(error).__name__}"
    return "None" if value is None else "the value"


@pytest.mark.slow
@pytest.mark.parametrize(("results", "isolation"), [("trusted", "auto"), ("safe", "auto"), ("trusted", "reuse")])
def test_a_job_ends_as_the_page_says(app: Any, hosts: list[Any], results: str, isolation: str, tmp_path: Path) -> None:
    """Each case ends as docs/outcomes.md says, and none affects another."""
    cases = [case for case in CASES if case.how != "group" or sys.version_info >= (3, 11)]
    returns = launcher.multirun(
        app.task,
        [{"how": case.how} for case in cases],
        hosts=hosts,
        callbacks=[app.Hooks()],
        results=results,
        isolation=isolation,
        grace=1,
        shutdown_timeout=1,
        folder=tmp_path / "sweep",
    )
    assert len(returns) == len(cases)
    for case, one in zip(cases, returns, strict=True):
        _check(case, one, case.reads if results == "trusted" else case.reads_safe, case.kind_under(results))
    by_name = {case.how: one for case, one in zip(cases, returns, strict=True)}
    assert by_name["value"].return_value == {"a": [1, 2.5, "x"]}
    assert by_name["changes_locale"].return_value == "\u00fc"
    assert by_name["chain"].error.causes[0]["type"] == "KeyError"
    assert by_name["exit_3"].error.exit_code == 3
    if results == "trusted":
        cycle = by_name["cycle"].return_value
        assert cycle[1] is cycle


def _check(case: Case, one: Any, reads: str, kind: str | None) -> None:
    assert (one.error.kind if one.error else None) == kind, (case, one.error)
    assert one.status.name == ("COMPLETED" if kind is None else "FAILED"), case
    assert kind is None or case.message in one.error.message, (case, one.error)
    assert read(one) == reads, case
    fired = Counter(hook["hook"] for hook in one.hooks if hook["ok"])
    assert fired == {"on_job_start": 1, "on_job_end": 1}, (case, one.hooks)


@pytest.mark.slow
def test_a_value_of_two_gibibytes_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is longer than 31 bits can count. It comes back complete, and is not in memory before it is read."""
    (tmp_path / "huge_app.py").write_text("def task(cfg):\n    return bytes(cfg.size)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    size = (1 << 31) + 1
    (one,) = launcher.multirun("huge_app:task", [{"size": size}], folder=tmp_path / "sweep")
    assert one.error is None
    assert len(one.return_value) == size


def test_the_page_is_generated_from_these_tests() -> None:
    """`python -m tests.outcomes` writes it."""
    assert PAGE.read_text(encoding="utf-8") == page()
