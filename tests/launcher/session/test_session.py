"""A run as a user starts it from Python: hooks, outcomes, outputs, over the local transport and over real SSH."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher import events
from launcher.demo.server import DemoServer
from launcher.errors import CallbackError, CodeError, ConfigError, ResultNotDecoded, UsageError
from launcher.hosts.host_spec import HostSpec
from launcher.hosts.inventory import load_hosts
from tests.controllers import until, wait_agents_ended
from tests.launcher.session.recorded import collect, lines


@pytest.mark.slow
def test_a_python_that_starts_elsewhere_is_a_clear_error(app: Any, tmp_path: Path) -> None:
    """`srun`, `docker run` and the like do not pass on the agent's descriptors. The first line of the error says so,
    and a summary shows only that.
    """
    python = tmp_path / "python-elsewhere"
    python.write_text(
        f"#!{sys.executable}\nimport subprocess, sys\nsys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))\n"
    )
    python.chmod(0o755)
    (one,) = launcher.multirun(app.train, [{"x": 1}], hosts="local", python=str(python))
    assert one.error is not None
    assert one.error.kind == "host"
    assert "was started elsewhere" in one.error.message.partition("\n")[0]


OUTCOMES = {
    "value": (None, None),
    "exit_0": (None, None),
    "exit_none": (None, None),
    "raise": ("exception", ValueError),
    "two_arguments": ("exception", launcher.RemoteJobError),
    "exit_3": ("exited", None),
    "exit_text": ("exited", None),
    "os_exit": ("exited", launcher.RemoteJobError),
    "sigkill": ("killed", launcher.RemoteJobError),
    "sigterm": ("killed", None),
    "segfault": ("killed", launcher.RemoteJobError),
    "lock": ("unpicklable", None),
    "generator": ("unpicklable", None),
    # Raised here it would look like a Ctrl-C of the reader.
    "base_exception": ("exception", launcher.RemoteJobError),
    "chain": ("exception", RuntimeError),
}


def test_every_way_to_end_has_a_job_return_and_fires_the_end_hooks(app: Any, hosts: list[Any], tmp_path: Path) -> None:
    """Whatever a job does, its JobReturn says so, and its on_job_end has fired exactly once."""
    record = tmp_path / "record"
    how = list(OUTCOMES)
    returns = launcher.multirun(
        app.ends, [{"how": one} for one in how], hosts=hosts, callbacks=[app.Recorder(record)], grace=2
    )
    seen = lines(record)
    for one, job_return in zip(how, returns, strict=True):
        kind, raised = OUTCOMES[one]
        assert (job_return.error.kind if job_return.error else None) == kind, (one, job_return.error)
        mine = Counter(line["hook"] for line in seen if line.get("num") == job_return.num)
        assert mine == {"on_job_start": 1, "on_job_end": 1, "on_job_return": 1}, one
        (end,) = [line for line in seen if line.get("num") == job_return.num and line["hook"] == "on_job_end"]
        assert end["kind"] == kind, one
        assert end["status"] == job_return.status.name == ("COMPLETED" if kind is None else "FAILED"), one
        if kind is None:
            assert job_return.return_value == (42 if one == "value" else None)
        else:
            with pytest.raises(BaseException) as caught:
                _ = job_return.return_value
            if raised is not None:
                assert type(caught.value) is raised, one
    by_name = dict(zip(how, returns, strict=True))
    assert by_name["exit_3"].error.exit_code == 3
    assert by_name["sigkill"].error.signal == 9
    assert by_name["segfault"].error.signal == 11
    assert "TwoArguments" in by_name["two_arguments"].error.traceback
    assert "wrong value" in by_name["raise"].error.traceback
    assert by_name["chain"].error.causes[0]["type"].endswith("KeyError")
    assert seen[-1]["hook"] == "on_multirun_end"


@pytest.mark.parametrize("hosts", [pytest.param("local", marks=pytest.mark.slow), "ssh"], indirect=True)
def test_outputs_come_back_complete(app: Any, hosts: list[Any]) -> None:
    """The output directory, the job log, the .hydra files, stdout and stderr are in the local <sweep dir>/<num>."""
    (job_return,) = launcher.multirun(app.writes, [{"x": 5}], hosts=hosts, folder="sweep")
    folder = Path("sweep/0").absolute()
    assert job_return.working_dir == job_return.output_dir == str(folder)
    assert (folder / ".launcher" / "stdout").read_bytes() == b"out 5\n\xff\x00raw\n"
    assert (folder / ".launcher" / "stderr").read_bytes() == b"err 5\n"
    assert sorted(one.name for one in (folder / ".hydra").iterdir()) == ["config.yaml", "hydra.yaml", "overrides.yaml"]
    assert (folder / ".hydra" / "config.yaml").read_text() == "x: 5\n"
    assert (folder / "writes.log").exists()


@pytest.mark.slow
def test_output_patterns_that_match_nothing_are_reported(app: Any, hosts: list[Any]) -> None:
    """For a host. If files are shared, all of them are there, and patterns do nothing."""
    seen, observe = collect()
    launcher.multirun(app.writes, [{"x": 5}], hosts=hosts, outputs=["*.log", "*.lg"], observers=[observe])
    missed = [event.patterns for event in seen if isinstance(event, events.OutputsUnmatched)]
    assert missed == ([] if hosts == ["local/2"] else [("*.lg",)])
    launcher.multirun(app.writes, [{"x": 5}], hosts=hosts, observers=[observe])
    assert len([event for event in seen if isinstance(event, events.OutputsUnmatched)]) == len(missed)


@pytest.mark.slow
def test_every_job_return_names_the_snapshot_of_its_code(app: Any, demo: DemoServer) -> None:
    """Hash, commit and whether it is dirty. A second run sends only what has changed."""
    hosts = load_hosts({"demo": {"address": "demo", "ssh_config": str(demo.ssh_config)}}, "test")
    seen, observe = collect()
    # What another test sent is there already: this content is new to the host.
    for name in ("helper.py", "training.py"):
        Path(name).write_text(Path(name).read_text() + f"\n# {os.urandom(8).hex()}\n")
    first = launcher.multirun(app.train, [{"x": 1}], hosts=hosts, observers=[observe])
    assert len(first[0].code["hash"]) == 64
    Path("helper.py").write_text(Path("helper.py").read_text() + "\n# changed\n")
    again = launcher.multirun(app.train, [{"x": 1}], hosts=hosts, observers=[observe])
    assert again[0].code["hash"] != first[0].code["hash"]
    sent = [event for event in seen if isinstance(event, events.CodeSent)]
    assert [event.sent_files for event in sent] == [2, 1]


@pytest.mark.slow
def test_lambdas_and_local_functions_are_pickled_by_value(app: Any, hosts: list[Any]) -> None:
    """They have no module from which they could be imported."""
    offset = 10
    returns = launcher.multirun(lambda cfg: cfg.x + offset, [{"x": 1}], hosts=hosts)
    assert returns[0].return_value == 11


@pytest.mark.slow
def test_import_error_fails_the_jobs_with_its_traceback(app: Any, hosts: list[Any]) -> None:
    """If the application cannot be imported on a host, this is reported once per host, and its jobs fail with that error."""
    seen, observe = collect()
    Path("broken.py").write_text(
        "import os\nif os.environ.get('THERE'):\n    import no_such_module\n\n\ndef task(cfg):\n    return 1\n"
    )
    returns = launcher.multirun(
        "broken:task", [{"x": 1}, {"x": 2}], hosts=hosts, env={"THERE": "1"}, observers=[observe]
    )
    sys.modules.pop("broken", None)
    assert [one.error.kind for one in returns if one.error] == ["import", "import"]
    assert "no_such_module" in returns[0].error.traceback
    told = [event for event in seen if isinstance(event, events.Warned) and event.source == "application"]
    assert len(told) == 1


@pytest.mark.slow
def test_spawn_gives_each_job_a_fresh_process_and_says_so(app: Any, hosts: list[Any]) -> None:
    """An application whose import starts a thread is not forked."""
    seen, observe = collect()
    Path("threaded.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n\n\n"
        "def task(cfg):\n    return threading.active_count()\n"
    )
    returns = launcher.multirun("threaded:task", [{"x": 1}], hosts=hosts, observers=[observe])
    sys.modules.pop("threaded", None)
    assert returns[0].return_value >= 2, "the thread that the import started runs in the job too"
    assert any("fresh process" in event.message for event in seen if isinstance(event, events.Note))


@pytest.mark.slow
def test_a_session_works_like_other_executors(app: Any, hosts: list[Any]) -> None:
    """submit, map, as_completed; result, exception, state, cancel."""
    with launcher.Session.open(hosts=hosts) as session:
        good = session.submit(app.train, {"x": 1})
        bad = session.submit(app.ends, {"how": "raise"})
        assert good.result(timeout=30)["doubled"] == 2
        assert isinstance(bad.exception(timeout=30), ValueError)
        assert good.exception() is None
        assert [job.num for job in session.as_completed([good, bad])] == [0, 1]
        assert [one["x"] for one in session.map(app.train, [{"x": 1}, {"x": 2}])] == [1, 2]
        assert good.state.name == "COMPLETED"
        assert bad.state.name == "FAILED"


@pytest.mark.slow
def test_as_completed_without_jobs_has_all_of_the_session(app: Any, hosts: list[Any], tmp_path: Path) -> None:
    """First those that have returned, then the others as they return: the same Job objects that `submit` gave."""
    with launcher.Session.open(hosts=hosts) as session:
        names = {session.submit(app.train, {"x": x}): x for x in (1, 2)}
        list(session.map(app.train, [{"x": 3}]))
        for job in names:
            job.result(timeout=30)
        names[session.submit(app.train, {"x": 4})] = 4
        seen = list(session.as_completed(timeout=30))
        assert [job.num for job in seen] == [0, 1, 2, 3]
        assert [names.get(job) for job in seen] == [1, 2, None, 4]
        assert [job.result()["x"] for job in seen] == [1, 2, 3, 4]
        assert list(session.as_completed()) == seen


@pytest.mark.slow
def test_a_job_that_is_refused_takes_no_number(app: Any, hosts: list[Any]) -> None:
    """`submit` raises for a function that cannot be called with one config. There are only the jobs before and after it."""
    with launcher.Session.open(hosts=hosts) as session:
        session.submit(app.train, {"x": 1})
        with pytest.raises(UsageError, match="one config"):
            session.submit(_ends_twice, {"x": 2})
        session.submit(app.train, {"x": 3})
    assert [one.return_value["x"] for one in session.returns] == [1, 3]


@pytest.mark.slow
def test_a_task_and_its_hooks_know_their_job(app: Any, hosts: list[Any]) -> None:
    """A plain function finds the folder whose files come back, its job and its host. Outside a job there is none."""

    class Marks(launcher.Callback):
        def on_job_start(self, **kwargs: Any) -> None:
            _mark("start")

        def on_job_end(self, **kwargs: Any) -> None:
            _mark("end")

    def _mark(name: str) -> Any:  # without an `assert`, whose rewritten form needs pytest on the host
        job: Any = launcher.current_job()
        Path(job.output_dir, name).touch()
        return job

    def task(cfg: Any) -> Any:
        job = _mark("task")
        if cfg.x:
            os.kill(os.getpid(), 9)
        return job.num, job.job_id, job.attempt, job.host

    assert launcher.current_job() is None
    one, killed = launcher.multirun(task, [{"x": 0}, {"x": 1}], hosts=hosts, callbacks=[Marks()])
    assert one.return_value == (0, one.job_id, 1, one.host)
    assert killed.error is not None
    for each in (one, killed):
        assert {"start", "task", "end"} <= set(os.listdir(each.output_dir))


@pytest.mark.slow
def test_the_repr_of_a_job_return_is_one_line_and_decodes_nothing(app: Any, hosts: list[Any]) -> None:
    """A notebook shows which job it is, where it ran and how it ended, without loading what a host pickled."""
    good, bad = launcher.multirun(
        lambda cfg: cfg.update({"x": 6 // cfg.x}), [{"x": 2}, {"x": 0}], hosts=hosts, results="never"
    )
    assert re.fullmatch(r"<JobReturn 0 on \S+: COMPLETED after \S+ s>", repr(good))
    assert re.fullmatch(r"<JobReturn 1 on \S+: FAILED after \S+ s: ZeroDivisionError: .*>", repr(bad))
    with pytest.raises(ResultNotDecoded):
        good.cfg  # noqa: B018 - reading it decodes


def test_cancel_fires_the_end_hook_and_says_cancelled(app: Any, hosts: list[Any], tmp_path: Path) -> None:
    """A running job that is cancelled fires its end hooks. Its JobReturn is FAILED of kind `cancelled`."""
    record, flag = tmp_path / "record", tmp_path / "flag"
    with launcher.Session.open(hosts=hosts, callbacks=[app.Recorder(record)]) as session:
        job = session.submit(app.waits, {"flag": str(flag)})
        until("the job to run", lambda: flag.exists() and job.running())
        assert job.cancel()
        assert job.job_return(timeout=30).error.kind == "cancelled"
    ends = [line for line in lines(record) if line["hook"] == "on_job_end"]
    assert [line["kind"] for line in ends] == ["cancelled"]


@pytest.mark.slow
def test_a_job_over_its_timeout_fails_with_kind_timeout(app: Any, hosts: list[Any], tmp_path: Path) -> None:
    """Its JobReturn is FAILED."""
    (job_return,) = launcher.multirun(app.waits, [{"flag": str(tmp_path / "flag")}], hosts=hosts, timeout=0.5)
    assert job_return.error.kind == "timeout"


@pytest.mark.slow
def test_variables_arrive_byte_for_byte(app: Any, hosts: list[Any]) -> None:
    """Values with spaces, quotes and newlines arrive unchanged."""
    value = " a 'b' \"c\"\n$(d) \\ ü"
    (one,) = launcher.multirun(lambda cfg: os.environ["HRL_VALUE"], [{}], hosts=hosts, env={"HRL_VALUE": value})
    assert one.return_value == value


@pytest.mark.slow
def test_large_return_value_stays_on_disk_until_read(app: Any, hosts: list[Any]) -> None:
    """A value over the inline cap is sent in chunks."""
    (one,) = launcher.multirun(lambda cfg: b"x" * cfg.size, [{"size": 5_000_000}], hosts=hosts, folder="large")
    assert len(one.return_value) == 5_000_000
    assert list(Path("large/.launcher/results").iterdir())


def _ends_twice(cfg: Any, model: Any) -> None:
    raise AssertionError("not to be called")


@pytest.mark.slow
def test_a_single_host_needs_no_list(app: Any, tmp_path: Path) -> None:
    """A string is one host, and not a list of letters."""
    (returned,) = launcher.multirun(app.train, [{"x": 1}], hosts="local/2", folder=tmp_path / "sweep")
    assert (returned.host, returned.status.name) == ("local", "COMPLETED")


def test_bad_input_is_refused_before_anything_is_sent(app: Any, tmp_path: Path) -> None:
    """Each error names what is wrong, and no run folder is made."""

    class Locked(launcher.Callback):
        def __init__(self) -> None:
            import threading

            self.guard = threading.Lock()

    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (UsageError, "callable", {"task": 3}),
        (UsageError, r"lambda>\(\) cannot be called with one config", {"task": lambda: 1}),
        (UsageError, r"_ends_twice\(cfg.* cannot be called with one config", {"task": _ends_twice}),
        (UsageError, "no function 'trian'; did you mean 'train'", {"task": "training:trian"}),
        (UsageError, "'trainin:train' cannot be imported", {"task": "trainin:train"}),
        (ConfigError, "timeout", {"timeout": -1}),
        (ConfigError, "did you mean 'timeout'", {"timeot": 1}),
        (ConfigError, "dict is not a list of configs; use launcher.run for a single config", {"configs": {"x": 1}}),
        (ConfigError, "str is not a list of configs", {"configs": "x=1"}),
        (UsageError, "named twice", {"hosts": ["a", "a"]}),
        (UsageError, "host", {"hosts": ["-oProxyCommand=x"]}),
        (CallbackError, "none of", {"callbacks": [object()]}),
        (CallbackError, "guard", {"callbacks": [Locked()]}),
        (CallbackError, "on_error names", {"on_error": {"nobody": "warn"}}),
        (CodeError, "cap", {"hosts": ["somewhere"], "max_code_size": 10}),
    ]
    for kind, text, kw in cases:
        arguments = {"task": app.train, "configs": [{"x": 1}], "folder": tmp_path / "never", **kw}
        with pytest.raises(kind, match=text):
            launcher.multirun(arguments.pop("task"), arguments.pop("configs"), **arguments)
        assert not (tmp_path / "never").exists(), text


@pytest.mark.slow
def test_a_script_run_as_main_is_one_module_on_both_sides(tmp_path: Path, demo: DemoServer) -> None:
    """Classes of `__main__` are pickled by reference, under the script's name, and come back as the same classes."""
    import subprocess

    script = tmp_path / "my_script.py"
    script.write_text(
        "import sys\nimport launcher\n\n\n"
        "class Value:\n    def __init__(self, x):\n        self.x = x\n\n\n"
        "def task(cfg):\n    return Value(cfg.x)\n\n\n"
        "if __name__ == '__main__':\n"
        "    from launcher.hosts.inventory import load_hosts\n\n"
        "    hosts = load_hosts({'demo': {'address': 'demo', 'ssh_config': sys.argv[1]}}, 'test')\n"
        "    (one,) = launcher.multirun(task, [{'x': 4}], hosts=hosts)\n"
        "    value = one.return_value\n"
        "    print(type(value) is Value, value.x)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), str(demo.ssh_config)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "True 4\n", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("where", ["local", "ssh"])
def test_a_script_without_its_guard_is_a_clear_error(
    tmp_path: Path, where: str, request: pytest.FixtureRequest
) -> None:
    """A run that starts when the script is imported would start again on every host.

    When the zygote imports the script here, all of `launcher` may be there. A host has only its table of contents.
    """
    import subprocess

    server: DemoServer | None = request.getfixturevalue("demo") if where == "ssh" else None
    hosts = [{"name": "demo", "address": "demo", "ssh_config": str(server.ssh_config)}] if server else ["local"]
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import launcher\n\n\ndef task(cfg):\n    return 1\n\n\n"
        f"(one,) = launcher.multirun(task, [{{}}], hosts={hosts!r})\nprint(one.error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "starts a run when it is imported" in done.stdout, done.stderr


# -- what stays here ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_warning_names_what_jobs_need_and_is_not_sent(
    demo_server: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything runs: a module outside the project, a callback that can only be built there, a link that leads
    nowhere.
    """
    for folder, name in (("project", "task_of_test"), ("elsewhere", "hooks_of_test")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.py").write_text(
            "class Hooks:\n    def on_job_end(self, **kwargs): pass\n\ndef task(cfg):\n    return 1\n"
        )
        monkeypatch.syspath_prepend(tmp_path / folder)
    (tmp_path / "project" / "dangling").symlink_to("/no/such/thing")
    task = importlib.import_module("task_of_test").task
    hooks = importlib.import_module("hooks_of_test").Hooks()
    seen: list[events.Event] = []
    launcher.run(
        task,
        {"hydra": {"callbacks": {"there": {"_target_": "only_there_of_test.Hooks"}}}},
        callbacks=[hooks],
        host=HostSpec(demo_server.alias, demo_server.alias, ssh_config=str(demo_server.ssh_config)),
        folder=tmp_path / "out",
        observers=[seen.append],
    )
    warned = {event.source: event.message for event in seen if isinstance(event, events.Warned) and not event.host}
    assert "'there': its class cannot be imported here" in warned["callbacks"]
    assert f"module hooks_of_test ({tmp_path / 'elsewhere' / 'hooks_of_test.py'})" in warned["code"]
    assert "task_of_test" not in warned["code"]
    assert any("dangling is a broken link" in event.message for event in seen if isinstance(event, events.Note))
    first_host = next(index for index, event in enumerate(seen) if isinstance(event, events.HostReady))
    assert all(not isinstance(event, events.Warned) or event.host for event in seen[first_host:])


@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o002, 0o000, 0o077])
def test_the_first_run_works_under_any_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int) -> None:
    """The controller makes the user's cache and state folders before this machine's agent does, and only for the user."""
    for name in ("cache", "state"):
        monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(tmp_path / "home" / name))
    before = os.umask(umask)
    try:
        returned = launcher.run("builtins:str", {}, folder=tmp_path / "out")
    finally:
        os.umask(before)
    assert returned.error is None, returned.error
    wait_agents_ended(tmp_path / "home" / "state" / "hydra-remote-launcher")
    files = [path for path in (tmp_path / "home").rglob("*") if not path.is_symlink()]
    assert files
    assert [path for path in files if path.stat().st_mode & 0o077] == []


@pytest.mark.slow
def test_an_application_that_one_host_cannot_import_runs_on_the_other(
    demo_server: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No job is lost to the host that lacks something, whatever it had been given by then."""
    (tmp_path / "picky").mkdir()
    (tmp_path / "picky" / "picky_of_test.py").write_text(
        "import os\nif os.environ.get('LACKS_IT'): import lacking_of_test\n\ndef task(cfg):\n"
        "    with open(cfg.fifo, 'rb', buffering=0) as fifo:\n        fifo.read(1)\n    return cfg.x\n"
    )
    # The jobs wait until the run has closed the host: on a slow machine they would all be done before it is tried.
    os.mkfifo(tmp_path / "fifo")
    fifo = os.open(tmp_path / "fifo", os.O_RDWR)
    seen: list[events.Event] = []

    def observe(event: events.Event) -> None:
        seen.append(event)
        if isinstance(event, events.HostClosed):
            os.write(fifo, bytes(6))

    monkeypatch.syspath_prepend(tmp_path / "picky")
    lacking = HostSpec(
        "lacking", demo_server.alias, ssh_config=str(demo_server.ssh_config), slots=3, env={"LACKS_IT": "1"}
    )
    try:
        returns = launcher.multirun(
            importlib.import_module("picky_of_test").task,
            [{"x": x, "fifo": str(tmp_path / "fifo")} for x in range(6)],
            hosts=[lacking, HostSpec("local", "local")],
            folder=tmp_path / "out",
            observers=[observe],
        )
    finally:
        os.close(fifo)
    assert [one.return_value for one in returns] == list(range(6))
    assert {one.host for one in returns} == {"local"}
    (closed,) = [event for event in seen if isinstance(event, events.HostClosed)]
    assert (closed.host, "lacking_of_test" in closed.why) == ("lacking", True)


def test_a_config_that_is_too_deep_is_refused_in_a_line(app: Any) -> None:
    """The error calls it a mapping, and does not write out its path of hundreds of keys."""
    config: dict[str, Any] = {}
    for _ in range(2000):
        config = {"a": config}
    with pytest.raises(ConfigError, match=r"^the config cannot be taken: .*recursion") as refused:
        launcher.run(app.move_output, config)
    assert len(str(refused.value)) < 400


@pytest.mark.slow
def test_an_output_directory_that_a_job_moved_is_a_warning(app: Any, hosts: list[Any], tmp_path: Path) -> None:
    """On a host, nothing outside the directory comes back. Here it stays where the job put it. The result does not change."""
    seen, observe = collect()
    (one,) = launcher.multirun(app.move_output, [{}], hosts=hosts, folder=tmp_path / "sweep", observers=[observe])
    assert one.return_value == 1
    told = [(event.num, event.message) for event in seen if isinstance(event, events.Warned)]
    if hosts == ["local/2"]:
        assert Path(f"{one.output_dir}.moved").is_dir()
        assert told == []
    else:
        assert told == [(0, "the output directory is not there any more: the job moved or removed it")]


@pytest.mark.parametrize("hosts", [pytest.param("local", marks=pytest.mark.slow), "ssh"], indirect=True)
def test_an_output_directory_comes_back_complete(app: Any, hosts: list[Any], tmp_path: Path) -> None:
    """Empty folders, links within, times, and what can be executed. A warning names once what cannot come, and that
    exists nowhere here.
    """
    seen, observe = collect()
    (one,) = launcher.multirun(app.leave_much, [{}], hosts=hosts, folder=tmp_path / "sweep", observers=[observe])
    assert one.error is None
    out = Path(one.output_dir)
    assert (out / "wandb" / "latest-run" / "debug.log").read_text() == "log"
    assert os.readlink(out / "wandb" / "latest-run") == "run-1"
    assert (out / "wandb" / "debug.log").read_text() == "log"
    assert os.access(out / "run.sh", os.X_OK)
    assert {(out / name).stat().st_mtime for name in ("run.sh", "large", "empty/dir")} == {1e9}
    if hosts == ["local/2"]:
        return  # written in place
    warned = [event.message for event in seen if isinstance(event, events.Warned)]
    assert sorted(warned) == [
        "out was refused: a link out of the output directory",
        "pipe was refused: not a regular file",
    ]
    assert not os.path.lexists(out / "out")
    assert not os.path.lexists(out / "pipe")
