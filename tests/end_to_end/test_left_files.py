"""What a job writes beside its code: its user is told, it stays on the host, and no later run gets it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher import events
from launcher.cli.main import _main
from launcher.hosts.host_spec import HostSpec
from tests.hosts.openssh import OpenSshHost
from tests.hosts.slurm import running_cluster
from tests.remote_agent.agents import wait_until

APP = """
import pathlib


def writes(cfg):
    pathlib.Path("data.txt").write_text("changed by {}".format(cfg.num))
    pathlib.Path("helper.py").write_text("VALUE = 'written'")
    pathlib.Path("result-{}".format(cfg.num)).write_text(str(cfg.num))


def reads(cfg):
    import helper
    return [pathlib.Path("data.txt").read_text(), helper.VALUE, sorted(one.name for one in pathlib.Path(".").glob("result*"))]
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The application of a project."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "leaving_app.py").write_text(APP)
    (project / "helper.py").write_text("VALUE = 'sent'")
    (project / "data.txt").write_text("sent")
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))
    yield importlib.import_module("leaving_app")
    sys.modules.pop("leaving_app", None)


def _leave(app: Any, host: HostSpec, folder: Path, jobs: int) -> list[events.Warned]:
    """Run jobs that write beside their code. Returns what the user is told of it."""
    seen: list[events.Event] = []
    with launcher.Session.open(hosts=[host], folder=folder, observers=[seen.append]) as session:
        for num in range(jobs):
            session.submit(app.writes, {"num": num}).result()
    return [event for event in seen if isinstance(event, events.Warned)]


@pytest.mark.parametrize("kind", ["embedded", pytest.param("openssh", marks=pytest.mark.openssh)])
def test_the_user_is_told_and_the_next_run_gets_the_code_that_was_sent(
    app: Any, kind: str, host_of: Callable[[str], HostSpec], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once for the first files, and not with every job. `launcher show` says it, too."""
    (told,) = _leave(app, host_of(kind), tmp_path / "out", 3)
    for word in ("3 files", "data.txt", "helper.py", "result-0", told.host, "launcher clean", "output_dir", "chdir"):
        assert word in told.message
    folder = told.message.partition("over: in ")[2].partition(" on ")[0]
    if kind == "embedded":
        # The agent removes its spool when the controller is gone.
        wait_until(Path(folder).is_dir, "the files to be all that is left of the run")
        kept = {path.name: path.read_text() for path in Path(folder).iterdir()}
        assert sorted(kept) == ["data.txt", "helper.py", "result-0", "result-1", "result-2"]
        assert kept["data.txt"] == "changed by 2"
        assert [path.name for path in Path(folder).parent.iterdir()] == ["left"]
    assert _main(["show", str(tmp_path / "out")]) == 0
    assert folder in capsys.readouterr().out
    (found,) = launcher.multirun(app.reads, [{}], hosts=[host_of(kind)], folder=tmp_path / "next")
    assert found.return_value == ["sent", "sent", []]
    assert not (tmp_path / "project" / "result-0").exists()


def test_here_nothing_is_lost(app: Any, tmp_path: Path) -> None:
    """The code is in place, so the files are where the user expects them, and nothing is said."""
    assert _leave(app, HostSpec("local", "local"), tmp_path / "out", 1) == []
    assert (tmp_path / "project" / "result-0").read_text() == "0"


@pytest.mark.openssh
@pytest.mark.parametrize("isolation", ["fork", "spawn", "reuse"])
def test_whatever_process_the_job_has(app: Any, isolation: str, openssh_host: OpenSshHost, tmp_path: Path) -> None:
    """On a host that shares no disk, its files are still there after the run, where the warning says, until `launcher clean`."""
    seen: list[events.Event] = []
    launcher.multirun(
        app.writes,
        [{"num": num} for num in range(2)],
        hosts=[openssh_host.spec()],
        folder=tmp_path / "out",
        isolation=isolation,
        observers=[seen.append],
    )
    told = next(event for event in seen if isinstance(event, events.Warned))
    folder = told.message.partition("over: in ")[2].partition(" on ")[0]

    def found() -> list[str]:
        """What is there; empty before the agent has ended."""
        return openssh_host.run(f"ls {folder} && cat {folder}/result-1").stdout.split()

    assert wait_until(found, "the files") == ["data.txt", "helper.py", "result-0", "result-1", "1"]


@pytest.mark.slurm
@pytest.mark.timeout(900)
def test_on_a_cluster_they_stay_on_its_disk(app: Any, tmp_path: Path) -> None:
    """Jobs run on nodes, and the login node looks at the disk that all share."""
    with running_cluster(tmp_path / "login") as cluster:
        (told,) = _leave(app, cluster.login.spec(slurm={}), tmp_path / "out", 1)
        folder = told.message.partition("over: in ")[2].partition(" on ")[0]

        def found() -> list[str]:
            """What is there; empty before the run's folder is gone."""
            return cluster.login.run(f"ls {folder} && cat {folder}/result-0").stdout.split()

        assert wait_until(found, "the files") == ["data.txt", "helper.py", "result-0", "0"]
        assert cluster.login.run(f"ls {folder}/..").stdout.split() == ["left"]
