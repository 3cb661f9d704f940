"""A Session is an Executor: CPython's own tests for executors, and more. Over the local transport and over SSH."""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher.demo.server import DemoServer
from launcher.errors import SessionError, UsageError
from launcher.hosts.inventory import load_hosts
from launcher.session.session import JobState
from tests.controllers import until
from tests.executor_tasks import double, of_config, opens, waits
from tests.requirements import missing

#: CPython's tests that are left out.
LEFT_OUT = {
    "test_interpreter_shutdown": "its script names a class of concurrent.futures; see test_a_script_need_not_close_its_session",
    "test_submit_after_interpreter_shutdown": "the same; see test_a_script_need_not_close_its_session",
    "test_hang_gh83386": "the same; see test_a_script_need_not_close_its_session",
    "test_cancel_futures": "it wants a job to run as soon as it is submitted; see test_shutdown_can_cancel_waiting_jobs",
    "test_max_workers_negative": "there is no max_workers: hosts have slots, and tests/end_to_end/test_refusals.py has what is refused of them",
    "test_no_stale_references": "the first job's task is the run's: it is sent once for all jobs, and kept for hosts that come later",
    "test_20369": "about ThreadPoolExecutor and a module-level future, with no executor of ours in it",
}


def _suite() -> Any:
    """CPython's test module, from an installed `test` package. Debian has it in a separate package."""
    name = "test.test_concurrent_futures"
    if importlib.util.find_spec(name) is not None:
        return importlib.import_module(name)
    minor = f"python3.{sys.version_info[1]}"
    file = Path("/usr/lib") / minor / "test" / "test_concurrent_futures.py"
    if not file.exists():
        return None
    # Under a name that jobs can import, too.
    folder = Path(tempfile.mkdtemp(prefix="executor-suite-"))
    (folder / "cpython_executors.py").symlink_to(file)
    sys.path.insert(0, str(folder))
    return importlib.import_module("cpython_executors")


SUITE = _suite()
_PARTS = ("ExecutorTest", "WaitTests", "AsCompletedTests", "ExecutorShutdownTest")


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoServer]:
    """A temporary SSH server."""
    with DemoServer() as server:
        yield server


def hosts_of(server: DemoServer | None, slots: int) -> list[Any]:
    """This machine, or one behind SSH."""
    if server is None:
        return [f"local/{slots}"]
    return list(load_hosts({"demo": {"address": "demo", "ssh_config": str(server.ssh_config), "slots": slots}}, "test"))


@pytest.fixture(params=["local", pytest.param("ssh", marks=pytest.mark.slow)])
def hosts(request: pytest.FixtureRequest) -> list[Any]:
    """Hosts with two slots."""
    return hosts_of(None if request.param == "local" else request.getfixturevalue("demo"), 2)


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def _cases() -> list[Any]:
    if SUITE is None:
        return [pytest.param("none", "none")]
    return [
        pytest.param(part, name, id=name)
        for part in _PARTS
        for name in sorted(vars(getattr(SUITE, part)))
        if name.startswith("test_") and name not in LEFT_OUT
    ]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["local", "ssh"])
