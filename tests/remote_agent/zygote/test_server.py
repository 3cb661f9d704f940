"""The zygote: import once, fork per job; spawn where a fork would break; nothing is lost with the agent."""

from __future__ import annotations

import os
import random
import sys

import cloudpickle
import pytest

from remote_agent.job import JobError
from remote_agent.job_process.seeds import SeedWatch
from remote_agent.zygote import packages
from tests.specs import controller_facts

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


def test_other_pythons_with_nothing_installed(new_host, python):
    """Jobs, hooks, epilogues and results by reference work under another minor version; the bundle brings the rest."""
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


def test_code_by_value_needs_the_same_minor_version(new_host, python):
    """Said before any job starts, with both versions and what to do."""
    host = new_host(python)
    controller = {"python": [3, 7], "by_value": True, "omegaconf": "2.3.0", "hydra": None, "cloudpickle": "3.0.0"}
    answer = host.start(None, controller=controller)
    assert answer.header["t"] == "unusable"
    error = JobError.from_json(answer.header["error"])
    assert error.kind == "config"
    assert "the controller has 3.7, gpu1 has " in error.message
    assert "--python" in error.message


@pytest.mark.pythons
def test_a_python_that_is_too_old(new_host):
    """A frame that says so, from a Python that cannot even parse the rest."""
    for python in ("/root/.pyenv/versions/2.7.18/bin/python", "/root/.pyenv/versions/3.6.15/bin/python"):
        if os.path.exists(python):
            answer = new_host(python).start("simple:task")
            assert answer.header["t"] == "unusable"
            assert "3.8 or later is needed" in answer.header["error"]["message"]


def test_the_application_is_imported_once(host):
    """In the zygote, whose log has what the import printed; jobs are forks of it."""
    host.write(SIMPLE)
    host.start("simple:task", main_module="simple")
    assert {host.run({"x": x}).part()["x"] for x in range(3)} == {0, 1, 2}
    assert host.log.read_text().count("imported by") == 1


def test_the_main_module_is_main_too(host):
    """`_target_: __main__.Thing` and a pickle that says `__main__` find the application; its guard does not run."""
    host.write(
        {
            "my_app.py": """
                import sys
                class Thing: pass
                def task(cfg):
                    return sys.modules["__main__"] is sys.modules["my_app"]
                if __name__ == "__main__":
                    raise RuntimeError("run as a script")
            """
        }
    )
    host.start("my_app:task", main_module="my_app")
    assert host.run().part() is True


_LOOKS = {
    "sub/my_app.py": """
        import sys
        def task(cfg):
            main = sys.modules["__main__"]
            orig = getattr(sys, "orig_argv", None)
            return [main.__spec__ and main.__spec__.name, main.__package__, getattr(main, "__file__", None),
                    sys.path[0], list(sys.argv), orig and orig[1:]]
    """,
    "sub/__init__.py": "",
}


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_main_looks_as_it_was_started(new_host, isolation):
    """A script has no `__spec__` and a module has; what stands in front on the path is the application's, not the bundle's."""
    host = new_host()
    host.write(_LOOKS)
    script = {"main_module": "my_app", "sys_path": [f"{host.code}/sub"], "isolation": isolation}
    # An omegaconf that is nowhere installed: that of the bundle is used.
    family = {
        "python": list(sys.version_info[:2]),
        "by_value": False,
        "omegaconf": "1.0.0",
        "hydra": None,
        "cloudpickle": "0",
    }
    host.start("my_app:task", **script, controller=family, argv=["sub/my_app.py", "x=1"])
    file = f"{host.code}/sub/my_app.py"
    argv = ["sub/my_app.py", "x=1"]
    assert host.run().part() == [
        None,
        None,
        file,
        f"{host.code}/sub",
        argv,
        argv if sys.version_info >= (3, 10) else None,
    ]


