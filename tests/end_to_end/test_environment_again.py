"""A job that ran in an environment, once more: with the packages that it had, here and on its host."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher.cli.main import _main
from launcher.demo.server import DemoServer
from launcher.hosts.host_spec import HostSpec
from tests.hosts.openssh import OpenSshHost
from tests.packages import lock_project, make_project, make_wheel

TASK = "tests.environment_tasks:packages"


@pytest.fixture(params=["embedded", pytest.param("openssh", marks=pytest.mark.openssh)])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> HostSpec:
    """A host to which code is sent, and that has no environment yet."""
    if request.param == "embedded":
        server: DemoServer = request.getfixturevalue("demo_server")
        work = str(tmp_path / "workdir")
        return HostSpec(server.alias, server.alias, ssh_config=str(server.ssh_config), workdir=work)
    host: OpenSshHost = request.getfixturevalue("openssh_host")
    return dataclasses.replace(host.spec(), workdir=f"~/work-{tmp_path.name}")


@pytest.fixture
def hosts_file(spec: HostSpec, tmp_path: Path) -> str:
    """A hosts file with that host alone."""
    path = tmp_path / "hosts.json"
    said = {"address": spec.address, "ssh_config": spec.ssh_config, "workdir": spec.workdir}
    path.write_text(json.dumps({spec.name: said}))
    return str(path)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder of wheels: `greeter`, which needs `punct`."""
    folder = tmp_path / "index"
    make_wheel(folder, "greeter", requires=("punct",))
    make_wheel(folder, "punct", "2.0")
    return folder


@pytest.fixture
def command(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Any]:
    """Runs a command in this process; its exit code must be 0. Returns what it wrote: text, or an object of `--json`."""

    def run(*arguments: str) -> Any:
        capfdbinary.readouterr()
        code = _main(list(arguments))
        sys.stdout.flush()
        out, err = (data.decode() for data in capfdbinary.readouterr())
        assert code == 0, f"exit code {code}\n{out}\n{err}"
        return json.loads(out) if "--json" in arguments else out

    return run


@pytest.mark.slow
def test_the_lock_is_kept_with_the_run(
    spec: HostSpec, hosts_file: str, index: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    """The project's files and index have gone: `show` names the environment, and `reproduce --exact` makes the same one, there and here."""
    lock = lock_project(make_project(tmp_path / "project", index, ("greeter",)))
    out = str(tmp_path / "out")
    returned = launcher.run(TASK, {"modules": ["punct"]}, host=spec, folder=out, environment=str(lock))
    assert returned.error is None, returned.error
    told = returned.code["environment"]
    shutil.rmtree(lock.parent)
    assert f"environment: {told['key'][:12]} of {lock} ({told['lock'][:12]})" in command("show", f"{out}#0")
    (job,) = command("show", f"{out}#0", "--json")["jobs"]
    assert job["environment"] == {**told, "name": str(lock)}
    again = ("reproduce", f"{out}#0", "--exact", "--json")
    there = command(*again, "--hosts", hosts_file, "--folder", str(tmp_path / "there"))
    assert (there["environment"], there["environment_before"]) == (told["key"], told["key"])
    here = command(*again, "--folder", str(tmp_path / "here"))
    assert here["status"] == "COMPLETED"
    assert here["environment"]


@pytest.mark.slow
def test_what_requirements_were_resolved_to_is_kept(
    spec: HostSpec,
    hosts_file: str,
    index: Path,
    tmp_path: Path,
    command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The index has a newer version by now; a new run gets that, and the job again the one that it had."""
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(index))
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("punct\n")
    options = {"host": spec, "environment": str(requirements)}
    out = str(tmp_path / "out")
    first = launcher.run(TASK, {"modules": ["punct"]}, folder=out, **options)
    assert first.error is None, first.error
    make_wheel(index, "punct", "3.0")
    new = launcher.run(TASK, {"modules": ["punct"]}, folder=tmp_path / "new", **options)
    assert (first.return_value["punct"], new.return_value["punct"]) == ("2.0", "3.0")
    again = command(
        "reproduce", f"{out}#0", "--exact", "--json", "--hosts", hosts_file, "--folder", str(tmp_path / "again")
    )
    assert (again["is_same"], again["environment"]) == (True, first.code["environment"]["key"])


@pytest.mark.slow
def test_the_debugger_has_the_packages(
    spec: HostSpec, index: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    """With `--pdb --exact` the job runs here in an environment of them, though this Python has none of them."""
    lock = lock_project(make_project(tmp_path / "project", index, ("greeter",)))
    out = str(tmp_path / "out")
    returned = launcher.run(TASK, {"modules": ["punct"]}, host=spec, folder=out, environment=str(lock))
    assert returned.error is None, returned.error
    again = command("reproduce", f"{out}#0", "--exact", "--pdb", "--json", "--folder", str(tmp_path / "again"))
    assert again["status"] == "COMPLETED"
    assert again["environment"]


@pytest.mark.slow
def test_a_run_that_is_taken_up_takes_further_jobs(spec: HostSpec, index: Path, tmp_path: Path) -> None:
    """In the environment that it had, though the project has another lock and the index a newer version by now."""
    project = make_project(tmp_path / "project", index, ("greeter",))
    lock = lock_project(project)
    gate = f"/tmp/gate-{tmp_path.name}-{os.getpid()}"
    hosts = [dataclasses.replace(spec, slots=2)]
    with launcher.Session.open(hosts=hosts, environment=str(lock), folder=tmp_path / "out") as session:
        first = session.submit(TASK, {"modules": ["punct"]}).job_return()
        session.submit("tests.executor_tasks:waits", gate)
        assert session.detach() == 0
    make_wheel(index, "punct", "3.0")
    lock.unlink()
    lock_project(project)
    try:
        with launcher.Session.resume(tmp_path / "out") as session:
            further = session.submit("tests.environment_tasks:touch", gate).job_return()
            assert further.return_value == {"punct": "2.0"}
            assert further.code["environment"] == first.code["environment"]
        assert [returned.status.name for returned in session.returns] == ["COMPLETED"] * 3
    finally:
        for file in (gate, f"{gate}.began"):
            Path(file).unlink(missing_ok=True)