@pytest.mark.parametrize(("part", "name"), _cases())
def test_cpythons_tests_for_executors_pass(
    part: str, name: str, where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """For a Session, except the tests that are left out for a stated reason."""
    if SUITE is None:
        missing("a `test` package with test_concurrent_futures (Debian has it in libpython3.x-testsuite)")
    server = None if where == "local" else request.getfixturevalue("demo")

    def executor(max_workers: int = 5) -> launcher.Session:
        # On the host behind SSH, too, the tests' functions are imported from where they are installed.
        more = {"env": {"PYTHONPATH": os.pathsep.join(sys.path)}} if server is not None else {}
        session = launcher.Session.open(
            hosts=hosts_of(server, max_workers), folder=tempfile.mkdtemp(dir=tmp_path), **more
        )
        # Hosts are reached before the time of a test counts.
        session.submit(pow, 1, 1).result(60)
        return session

    case = type(
        name, (SUITE.ExecutorMixin, getattr(SUITE, part), SUITE.BaseTestCase), {"executor_type": staticmethod(executor)}
    )
    result = case(name).run()
    assert result is not None
    assert result.testsRun == 1
    assert not result.skipped
    for _, trace in [*result.failures, *result.errors]:
        pytest.fail(trace, pytrace=False)


class Returns(launcher.Callback):
    """Records what the hooks of the controller get, and in which thread."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any, int]] = []

    def __reduce__(self) -> Any:
        return (launcher.Callback, ())

    def _note(self, hook: str, what: Any = None) -> None:
        self.seen.append((hook, what, threading.get_ident()))

    def on_multirun_start(self, **kwargs: Any) -> None:
        self._note("start")

    def on_job_return(self, job_return: Any, **kwargs: Any) -> None:
        self._note("return", (job_return.num, job_return.error and job_return.error.kind))

    def on_multirun_end(self, job_returns: Any, **kwargs: Any) -> None:
        self._note("end", len(job_returns))


@pytest.mark.slow
def test_a_single_config_is_the_jobs_config_and_other_arguments_are_passed_on(hosts: list[Any]) -> None:
    """A single mapping, dataclass instance or DictConfig is a config. A value, two mappings or a keyword are arguments."""
    with launcher.Session.open(hosts=hosts) as session:
        assert session.submit(of_config, {"x": 3}).result(60) == 3
        assert session.submit(double, 4).result(60) == 8
        assert session.submit(dict, {"a": 1}, b=2).result(60) == {"a": 1, "b": 2}
        assert session.submit(max, {"a": 1}, {"b": 2}, key=len).result(60) == {"a": 1}
        assert session.submit(os.getpid).result(60) != os.getpid()
        failed = session.submit(double, 1, 2, 3)
        assert isinstance(failed.exception(60), TypeError)
        with pytest.raises(UsageError, match="one config"):
            session.submit(os.getpid, {"x": 1})
        with pytest.raises(UsageError, match="callable"):
            session.submit(5, 1)  # type: ignore[arg-type]
    assert [one.status.name for one in session.returns] == ["COMPLETED"] * 5 + ["FAILED"]


@pytest.mark.slow
def test_any_number_of_threads_submit_and_wait(hosts: list[Any]) -> None:
    """Each job has its own number and value, even the first ones, which begin the session."""
    session = launcher.Session.open(hosts=hosts)
    seen: list[tuple[int, int, int]] = []

    def use(x: int) -> None:
        for each in (x, x + 100):
            job = session.submit(double, each)
            seen.append((job.num, each, job.result(60)))

    threads = [threading.Thread(target=use, args=(x,)) for x in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session.close()
    assert sorted(num for num, _, _ in seen) == list(range(12))
    assert all(value == 2 * x for _, x, value in seen)
    assert session.returns[seen[0][0]].return_value == seen[0][2]


def test_it_works_without_with_and_says_when_it_is_closed(hosts: list[Any]) -> None:
    """The first job fires the start hook. After `shutdown`, a submit is a RuntimeError, and values can still be read."""
    hooks = Returns()
    session = launcher.Session.open(hosts=hosts, callbacks=[hooks])
    assert hooks.seen == []
    job = session.submit(double, 2)
    session.shutdown()
    assert [hook for hook, _, _ in hooks.seen] == ["start", "return", "end"]
    assert job.result() == 4
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        session.submit(double, 2)
    session.shutdown()
    assert isinstance(SessionError("x"), RuntimeError)
    never = launcher.Session.open(hosts=hosts)
    never.close()
    with pytest.raises(SessionError):
        never.submit(double, 2)


@pytest.mark.slow
def test_a_forked_process_has_no_part_in_the_session() -> None:
    """It may leave the block and close, and is told where to submit. Here the session goes on undisturbed."""
    with launcher.Session.open() as session:
        assert session.submit(double, 1).result(60) == 2
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            code = 1
            try:
                session.__exit__(None, None, None)
                session.shutdown()
                session.submit(double, 2)
            except SessionError as error:
                code = 0 if "forked" in str(error) else 2
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        assert session.submit(double, 3).result(60) == 6


def _in_a_fork(function: Callable[[], object]) -> str:
    """Return what a function returns or raises in a fork of this process; `SIGALRM` if it says nothing for a minute."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)
        try:
            said = repr(function())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    return said if os.waitpid(pid, 0)[1] == 0 else "SIGALRM"


#: What a process that was forked of a session's may ask of a job, or of the session, in vain.
ASKED: dict[str, Callable[[launcher.Session, launcher.Job[int]], object]] = {
    "result": lambda session, job: job.result(),
    "exception": lambda session, job: job.exception(),
    "job_return": lambda session, job: job.job_return(),
    "cancel": lambda session, job: job.cancel(),
    "cancel_if_waiting": lambda session, job: job.cancel_if_waiting(),
    "done": lambda session, job: job.done(),
    "running": lambda session, job: job.running(),
    "cancelled": lambda session, job: job.cancelled(),
    "state": lambda session, job: job.state,
    "add_done_callback": lambda session, job: job.add_done_callback(print),
    "await": lambda session, job: asyncio.run(_awaited(job)),
    "wait": lambda session, job: concurrent.futures.wait([job]),
    "futures' as_completed": lambda session, job: list(concurrent.futures.as_completed([job])),
    "submit": lambda session, job: session.submit(double, 2),
    "map": lambda session, job: list(session.map(double, [1, 2])),
    "as_completed": lambda session, job: list(session.as_completed([job])),
    "as_completed of all": lambda session, job: list(session.as_completed()),
    "detach": lambda session, job: session.detach(),
    "enter": lambda session, job: session.__enter__(),
}


async def _awaited(job: launcher.Job[int]) -> int:
    return await job


@pytest.mark.slow
def test_a_forked_process_is_refused_at_once(tmp_path: Path) -> None:
    """By every method, because the threads that bring results are not in that process. Here the session goes on."""
    os.mkfifo(tmp_path / "gate")
    with launcher.Session.open() as session:
        job = session.submit(opens, str(tmp_path / "gate"))
        said = {name: _in_a_fork(lambda ask=ask: ask(session, job)) for name, ask in ASKED.items()}
        assert {name: text for name, text in said.items() if not text.startswith("SessionError: ")} == {}
        assert all("forked" in text for text in said.values())
        assert _in_a_fork(lambda: repr(job)) == repr(f"<Job 0 of process {os.getpid()}>")
        (tmp_path / "gate").write_text("21")
        assert job.result(60) == 21


@pytest.mark.slow
def test_a_forked_process_can_read_returned_jobs() -> None:
    """From a Job, and from the journal, even if a thread held a lock of either at the fork."""
    with launcher.Session.open() as session:
        job = session.submit(double, 1)
        assert job.result(60) == 2
        assert session.returns[0].return_value == 2
        with job._condition, session.engine._reader_lock:
            said = [_in_a_fork(job.result), _in_a_fork(job.done), _in_a_fork(lambda: session.returns[0].return_value)]
        assert said == ["2", "True", "2"]
        assert session.returns[0].return_value == 2


@pytest.mark.slow
def test_all_hooks_of_a_session_fire_in_its_own_thread(hosts: list[Any]) -> None:
    """Whichever thread submits, waits or closes."""
    hooks = Returns()
    with launcher.Session.open(hosts=hosts, callbacks=[hooks]) as session:
        thread = threading.Thread(target=lambda: session.submit(double, 1).result(60))
        thread.start()
        thread.join()
        session.submit(double, 2)
    threads = {ident for _, _, ident in hooks.seen}
    assert len(hooks.seen) == 4
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.slow
def test_a_hook_that_waits_for_a_job_is_refused_at_once(hosts: list[Any]) -> None:
    """In every way to wait. A hook may read a job that has returned, and submit one."""
    raised: list[tuple[str, BaseException | None]] = []
    later: list[launcher.Job] = []

    class Waits(launcher.Callback):
        def __reduce__(self) -> Any:
            return (launcher.Callback, ())

        def on_job_return(self, job_return: Any, **kwargs: Any) -> None:
            if job_return.num:
                return
            job = session.submit(double, 21)
            later.append(job)
            ways: dict[str, Any] = {
                "result": job.result,
                "exception": job.exception,
                "job_return": job.job_return,
                "wait": lambda: concurrent.futures.wait([job]),
                "as_completed": lambda: list(concurrent.futures.as_completed([job])),
                "session": lambda: list(session.as_completed()),
                "map": lambda: list(session.map(double, [1])),
                "await": lambda: asyncio.run(_awaited(job)),
                "shutdown": session.shutdown,
            }
            for name, way in ways.items():
                try:
                    way()
                except Exception as error:
                    raised.append((name, error))
                else:
                    raised.append((name, None))

    with launcher.Session.open(hosts=hosts, callbacks=[Waits()]) as session:
        session.submit(double, 1).result(60)
    assert [name for name, error in raised if not isinstance(error, SessionError)] == []
    assert len(raised) == 9
    assert later[0].result() == 42


async def _awaited(job: launcher.Job) -> Any:
    return await job


@pytest.mark.slow
def test_jobs_can_be_awaited(hosts: list[Any]) -> None:
    """With `await`, `gather`, `wrap_future` and `to_thread`, even a failed one."""

    async def main(session: launcher.Session) -> list[Any]:
        jobs = [session.submit(double, x) for x in range(3)]
        failed = session.submit(double)
        values = await asyncio.gather(*jobs, asyncio.wrap_future(session.submit(double, 9)))
        with pytest.raises(TypeError):
            await failed
        return [*values, await asyncio.to_thread(jobs[1].result, 60)]

    with launcher.Session.open(hosts=hosts) as session:
        assert asyncio.run(main(session)) == [0, 2, 4, 18, 2]


@pytest.mark.slow
def test_cancel_of_a_job_that_waits_and_of_one_that_runs(hosts: list[Any], tmp_path: Path) -> None:
    """The first is cancelled at once, the second is asked to end. Both have a JobReturn and their hook. A third one
    is not affected.
    """
    hooks = Returns()
    with launcher.Session.open(hosts=hosts, callbacks=[hooks]) as session:
        gate = str(tmp_path / "gate")
        running = [session.submit(waits, gate + str(num)) for num in range(2)]
        until("both to run", lambda: all(job.running() for job in running))
        waiting = session.submit(double, 1)
        assert waiting.cancel()
        assert waiting.cancelled()
        with pytest.raises(concurrent.futures.CancelledError):
            waiting.result()
        assert waiting.job_return(60).error.kind == "cancelled"
        assert running[0].cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            running[0].result(60)
        with pytest.raises(launcher.RemoteJobError):
            running[0].result(60)
        assert running[0].job_return().error.kind == "cancelled"
        Path(gate + "1").touch()
        assert running[1].result(60) == gate + "1"
        assert not running[1].cancel()
        assert (running[1].state, waiting.state) == (JobState.COMPLETED, JobState.FAILED)
    returned = dict(what for hook, what, _ in hooks.seen if hook == "return")
    assert returned == {0: "cancelled", 1: None, 2: "cancelled"}


@pytest.mark.slow
def test_callbacks_of_a_job_are_called_when_its_hook_has_fired(hosts: list[Any]) -> None:
    """In the session's thread, once, even if they are added later. The value is decoded only when it is read."""
    order: list[Any] = []
    hooks = Returns()
    with launcher.Session.open(hosts=hosts, callbacks=[hooks], results="never") as session:
        job = session.submit(double, 2)
        job.add_done_callback(lambda done: order.append((done is job, len(hooks.seen))))
        concurrent.futures.wait([job])
        until("it to be called", lambda: order)
        job.add_done_callback(lambda done: order.append("later"))
    assert order == [(True, 2), "later"]
    with pytest.raises(launcher.LauncherError, match="decode"):
        job.result()


def test_a_first_exception_ends_a_wait(hosts: list[Any], tmp_path: Path) -> None:
    """`concurrent.futures.wait` knows that a job failed, though its exception is not decoded yet."""
    gate = str(tmp_path / "gate")
    with launcher.Session.open(hosts=hosts) as session:
        held = session.submit(waits, gate)
        failed = session.submit(double)
        done, not_done = concurrent.futures.wait([held, failed], 60, concurrent.futures.FIRST_EXCEPTION)
        assert (done, not_done) == ({failed}, {held})
        Path(gate).touch()


@pytest.mark.slow
def test_shutdown_without_waiting_goes_on(hosts: list[Any], tmp_path: Path) -> None:
    """The jobs end, and so does the run."""
    gate, hooks = str(tmp_path / "gate"), Returns()
    session = launcher.Session.open(hosts=hosts, callbacks=[hooks])
    job = session.submit(waits, gate)
    until("it to run", job.running)
    session.shutdown(wait=False)
    with pytest.raises(SessionError):
        session.submit(double, 1)
    assert not job.done()
    Path(gate).touch()
    assert job.result(60) == gate
    session.shutdown()
    assert hooks.seen[-1][0] == "end"


def test_a_session_that_cannot_begin_raises_in_the_callers_thread(tmp_path: Path) -> None:
    """Afterwards it takes no jobs."""
    (tmp_path / "file").write_text("")
    session = launcher.Session.open(folder=tmp_path / "file" / "run")
    with pytest.raises(UsageError, match="cannot be written"):
        session.submit(double, 1)
    with pytest.raises(SessionError):
        session.submit(double, 1)
    session.shutdown()


@pytest.mark.slow
def test_shutdown_can_cancel_waiting_jobs(hosts: list[Any], tmp_path: Path) -> None:
    """With `cancel_futures`. Running jobs end by themselves."""
    gate = str(tmp_path / "gate")
    session = launcher.Session.open(hosts=hosts)
    running = [session.submit(waits, gate) for _ in range(2)]
    until("both to run", lambda: all(job.running() for job in running))
    waiting = [session.submit(double, x) for x in range(20)]
    session.shutdown(wait=False, cancel_futures=True)
    assert all(job.cancelled() for job in waiting)
    Path(gate).touch()
    session.shutdown()
    assert [job.result() for job in running] == [gate, gate]
    assert [one.error and one.error.kind for one in session.returns] == [None] * 2 + ["cancelled"] * 20


SCRIPT = """
import atexit, threading, launcher

def task(x):
    threading.Event().wait(0.2)
    return x

class Tells(launcher.Callback):
    def on_job_return(self, job_return, **kwargs):
        print("returned", job_return.return_value, flush=True)
    def on_multirun_end(self, **kwargs):
        print("end", flush=True)

@atexit.register
def last():
    try:
        session.submit(task, 2)
    except RuntimeError as error:
        print(error, flush=True)

if __name__ == "__main__":
    session = launcher.Session.open(callbacks=[Tells()])
    session.submit(task, 1)
    HOW
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["pass", "session.shutdown(wait=False)"])
def test_a_script_need_not_close_its_session(how: str, tmp_path: Path) -> None:
    """As with the standard library's executors, submitted jobs end, and then the process. After that it is too late
    to submit.
    """
    (tmp_path / "script.py").write_text(SCRIPT.replace("HOW", how))
    done = subprocess.run(
        [sys.executable, "script.py"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    returned, end, late = done.stdout.splitlines()
    assert (returned, end) == ("returned 1", "end")
    assert late.startswith("cannot schedule new futures after shutdown")
    assert done.stderr == ""


INTERRUPTED = """
import os, signal, sys, threading, launcher

def task(path):
    open(path + ".began", "w").close()
    while not os.path.exists(path):
        threading.Event().wait(0.01)
    return path

class Tells(launcher.Callback):
    def on_job_return(self, job_return, **kwargs):
        print("returned", job_return.error.kind, flush=True)
    def on_multirun_end(self, **kwargs):
        print("end", flush=True)

def signal_when_it_runs():
    while not os.path.exists("gate.began"):
        threading.Event().wait(0.01)
    os.kill(os.getpid(), signal.SIGINT)

if __name__ == "__main__":
    threading.Thread(target=signal_when_it_runs, daemon=True).start()
    try:
        with launcher.Session.open(callbacks=[Tells()]) as session:
            job = session.submit(task, "gate")
            try:
                job.result()
            except KeyboardInterrupt:
                print("here", flush=True)
                raise
    except KeyboardInterrupt:
        print("there", flush=True)
    print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)
