"""Hosts with an application for the tests of a job's process."""

from __future__ import annotations

import pytest

HOOKED = {
    "hooked.py": """
        import logging, os, sys, threading, time
        from remote_agent import Callback

        log = logging.getLogger("hooked")

        class Scripted(Callback):
            '''Does what the config says under its name.'''
            def __init__(self, name, on_error=None):
                self.name = name
                self.trail = []
                if on_error:
                    self.on_error = on_error
            def _do(self, hook, config, job_return=None):
                act = config.get("do", {}).get("{}.{}".format(self.name, hook))
                print("{}.{} {}".format(self.name, hook, os.getpid()), flush=True)
                if act is None: return
                if act == "raise": raise ValueError("{} in {}".format(self.name, hook))
                if act == "exit": sys.exit(3)
                if act == "kill": os.kill(os.getpid(), 9)
                if act == "term": os.kill(os.getpid(), 15)
                if act == "die": os._exit(0)
                if act == "lock": self.lock = threading.Lock()
                if act == "heavy": self.trail.append("x" * (2 << 20))
                if act == "weigh": print("trail", [len(item) for item in self.trail])
                if act == "edit": config.x = 99
                if act == "seen": print("env", os.environ.get("FROM_JOB"), "cwd", os.getcwd(), type(config).__name__)
                if act == "double": job_return.return_value = 2 * job_return.return_value
                if act == "grow": job_return.return_value.append("grown")
                if act == "stuff": job_return.return_value = threading.Lock()
                if act == "nonsense": job_return.status = "fine"; job_return.overrides = [object()]
                if act == "forgive":
                    job_return.status = type(job_return.status)["COMPLETED"]; job_return.return_value = "forgiven"
                if act == "condemn": job_return.status = type(job_return.status)["FAILED"]
                if act == "cfg": job_return.cfg = {"replaced": True}
                if act == "show":
                    print("JR", job_return.status.name, job_return.task_name, job_return.num, job_return.job_id,
                          job_return.host, job_return.working_dir, job_return.overrides, job_return.cfg,
                          job_return.hydra_cfg.hydra.job.num, job_return.error, job_return.duration is not None)
                if act == "trail": print("trail", self.trail)
            def on_job_start(self, config, task_function, **kwargs):
                self.trail.append("started")
                assert callable(task_function) and not kwargs
                print("task", task_function.__name__)
                self._do("start", config)
                self.trail.append("after")
            def on_job_end(self, config, job_return, **kwargs):
                assert not kwargs
                self._do("end", config, job_return)

        class EndOnly:
            def on_job_end(self, config, job_return, **kwargs):
                print("endonly", job_return.status.name, None if config is None else config.hydra.job.name)

        def task(cfg):
            print("application", os.getpid(), flush=True)
            act = cfg.get("act")
            if act == "raise": raise KeyError("app")
            if act == "kill": os.kill(os.getpid(), 9)
            if act == "die": os._exit(0)
            if act == "exit": sys.exit(2)
            if act == "lock": return threading.Lock()
            if act == "list": return [1]
            if act == "big": cfg.x = 5; return b"x" * (2 << 20)
            if act == "wait":
                print("waiting", flush=True); time.sleep(60)
            return cfg.get("x")
    """
}


def _spec(name, **kwargs):
    return {
        "name": name,
        "spec": {"_target_": "hooked.Scripted", "name": name, **kwargs},
        "pickle": None,
        "why": "a test",
        "on_error": None,
    }


@pytest.fixture(scope="module")
def hooked(new_shared_host):
    """A host with callbacks a (warn), b (fail), c (abort) and one that has only on_job_end."""
    host = new_shared_host()
    host.write(HOOKED)
    end_only = {"name": "e", "spec": {"_target_": "hooked.EndOnly"}, "pickle": None, "why": "a test", "on_error": None}
    ready = host.start("hooked:task", [_spec("a"), _spec("b", on_error="fail"), _spec("c", on_error="abort"), end_only])
    assert ready.header["t"] == "ready", ready
    assert len(ready.header["notes"]) == 4
    return host


