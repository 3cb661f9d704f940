"""The zygote: import once, fork per job; spawn if a fork would break; and nothing is lost with the agent."""

from __future__ import annotations

import os
import sys

import cloudpickle
import pytest

SIMPLE = {
    "simple.py": """
        import os, sys
        print("imported by", os.getpid())

        class Hook:
            def on_job_start(self, config, **kwargs):
                self.x = config.x
            def on_job_end(self, config, job_return, **kwargs):
                print("end", self.x, job_return.status.name)

        def task(cfg):
            if cfg.get("act") == "kill": os.kill(os.getpid(), 9)
            if cfg.get("act") == "raise": raise ValueError("no good")
            import omegaconf, yaml
            return {"python": list(sys.version_info[:2]), "x": cfg.x, "omegaconf": omegaconf.__file__,
                    "yaml": yaml.__file__, "path": sys.path, "cloudpickle": sys.modules["cloudpickle"].__file__
                    if "cloudpickle" in sys.modules else None, "pid": os.getpid()}

        def function(cfg):
            return lambda: cfg.x
    """
}


HOOK = {"name": "hook", "spec": {"_target_": "simple.Hook"}, "pickle": None, "why": "a test", "on_error": None}


def test_jobs_run_under_other_pythons_with_nothing_installed(new_host, python):
    """Jobs, hooks, epilogues and results by reference work under another minor version. The bundle brings the rest."""
    host = new_host(python)
    host.write(SIMPLE)
    ready = host.start("simple:task", [HOOK])
    assert ready.header["t"] == "ready", ready.header
    attempt = host.run({"x": 3})
    seen = attempt.part()
    assert ready.header["python"].startswith("{}.{}.".format(*seen["python"]))
    assert seen["x"] == 3
    assert attempt.stdout.startswith("end 3 COMPLETED")
    assert attempt.file(".hydra/config.yaml") == "x: 3\n"
    assert host.run({"x": 3, "act": "raise"}).error["type"] == "ValueError"
    payload = host.payload({"x": 4, "act": "kill"})
    dead = host.run(payload=payload)
    assert "end 4 FAILED" in host.wait_end(host.epilogue(dead, payload, {"kind": "killed", "signal": 9})).stdout
    own = seen["python"] == list(sys.version_info[:2])
    attempt = host.run(payload=host.payload({"x": 7}, task="simple:function"))
    if own:
        assert attempt.part()() == 7
    else:
        assert str(host.bundle) in seen["omegaconf"]
        assert attempt.error["kind"] == "unpicklable"
        assert "code by value" in attempt.error["message"]


@pytest.mark.pythons
def test_a_python_that_is_too_old_is_a_clear_error(new_host):
    """It sends a frame, though it cannot even parse the rest."""
    for python in ("/root/.pyenv/versions/2.7.18/bin/python", "/root/.pyenv/versions/3.6.15/bin/python"):
        if os.path.exists(python):
            answer = new_host(python).start("simple:task")
            assert answer.header["t"] == "unusable"
            assert "3.8 or later is needed" in answer.header["error"]["message"]


def test_the_application_is_imported_once(host):
    """In the zygote, whose log has what the import printed. Jobs are forks of it."""
    host.write(SIMPLE)
    host.start("simple:task", main_module="simple")
    assert {host.run({"x": x}).part()["x"] for x in range(3)} == {0, 1, 2}
    assert host.log.read_text().count("imported by") == 1


THREADED = {
    "threaded.py": """
        import os, threading
        from simple import Hook
        thread = threading.Thread(target=threading.Event().wait, name="watcher", daemon=True)
        thread.start()
        imported_by = os.getpid()
        def task(cfg):
            if cfg.get("act") == "kill": os.kill(os.getpid(), 9)
            return imported_by == os.getpid(), thread.is_alive()
    """
}


@pytest.mark.slow
def test_threads_at_import_mean_a_fresh_process_per_job(host):
    """The run says so. Hooks and epilogues work as ever, and the environment is the one from before the import."""
    host.write({**SIMPLE, **THREADED})
    ready = host.start("threaded:task", [HOOK], main_module="threaded")
    assert ready.header["isolation"] == "spawn"
    assert "started Python threads (watcher)" in ready.header["why"]
    assert host.run({"x": 1}).part() == (True, True)
    payload = host.payload({"x": 4, "act": "kill"})
    dead = host.run(payload=payload)
    assert "end 4 FAILED" in host.wait_end(host.epilogue(dead, payload, {"kind": "killed", "signal": 9})).stdout


def test_jobs_are_forked_if_that_was_requested(host):
    """With a note."""
    host.write({**SIMPLE, **THREADED})
    ready = host.start("threaded:task", isolation="fork")
    assert ready.header["isolation"] == "fork"
    assert "jobs are forked as requested" in ready.header["notes"][0]
    assert host.run({"x": 1}).part()[0] is False


