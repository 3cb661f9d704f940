"""A run outlives its controller. After a kill, a hangup or a detach, it is resumed, and each result is there once."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.demo.server import DemoServer
from launcher.errors import RunError, SessionError, UsageError
from launcher.runs.journal import Journal
from launcher.runs.status import read_status
from launcher.session.session import Session
from tests.controllers import Project, until
from tests.hosts.openssh import OpenSshHost

JOBS = 8


def over_ssh(server: DemoServer, **more: Any) -> dict[str, Any]:
    """A hosts file with one host, behind SSH and with its own home."""
    return {"demo": {"address": "demo", "ssh_config": str(server.ssh_config), "slots": 2, **more}}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Project]]:
    """Makes the application's project, and ends what it started."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made: list[Project] = []

    def make(hosts: dict[str, Any] | None = None, host_home: Path | None = None) -> Project:
        made.append(Project(tmp_path / "project", hosts, host_home))
        if host_home is not None:
            monkeypatch.setenv("HOME", str(made[0].home))
        monkeypatch.chdir(made[0].folder)
        monkeypatch.syspath_prepend(str(made[0].folder))
        return made[0]

    yield make
    for one in made:
        one.close()
    sys.modules.pop("durable_app", None)


@pytest.fixture
def project(make: Callable[..., Project]) -> Project:
    """The application, with this machine as its host."""
    return make()


@pytest.fixture(params=["local", pytest.param("ssh", marks=pytest.mark.slow)])
def anywhere(request: pytest.FixtureRequest, make: Callable[..., Project]) -> Project:
    """The application, with this machine as its host, or one behind SSH."""
    return make(over_ssh(request.getfixturevalue("demo_server")) if request.param == "ssh" else None)


def resume(project: Project, **kwargs: Any) -> list[Any]:
    """Resume the run in this process, and finish it."""
    with Session.resume(project.run, **kwargs) as session:
        pass
    return list(session.returns)


def check_whole(project: Project, returns: list[Any], jobs: int = JOBS) -> None:
    """Check that every job has returned and ran once with its hooks, and that the end hook has seen all of them."""
    assert [one.num for one in returns] == list(range(jobs))
    assert [one.status.name for one in returns] == ["COMPLETED"] * jobs
    assert [one.return_value["x"] for one in returns] == list(range(jobs))
    once = Counter({str(num): 1 for num in range(jobs)})
    assert project.marked("ran") == once
    assert project.marked("job_start") == once
    assert project.marked("job_end") == once
    assert set(project.marked("return")) == set(once)
    assert project.marked("start") == Counter(run=1)
    told = [json.loads(text) for text in project.texts("end")]
    assert told, "on_multirun_end never fired"
    assert [(num, status) for num, status, _ in told[-1]["returns"]] == [(num, "COMPLETED") for num in range(jobs)]
    status = read_status(project.entry)
    assert (status.state, status.open, status.end_hooks) == ("completed", 0, {"on_multirun_end": "done"})


def kill_when_journalled(project: Project, count: int, **start: Any) -> None:
    """Kill the controller when its journal has this many events."""
    controller = project.start(JOBS, {"seconds": 0.03}, **start)
    until(f"{count} events", lambda: project.events() >= count or controller.process.poll() is not None)
    controller.kill()


def test_a_killed_controllers_run_is_finished_with_each_job_run_once(anywhere: Project) -> None:
    """Some jobs had returned, some were on the host, some had never been submitted."""
    project = anywhere
    gate = project.folder / "gate"
    controller = project.start(JOBS, {"gate": str(gate)})
    until("two jobs to run", lambda: len(project.marked("ran")) == 2)
    controller.kill()
    assert read_status(project.entry).state == "died"
    gate.touch()
    until("the agent to go on without a controller", lambda: len(project.marked("done")) > 2)
    check_whole(project, resume(project))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1))
def test_a_run_survives_a_kill_of_its_controller_at_a_random_moment(anywhere: Project, seed: int) -> None:
    """The JobReturns are the same, and each job runs once."""
    chance = random.Random(f"{seed} {sorted(anywhere.options)}")
    kill_when_journalled(anywhere, chance.randint(2, 40))
    check_whole(anywhere, resume(anywhere))


