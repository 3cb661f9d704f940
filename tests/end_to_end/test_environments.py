"""A host that has none of a project's packages runs its jobs: the environment comes along."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher import events
from launcher.environments.lock import read_lock
from launcher.environments.source import Source
from launcher.environments.uv import run_uv
from launcher.environments.wheels import WheelCache
from launcher.errors import PackagesError
from launcher.hosts.host_spec import HostSpec
from launcher.setup.from_journal import load_setup
from tests.controllers import wait_agents_ended
from tests.packages import guarded_index, lock_project, make_project, make_sdist, make_wheel
from tests.remote_agent.agent.environments.sites import Lives

TASK = "tests.environment_tasks:versions"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder of wheels: `greeter`, which needs `punct`."""
    folder = tmp_path / "index"
    make_wheel(folder, "greeter", requires=("punct",))
    make_wheel(folder, "punct", "2.0")
    return folder


@pytest.fixture
def project(index: Path, tmp_path: Path) -> Path:
    """A locked project that needs `greeter`."""
    folder = make_project(tmp_path / "project", index, ("greeter",))
    lock_project(folder)
    return folder


@pytest.fixture
def spec(any_host: HostSpec, tmp_path: Path) -> HostSpec:
    """A host that has no environment yet."""
    workdir = tmp_path / "workdir" if any_host.address != "openssh-host" else f"~/work-{tmp_path.name}"
    return dataclasses.replace(any_host, workdir=str(workdir))


def run(spec: HostSpec, folder: Path, *modules: str, **options: Any) -> tuple[launcher.JobReturn, list[events.Event]]:
    """One job that imports these modules."""
    seen: list[events.Event] = []
    returned = launcher.run(
        TASK, {"modules": list(modules)}, host=spec, folder=folder, observers=[seen.append], **options
    )
    return returned, seen


def ready(seen: list[events.Event]) -> list[events.EnvironmentReady]:
    """What was said of environments that are there."""
    return [event for event in seen if isinstance(event, events.EnvironmentReady)]


@pytest.mark.slow
def test_the_packages_of_a_lock_are_there(spec: HostSpec, project: Path, tmp_path: Path) -> None:
    """The job imports what the lock has, in an environment that is built once: the second run finds it."""
    lock = str(project / "uv.lock")
    returned, seen = run(spec, tmp_path / "first", "greeter", "punct", environment=lock)
    assert returned.error is None, returned.error
    (first,) = ready(seen)
    assert returned.return_value["greeter"] == "1.0"
    assert returned.return_value["punct"] == "2.0"
    assert returned.return_value["prefix"].endswith(f"/envs/{first.key}")
    assert returned.code["environment"]["key"] == first.key
    assert first.is_new
    states = {event.state for event in seen if isinstance(event, events.EnvironmentChanged)}
    assert {"resolving", "sending", "building"} <= states
    again, seen = run(spec, tmp_path / "second", "greeter", environment=lock)
    assert again.error is None, again.error
    (second,) = ready(seen)
    assert (second.key, second.is_new) == (first.key, False)


@pytest.mark.slow
def test_a_later_run_starts_the_python_of_its_environment_ahead(project: Path, tmp_path: Path) -> None:
    """As a run without an environment does with its Python; not where the environment is built again meanwhile."""
    workdir = tmp_path / "workdir"
    spec = HostSpec("local", "local", workdir=str(workdir))
    told = []
    for number in range(4):
        if number == 2:
            (envs,) = (workdir / "cache" / "envs").glob("[0-9a-f]*")
            (envs / "environment.json").unlink()
        returned = launcher.run(
            "tests.environment_tasks:zygote",
            {},
            host=spec,
            folder=tmp_path / f"{number}",
            environment=str(project / "uv.lock"),
        )
        assert returned.error is None, returned.error
        told.append(returned.return_value)
    assert ["spare" in one for one in told] == [False, True, False, True]
    assert len({(python, active) for python, *_, active in told}) == 1
    assert told[0][-1] == str(envs)


@pytest.mark.slow
def test_without_the_option_nothing_changes(spec: HostSpec, project: Path, tmp_path: Path) -> None:
    """No environment is made, and the module is missing, as it was."""
    returned, seen = run(spec, tmp_path / "out", "greeter")
    assert returned.error is not None
    assert returned.error.type == "ModuleNotFoundError"
    assert not ready(seen)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["requirements", "pylock", "script", "sdist"])