@pytest.mark.slow
def test_jobs_are_spawned_if_that_was_requested(host):
    """Each job imports the application itself, in the environment of its slot."""
    host.write({"simple.py": "import os\nat_import = os.environ.get('SLOT')\ndef task(cfg):\n    return at_import\n"})
    ready = host.start("simple:task", isolation="spawn")
    assert ready.header["isolation"] == "spawn"
    assert host.run(spec={"slot_env": {"SLOT": "GPU-7"}}).part() == "GPU-7"
    (host.code / "simple.py").write_text("raise ImportError('gone since')\n")
    attempt = host.run()
    assert attempt.error["kind"] == "import"
    assert "gone since" in attempt.error["traceback"]


def test_code_by_value_works(host):
    """A function from a notebook, whose module the host does not have."""
    offset = 40

    def task(cfg):
        return cfg.x + offset

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        shared = cloudpickle.dumps({"task": task, "callbacks": [], "hydra": None})
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    host.start(None, shared=shared)
    assert host.run({"x": 2}).part() == 42


@pytest.mark.slow
def test_a_large_shared_payload_is_in_a_file(host):
    """`shared_file` replaces the payload."""
    host.write(SIMPLE)
    big = cloudpickle.dumps({"task": "simple:task", "callbacks": [], "hydra": None, "ballast": b"x" * (2 << 20)})
    assert host.start(None, shared=big).header["t"] == "ready"


def test_a_zygote_without_an_agent_ends_with_its_last_child(host):
    """The agent's socket closes while a job runs. The job finishes, and then the zygote ends."""
    host.write({"slow.py": "import os\ndef task(cfg):\n    os.read(os.open(cfg.fifo, os.O_RDONLY), 1)\n    return 5\n"})
    host.start("slow:task")
    fifo = str(host.root / "fifo")
    os.mkfifo(fifo)
    attempt = host.submit({"fifo": fifo})
    host.wait(lambda: attempt.pid is not None)
    host.sock.close()
    attempt.sock.close()
    writer = os.open(fifo, os.O_WRONLY)
    assert host.process.poll() is None
    os.write(writer, b"x")
    os.close(writer)
    assert host.process.wait(30) == 0
    attempt.status, attempt.eof = 0, True
    frames = attempt.decoder.feed((host.spool / f"orphan-{attempt.name}").read_bytes())
    assert [frame.header["t"] for frame in frames] == ["outcome", "done"]


@pytest.mark.slow
def test_jobs_do_not_hold_each_others_sockets(host):
    """When a job ends, its socket closes, whatever else still runs."""
    host.write(
        {
            "slow.py": "import os\ndef task(cfg):\n    if cfg.get('fifo'):\n        os.read(os.open(cfg.fifo, os.O_RDONLY), 1)\n"
        }
    )
    host.start("slow:task")
    fifo = str(host.root / "fifo")
    os.mkfifo(fifo)
    slow = host.submit({"fifo": fifo})
    quick = host.submit({})
    host.wait(lambda: quick.eof and quick.status is not None)
    assert slow.status is None
    os.close(os.open(fifo, os.O_WRONLY))
    host.wait_end(slow)


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_an_application_may_have_processes_of_its_own(host, method):
    """Multiprocessing in a job works, even if it starts a new Python that imports the main module again."""
    host.write(
        {
            "pooled.py": """
                import multiprocessing
                def square(x): return x * x
                def task(cfg):
                    with multiprocessing.get_context(cfg.method).Pool(1) as pool:
                        return pool.map(square, [3])
            """
        }
    )
    host.start("pooled:task", main_module="pooled")
    attempt = host.run({"method": method})
    assert attempt.part() == [9], attempt.stderr


@pytest.mark.slow
def test_many_jobs_at_once_get_their_own_descriptors(host):
    """Those that were sent with the job."""
    host.write({"simple.py": "def task(cfg):\n    print(cfg.x)\n    return cfg.x\n"})
    host.start("simple:task")
    attempts = [host.submit({"x": x}) for x in range(12)]
    for x, attempt in enumerate(attempts):
        host.wait_end(attempt)
        assert attempt.part() == x
        assert attempt.stdout == f"{x}\n"


def test_a_job_that_cannot_be_forked_has_a_result(host, monkeypatch):
    """Without a process. It is the host's fault."""
    host.write(
        {
            "simple.py": """
                import os
                def no_fork():
                    raise BlockingIOError(11, "Resource temporarily unavailable")
                os.fork = no_fork
                def task(cfg): pass
            """
        }
    )
    host.start("simple:task")
    attempt = host.submit()
    host.wait(lambda: attempt.status is not None and attempt.eof)
    assert attempt.error["kind"] == "host"
    assert "no process could be created for the job" in attempt.error["message"]
