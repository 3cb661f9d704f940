"""The end of a job's process: it leaves what plain Python leaves, and its result does not change."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remote_agent.agents import AgentHost, wait_gone

#: Each writes `late.txt` into the output folder, after the task has returned.
APP = {
    "late.py": """
        import atexit, concurrent.futures, ctypes, gzip, logging.handlers, multiprocessing, os, shelve, signal, sys
        import threading, time, weakref, zipfile

        kept = []
        pool = concurrent.futures.ThreadPoolExecutor(2)
        opened = open(os.path.join(os.environ["EARLY"], "opened.txt"), "w")
        opened.write("import;")

        class Thing:
            pass

        class Writer:
            def __init__(self, path):
                self.file = open(path, "w")
            def __del__(self):
                self.file.write("whole")

        def put(path, text="whole"):
            with open(path, "w") as file:
                file.write(text)

        def later(path):
            time.sleep(0.2)
            put(path)

        def again(path):
            threading.Thread(target=later, args=(path,)).start()

        def thread(path): threading.Thread(target=later, args=(path,)).start()
        def thread_of_a_thread(path): threading.Thread(target=again, args=(path,)).start()
        def executor(path): pool.submit(later, path)
        def new_executor(path): concurrent.futures.ThreadPoolExecutor(1).submit(later, path)
        def at_exit(path): atexit.register(put, path)
        def finalize(path):
            kept.append(Thing())
            weakref.finalize(kept[0], put, path)
        def text_file(path):
            kept.append(open(path, "w")); kept[0].write("whole")
        def binary_file(path):
            kept.append(open(path, "wb")); kept[0].write(b"whole")
        def both_ways(path):
            kept.append(open(path, "w+")); kept[0].write("whole")
        def compressed(path):
            kept.append(gzip.open(path, "wt")); kept[0].write("whole")
        def archive(path):
            kept.append(zipfile.ZipFile(path, "w")); kept[0].writestr("name", "whole")
        def finalizer(path): kept.append(Writer(path))
        def cycle(path):
            writer = Writer(path)
            writer.me = writer
        def log_memory(path):
            handler = logging.handlers.MemoryHandler(1000, target=logging.FileHandler(path))
            handler.setFormatter(logging.Formatter("%(message)s"))
            logger = logging.getLogger("late"); logger.addHandler(handler); logger.warning("whole")
        def c_file(path):
            library = ctypes.CDLL(None)
            library.fopen.restype = ctypes.c_void_p
            file = library.fopen(os.fsencode(path), b"w")
            library.fputs(b"whole", ctypes.c_void_p(file))
        def child(path):
            multiprocessing.get_context("fork").Process(target=later, args=(path,)).start()
        def daemons(path):
            # What plain Python ends: a daemon thread, a daemon process.
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
            process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True)
            process.start()
            put(path, str(process.pid))

        def task(cfg):
            out = cfg.out
            globals()[cfg.how](os.path.join(out, "late.txt"))
            if cfg.get("fails"):
                raise ValueError("as asked")
            return "value"

        def write_to_what_import_opened(cfg):
            opened.write("job {};".format(cfg.num))

        def held(cfg):
            fifo = cfg.fifo
            if cfg.how == "thread":
                threading.Thread(target=lambda: open(fifo).read(), name="uploader").start()
            elif cfg.how == "atexit":
                def upload(): open(fifo).read()
                atexit.register(upload)
            elif cfg.how == "del":
                class Upload:
                    def __del__(self): open(fifo).read()
                kept.append(Upload())
            kept.append(open(cfg.path, "w")); kept[-1].write("so far")
            return "value"
    """
}
HOW = [
    "thread",
    pytest.param("thread_of_a_thread", marks=pytest.mark.slow),
    pytest.param("executor", marks=pytest.mark.slow),
    pytest.param("new_executor", marks=pytest.mark.slow),
    "at_exit",
    "finalize",
    "text_file",
    "binary_file",
    "both_ways",
    "compressed",
    "archive",
    "finalizer",
    "cycle",
    "log_memory",
    "c_file",
    pytest.param("child", marks=pytest.mark.slow),
]


def _late(new_host, isolation: str):
    host = new_host()
    host.write(APP)
    assert host.start("late:task", isolation=isolation, environ={"EARLY": str(host.root)}).header["t"] == "ready"
    return host


@pytest.fixture(scope="module")
def forking(new_shared_host):
    """A host whose jobs are forked from a process that has imported the application."""
    return _late(new_shared_host, "fork")


@pytest.fixture(scope="module")
def spawning(new_shared_host):
    """A host whose jobs import the application themselves."""
    return _late(new_shared_host, "spawn")


def _as_plain_python(host, how: str, out: Path) -> bytes:
    """What the same task leaves under plain Python."""
    out.mkdir()
    program = f"import late; late.{how}({str(out / 'late.txt')!r})"
    environment = {**os.environ, "PYTHONPATH": str(host.code), "EARLY": str(out)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    return (out / "late.txt").read_bytes()


def _timeless(how: str, data: bytes) -> bytes:
    """The content without times that gzip and zip write."""
    return data[8:] if how == "compressed" else data[14:30] if how == "archive" else data


@pytest.mark.parametrize("how", HOW)
def test_a_job_leaves_what_plain_python_leaves(forking, tmp_path, how):
    """Threads, executors, atexit, finalizers, children, and files of Python and of C that nobody closed."""
    plain = _as_plain_python(forking, how, tmp_path / "plain")
    attempt = forking.run({"how": how, "out": str(tmp_path)}, task="late:task")
    assert attempt.part() == "value"
    data = (tmp_path / "late.txt").read_bytes()
    assert data
    if how == "cycle":
        # Which of a circle's objects Python finishes first is chance there: the file may be closed before it is written to.
        assert plain in (b"", data)
        return
    assert len(data) == len(plain)
    assert _timeless(how, data) == _timeless(how, plain)


@pytest.mark.parametrize("how", ["thread", "at_exit", "text_file", "compressed", "c_file", "child"])
@pytest.mark.parametrize("fails", [pytest.param(False, marks=pytest.mark.slow), True])
def test_spawned_and_failed_jobs_leave_the_same(spawning, tmp_path, how, fails):
    """Spawned jobs end as forked ones do, and failed jobs as completed ones."""
    attempt = spawning.run({"how": how, "out": str(tmp_path), "fails": fails}, task="late:task")
    assert attempt.envelope["status"] == ("FAILED" if fails else "COMPLETED")
    assert (tmp_path / "late.txt").stat().st_size > 0


def test_a_job_does_not_wait_for_daemons(forking, tmp_path):
    """As in plain Python, a daemon thread is stopped, and a daemon process is terminated."""
    forking.run({"how": "daemons", "out": str(tmp_path)}, task="late:task")
    wait_gone(int((tmp_path / "late.txt").read_text()), "the daemon process")


def test_a_file_that_import_opened_has_what_each_job_wrote_to_it_once(forking):
    """Text that was written at import is there once, not once per job."""
    for num in range(2):
        forking.run({"num": num}, task="late:write_to_what_import_opened")
    text = (forking.root / "opened.txt").read_text()
    assert text.count("import;") == 1
    assert text.count("job ") == 2


@pytest.mark.parametrize(
    ("how", "running"), [("thread", "thread 'uploader'"), ("atexit", "atexit function"), ("del", "end of an object")]
)
def test_a_job_says_what_its_end_waits_for_when_it_is_asked(forking, tmp_path, how, running):
    """SIGTERM asks. By then its buffers are flushed, and it still ends by itself if it can."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    config = {"how": how, "fifo": str(fifo), "path": str(tmp_path / "file")}
    attempt = forking.submit(config, task="late:held")
    forking.wait(lambda: attempt.frame("done") is not None and attempt.pid is not None)
    with open(fifo, "w"):

        def says():
            # Once more each time: a signal that comes just before it begins to wait is answered when it has waited.
            os.kill(attempt.pid, signal.SIGTERM)
            said = [frame.header["running"] for frame in attempt.frames if frame.header["t"] == "ending"]
            return next((names for names in said if any(running in name for name in names)), None)

        names = forking.wait(says)
        assert len(names) == 1
        if how == "atexit":
            assert "upload" in names[0]
        if how != "thread":
            assert (tmp_path / "file").read_text() == "so far"
    forking.wait_end(attempt)
    assert attempt.status == 0
    assert attempt.part() == "value"
    assert (tmp_path / "file").read_text() == "so far"