def test_main_of_a_module_says_its_name(new_host):
    """`python -m sub.my_app`: `sys.argv[0]` is the whole path, and whoever starts it anew finds its name."""
    host = new_host()
    host.write(_LOOKS)
    host.start(
        "sub.my_app:task",
        main_module="sub.my_app",
        main_is_module=True,
        argv0_is_absolute=True,
        argv=["sub/my_app.py", "x=1"],
    )
    file = f"{host.code}/sub/my_app.py"
    assert host.run().part() == ["sub.my_app", "sub", file, str(host.code), [file, "x=1"], ["-m", "sub.my_app", "x=1"]]


def test_main_is_empty_where_there_is_no_script(new_host):
    """A notebook's job sees nothing of ours in `__main__`."""
    host = new_host()
    host.write({"thing.py": "import sys\ndef task(cfg): return sorted(vars(sys.modules['__main__']))\n"})
    host.start("thing:task")
    assert host.run().part() == ["__doc__", "__loader__", "__name__", "__package__", "__spec__"]


@pytest.mark.parametrize(
    ("code", "type_", "text"),
    [
        ("import no_such_package", "ModuleNotFoundError", "no_such_package"),
        ("raise SystemExit(3)", "SystemExit", "raise SystemExit(3)"),
        ("def broken(:", "SyntaxError", "def broken"),
    ],
)
@pytest.mark.parametrize("isolation", ["auto", "spawn"])
def test_an_application_that_cannot_be_imported(host, code, type_, text, isolation):
    """Told once, with its own traceback, before any job; in a probe where jobs would import it themselves."""
    host.write({"bad.py": code + "\n"})
    answer = host.start("bad:task", main_module="bad", isolation=isolation)
    assert answer.header["t"] == "unusable"
    error = JobError.from_json(answer.header["error"])
    assert (error.kind, error.type) == ("import", type_) or type_ == "SystemExit"
    assert text in error.traceback
    assert "prepare.py" not in error.traceback
    if type_ == "ModuleNotFoundError":
        # The most frequent reason why nothing runs on a new host: which Python it is, and how to choose another.
        assert f"next: jobs run there under {sys.executable}" in error.message
        assert "--python PATH" in error.message
        assert "importlib" not in error.traceback
    assert host.process.wait(30) in (0, 1)


def test_an_application_that_imports_the_controller(host):
    """Of `launcher` a host has the table of contents alone: told where such an import belongs."""
    host.write({"bad.py": "import launcher.inventory\n"})
    answer = host.start("bad:task", main_module="bad")
    error = JobError.from_json(answer.header["error"])
    assert "import it below `if __name__ == '__main__':`" in error.message


def test_a_folder_that_is_not_there(host):
    """The working folder of the jobs: the host's fault, by name."""
    answer = host.start("simple:task", cwd=str(host.root / "nowhere"))
    error = JobError.from_json(answer.header["error"])
    assert error.kind == "host"
    assert f"{host.root / 'nowhere'}, cannot be entered on gpu1: No such file" in error.message


def test_a_callback_that_cannot_be_built(host):
    """Its constructor's traceback, and which callback it was."""
    host.write(
        {
            "simple.py": "class Bad:\n    def __init__(self):\n        raise ValueError('bad start')\ndef task(cfg): pass\n"
        }
    )
    answer = host.start("simple:task", [{**HOOK, "spec": {"_target_": "simple.Bad"}}])
    error = JobError.from_json(answer.header["error"])
    assert error.kind == "config"
    assert "callback 'hook' cannot be built on the host" in error.message
    assert "bad start" in error.message


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
    """And the run says so; hooks and epilogues work as ever, and the environment is the one from before the import."""
    host.write({**SIMPLE, **THREADED})
    ready = host.start("threaded:task", [HOOK], main_module="threaded")
    assert ready.header["isolation"] == "spawn"
    assert "started Python threads (watcher)" in ready.header["why"]
    assert host.run({"x": 1}).part() == (True, True)
    payload = host.payload({"x": 4, "act": "kill"})
    dead = host.run(payload=payload)
    assert "end 4 FAILED" in host.wait_end(host.epilogue(dead, payload, {"kind": "killed", "signal": 9})).stdout