def test_other_sources(kind: str, spec: HostSpec, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requirements, a pylock.toml and a script's block are sources, too; an sdist becomes a wheel here."""
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(index))
    folder = tmp_path / "source"
    folder.mkdir()
    if kind == "sdist":
        (index / "punct-2.0-py3-none-any.whl").unlink()
        make_sdist(index, "punct", "2.0")
    if kind in ("requirements", "sdist"):
        source = folder / "requirements.txt"
        source.write_text("greeter\n")
    elif kind == "script":
        source = folder / "app.py"
        source.write_text('# /// script\n# requires-python = ">=3.8"\n# dependencies = ["greeter"]\n# ///\n')
    else:
        (folder / "requirements.in").write_text("greeter\n")
        source = folder / "pylock.toml"
        source.write_text(
            run_uv(
                "test",
                ["pip", "compile", "-q", "--python-version", "3.8", "--format", "pylock.toml", "requirements.in"],
                cwd=folder,
            )
        )
    returned, _ = run(spec, tmp_path / "out", "greeter", "punct", environment=str(source))
    assert returned.error is None, returned.error
    assert returned.return_value["punct"] == "2.0"


@pytest.mark.slow
def test_extras_are_a_hosts_own(spec: HostSpec, index: Path, tmp_path: Path) -> None:
    """A host has the extras that it names, besides those of the run."""
    make_wheel(index, "fast", "3.0")
    more = '[project.optional-dependencies]\nquick = ["fast"]\n'
    folder = make_project(tmp_path / "project", index, ("greeter",), more=more)
    lock = str(lock_project(folder))
    fast = dataclasses.replace(spec, extras=("quick",))
    returned, _ = run(fast, tmp_path / "out", "greeter", "fast", environment=lock)
    assert returned.error is None, returned.error
    without, _ = run(spec, tmp_path / "without", "fast", environment=lock)
    assert without.error is not None
    assert "No module named 'fast'" in without.error.message


@pytest.mark.slow
def test_a_lock_for_another_platform(spec: HostSpec, index: Path, tmp_path: Path) -> None:
    """The host cannot be used, and it is said why: phase, package, and what to do."""
    make_wheel(index, "winner", "1.0", tag="cp311-cp311-win_amd64")
    folder = make_project(tmp_path / "project", index, ("winner",))
    returned, seen = run(spec, tmp_path / "out", "winner", environment=str(lock_project(folder)))
    (unusable,) = [event for event in seen if isinstance(event, events.HostUnusable)]
    assert (unusable.host, unusable.phase) == (spec.name, "environment")
    assert "winner" in unusable.why
    assert "uv lock" in unusable.next_step
    assert returned.error is not None
    assert returned.error.kind == "host"


@pytest.mark.slow
def test_a_python_that_does_not_fit(spec: HostSpec, index: Path, tmp_path: Path) -> None:
    """A lock for a Python that no host has names those that there are."""
    folder = make_project(tmp_path / "project", index, ("greeter",), python=">=3.8")
    lock = lock_project(folder)
    lock.write_text(lock.read_text().replace(">=3.8", ">=3.99"))
    (folder / "pyproject.toml").write_text((folder / "pyproject.toml").read_text().replace(">=3.8", ">=3.99"))
    returned, seen = run(spec, tmp_path / "out", "greeter", environment=str(lock))
    (unusable,) = [event for event in seen if isinstance(event, events.HostUnusable)]
    assert ">=3.99" in unusable.why
    assert "python" in unusable.next_step
    assert returned.error is not None


def test_what_is_wrong_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """A file that is not there, and one that is no source."""
    for name in ("gone.lock", "pyproject.toml"):
        (tmp_path / "pyproject.toml").write_text("")
        with pytest.raises(PackagesError, match=name):
            run(HostSpec("local", "local"), tmp_path / "out", environment=str(tmp_path / name))


@pytest.mark.slow
def test_a_wheel_that_is_not_what_the_lock_says(spec: HostSpec, project: Path, index: Path, tmp_path: Path) -> None:
    """It is refused by name here, and nothing of it reaches a host."""
    # Of a content that nobody has fetched before.
    wheel = make_wheel(index, "punct", "2.0", {"punct.py": f"version = '2.0'  # {tmp_path}\n"})
    lock = lock_project(project)
    read_lock(Source("uv", lock), (), ())
    data = bytearray(wheel.read_bytes())
    data[40] ^= 1
    wheel.write_bytes(data)
    returned, seen = run(spec, tmp_path / "out", "greeter", environment=str(lock))
    (unusable,) = [event for event in seen if isinstance(event, events.HostUnusable)]
    assert "punct-2.0-py3-none-any.whl has the sha256" in unusable.why
    assert returned.error is not None