# -- the agent -------------------------------------------------------------------------------------------------------

_RUNS = itertools.count()
_HELD = """
import os, subprocess, sys, threading

HERE = os.path.dirname(os.path.abspath(__file__))


def late(cfg):
    with open(os.path.join(HERE, cfg.gate)) as file:
        file.read()
    with open(os.path.join(cfg.out, "late.txt"), "w") as file:
        file.write("whole")
    print("printed late", flush=True)


def task(cfg):
    from remote_agent.job_process.current import current_job
    cfg.out = current_job().output_dir
    if cfg.get("gate"):
        threading.Thread(target=late, args=(cfg,), name="uploader").start()
    # A test may cancel the job from here on: its thread is there by then.
    with open(os.path.join(HERE, "started"), "a") as file:
        file.write("{} {}\\n".format(cfg.num, os.getpid()))
    if cfg.get("leaves"):
        subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    if cfg.get("waits"):
        with open(os.path.join(HERE, "never")) as file:
            file.read()
    return cfg.num
"""


@pytest.fixture
def agent(tmp_path: Path, bundle: Path) -> Iterator[AgentHost]:
    """A host with one slot, and jobs whose threads wait at gates."""
    host = AgentHost(tmp_path / "agent", bundle, run=f"s{os.getpid()}-{next(_RUNS)}")
    (host.code / "app.py").write_text(_HELD)
    yield host
    host.stop()