JOBS = {
    "confs_of_jobs.py": """
        from dataclasses import dataclass, field

        @dataclass
        class Inner:
            lr: float = 0.1

        @dataclass
        class Conf:
            x: int = 1
            inner: Inner = field(default_factory=Inner)
    """,
    "jobs.py": """
        import atexit, fcntl, io, logging, os, signal, sys, threading, time

        log = logging.getLogger(__name__)

        class TwoArguments(Exception):
            def __init__(self, a, b):
                super().__init__("{} and {}".format(a, b))

        class Prefixed(Exception):
            def __init__(self, text):
                super().__init__("prefix " + text)

        class Hostile(Exception):
            def __str__(self):
                raise SystemExit(3)
            __repr__ = __str__
            def __reduce__(self):
                raise SystemExit(4)

        class LeavesWhenPickled:
            def __reduce__(self):
                sys.exit(9)

        class Base(BaseException):
            pass

        def nothing(cfg): return None
        def echo(cfg): return cfg
        def kind(cfg): return type(cfg).__name__
        def where(cfg): return os.getcwd()
        def environment(cfg): return {name: os.environ.get(name) for name in cfg.names}
        def speak(cfg):
            print("out"); print("err", file=sys.stderr); log.info("logged"); log.debug("detail")
            os.write(1, b"raw\\n"); sys.stdout.write("\\udcff\\u00e9")
        def edit(cfg):
            cfg.x = 5
        def fail(cfg):
            try:
                {}["inner"]
            except KeyError as error:
                raise ValueError("no good") from error
        def fail_during(cfg):
            try:
                {}["inner"]
            except KeyError:
                raise ValueError("no good")
        def raise_(cfg):
            raise {"two": TwoArguments(1, 2), "prefixed": Prefixed("x"), "hostile": Hostile(), "base": Base("b"),
                   "interrupt": KeyboardInterrupt(), "generator": GeneratorExit()}[cfg.what] if cfg.what in (
                   "two", "prefixed", "hostile", "base", "interrupt", "generator") else RuntimeError(cfg.what)
        def group(cfg):
            raise ExceptionGroup("many", [ValueError("one"), TypeError("two")])
        def chain(cfg):
            error = None
            for number in range(3000):
                new = ValueError(number)
                new.__cause__ = error
                error = new
            raise error
        def deep(cfg):
            def go(n):
                return go(n + 1)
            go(0)
        def leave(cfg):
            sys.exit({"none": None, "zero": 0, "three": 3, "text": "bye", "big": 256, "false": False}[cfg.code])
        def die(cfg): os._exit(cfg.code)
        def kill(cfg): os.kill(os.getpid(), cfg.signal)
        def segfault(cfg):
            import ctypes
            ctypes.string_at(0)
        def wait(cfg):
            print("waiting", flush=True)
            time.sleep(60)
        def stubborn(cfg):
            try:
                print("waiting", flush=True)
                time.sleep(60)
            except BaseException:
                return "saved"
        def value(cfg):
            cycle = []; cycle.append(cycle)
            nested = []
            for _ in range(100000):
                nested = [nested]
            return {"generator": (i for i in ()), "lock": [threading.Lock()], "cycle": cycle, "nested": nested,
                    "exits": LeavesWhenPickled(), "lambda": lambda: 7, "big": b"x" * (3 << 20)}[cfg.what]
        def close_streams(cfg):
            for fd in (0, 1, 2):
                os.close(fd)
            with open("/dev/null", "w") as file:
                return file.fileno()
        def close_everything(cfg):
            if cfg.get("act") == "raise":
                os.closerange(0, 65536); raise ValueError("closed")
            os.closerange(0, 65536)
            return "closed"
        def replace_streams(cfg):
            class Broken:
                def write(self, text): raise OSError("broken")
                def flush(self): raise OSError("broken")
            sys.stdout = sys.stderr = Broken()
            return "replaced"
        def wander(cfg):
            os.mkdir("gone"); os.chdir("gone"); os.rmdir("../gone")
            os.umask(0o777)
            return b"y" * (2 << 20)
        def exit_seven(cfg):
            atexit.register(os._exit, 7)
            return "safe"
        def raising_atexit(cfg):
            def bad(): raise RuntimeError("too late")
            atexit.register(bad)
            return "safe"
        def handlers(cfg):
            def bad(*_): raise RuntimeError("handler")
            for number in (signal.SIGTERM, signal.SIGUSR1):
                signal.signal(number, bad)
            # A timer that fires all the time, and whose handler raises once the task is over.
            def raise_when_the_task_is_over(number, frame):
                while frame is not None:
                    if frame.f_code is handlers.__code__:
                        return
                    frame = frame.f_back
                raise RuntimeError("handler")
            signal.signal(signal.SIGALRM, raise_when_the_task_is_over)
            signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
            if cfg.get("fails"):
                raise ValueError("of the task")
            return "handled"
        def signal_at_return(cfg):
            def bad(*_): raise RuntimeError("handler")
            signal.signal(signal.SIGIO, bad)
            read, write = os.pipe()
            fcntl.fcntl(read, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(read, fcntl.F_SETFL, os.O_ASYNC)
            # The last one that can write goes with this function's variables, which sends SIGIO: the task returns then.
            closes = io.FileIO(write, "w")
            if cfg.get("fails"):
                raise ValueError("of the task")
            return "handled"
        def signal_while_pickling(cfg):
            def bad(*_): raise RuntimeError("handler")
            signal.signal(signal.SIGUSR1, bad)
            class Returned:
                def __reduce__(self):
                    # Called while the result is pickled: a signal that comes then.
                    os.kill(os.getpid(), signal.SIGUSR1)
                    return str, ("handled",)
            return Returned()
        def thread(cfg):
            threading.Thread(target=time.sleep, args=(0.05,)).start()
            return "left"
        def locale_(cfg):
            os.environ["LC_ALL"] = "de_DE"
            os.environ.clear()
            return "cleared"
        def umask(cfg):
            mask = os.umask(0); os.umask(mask); return mask
        def process(cfg):
            return {"sid": os.getsid(0), "pid": os.getpid(), "stdin": os.readlink("/proc/self/fd/0"),
                    "fds": sorted(int(n) for n in os.listdir("/proc/self/fd")), "argv": sys.argv}
    """,
}


@pytest.fixture(scope="module")
def jobs(new_shared_host):
    """A host with the tasks above and no callbacks. `jobs(task, config, ...)` runs one."""
    host = new_shared_host()
    host.write(JOBS)
    ready = host.start("jobs:nothing")
    assert ready.header["t"] == "ready", ready

    def run(task, config=None, **kwargs):
        return host.run({} if config is None else config, task=f"jobs:{task}", **kwargs)

    run.host = host
    return run