@pytest.mark.slow
def test_a_wheel_that_was_altered_in_the_cache_here(spec: HostSpec, project: Path, index: Path, tmp_path: Path) -> None:
    """The host does not take it; it is fetched again, and the run goes on."""
    wheel = make_wheel(index, "punct", "2.0", {"punct.py": f"version = '2.0'  # {tmp_path} altered\n"})
    data = wheel.read_bytes()
    kept = WheelCache({}).path(hashlib.sha256(data).hexdigest())
    lock = str(lock_project(project))
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    returned, _ = run(spec, tmp_path / "out", "punct", environment=lock)
    assert returned.error is None, returned.error
    assert kept.read_bytes() == data


@pytest.mark.slow
def test_a_run_that_is_taken_up_has_the_packages_that_it_had(project: Path, tmp_path: Path) -> None:
    """The journal has them, also of a session, whose first job brings them: the project's files may have gone."""
    lock = read_lock(Source("uv", project / "uv.lock"), (), ())
    spec = HostSpec("local", "local", workdir=str(tmp_path / "workdir"))
    with launcher.Session.open(hosts=[spec], environment=lock.name, folder=tmp_path / "out") as session:
        session.submit(TASK, {"modules": ["greeter"]}).result()
    for name in ("uv.lock", "pyproject.toml"):
        (project / name).unlink()
    setup, _ = load_setup(tmp_path / "out")
    assert setup.locks == {"local": lock}
    assert setup.with_code().locks == {"local": lock}


@pytest.mark.slow
def test_many_runs_at_once_build_it_once(project: Path, tmp_path: Path) -> None:
    """One is sent the files and builds; the others wait, and use what it built."""
    workdir = tmp_path / "workdir"
    command = [sys.executable, "-c", MANY, str(project / "uv.lock"), str(workdir), str(tmp_path)]
    runs = [subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, text=True) for number in range(4)]
    said = [json.loads(run.communicate()[0].splitlines()[-1]) for run in runs]
    assert len({one["key"] for one in said}) == 1
    assert [one["error"] for one in said] == [None] * 4
    wait_agents_ended(workdir / "state")
    assert len([path for path in (workdir / "cache" / "envs").iterdir() if not path.name.startswith(".")]) == 1
    assert sum("building" in one["states"] for one in said) == 1


MANY = """
import json, sys
import launcher
from launcher import events
lock, workdir, folder, number = sys.argv[1:]
seen = []
host = {"name": "local", "address": "local", "workdir": workdir}
returned = launcher.run(
    "tests.environment_tasks:versions", {"modules": ["greeter"]}, host=host, environment=lock,
    folder=f"{folder}/out{number}", observers=[seen.append],
)
ready = [one for one in seen if isinstance(one, events.EnvironmentReady)]
states = [one.state for one in seen if isinstance(one, events.EnvironmentChanged)]
error = returned.error and returned.error.message
print(json.dumps({"key": ready[0].key if ready else None, "states": states, "error": error}))
"""