@pytest.fixture
def apart(openssh_host: OpenSshHost, make: Callable[..., Project]) -> Project:
    """The application, with a host behind OpenSSH that shares nothing with the controllers."""
    hosts = {"apart": {"address": openssh_host.name, "ssh_config": str(openssh_host.ssh_config), "slots": 2}}
    return make(hosts, openssh_host.home)


@pytest.mark.openssh
@pytest.mark.faults
@pytest.mark.parametrize("seed", range(25))
def test_a_run_on_a_separate_host_survives_a_hundred_kills(apart: Project, seed: int) -> None:
    """Four random moments for each seed, on a real OpenSSH host. The JobReturns are the same, and each job runs once."""
    killed_again_and_again(apart, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_run_survives_repeated_kills_of_its_controllers(anywhere: Project, seed: int) -> None:
    """Every controller that resumes the run is killed, too, except the last one."""
    killed_again_and_again(anywhere, seed)


def killed_again_and_again(project: Project, seed: int) -> None:
    """Kill the controller at four moments that the seed chooses. Then finish the run."""
    chance = random.Random(seed)
    kill_when_journalled(project, chance.randint(2, 30))
    for _ in range(3):
        before = project.events()
        controller = project.command("attach", str(project.run))
        more = chance.randint(1, 12)
        until("more events", lambda: project.events() >= before + more or controller.process.poll() is not None)  # noqa: B023
        controller.kill()
    check_whole(project, resume(project))


@pytest.mark.slow
def test_a_run_that_is_over_is_only_read(project: Project) -> None:
    """Resuming it again runs nothing and fires nothing."""
    project.start(2).wait()
    fired = project.texts("end")
    returns = resume(project)
    assert [one.return_value["x"] for one in returns] == [0, 1]
    assert project.texts("end") == fired
    assert project.marked("ran") == Counter({"0": 1, "1": 1})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("anywhere", "number"), [("local", signal.SIGTERM), ("ssh", signal.SIGINT)], indirect=["anywhere"]
)
def test_an_interrupted_run_ends_with_all_its_hooks(anywhere: Project, number: int) -> None:
    """SIGTERM and Ctrl-C cancel. The end hooks of the jobs and of the run fire, everything has returned, and nothing
    is left running.
    """
    project = anywhere
    controller = project.start(JOBS, {"gate": str(project.folder / "never")})
    until("two jobs to run", lambda: len(project.marked("ran")) == 2)
    assert controller.kill(number) != 0
    assert "RunInterrupted" in controller.output
    status = read_status(project.entry)
    assert (status.state, status.open, status.kinds) == ("interrupted", 0, {"cancelled": status.jobs})
    assert project.marked("job_end") == project.marked("job_start")
    assert len(project.texts("end")) == 1
    until("every process to be gone", lambda: not project.processes())


@pytest.mark.slow
def test_a_second_interrupt_kills(project: Project) -> None:
    """A job that does not end gets no more grace. Its end hook fires in an epilogue."""
    controller = project.start(1, {"how": {"0": "stubborn"}})
    until("the job to run", lambda: project.marked("ran"))
    controller.process.send_signal(signal.SIGINT)
    until("the job to refuse", lambda: project.marked("refused"))
    assert controller.kill(signal.SIGINT) != 0
    assert project.texts("job_end") == ["FAILED"]
    assert read_status(project.entry).kinds == {"cancelled": 1}
    until("every process to be gone", lambda: not project.processes())


@pytest.mark.slow
def test_hangup_leaves_the_run_to_its_hosts(make: Callable[..., Project], demo_server: DemoServer) -> None:
    """After SIGHUP nothing is cancelled, the hosts get every job, and no end hook fires until the run is resumed."""
    project = make(over_ssh(demo_server))
    gate = project.folder / "gate"
    controller = project.start(JOBS, {"gate": str(gate)})
    until("two jobs to run", lambda: len(project.marked("ran")) == 2)
    controller.kill(signal.SIGHUP)
    status = read_status(project.entry)
    assert (status.state, status.open) == ("detached", JOBS)
    assert project.texts("end") == []
    gate.touch()
    until("the agent to work through its queue", lambda: len(project.marked("done")) == JOBS)
    check_whole(project, resume(project))


@pytest.mark.slow
def test_the_state_of_callbacks_survives_detaching(project: Project) -> None:
    """The hooks of the next controller see the state that the callbacks had when this one left."""
    gate = project.folder / "gate"
    controller = project.start(3, {"gate": str(gate)})
    until("a job to run", lambda: project.marked("ran"))
    controller.kill(signal.SIGHUP)
    gate.touch()
    resume(project)
    assert json.loads(project.texts("end")[-1])["seen"] == 3


