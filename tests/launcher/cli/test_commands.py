"""The commands about past runs: runs, show, logs, attach, cancel, retry, clean, each with --json."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.agents.queries.query import AgentQuery
from launcher.cli import past_hosts
from launcher.cli.commands.views.show import _print_run
from launcher.errors import HostError
from launcher.hosts.host_spec import HostSpec
from launcher.runs import index as run_index
from launcher.runs.journal import JournalReader
from launcher.runs.status import JobStatusLine, RunStatus, read_status
from launcher.session.session import Session
from launcher.tables.cells import settings_of
from launcher.tables.table import Row, Table
from tests.commands import Cli
from tests.controllers import Project, until


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    """The command `launcher`."""
    return Cli(capfdbinary)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """The application on this machine, in its own folder, with its own runs."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = Project(tmp_path / "project")
    monkeypatch.chdir(made.folder)
    monkeypatch.syspath_prepend(str(made.folder))
    yield made
    made.close()
    sys.modules.pop("durable_app", None)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A run of three jobs, of which job 1 failed. Tests share it, and only read it."""
    folder = tmp_path_factory.mktemp("past")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        made = Project(folder / "project")
        made.start(3, {"how": {"1": "raise"}}).wait()
    yield made
    made.close()


@pytest.fixture
def finished(past: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The same run, in the user's index."""
    monkeypatch.setenv("XDG_STATE_HOME", str(past.folder.parent / "state"))
    return past


