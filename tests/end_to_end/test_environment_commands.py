"""The commands about environments: `environments`, `prepare`, `doctor`, `clean`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
from pathlib import Path

import pytest

import launcher
from launcher import doctor, events
from launcher.demo.server import DemoServer
from launcher.errors import AgentError, RunInterrupted
from launcher.hosts.host_spec import HostSpec
from launcher.options import LaunchConf
from launcher.preparation import build_environments, locks_for
from launcher.runs import index
from tests.commands import Cli
from tests.controllers import wait_agents_ended
from tests.file_server import running_file_server
from tests.packages import lock_project, make_project, make_wheel

TASK = "tests.environment_tasks:versions"


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    """The command `launcher`."""
    return Cli(capfdbinary)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A locked project that needs `greeter`, which needs `punct`."""
    index = tmp_path / "index"
    make_wheel(index, "greeter", requires=("punct",))
    make_wheel(index, "punct", "2.0")
    folder = make_project(tmp_path / "project", index, ("greeter",))
    lock_project(folder)
    return folder


@pytest.fixture
def spec(any_host: HostSpec, tmp_path: Path) -> HostSpec:
    """A host that has no environment yet."""
    workdir = tmp_path / "workdir" if any_host.address != "openssh-host" else f"~/work-{tmp_path.name}"
    return dataclasses.replace(any_host, workdir=str(workdir))


@pytest.fixture
def hosts_file(spec: HostSpec, tmp_path: Path) -> str:
    """A hosts file with that host alone."""
    said = {"address": spec.address, "workdir": spec.workdir, "ssh_config": spec.ssh_config}
    path = tmp_path / "hosts.yaml"
    path.write_text(json.dumps({spec.name: {name: value for name, value in said.items() if value}}))
    return str(path)


@pytest.mark.slow
def test_environments_lists_what_a_host_has(
    spec: HostSpec,
    hosts_file: str,
    project: Path,
    tmp_path: Path,
    cli: Cli,
) -> None:
    """Key, packages, sizes, age and last use of each; a key that no host has is an error that says so."""
    assert "no environment" in cli("environments", "--hosts", hosts_file)
    returned = launcher.run(
        TASK, {"modules": ["greeter"]}, host=spec, folder=tmp_path / "out", environment=str(project / "uv.lock")
    )
    assert returned.error is None, returned.error
    key = returned.code["environment"]["key"]
    (host,) = cli.json("environments", "--hosts", hosts_file)["hosts"]
    (item,) = host["environments"]
    assert (item["key"], item["state"], item["users"]) == (key, "ready", [])
    assert item["lock"] == returned.code["environment"]["lock"]
    assert item["packages"] == [["greeter", "1.0"], ["punct", "2.0"]]
    assert item["shared"] > 0
    brief = cli("environments", "--hosts", hosts_file)
    assert f"{key[:12]}  2 packages" in brief
    assert "punct" not in brief
    assert "punct 2.0" in cli("environments", "--hosts", hosts_file, "--verbose")
    assert "punct 2.0" in cli("environments", "--hosts", hosts_file, "--key", key[:8])
    cli("environments", "--hosts", hosts_file, "--key", "0" * 64, code=1)
    assert "begins with 0000" in cli.err


@pytest.mark.slow
def test_environments_names_the_run_that_uses_one(project: Path, tmp_path: Path, cli: Cli) -> None:
    """While it lasts, and not after it."""
    workdir = str(tmp_path / "workdir")
    host = HostSpec("local", "local", workdir=workdir)
    with launcher.Session.open(hosts=[host], environment=str(project / "uv.lock"), folder=tmp_path / "out") as session:
        session.submit(TASK, {"modules": ["greeter"]}).result()
        (told,) = cli.json("environments", "local", "--workdir", workdir)["hosts"]
        assert told["environments"][0]["users"] == [session.run_id]
        assert session.run_id in cli("environments", "local", "--workdir", workdir)
    (told,) = cli.json("environments", "local", "--workdir", workdir)["hosts"]
    assert told["environments"][0]["users"] == []