def _files(client, attempt: str) -> dict[str, bytes]:
    found = {}
    for frame in client.all("files", attempt=attempt):
        offset = 0
        for path, _, size, _ in frame.header["items"]:
            found[path] = frame.payload[offset : offset + size]
            offset += size
    return found


@pytest.mark.slow
def test_the_result_comes_early_and_the_outputs_are_complete(agent):
    """`final` comes while the process shuts down. Its files, its output and its slot come after that."""
    gate = agent.gate("g")
    client = agent.connect()
    first = agent.job(client, 0, gate=gate)
    second = agent.job(client, 1)
    client.expect("final", attempt=first)
    # Frames are in order: what was sent before the answer to this would be here.
    client.send({"t": "ping", "n": 7})
    client.expect("pong", n=7)
    assert not client.all("files_end")
    assert not client.all("started", attempt=second)
    agent.open_gate(gate)
    end = client.expect("files_end", attempt=first)
    assert end.header["cut"] is None
    assert _files(client, first)["late.txt"] == b"whole"
    assert b"printed late" in client.stream(first)
    client.result(second)
    order = [f.header["t"] for f in client.frames if f.header.get("attempt") == first]
    assert order.index("final") < order.index("files") < order.index("files_end")


@pytest.mark.slow
def test_a_shutdown_that_takes_too_long_is_killed_and_reported(agent):
    """After shutdown_timeout the slot is free. The result does not change, and the end mark says what was still running."""
    client = agent.connect()
    first = agent.job(client, 0, gate="never", spec={"shutdown_timeout": 0.2})
    assert client.value(first) == 0
    cut = client.expect("files_end", attempt=first).header["cut"]
    assert cut["running"] == ["thread 'uploader'"]
    assert cut["seconds"] >= 0.2
    assert client.value(agent.job(client, 1)) == 1


@pytest.mark.slow
def test_a_leftover_process_is_reported(agent):
    """The job did not wait for it, so it is killed after a moment. Plain Python would leave it running."""
    client = agent.connect()
    attempt = agent.job(client, 0, leaves=True)
    assert client.value(attempt) == 0
    cut = client.expect("files_end", attempt=attempt).header["cut"]
    assert cut["seconds"] is None
    assert "pid" in cut["running"][0]
    wait_gone(int(cut["running"][0].rpartition(" ")[2].rstrip(")")), "the process that was left behind")