NATIVE = """
import ctypes

library = ctypes.CDLL(None)
for _ in range(COUNT):
    library.pthread_create(ctypes.byref(ctypes.c_ulong()), None, library.pause, None)


def task(cfg):
    return "here"
"""


@pytest.mark.slow
@pytest.mark.parametrize(("count", "more"), [(1, "1 native thread"), (3, "3 native threads")])
@pytest.mark.parametrize("numpy", [False, True])
def test_native_threads_at_import_mean_a_fresh_process_per_job(host, count, more, numpy):
    """Python knows nothing of them, and a fork would have locks that nobody holds any more. Those of OpenBLAS do not count."""
    host.write({"native.py": "import numpy\n" * numpy + NATIVE.replace("COUNT", str(count))})
    ready = host.start("native:task")
    assert ready.header["isolation"] == "spawn"
    assert f"started {more}, so every job" in ready.header["why"]
    assert host.run().part() == "here"


@pytest.mark.parametrize("environ", [{}, {"OPENBLAS_NUM_THREADS": "1"}, {"OPENBLAS_NUM_THREADS": "2"}])
def test_the_threads_of_openblas_do_not_count(host, environ):
    """It ends its pool before a fork, and starts it anew after it: numpy in a forked job is as fast as ever, and works."""
    host.write(
        {
            "blas.py": """
            import os, numpy
            matrix = numpy.ones((300, 300)) @ numpy.ones((300, 300))
            threads = len(os.listdir("/proc/self/task"))
            def task(cfg):
                return threads, float((matrix @ matrix)[0, 0])
            """
        }
    )
    ready = host.start("blas:task", environ=environ)
    assert ready.header["isolation"] == "fork"
    threads, value = host.run().part()
    assert value == 300.0**2 * 300
    expected = int(environ.get("OPENBLAS_NUM_THREADS", len(os.sched_getaffinity(0))))
    assert threads == min(expected, len(os.sched_getaffinity(0)))


class TestCountingThreads:
    """Which threads are believed to be OpenBLAS's, and what is said where threads cannot be counted."""

    @pytest.fixture
    def look(self, monkeypatch):
        """Threads as a test wants them: `look(names, pool, configured)`."""
        from remote_agent.zygote import native_threads

        def made(names, asked=0, configured=0):
            monkeypatch.setattr(native_threads, "_PAUSE", 0)
            monkeypatch.setattr(native_threads, "_names", lambda: names.pop(0) if len(names) > 1 else names[0])
            monkeypatch.setattr(native_threads, "_openblas_threads", lambda libraries: (asked, configured))
            return native_threads.unforkable_threads(1)

        return made

    def test_a_pool_counts_with_what_it_says(self, look):
        """No more is believed: threads of others do not hide in what a large machine might have had."""
        assert look([["python"] * 4], asked=3, configured=63) == ""
        assert look([["python"] * 18], asked=0, configured=63) == "started 17 native threads"

    def test_a_limit_that_was_set_after_the_pool_was_made(self, look):
        """The pool has as many threads as by default; so many and not one more are its."""
        assert look([["python"] * 64], asked=0, configured=63) == ""
        assert look([["python"] * 65], asked=0, configured=63) == "started 64 native threads"

    def test_a_thread_that_is_just_ending(self, look):
        """It is still listed when it has been joined; it is looked at again."""
        assert look([["python", "worker"], ["python", "worker"], ["python"]]) == ""

    def test_threads_are_named(self, look):
        """Where they have names of their own."""
        assert look([["python", "tf_XLA", "python"]]) == "started 2 native threads (such as tf_XLA)"

    def test_a_system_that_does_not_tell_of_threads(self, monkeypatch):
        """What is Python alone is forked; native code that the application brought is not."""
        from remote_agent.zygote import native_threads

        monkeypatch.setattr(native_threads, "_TASKS", "/no/such/folder")
        monkeypatch.setattr(native_threads, "_loaded_extensions", list)
        assert native_threads.unforkable_threads(1) == ""
        monkeypatch.setattr(native_threads, "_loaded_extensions", lambda: ["numpy"])
        assert "numpy" in native_threads.unforkable_threads(1)