def test_environments_says_what_is_wrong(cli: Cli) -> None:
    """A key that is none, and a host that cannot be reached."""
    cli("environments", "local", "--key", "xyz", code=2)
    assert "'xyz'" in cli.err
    assert "127.0.0.1" in cli("environments", "127.0.0.1:1", code=1)
    assert "no host could be reached" in cli.err


@pytest.mark.slow
def test_prepare_builds_and_runs_nothing(
    spec: HostSpec,
    hosts_file: str,
    project: Path,
    tmp_path: Path,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The environment is there before the first run, which finds it; a second call says that it is there."""
    monkeypatch.chdir(project)
    runs_before = index.entries()
    said = cli("prepare", "--hosts", hosts_file)
    assert f"{spec.name}: environment " in said
    assert "is built" in said
    assert "run " not in said
    assert index.entries() == runs_before
    told = cli.json("prepare", "--hosts", hosts_file)
    assert told["exit_code"] == 0
    (host,) = told["hosts"]
    environment = host["environment"]
    assert (environment["is_new"], host["error"]) == (False, None)
    assert [step["state"] for step in environment["steps"]] == ["resolving", "ready"]
    assert "is there already" in cli("prepare", "--hosts", hosts_file)
    (listed,) = cli.json("environments", "--hosts", hosts_file)["hosts"]
    assert [item["key"] for item in listed["environments"]] == [environment["key"]]
    seen: list[events.Event] = []
    returned = launcher.run(
        TASK,
        {"modules": ["greeter"]},
        host=spec,
        folder=tmp_path / "out",
        environment=str(project / "uv.lock"),
        observers=[seen.append],
    )
    assert returned.error is None, returned.error
    (ready,) = [event for event in seen if isinstance(event, events.EnvironmentReady)]
    assert (ready.key, ready.is_new) == (environment["key"], False)


@pytest.mark.slow
def test_prepare_tells_how_each_host_came_to_it(
    project: Path, tmp_path: Path, cli: Cli, demo_server: DemoServer
) -> None:
    """With `--json`: each step with its bytes; a host where it cannot be had has phase, reason and next step, and the exit code is 3."""
    lock = str(project / "uv.lock")
    hosts = {
        "good": {"address": "local", "workdir": str(tmp_path / "workdir")},
        "bad": {
            "address": demo_server.alias,
            "ssh_config": str(demo_server.ssh_config),
            "workdir": str(tmp_path / "other"),
            "python": "/no/such/python",
        },
        "none": {"address": "127.0.0.1", "port": 1, "environment": "none"},
    }
    file = tmp_path / "hosts.json"
    file.write_text(json.dumps(hosts))
    told = cli.json("prepare", "--hosts", str(file), "--environment", lock, code=3)
    good, bad, without = told["hosts"]
    assert [one["host"] for one in told["hosts"]] == ["good", "bad", "none"]
    steps = {step["state"]: step for step in good["environment"]["steps"]}
    assert list(steps) == ["resolving", "sending", "building", "ready"]
    assert good["environment"]["is_new"]
    assert steps["sending"]["bytes_before"] == 0
    assert steps["building"]["bytes"] == good["environment"]["bytes"] > 0
    assert bad["error"]["phase"] == "environment"
    assert "'/no/such/python' is not there" in bad["error"]["why"]
    assert "python" in bad["error"]["next_step"]
    assert (without["environment"], without["error"]) == (None, None)
    said = cli("prepare", "--hosts", str(file), "--environment", lock, code=3)
    assert "none: gets none" in said
    assert "bad: FAILED: environment: " in said


def test_prepare_refuses_what_describes_no_packages(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a lock, a file that is none, and no host that gets an environment."""
    monkeypatch.chdir(tmp_path)
    cli("prepare", "local", code=2)
    assert f"no uv.lock, pylock.toml or requirements.txt in {tmp_path}" in cli.err
    cli("prepare", "local", "--environment", "gone.lock", code=2)
    assert "gone.lock" in cli.err
    cli("prepare", "local", "--environment", "none", code=2)
    assert "--environment auto" in cli.err


@pytest.mark.slow
def test_prepare_that_is_interrupted_leaves_nothing_half_built(project: Path, tmp_path: Path) -> None:
    """The next call builds it."""
    spec = HostSpec("local", "local", workdir=str(tmp_path / "workdir"))
    options = LaunchConf(environment=str(project / "uv.lock"))
    locks = locks_for([spec], options, project)

    def interrupt(event: events.Event) -> None:
        if isinstance(event, events.EnvironmentChanged) and event.state == "building":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(RunInterrupted):
        build_environments([spec], options, locks, [interrupt])
    wait_agents_ended(tmp_path / "workdir" / "state")
    envs = tmp_path / "workdir" / "cache" / "envs"
    assert [path.name for path in envs.iterdir() if path.name.startswith((".part.", ".lock."))] == []
    (done,) = build_environments([spec], options, locks)
    assert done.key


@pytest.mark.slow
def test_doctor_says_what_would_be_built_and_builds_nothing(
    spec: HostSpec, hosts_file: str, project: Path, cli: Cli
) -> None:
    """Lock, Python, and what would be sent; when it is there, the check of the jobs' Python runs in it."""
    lock = str(project / "uv.lock")
    arguments = ("doctor", "--hosts", hosts_file, "--environment", lock)
    (told,) = cli.json(*arguments)["hosts"]
    steps = {step["name"]: step for step in told["steps"]}
    assert told["is_usable"]
    assert steps["packages"]["outcome"] == "ok"
    assert f"2 of {lock} for Python 3." in steps["packages"]["detail"]
    assert "would send 3 of 3 files" in steps["packages"]["detail"]
    assert "no environment" in cli("environments", "--hosts", hosts_file)
    cli("prepare", "--hosts", hosts_file, "--environment", lock)
    (told,) = cli.json(*arguments)["hosts"]
    steps = {step["name"]: step for step in told["steps"]}
    assert steps["packages"]["detail"].endswith("it is there")
    assert "/envs/" in steps["environment"]["detail"]


@pytest.mark.slow
def test_doctor_and_prepare_know_what_a_host_may_fetch(tmp_path: Path, cli: Cli) -> None:
    """How much it may, before; how much it did, then."""
    wheel = make_wheel(tmp_path / "index", "away", files={"away.py": f"version = '1.0'  # {tmp_path}\n"})
    sha256, size = hashlib.sha256(wheel.read_bytes()).hexdigest(), wheel.stat().st_size
    with running_file_server() as server:
        server.files[f"/{wheel.name}"] = wheel.read_bytes()
        lock = tmp_path / "pylock.toml"
        lock.write_text(
            'lock-version = "1.0"\ncreated-by = "t"\n[[packages]]\nname = "away"\nversion = "1.0"\n'
            f'wheels = [{{url = "{server.address}/{wheel.name}", size = {size}, hashes = {{sha256 = "{sha256}"}}}}]\n'
        )
        hosts = tmp_path / "hosts.yaml"
        hosts.write_text(f'local: {{workdir: {tmp_path / "workdir"}, downloads: ["{server.address}"]}}\n')
        arguments = ("--hosts", str(hosts), "--environment", str(lock))
        (told,) = cli.json("doctor", *arguments)["hosts"]
        steps = {step["name"]: step for step in told["steps"]}
        assert f"the host may fetch 1 file ({size} B) itself" in steps["packages"]["detail"]
        assert not server.asked
        (told,) = cli.json("prepare", *arguments)["hosts"]
        assert told["environment"]["fetched"] == size
        assert len(server.asked) == 1


@pytest.mark.slow
def test_doctor_of_a_hosts_file_with_environments(project: Path, tmp_path: Path, cli: Cli) -> None:
    """A lock that does not fit is a step that failed, with what to do; the host of the file names it itself."""
    lock = project / "uv.lock"
    for file in (lock, project / "pyproject.toml"):
        file.write_text(file.read_text().replace(">=3.8", ">=3.99"))
    hosts = tmp_path / "hosts.json"
    said = {"address": "local", "workdir": str(tmp_path / "workdir"), "environment": str(lock)}
    hosts.write_text(json.dumps({"here": said}))
    (told,) = cli.json("doctor", "--hosts", str(hosts), code=3)["hosts"]
    last = told["steps"][-1]
    assert (last["name"], last["outcome"]) == ("packages", "failed")
    assert ">=3.99" in last["detail"]
    assert "install a Python" in last["next_step"]


def test_doctor_refuses_what_describes_no_packages(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any host is asked."""
    monkeypatch.chdir(tmp_path)
    cli("doctor", "127.0.0.1:1", "--environment", "auto", code=2)
    assert "found no uv.lock" in cli.err
    cli("doctor", "127.0.0.1:1", "--extra", "fast", code=2)
    assert "choose one with `environment`" in cli.err


def test_an_answer_that_no_agent_of_ours_gives() -> None:
    """What a host says of an environment is checked: a number that is none names the host."""
    with pytest.raises(AgentError, match=r"^gpu1: .*cannot be read"):
        doctor._number("gpu1", {"files": "many"}, "files")
    with pytest.raises(AgentError, match=r"^gpu1: .*cannot be read"):
        doctor._number("gpu1", {"files": True}, "files")


@pytest.mark.slow
def test_old_environments_make_room_for_a_new_one(spec: HostSpec, project: Path, tmp_path: Path) -> None:
    """The one that no job uses any more goes, and the run says so; one in use stays."""
    index = project.parent / "index"
    locks = [project / "uv.lock"]
    for name in ("second", "third"):
        make_wheel(index, name)
        locks.append(lock_project(make_project(tmp_path / name, index, (name,))))

    def notes_of(lock: Path, module: str, folder: str) -> list[str]:
        seen: list[events.Event] = []
        returned = launcher.run(
            TASK,
            {"modules": [module]},
            host=spec,
            folder=tmp_path / folder,
            environment=str(lock),
            environments_budget="1",
            observers=[seen.append],
        )
        assert returned.error is None, returned.error
        said = [event.message for event in seen if isinstance(event, events.Note)]
        return [message for message in said if "environment" in message]

    assert notes_of(locks[0], "greeter", "1") == []
    (note,) = notes_of(locks[1], "second", "2")
    assert note.startswith("an old environment was removed")
    with launcher.Session.open(hosts=[spec], environment=str(locks[1]), folder=tmp_path / "open") as session:
        session.submit(TASK, {"modules": ["second"]}).result()
        assert notes_of(locks[2], "third", "3") == []
        assert session.submit(TASK, {"modules": ["second"]}).result()["second"] == "1.0"


@pytest.mark.slow
def test_clean_removes_an_environment_while_others_run(project: Path, tmp_path: Path, cli: Cli) -> None:
    """The one that is in use stays, and it is said of which run; the other goes."""
    index = project.parent / "index"
    make_wheel(index, "second")
    other = lock_project(make_project(tmp_path / "second", index, ("second",)))
    spec = HostSpec("local", "local", workdir=str(tmp_path / "workdir"))
    options = LaunchConf(environment=str(other))
    (old,) = build_environments([spec], options, locks_for([spec], options, project))
    with launcher.Session.open(hosts=[spec], environment=str(project / "uv.lock"), folder=tmp_path / "out") as session:
        session.submit(TASK, {"modules": ["greeter"]}).result()
        arguments = ("clean", "--host", "local", "--workdir", str(spec.workdir), "--older-than", "0", "--yes")
        (told,) = cli.json(*arguments)["hosts"]
        assert f"environment/{old.key}" in told["removed"]
        reasons = {one["id"]: one["why"] for one in told["kept"]}
        (kept,) = [item for item in reasons if item.startswith("environment/")]
        assert session.run_id in reasons[kept]
        assert session.submit(TASK, {"modules": ["greeter"]}).result()["greeter"] == "1.0"