@pytest.fixture
def moved(past: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a run whose folder is gone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    run = past.entry.run
    run_index.add(run_index.Entry(run, tmp_path / "gone", 1.0))
    return run


@pytest.fixture
def left(project: Project) -> Project:
    """A run of four jobs that its controller has left. Two jobs run until the file `gate` exists."""
    import durable_app

    recorder = durable_app.Recorder(str(project.marks))
    with Session.open(hosts=["local/2"], folder=project.run, callbacks=[recorder]) as session:
        for x in range(4):
            session.submit(
                durable_app.work, {"x": x, "marks": str(project.marks), "gate": str(project.folder / "gate")}
            )
        assert session.detach() == 0
    until("two jobs to run", lambda: len(project.marked("ran")) == 2)
    return project


def open_gate(project: Project) -> None:
    """Let the jobs of `left` end."""
    (project.folder / "gate").touch()


# -- runs and show -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_lists_every_run(finished: Project, cli: Cli) -> None:
    """There is a line per run. The JSON has the same and more."""
    run = finished.entry.run
    assert run in cli("runs")
    (told,) = cli.json("runs")["runs"]
    assert {key: told[key] for key in ("run", "state", "jobs", "completed", "failed", "open", "hosts")} == {
        "run": run,
        "state": "failed",
        "jobs": 3,
        "completed": 2,
        "failed": 1,
        "open": 0,
        "hosts": ["local"],
    }


@pytest.mark.slow
def test_a_folder_name_with_a_newline_is_shown_in_one_line(project: Project, cli: Cli) -> None:
    """Otherwise the text after the newline would look like a line of ours.

    Control characters in it reach no terminal.
    """
    folder = project.folder / "a\nlauncher: all is well \x1b[2J\u202eb"
    shown = "a\\nlauncher: all is well \\x202eb"
    told = cli("multirun", "durable_app.py:work", "x=1", f"marks={project.marks}", "--folder", str(folder)) + cli.err
    run = cli.json("runs")["runs"][0]["run"]
    told += cli("runs") + cli("show", run) + cli("show", f"{run}#0")
    assert "\nlauncher: all is well" not in told
    assert not {"\x1b", "\u202e"} & set(told)
    assert "".join(told.split()).count("".join(shown.split())) >= 5


def test_runs_without_any(project: Project, cli: Cli) -> None:
    """It says that there are none."""
    assert cli("runs") == "no runs\n"
    assert cli.json("runs")["runs"] == []


def test_a_run_whose_folder_is_gone_is_listed_on_demand(moved: str, cli: Cli) -> None:
    """Only its name is known."""
    assert "no runs" in cli("runs")
    (told,) = cli.json("runs", "--all")["runs"]
    assert (told["run"], told["state"]) == (moved, "gone")
    assert "is gone" in (cli("show", moved, code=2) or cli.err)


def test_show_lists_failures_first(finished: Project, cli: Cli) -> None:
    """It shows the run's state, its hook, and a row per job. Then it names the jobs with the least and the greatest value."""
    lines = cli("show").splitlines()
    assert lines[0] == f"run {finished.entry.run}: failed"
    rows = [line.split()[0] for line in lines[lines.index("") + 2 :]]
    assert rows == ["1", "0", "2", "x:"]
    told = cli.json("show")
    assert [(job["num"], job["state"], job["attempt"]) for job in told["jobs"]] == [
        (0, "COMPLETED", 1),
        (1, "FAILED", 1),
        (2, "COMPLETED", 1),
    ]
    assert told["run"]["end_hooks"] == {"on_multirun_end": "done"}


def test_show_of_a_job_shows_its_traceback(finished: Project, cli: Cli) -> None:
    """It also says where the job's output is."""
    said = cli("show", "last#1")
    assert "ValueError: job 1 does not like it" in said
    assert "remote traceback" in said
    assert str(finished.run / "1") in said
    assert cli.json("show", "last#1")["jobs"][0]["error"]["kind"] == "exception"
    cli("show", "last#7", code=2)
    assert "no job 7; 'launcher show" in cli.err


def test_what_a_job_used_is_shown(finished: Project, cli: Cli) -> None:
    """Of one job in a line, of all in a table, and as data. What is not known is null."""
    told = cli("show", f"{finished.entry.run}#1")
    assert re.search(r"used: .* of CPU time, at most .*MiB of memory, .* sent to it, .* came back", told)
    (first, *_) = cli.json("show", finished.entry.run)["jobs"]
    used = first["resources_used"]
    assert used["peak_memory"] > 1 << 20
    assert used["gpu_share"] is None
    assert first["attempts"][0]["resources_used"]["cpu_seconds"] == used["cpu_seconds"]
    assert re.search(r"job .*CPU time +memory", cli("table", finished.entry.run))


@pytest.mark.slow
def test_show_asks_the_hosts_of_a_run_that_nobody_drives(left: Project, cli: Cli) -> None:
    """It shows which jobs run, which wait, and which have ended and wait to be collected."""
    attempts = [job["attempts"][0]["on_host"] for job in cli.json("show")["jobs"]]
    assert Counter(attempts) == Counter(running=2, queued=2)
    assert all(job["attempts"][0]["on_host"] == "" for job in cli.json("show", "--offline")["jobs"])
    open_gate(left)
    until("all jobs to end", lambda: len(left.marked("job_end")) == 4)
    until(
        "all results to be in the spool",
        lambda: [job["attempts"][0]["on_host"] for job in cli.json("show")["jobs"]] == ["COMPLETED"] * 4,
    )
    assert "COMPLETED, not collected yet" in cli("show")
    assert "attempt 1 on local: COMPLETED, not collected yet" in cli("show", "last#0")


# -- logs --------------------------------------------------------------------------------------------------------


def test_logs_shows_what_a_job_wrote(finished: Project, cli: Cli) -> None:
    """Each stream goes to the same stream here. The JSON has both."""
    assert (cli("logs", "last#2"), cli.err) == ("job 2 works\n", "job 2 grumbles\n")
    assert (cli("logs", "last#2", "--stream", "stderr"), cli.err) == ("", "job 2 grumbles\n")
    # How it failed is what we say of it: its stdout is its own.
    assert cli("logs", "last#1") == "job 1 works\n"
    assert "ValueError: job 1 does not like it" in cli.err
    told = cli.json("logs", "last#2")
    assert (told["stdout"], told["stderr"]) == ("job 2 works\n", "job 2 grumbles\n")
    cli("logs", "last", code=2)
    assert "has 3 jobs; name one of them" in cli.err


@pytest.mark.slow
def test_logs_of_a_job_that_runs_come_from_its_host(left: Project, cli: Cli) -> None:
    """Nothing of it is here yet. --follow goes on to its end."""
    assert cli("logs", "last#0") == "job 0 works\n"
    assert not list(left.run.glob("*/.launcher/stdout"))
    open_gate(left)
    assert cli("logs", "last#0", "--follow") == "job 0 works\n"


@pytest.mark.slow
@pytest.mark.parametrize("where", ["__enter__", "look"])
def test_logs_that_miss_what_their_host_has_fail(
    where: str, left: Project, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script must not take them for all of the output. The host may not answer at all, or no longer."""

    def refuse(*_: object) -> None:
        raise HostError("local", "connect", "refused")

    monkeypatch.setattr(AgentQuery, where, refuse)
    for more in ((), ("--json",)):
        cli("logs", "last#0", *more, code=2)
        assert "its host did not answer, so this is all the output that is here" in cli.err


# -- attach, retry, cancel ---------------------------------------------------------------------------------------


def test_attach_finishes_a_run_that_was_left(left: Project, cli: Cli) -> None:
    """It shows the run, fires its end hook, and has its exit code."""
    open_gate(left)
    said = cli("attach")
    assert "4 completed, 0 failed" in said
    assert left.marked("ran") == Counter({str(num): 1 for num in range(4)})
    assert len(left.texts("end")) == 1
    assert read_status(left.entry).state == "completed"


@pytest.mark.slow
def test_attach_as_json_reports_the_whole_run(left: Project, cli: Cli) -> None:
    """Jobs that had returned before are in it, too."""
    open_gate(left)
    told = cli.json("resume", "last")
    assert told["exit_code"] == 0
    assert (told["completed"], told["failed"]) == (4, 0)


@pytest.mark.slow
def test_attach_only_watches_a_run_that_another_process_drives(project: Project, cli: Cli) -> None:
    """It watches until the other process has finished the run."""
    gate = project.folder / "gate"
    controller = project.start(2, {"gate": str(gate)})
    until("a job to run", lambda: project.marked("ran"))
    watcher = project.command("attach", str(project.run))
    until("the watcher to watch", lambda: "this one only shows it" in watcher.output)
    gate.touch()
    controller.wait()
    assert "job 1 on local: completed" in watcher.wait()
    assert len(project.texts("end")) == 1


@pytest.mark.slow
def test_detach_returns_when_the_hosts_have_all_jobs(project: Project, cli: Cli) -> None:
    """This holds for any number of jobs. No controller is left, and nothing is lost."""
    gate = project.folder / "gate"
    overrides = ["x=range(0,30)", f"marks={project.marks}", f"gate={gate}"]
    told = cli.json("multirun", "durable_app.py:work", *overrides, "--detach", "--folder", str(project.run))
    assert (told["detached"], told["left_behind"]) == (True, 0)
    assert read_status(project.entry).state == "detached"
    gate.touch()
    until("the agent to work through its queue", lambda: len(project.marked("done")) == 30)
    assert "30 completed" in cli("attach", told["run"])
    assert project.marked("ran") == Counter({str(num): 1 for num in range(30)})


def test_detach_without_a_usable_host_ends_the_run(project: Project, cli: Cli) -> None:
    """Every job has failed, and nothing waits anywhere."""
    arguments = ["x=1,2", f"marks={project.marks}", "--host", "127.0.0.1:1", "--folder", str(project.run)]
    told = cli.json("multirun", "durable_app.py:work", *arguments, "--detach", code=3)
    assert told["failed"] == 2
    assert read_status(project.entry).state == "failed"


@pytest.mark.slow
def test_a_retry_shows_its_own_time(project: Project, cli: Cli) -> None:
    """It says that the run was resumed, and each summary counts from then on."""
    project.start(1, {"how": {"0": "raise"}}).wait()
    for _ in range(2):
        reader = JournalReader(project.entry.journal)
        over = reader.last_event("run_ended")
        reader.close()
        told = cli.json("retry", "last", code=1)
        assert over is not None
        assert over.at < told["taken_up_at"] < told["ended_at"]
        assert "resumed on" in cli.err


@pytest.mark.slow
def test_retry_runs_failed_jobs_again_in_the_same_run(project: Project, cli: Cli) -> None:
    """Every attempt and its output stay visible, and the end hook fires again."""
    project.start(3, {"how": {"1": "raise once"}}).wait()
    cli("retry", "last", "--lost", code=2)
    assert "nothing to run again" in cli.err
    assert "3 completed, 0 failed" in cli("retry", "last")
    (job,) = cli.json("show", "last#1")["jobs"]
    assert [(one["attempt"], one["state"]) for one in job["attempts"]] == [(1, "FAILED"), (2, "COMPLETED")]
    assert job["attempts"][0]["why"] == "run once more, as was asked"
    cli("logs", "last#1", "--attempt", "1")
    assert "does not like it yet" in cli.err
    assert cli("logs", "last#1") == "job 1 works\n"
    ends = [json.loads(text)["returns"] for text in project.texts("end")]
    assert [[status for _, status, _ in returns] for returns in ends] == [
        ["COMPLETED", "FAILED", "COMPLETED"],
        ["COMPLETED"] * 3,
    ]
    assert project.marked("ran") == Counter({"0": 1, "1": 2, "2": 1})


@pytest.mark.slow
def test_cancel_of_a_run_that_was_left_ends_it(left: Project, cli: Cli) -> None:
    """The jobs' end hooks fire on the host, and the run's end hook here."""
    cli("cancel", "last")
    assert {job["error"]["kind"] for job in cli.json("show")["jobs"]} == {"cancelled"}
    assert left.marked("job_start") == left.marked("job_end")
    assert left.texts("job_end") == ["FAILED", "FAILED"]
    assert len(left.texts("end")) == 1
    cli("cancel", "last", code=2)
    assert "has ended, so there is nothing to cancel: " in cli.err


@pytest.mark.slow
def test_cancel_of_one_job_leaves_the_others_to_the_host(left: Project, cli: Cli) -> None:
    """The other jobs go on, and the run stays detached."""
    cli("cancel", "last#3")
    status = read_status(left.entry)
    assert (status.state, status.failed, status.open) == ("detached", 1, 3)
    open_gate(left)
    assert "3 completed, 1 failed (1 cancelled)" in cli("attach", code=1)
    assert left.marked("ran") == Counter({"0": 1, "1": 1, "2": 1})


@pytest.mark.slow
def test_cancel_of_a_job_that_has_ended_on_its_host_says_so(left: Project, cli: Cli) -> None:
    """Its result stays as it is."""
    open_gate(left)
    until("all jobs to end", lambda: len(left.marked("job_end")) == 4)
    cli("cancel", "last#0", code=2)
    assert "job 0 of run" in cli.err
    assert "was not cancelled: it had ended before, completed" in cli.err
    cli("attach")
    assert left.marked("ran") == Counter({str(num): 1 for num in range(4)})


@pytest.mark.slow
def test_cancel_asks_the_controller_that_drives_the_run(project: Project, cli: Cli) -> None:
    """First for one job, then for the rest."""
    controller = project.start(4, {"gate": str(project.folder / "gate")})
    until("two jobs to run", lambda: len(project.marked("ran")) == 2)
    assert "has the request" in cli("cancel", "last#0")
    until("job 0 to return", lambda: project.marked("return")["0"])
    assert cli.json("cancel", "last") == {"version": 1, "run": project.entry.run, "num": None, "cancelled": True}
    assert controller.process.wait(60) != 0
    assert read_status(project.entry).state == "interrupted"
    assert len(project.texts("end")) == 1


# -- clean -------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that no other test uses, so that it may be cleaned."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hydra-remote-launcher"


@pytest.mark.slow
def test_clean_keeps_what_is_needed_and_removes_the_rest(own_cache: Path, left: Project, cli: Cli) -> None:
    """What a running agent needs is kept, and so are uncollected results. In the end, the rest is removed."""
    (local,) = cli.json("clean", "--older-than", "0.001")["hosts"]
    assert local["chosen"] == []
    assert {one["why"].partition(",")[0] for one in local["kept"]} == {"an agent is running on the host"}
    open_gate(left)
    cli("attach")
    (told,) = cli.json("clean", "--older-than", "0", "--yes")["hosts"]
    assert {item.partition("/")[0] for item in told["removed"]} >= {"bundle", "bundles"}


@pytest.mark.slow
def test_clean_keeps_uncollected_results_unless_forced(own_cache: Path, left: Project, cli: Cli) -> None:
    """It does not remove the spool of a running agent either."""
    open_gate(left)
    until("all jobs to end", lambda: len(left.marked("job_end")) == 4)
    (told,) = cli.json("clean", "--older-than", "0.001", "--yes")["hosts"]
    assert "spool" not in {item.partition("/")[0] for item in told["removed"]}


@pytest.mark.slow
def test_clean_forgets_runs_whose_folder_is_gone(own_cache: Path, moved: str, cli: Cli) -> None:
    """Only the index still has them."""
    assert cli.json("clean", "--yes")["forgotten"] == [moved]
    assert run_index.entries() == []


@pytest.mark.slow
def test_clean_names_hosts_that_it_cannot_reach(own_cache: Path, project: Project, cli: Cli) -> None:
    """Without a terminal it does not ask."""
    cli("clean", "--host", "127.0.0.1:1", code=1)
    assert "no host could be reached" in cli.err
    (own_cache / "blobs").mkdir(parents=True, exist_ok=True)
    cli("clean", "--host", "local", "--older-than", "0.001", code=2)
    assert "use --yes" in cli.err


def test_hosts_with_one_name_are_distinguished() -> None:
    """Otherwise `clean` would seem to list a host twice. Each label has what differs."""
    specs = [
        HostSpec("gpu1", "gpu1"),
        HostSpec("gpu1", "gpu1", workdir="/scratch/me"),
        HostSpec("gpu2", "gpu2"),
    ]
    assert past_hosts.labels(specs) == [
        "gpu1 (workdir none: the user's cache and state folders)",
        "gpu1 (workdir /scratch/me)",
        "gpu2",
    ]


@pytest.mark.parametrize("command", ["cancel", "logs"])
def test_a_command_without_a_run_means_the_last_one(finished: Project, cli: Cli, command: str) -> None:
    """As with `attach`. An error names that run."""
    cli(command, code=2)
    assert f"run {run_index.find('last').run}" in cli.err


def test_show_shows_the_overrides_that_differ(capsys: pytest.CaptureFixture[str]) -> None:
    """They are not shortened. Overrides that all jobs share are shown once, above."""
    long = "model.optimizer.parameters.schedule.warmup.steps.of.the.first.phase"
    jobs = [JobStatusLine(num, ("data=imagenet", f"{long}.b={num}"), "COMPLETED") for num in range(3)]
    status = RunStatus("20260101-000000-abcdef", Path("/runs/1"), "completed", 0.0, jobs=3, completed=3)
    rows = [Row(job, settings_of(job.overrides), {}) for job in jobs]
    _print_run(Table(status, rows, {}), rows, None)
    out = capsys.readouterr().out
    assert "all jobs: data=imagenet\n" in out
    assert [f"{long}.b={num}" in out for num in range(3)] == [True] * 3