"""


@pytest.mark.slow
def test_ctrl_c_is_raised_where_the_script_waits(tmp_path: Path) -> None:
    """In `result()`. Leaving the session cancels, collects and fires the hooks. Then the script has its own handlers again."""
    (tmp_path / "script.py").write_text(INTERRUPTED)
    done = subprocess.run(
        [sys.executable, "script.py"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        timeout=120,
        check=False,
    )
    assert done.stdout.splitlines() == ["here", "returned cancelled", "end", "there", "True"], done.stderr


@pytest.mark.parametrize("end", ["completed", "failed", "left"])
def test_nobody_is_woken_before_the_job_is_settled(end: str) -> None:
    """A Future takes a wake-up without an end for the end of a time limit: `result()` would raise TimeoutError."""
    job: launcher.Job[None] = launcher.Job(None, 0)  # type: ignore[arg-type]
    job.has_started()
    woken = []
    notify = job._condition.notify_all
    job._condition.notify_all = lambda: (woken.append(job._state), notify())  # type: ignore[method-assign, func-returns-value, assignment]
    if end == "left":
        job.has_no_return(SessionError("the controller has left"))
    else:
        status = launcher.JobStatus.COMPLETED if end == "completed" else launcher.JobStatus.FAILED
        job.has_returned(launcher.JobReturn(status=status))
    assert set(woken) == {"FINISHED"}


def test_whoever_waits_for_the_job_return_of_a_cancelled_job_is_woken() -> None:
    """It has one, too."""
    job: launcher.Job[None] = launcher.Job(None, 0)  # type: ignore[arg-type]
    concurrent.futures.Future.cancel(job)
    woken = []
    notify = job._condition.notify_all
    job._condition.notify_all = lambda: (woken.append(job._job_return), notify())  # type: ignore[method-assign, func-returns-value, assignment]
    returned = launcher.JobReturn(status=launcher.JobStatus.FAILED)
    job.has_returned(returned)
    assert woken[-1] is returned