@pytest.mark.slow
def test_two_controllers_at_once_are_refused(project: Project) -> None:
    """The error for the second one names the process that drives the run."""
    gate = project.folder / "gate"
    controller = project.start(2, {"gate": str(gate)})
    until("a job to run", lambda: project.marked("ran"))
    with pytest.raises(RunError, match=f"pid {controller.process.pid}"), Session.resume(project.run):
        raise AssertionError("it was entered")
    gate.touch()
    controller.wait()


@pytest.mark.slow
def test_values_of_variables_must_be_given_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of the run has them. Without them it is not resumed. With them, the jobs that never ran get them."""
    gate = project.folder / "gate"
    controller = project.start(
        6, {"gate": str(gate)}, env={"DURABLE_SECRET": "hush-hush"}, forward_env=["DURABLE_SECRET"]
    )
    until("a job to run", lambda: project.marked("ran"))
    controller.kill()
    for path in (project.run / ".launcher").iterdir():
        if path.is_file():
            assert b"hush-hush" not in path.read_bytes(), path
    with pytest.raises(UsageError, match="DURABLE_SECRET"):
        Session.resume(project.run)
    gate.touch()
    returns = resume(project, env={"DURABLE_SECRET": "hush-hush"})
    assert [one.return_value["secret"] for one in returns] == ["hush-hush"] * 6


@pytest.mark.slow
def test_configs_of_an_iterator_are_known_as_far_as_it_was_read(project: Project) -> None:
    """The error asks for the rest. With all configs given again, the run is complete."""
    gate = project.folder / "gate"
    controller = project.start(3, {"gate": str(gate)}, iterator=True)
    until("a job to run", lambda: project.marked("ran"))
    controller.kill()
    gate.touch()
    configs = [{"x": x, "marks": str(project.marks)} for x in range(5)]
    returns = resume(project, configs=iter(configs))
    assert [one.return_value["x"] for one in returns] == list(range(5))
    assert project.marked("ran") == Counter({str(num): 1 for num in range(5)})


@pytest.mark.slow
def test_the_code_is_that_of_the_runs_beginning(make: Callable[..., Project], demo_server: DemoServer) -> None:
    """If the application changes in the meantime, jobs that start after the resume still run the first code."""
    project = make(over_ssh(demo_server))
    gate = project.folder / "gate"
    controller = project.start(6, {"gate": str(gate)})
    until("two jobs to run", lambda: len(project.marked("ran")) == 2)
    controller.kill()
    app = project.folder / "durable_app.py"
    app.write_text(app.read_text().replace('mark(cfg.marks, "ran", cfg.x)', 'raise ValueError("too new")'))
    gate.touch()
    check_whole(project, resume(project), 6)


@pytest.mark.slow
def test_changed_code_that_its_host_lacks_is_an_error_that_names_it(
    make: Callable[..., Project], demo_server: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All caches are gone, and the file has changed. No job runs other code than the run's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    work = tmp_path / "work"
    project = make(over_ssh(demo_server, workdir=str(work), slots=1))
    controller = project.start(2, {"gate": str(project.folder / "gate")})
    until("a job to run", lambda: project.marked("ran"))
    controller.kill()
    (log,) = work.glob("state/runs/*/*/log")
    for pid in processes_in(log.parent):
        os.kill(pid, signal.SIGKILL)
    until("them to be gone", lambda: not processes_in(log.parent))
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(work / "cache")
    shutil.rmtree(log.parent / "code")
    app = project.folder / "durable_app.py"
    app.write_text(app.read_text() + "# changed\n")
    seen: list[Any] = []
    returns = resume(project, observers=[seen.append])
    assert [one.error.kind for one in returns] == ["killed", "host"]
    assert "durable_app.py changed after the run began" in returns[1].error.message
    assert any("durable_app.py changed" in event.message for event in seen if event.kind == "warning")
    assert project.marked("ran") == Counter({"0": 1})


def processes_in(spool: Path) -> list[int]:
    """The agent, zygotes and jobs of a spool. Their environment or working folder names its run."""
    run = spool.parent.name
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            said = (path / "environ").read_bytes() + os.readlink(path / "cwd").encode()
            said += (path / "cmdline").read_bytes()
        except OSError:
            continue
        if run.encode() in said and int(path.name) != os.getpid():
            found.append(int(path.name))
    return found


@pytest.mark.slow
def test_a_hydra_sweep_is_finished_with_jobs_that_were_never_composed(project: Project) -> None:
    """They are composed from the run's own overrides, as they would have been."""
    (project.folder / "conf").mkdir()
    (project.folder / "conf" / "config.yaml").write_text(
        f"x: 0\nfolder: {project.folder}\nhydra:\n  callbacks:\n    end:\n      _target_: hydra_app.Ender\n"
    )
    (project.folder / "hydra_app.py").write_text(HYDRA_APP)
    sweep = ["multirun", "hydra_app.py", "x=range(0,30)", f"hydra.sweep.dir={project.run}", "--host", "local/2"]
    controller = project.command(*sweep)
    until("a few events", lambda: project.events() >= 3)
    controller.kill()
    returns = resume(project)
    assert [one.return_value for one in returns] == list(range(30))
    assert [one.overrides for one in returns] == [[f"x={num}"] for num in range(30)]
    assert project.folder.joinpath("ended").read_text() == "MULTIRUN 30\n"
    assert (project.run / "29" / ".hydra" / "overrides.yaml").read_text() == "- x=29\n"