@pytest.mark.slow
def test_an_agent_that_is_killed_while_it_builds_leaves_nothing_half_done(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next link starts another agent, which takes the lock of the dead one and builds it."""
    workdir = tmp_path / "workdir"
    spec = HostSpec("local", "local", workdir=str(workdir))
    killed: list[int] = []

    def kill(event: events.Event) -> None:
        if isinstance(event, events.EnvironmentChanged) and event.state == "building" and not killed:
            (lock,) = (workdir / "cache" / "envs").glob(".lock.*")
            killed.append(json.loads(lock.read_text())["pid"])
            os.kill(killed[0], signal.SIGKILL)

    returned = launcher.run(
        TASK,
        {"modules": ["greeter"]},
        host=spec,
        folder=tmp_path / "out",
        environment=str(project / "uv.lock"),
        observers=[kill],
    )
    assert killed
    assert returned.error is None, returned.error
    wait_agents_ended(workdir / "state")
    left = [path.name for path in (workdir / "cache" / "envs").iterdir()]
    assert not [name for name in left if name.startswith((".lock.", ".part."))], left


@pytest.mark.slow
def test_no_credential_reaches_a_host(spec: HostSpec, index: Path, tmp_path: Path) -> None:
    """An index that wants one is asked from here alone: nothing that the host has holds its address or the password."""
    workdir = tmp_path / "seen"
    local = HostSpec("local", "local", workdir=str(workdir))
    secret = f"s3cret{tmp_path.name}".replace("_", "")
    wheel = make_wheel(index, "hidden", files={"hidden.py": f"version = '1.0'  # {tmp_path.name}\n"})
    with guarded_index(wheel, f"me:{secret}") as (address, asked):
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        lock = tmp_path / "pylock.toml"
        lock.write_text(
            'lock-version = "1.0"\ncreated-by = "t"\n[[packages]]\nname = "hidden"\nversion = "1.0"\n'
            f'wheels = [{{url = "{address.replace("//", f"//me:{secret}@")}", hashes = {{sha256 = "{sha256}"}}}}]\n'
        )
        returned, _ = run(local, tmp_path / "out", "hidden", environment=str(lock))
    assert returned.error is None, returned.error
    assert asked
    host = address.split("/")[2].encode()
    wait_agents_ended(workdir / "state")
    files = [path for path in workdir.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 10
    # The snapshot of this project, in the run's spool, is gone with the run.
    assert [path for path in files if secret.encode() in (data := path.read_bytes()) or host in data] == []


def hanging_line(lives: Lives) -> str:
    """A line of Python that never ends."""
    return f"import os, time; os.write(os.open({str(lives.path)!r}, os.O_WRONLY), b'begun\\n'); time.sleep(600)"


def hanging_wheel(index: Path, lives: Lives) -> None:
    """A wheel of a package that keeps every Python that has it from starting."""
    make_wheel(index, "stopper", files={"stopper.py": "version = '1.0'\n", "stopper.pth": hanging_line(lives) + "\n"})


@pytest.mark.slow
@pytest.mark.parametrize("where", ["here", "there"])
def test_a_step_that_hangs_ends_with_a_message(where: str, index: Path, tmp_path: Path) -> None:
    """An sdist that is built here, and the Python that was made there: host, phase and next step; nothing of it is left."""
    lives = Lives(tmp_path / "lives")
    if where == "here":
        make_sdist(index, "stopper", before=hanging_line(lives))
    else:
        hanging_wheel(index, lives)
    lock = lock_project(make_project(tmp_path / "project", index, ("stopper",)))
    spec = HostSpec("local", "local", workdir=str(tmp_path / "workdir"))
    returned, seen = run(spec, tmp_path / "out", "stopper", environment=str(lock), environment_timeout=15)
    lives.wait_ended()
    (unusable,) = [event for event in seen if isinstance(event, events.HostUnusable)]
    assert (unusable.host, unusable.phase) == ("local", "environment")
    assert ("`uv build` did not end" if where == "here" else "python -I` did not end") in unusable.why
    assert "environment_timeout" in unusable.next_step
    assert returned.error is not None
    assert returned.error.kind == "host"
    wait_agents_ended(tmp_path / "workdir" / "state")
    left = [path.name for path in (tmp_path / "workdir" / "cache" / "envs").iterdir()]
    assert not [name for name in left if name != ".use"]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["here", "there"])
def test_ctrl_c_ends_what_hangs(where: str, index: Path, tmp_path: Path) -> None:
    """The run ends, and no process of it is left, neither here nor on the host."""
    lives = Lives(tmp_path / "lives")
    if where == "here":
        make_sdist(index, "stopper", before=hanging_line(lives))
    else:
        hanging_wheel(index, lives)
    lock = lock_project(make_project(tmp_path / "project", index, ("stopper",)))
    command = [sys.executable, "-c", MANY, str(lock), str(tmp_path / "workdir"), str(tmp_path), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as controller:
        try:
            lives.wait_begun()
            controller.send_signal(signal.SIGINT)
            _, errors = controller.communicate(timeout=120)
        finally:
            controller.kill()
    lives.wait_ended()
    assert b"RunInterrupted" in errors
    wait_agents_ended(tmp_path / "workdir" / "state")
    envs = tmp_path / "workdir" / "cache" / "envs"
    assert not [path.name for path in envs.iterdir() if path.name != ".use"]
