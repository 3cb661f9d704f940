"""The application of the tests of workers: what a job changes, what it leaves, and what it finds."""

import asyncio
import atexit
import contextvars
import decimal
import gc
import gzip
import locale
import logging
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import weakref

VARIABLE = contextvars.ContextVar("variable", default="as at first")
log = logging.getLogger("reused")
#: What jobs share: the globals of a module.
kept = []


def at_import(signum, frame):
    """A handler that the application sets when it is imported."""


signal.signal(signal.SIGUSR1, at_import)
if "AT_EXIT" in os.environ:
    atexit.register(*([signal.pause] if os.environ["AT_EXIT"] == "hang" else [print, os.environ["AT_EXIT"]]))


class Finished:
    """An object that is finished when its process ends."""

    def __init__(self, path):
        self.path = path

    def __del__(self):
        with open(self.path, "w") as file:
            file.write("finished")


# -- what a job finds ------------------------------------------------------------------------------------------------


def found():
    """Everything of the process that a job may look at, as plain text."""
    names = [*logging.root.manager.loggerDict, None]
    loggers = {
        str(name): (one.level, one.disabled, one.propagate, len(one.filters), [type(h).__name__ for h in one.handlers])
        for name, one in ((name, logging.getLogger(name)) for name in names)
        if (one.level, one.disabled, one.propagate, one.handlers, one.filters) != (0, False, True, [], [])
    }
    umask = os.umask(0)
    os.umask(umask)
    variables = {key: value for key, value in os.environ.items() if key != "HYDRA_REMOTE_LAUNCHER_ATTEMPT"}
    return {
        "variables": variables,
        "zone": time.strftime("%Z"),
        "folder": os.getcwd(),
        "umask": umask,
        "path": sys.path,
        "argv": sys.argv,
        "streams": [(stream.encoding, stream.errors, stream.line_buffering) for stream in (sys.stdout, sys.stderr)],
        "stdin": os.path.realpath("/proc/self/fd/0"),
        "signals": {number: str(signal.getsignal(number)).split(" at ")[0] for number in signal.valid_signals()},
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "loggers": loggers,
        "disabled": logging.root.manager.disable,
        "hooks": [str(one) for one in (sys.excepthook, sys.displayhook, threading.excepthook, warnings.showwarning)],
        "warnings": str(warnings.filters),
        "locale": locale.setlocale(locale.LC_ALL),
        "recursion": sys.getrecursionlimit(),
        "gc": (gc.isenabled(), gc.get_threshold()),
        "precision": decimal.getcontext().prec,
        "variable": VARIABLE.get(),
        "temporary": tempfile.gettempdir(),
        "trace": str(sys.gettrace()),
        "limits": resource.getrlimit(resource.RLIMIT_CORE),
        "files": sorted(set(os.listdir("/proc/self/fd")) - {"1", "2"}),
        "task": asyncio._get_running_loop(),
    }


# -- what a job changes ----------------------------------------------------------------------------------------------


def variables():
    os.environ["ADDED"] = "1"
    os.environ.pop("HOME")
    os.environ["PATH"] = "/changed"


def zone():
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()


def folder():
    os.chdir("/")


def umask():
    os.umask(0o777)


def path():
    sys.path.insert(0, "/changed")
    sys.argv.append("changed")


def loggers():
    logging.disable(logging.ERROR)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.addHandler(logging.FileHandler("own.log"))
    log.addFilter(lambda record: False)
    logging.getLogger("new").disabled = True
    logging.root.handlers[0].setLevel(logging.CRITICAL)
    logging.root.handlers[0].setFormatter(logging.Formatter("changed %(message)s"))


def signals():
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    signal.setitimer(signal.ITIMER_REAL, 1000)


def streams():
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it stays open


def hooks():
    sys.excepthook = sys.displayhook = threading.excepthook = warnings.showwarning = print
    warnings.simplefilter("error")


def settings():
    sys.setrecursionlimit(5000)
    gc.disable()
    gc.set_threshold(1)
    sys.settrace(lambda *args: None)
    decimal.getcontext().prec = 3
    VARIABLE.set("changed")
    tempfile.tempdir = "/changed"


def standard_fds():
    os.close(1)
    os.close(2)


CHANGES = (variables, zone, folder, umask, path, loggers, signals, streams, hooks, settings, standard_fds)


# -- what a job leaves -----------------------------------------------------------------------------------------------


def nothing():
    kept.append(random.random())
    print("printed")
    log.info("logged")
    with open("file.txt", "w") as file:
        file.write("written")
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    subprocess.run(["true"], check=True)


def thread():
    threading.Thread(target=time.sleep, args=(0.2,)).start()


def daemon():
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def child():
    kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL))


def zombie():
    if not os.fork():
        os._exit(0)


def grandchild():
    pid = os.fork()
    if not pid:
        left = os.fork()
        if not left:
            signal.pause()
        # For the test, which ends it.
        with open("grandchild.pid", "w") as file:
            file.write(str(left))
        os._exit(0)
    os.waitpid(pid, 0)


def ignored_children():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def exit_function():
    atexit.register(print, "at exit")


def finalizer():
    kept.append(weakref.finalize(Finished, print, "finalized"))


def temporary_folder():
    kept.append(tempfile.TemporaryDirectory())


def open_file():
    kept.append(open("file.txt", "w"))  # noqa: SIM115 - it stays open
    kept[-1].write("written")


def open_socket():
    kept.append(socket.socket())


def descriptor():
    os.open("/", os.O_RDONLY)


def other_stdin():
    os.dup2(os.open("/", os.O_RDONLY), 0)


def compressed():
    kept.append(gzip.open("file.gz", "wt"))  # noqa: SIM115 - it stays open
    kept[-1].write("written")


def object_with_end():
    kept.append(Finished("finished.txt"))


def limit():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def soft_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))


def memory_limit():
    resource.setrlimit(resource.RLIMIT_AS, (1 << 40, resource.RLIM_INFINITY))


def nice():
    os.nice(1 if os.nice(0) < 19 else -1)


def closed_stdout():
    sys.stdout.close()


def detached_stdout():
    sys.stdout.detach()


def other_encoding():
    sys.stdout.reconfigure(encoding="ascii")


def memory():
    kept.append(bytearray(300 << 20))
    kept[-1][::4096] = bytes(len(kept[-1][::4096]))


def resolver():
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("of_a_job", lambda: 1)


LEAVES = (
    thread,
    daemon,
    child,
    zombie,
    grandchild,
    ignored_children,
    exit_function,
    finalizer,
    temporary_folder,
    open_file,
    open_socket,
    descriptor,
    other_stdin,
    compressed,
    object_with_end,
    limit,
    soft_limit,
    memory_limit,
    nice,
    closed_stdout,
    detached_stdout,
    other_encoding,
    memory,
    resolver,
)


class Hook:
    """A callback with a state."""

    seen = 0

    def on_job_start(self, config, **kwargs):
        self.seen += 1

    def on_job_end(self, config, job_return, **kwargs):
        print("end", self.seen, job_return.status.name)


class Unpicklable(Hook):
    """A callback that cannot be made again."""

    def __init__(self):
        self.lock = threading.Lock()


def task(cfg):
    """Do what the config says, and return what there was before."""
    before = found()
    if cfg.get("do"):
        globals()[cfg["do"]]()
    return os.getpid(), before