HYDRA_APP = """
import hydra

class Ender:
    def on_multirun_end(self, config, job_returns, **kwargs):
        with open(config.folder + "/ended", "a") as file:
            file.write(f"{config.hydra.mode.name} {len(job_returns)}\\n")

@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg):
    return cfg.x
"""


@pytest.mark.slow
def test_a_run_that_died_before_anything_was_sent_fires_its_end_hook(project: Project) -> None:
    """There is nothing to resume, and the hook must fire all the same."""
    controller = project.start(2, dies_at_start=True)
    assert controller.process.wait(60) == -signal.SIGKILL
    with pytest.raises(RunError, match="died before anything was sent"), Session.resume(project.run):
        raise AssertionError("it was entered")
    assert [json.loads(text)["returns"] for text in project.texts("end")] == [[]]
    assert project.marked("ran") == Counter()


def test_somebody_elses_run_is_not_resumed(project: Project) -> None:
    """Its journal could run code."""
    journal = Journal(project.run / ".launcher")
    journal.put_meta(run="r1", mode="MULTIRUN")
    journal.close()
    journal.path.chmod(0o666)
    with pytest.raises(RunError, match="others can write"):
        Session.resume(project.run)


@pytest.mark.slow
def test_an_unknown_kind_of_run_is_an_error_that_names_it(project: Project) -> None:
    """A later version's run is not changed. A kind that names a foreign class imports nothing."""
    project.start(1).wait()
    for kind in ("of_later", "durable_app:Recorder"):
        journal = Journal(project.run / ".launcher")
        (text,) = [text for key, text in journal._connection.execute("select * from meta") if key == "setup"]
        journal.put_meta(setup=json.dumps({**json.loads(text), "kind": kind}))
        journal.close()
        with pytest.raises(RunError, match=f"of the kind '{kind}', which this version of the launcher does not know"):
            Session.resume(project.run)


@pytest.mark.slow
def test_a_single_job_can_be_detached_and_collected(project: Project) -> None:
    """In RUN mode the end hook is on_run_end, and the output folder is the run's."""
    gate = project.folder / "gate"
    arguments = ["x=7", f"marks={project.marks}", f"gate={gate}", "--folder", str(project.run), "--detach"]
    project.command("run", "durable_app.py:work", *arguments).wait()
    assert read_status(project.entry).state == "detached"
    gate.touch()
    (returned,) = resume(project)
    assert returned.return_value["x"] == 7
    assert Path(returned.output_dir) == project.run


@pytest.mark.slow
def test_a_run_that_has_ended_takes_no_new_jobs(tmp_path: Path) -> None:
    """Its end hook has fired. Nothing would drive the job, and the journal would be closed while it is written."""
    with Session.open(folder=tmp_path / "run") as session:
        assert session.submit("builtins:len", {"x": 1}).result() == 1
    with Session.resume(tmp_path / "run") as session:
        with pytest.raises(SessionError, match="has ended, so it takes no new jobs"):
            session.submit("builtins:len", {"x": 2})
        assert [one.return_value for one in session.returns] == [1]