def test_fork_where_fork_was_asked_for(host):
    """With a note."""
    host.write({**SIMPLE, **THREADED})
    ready = host.start("threaded:task", isolation="fork")
    assert ready.header["isolation"] == "fork"
    assert "jobs are forked as was asked for" in ready.header["notes"][0]
    assert host.run({"x": 1}).part()[0] is False


@pytest.mark.slow
def test_spawn_where_spawn_was_asked_for(host):
    """Each job imports the application itself, in the environment of its slot."""
    host.write({"simple.py": "import os\nat_import = os.environ.get('SLOT')\ndef task(cfg):\n    return at_import\n"})
    ready = host.start("simple:task", isolation="spawn")
    assert ready.header["isolation"] == "spawn"
    assert host.run(spec={"slot_env": {"SLOT": "GPU-7"}}).part() == "GPU-7"
    (host.code / "simple.py").write_text("raise ImportError('gone since')\n")
    attempt = host.run()
    assert attempt.error["kind"] == "import"
    assert "gone since" in attempt.error["traceback"]


def test_a_gpu_in_use_counts_like_a_thread(monkeypatch):
    """torch.cuda initialised, or a descriptor of an nvidia device."""
    from types import SimpleNamespace

    from remote_agent.zygote import prepare

    # Other tests of this process may have left threads; here it is the GPU that counts.
    monkeypatch.setattr(prepare.threading, "enumerate", lambda: [prepare.threading.main_thread()])
    monkeypatch.setattr(prepare, "unforkable_threads", lambda threads: "")
    assert prepare.why_not_forkable() == ""
    torch = SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: True))
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert prepare.why_not_forkable() == "initialised CUDA"
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(os, "readlink", lambda path: "/dev/nvidia0")
    assert prepare.why_not_forkable() == "initialised CUDA"


def test_code_by_value(host):
    """A function from a notebook: no module of it is on the host."""
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


def test_a_large_shared_payload_lies_in_a_file(host):
    """`shared_file` in the place of a payload."""
    host.write(SIMPLE)
    big = cloudpickle.dumps({"task": "simple:task", "callbacks": [], "hydra": None, "ballast": b"x" * (2 << 20)})
    assert host.start(None, shared=big).header["t"] == "ready"


def test_a_zygote_without_an_agent_ends_with_its_last_child(host):
    """The agent's socket is closed while a job runs: the job finishes, then the zygote goes."""
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


def test_jobs_do_not_hold_each_others_sockets(host):
    """The end of a job is the end of its socket, whatever else still runs."""
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


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_application_may_have_processes_of_its_own(host, method):
    """Multiprocessing inside a job, also where it starts Python anew and imports the main module again."""
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


def test_many_jobs_at_once(host):
    """Descriptors go to the job that they were sent with."""
    host.write({"simple.py": "def task(cfg):\n    print(cfg.x)\n    return cfg.x\n"})
    host.start("simple:task")
    attempts = [host.submit({"x": x}) for x in range(12)]
    for x, attempt in enumerate(attempts):
        host.wait_end(attempt)
        assert attempt.part() == x
        assert attempt.stdout == f"{x}\n"


def test_a_job_that_cannot_be_forked_is_told_of(host, monkeypatch):
    """No process, but a result: the host's fault."""
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
    assert "no process could be made for the job" in attempt.error["message"]


# -- random numbers --------------------------------------------------------------------------------------------------