@pytest.mark.slow
@pytest.mark.parametrize("kill", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_cancel_shortens_the_time_of_leftover_processes(agent, kill):
    """It had ten minutes, and now has the grace period, or nothing."""
    client = agent.connect()
    spec = {"children_timeout": 600.0, "grace": 600.0 if kill else 0.2}
    attempt = agent.job(client, 0, leaves=True, spec=spec)
    client.expect("final", attempt=attempt)
    client.send({"t": "cancel", "attempts": None, "kind": "cancelled", "kill": kill})
    cut = client.expect("files_end", attempt=attempt).header["cut"]
    assert "pid" in cut["running"][0]
    assert cut["is_cancelled"] is True
    assert client.value(attempt) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kill", [False, True])
def test_a_cancel_shortens_the_shutdown(agent, kill):
    """To the grace period, or to nothing. The result does not change."""
    client = agent.connect()
    attempt = agent.job(client, 0, gate="never", spec={"grace": 600.0 if kill else 0.2})
    client.expect("final", attempt=attempt)
    client.send({"t": "cancel", "attempts": None, "kind": "cancelled", "kill": kill})
    assert client.value(attempt) == 0
    cut = client.expect("files_end", attempt=attempt).header["cut"]
    assert cut["is_cancelled"]
    if not kill:  # what is killed at once is not asked
        assert cut["running"] == ["thread 'uploader'"]


@pytest.mark.slow
def test_a_cancelled_job_has_its_grace_to_shut_down(agent):
    """And not the longer shutdown timeout. Files that it writes in time come back."""
    gate = agent.gate("g")
    client = agent.connect()
    spec = {"grace": 600.0}
    attempt = agent.job(client, 0, gate=gate, waits=True, spec=spec)
    agent.started()
    client.send({"t": "cancel", "attempts": [attempt], "kind": "cancelled"})
    client.expect("final", attempt=attempt)
    agent.open_gate(gate)
    assert client.error(attempt)["kind"] == "cancelled"
    assert _files(client, attempt)["late.txt"] == b"whole"


@pytest.mark.slow
def test_a_job_that_is_killed_in_its_shutdown_keeps_its_result(agent):
    """Its exit status no longer matters."""
    client = agent.connect()
    attempt = agent.job(client, 0, gate="never")
    client.expect("final", attempt=attempt)
    os.kill(agent.started()[0].pid, signal.SIGKILL)
    assert client.value(attempt) == 0


@pytest.mark.slow
def test_an_agent_that_dies_during_a_shutdown_leaves_it_to_the_next(agent):
    """The next agent knows the result, keeps the slot, and collects the files when the process has ended."""
    gate = agent.gate("g")
    client = agent.connect()
    attempt = agent.job(client, 0, gate=gate)
    client.expect("final", attempt=attempt)
    agent.kill_agent(client)
    again = agent.connect()
    other = agent.job(again, 1)
    again.expect("final", attempt=attempt)
    again.send({"t": "ping", "n": 7})
    again.expect("pong", n=7)
    assert not again.all("files_end")
    assert not again.all("started", attempt=other)
    agent.open_gate(gate)
    assert again.value(attempt) == 0
    assert _files(again, attempt)["late.txt"] == b"whole"
    assert again.value(other) == 1


@pytest.mark.slow
def test_a_leftover_process_in_its_own_session_is_reported(agent):
    """It is found by its environment some seconds later, when the job has returned. A note says whose it was."""
    text = (agent.code / "app.py").read_text()
    (agent.code / "app.py").write_text(text.replace('pause()"])', 'pause()"], start_new_session=True)'))
    client = agent.connect()
    attempt = agent.job(client, 0, leaves=True)
    assert client.value(attempt) == 0
    client.wait(lambda: "left it running in a session of its own" in client.notes(), "the note")
    assert "job 0: process " in client.notes()