def test_random_numbers_differ_unless_they_were_seeded(host):
    """As in processes that each import the application: a seed at import counts, and without one no two jobs are alike."""
    host.write(
        {
            "seeded.py": "import random\nrandom.seed(3)\ndef task(cfg):\n    return random.random()\n",
            "free.py": "import random\nrandom.random()\ndef task(cfg):\n    return random.random()\n",
        }
    )
    host.start("seeded:task")
    assert [host.run().part() for _ in range(2)] == [random.Random(3).random()] * 2


def test_unseeded_random_numbers(host):
    """No two jobs are alike."""
    host.write({"free.py": "import random\nrandom.random()\ndef task(cfg):\n    return random.random()\n"})
    host.start("free:task")
    assert host.run().part() != host.run().part()


class _FakeNumpyRandom:
    def __init__(self, first):
        self.first = first
        self.seeded = 0

    def get_state(self):
        return ("MT19937", [self.first])

    def seed(self):
        self.seeded += 1


@pytest.mark.parametrize(("first", "seeded"), [(0x80000000, 1), (42, 0)])
def test_numpys_generator(monkeypatch, first, seeded):
    """Seeded anew in each job, unless the application chose a seed."""
    fake = _FakeNumpyRandom(first)
    monkeypatch.setitem(sys.modules, "numpy.random", fake)
    SeedWatch().in_job()
    assert fake.seeded == seeded


# -- packages --------------------------------------------------------------------------------------------------------


def _environment(tmp_path, **versions):
    for name, version in versions.items():
        folder = tmp_path / "env" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(f'__version__ = "{version}"\n')
    return str(tmp_path / "env")


@pytest.mark.parametrize(
    ("versions", "hydra", "taken"),
    [
        ({"omegaconf": "2.3.7", "hydra": "1.3.2", "antlr4": "4.9.3", "yaml": "6.0"}, "1.3.8", False),
        ({"omegaconf": "2.3.7", "antlr4": "4.9.3", "yaml": "6.0"}, None, False),
        ({"omegaconf": "2.3.7", "antlr4": "4.9.3", "yaml": "6.0"}, "1.3.8", True),
        ({"omegaconf": "2.1.0", "hydra": "1.3.2", "antlr4": "4.8", "yaml": "6.0"}, "1.3.8", True),
        ({"omegaconf": "2.3.7", "antlr4": "4.9.3"}, None, True),
        ({}, None, True),
    ],
)
def test_the_family_is_one_unit(tmp_path, monkeypatch, versions, hydra, taken):
    """All from the environment, in the controller's minor version, or all from the bundle and then first."""
    for name in ("omegaconf", "hydra", "antlr4", "yaml"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    path = [_environment(tmp_path, **versions, cloudpickle="3.1.0"), *[p for p in sys.path if "site-packages" not in p]]
    monkeypatch.setattr(sys, "path", path)
    controller = controller_facts(hydra=hydra, cloudpickle="3.0.0")
    assert packages.choose_packages("/bundle", controller) == (["family"] if taken else [])
    assert (sys.path[0] == "/bundle/_vendor/family") is taken


def test_cloudpickle_is_taken_where_the_environments_is_older(tmp_path, monkeypatch):
    """What a newer one pickles an older one may not load."""
    for version, wanted, taken in [("2.2.0", "3.1.2", True), ("3.1.0", "3.1.2", True), ("3.1.2", "3.1.1", False)]:
        folder = tmp_path / version
        env = _environment(folder, cloudpickle=version, omegaconf="2.3.0", antlr4="4.9", yaml="6")
        monkeypatch.setattr(sys, "path", [env])
        for name in ("omegaconf", "antlr4", "yaml", "cloudpickle"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        vendor = folder / "bundle" / "_vendor" / "cloudpickle"
        vendor.mkdir(parents=True)
        (vendor / "__init__.py").write_text("ours = True\n")
        got = packages.choose_packages(str(folder / "bundle"), controller_facts(omegaconf="2.3.1", cloudpickle=wanted))
        assert got == (["cloudpickle"] if taken else [])
        assert hasattr(sys.modules.get("cloudpickle"), "ours") is taken
