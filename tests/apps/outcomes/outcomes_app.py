"""An application whose jobs end in every way; each function is one, and its docstring is its row in docs/outcomes.md."""

import atexit
import builtins
import ctypes
import locale
import os
import shutil
import signal
import socket
import sys
import threading
import types

import launcher


def value():
    """Returns a plain value"""
    return {"a": [1, 2.5, "x"]}


def lock():
    """Returns a lock"""
    return threading.Lock()


def generator():
    """Returns a generator"""
    return (one for one in range(3))


def open_socket():
    """Returns an open socket inside a list"""
    return [socket.socket()]


def cycle():
    """Returns a list that holds itself"""
    made = [1]
    made.append(made)
    return made


def deep():
    """Returns lists nested 100,000 deep"""
    made = []
    for _ in range(100_000):
        made = [made]
    return made


class _Reduces:
    def __init__(self, how):
        self.how = how

    def __reduce__(self):
        if self.how == "raises":
            raise ValueError("not to be pickled")
        if self.how == "exits":
            sys.exit(9)
        return os.system, ("exit 3",)


def reduce_raises():
    """Returns an object whose `__reduce__` raises"""
    return _Reduces("raises")


def reduce_exits():
    """Returns an object whose `__reduce__` calls `sys.exit`"""
    return _Reduces("exits")


def reduce_spawns():
    """Returns an object whose pickle starts a process when it is loaded"""
    return _Reduces("spawns")


def class_only_there():
    """Returns an object of a class that only the host has"""
    module = sys.modules["only_there"] = types.ModuleType("only_there")
    exec("class Thing:\n    pass", module.__dict__)
    return module.Thing()


class Hostile:
    """Cannot be compared, printed or counted."""

    def __eq__(self, other):
        raise RuntimeError("no comparison")

    __hash__ = None

    def __repr__(self):
        raise RuntimeError("no repr")

    def __bool__(self):
        raise RuntimeError("no truth")


def hostile_value():
    """Returns an object whose `==`, `repr` and `bool` raise"""
    return Hostile()


def raises():
    """Raises ValueError"""
    raise ValueError("wrong value")


class TwoArguments(Exception):
    """Cannot be unpickled."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")


def own_init():
    """Raises an exception with a two-argument `__init__`"""
    raise TwoArguments(7, "seven")


def holds_lock():
    """Raises an exception that holds a lock"""
    error = ValueError("locked")
    error.lock = threading.Lock()
    raise error


class Unspeakable(Exception):
    """Has no text."""

    def __str__(self):
        raise RuntimeError("no text")


def no_text():
    """Raises an exception whose `str` raises"""
    raise Unspeakable


def chain():
    """Raises RuntimeError from a KeyError"""
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise RuntimeError("outer") from error


def group():
    """Raises an exception group"""
    raise builtins.ExceptionGroup("several", [ValueError("one"), TypeError("two")])


class Base(BaseException):
    """Derives from BaseException."""


def base_exception():
    """Raises a subclass of BaseException"""
    raise Base("not an Exception")


def keyboard_interrupt():
    """Raises KeyboardInterrupt"""
    raise KeyboardInterrupt


def exit_0():
    """Calls `sys.exit(0)`"""
    sys.exit(0)


def exit_3():
    """Calls `sys.exit(3)`"""
    sys.exit(3)


def exit_text():
    """Calls `sys.exit("bad input")`"""
    sys.exit("bad input")


def os_exit():
    """Calls `os._exit(0)`"""
    os._exit(0)


def sigkill():
    """Is killed by SIGKILL"""
    os.kill(os.getpid(), signal.SIGKILL)


def sigterm():
    """Gets SIGTERM from somebody else"""
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(30)


def segfault():
    """Reads address 0"""
    ctypes.string_at(0)


def closes_descriptors():
    """Closes the descriptors 0 to 2, and opens files"""
    for fd in range(3):
        os.close(fd)
    with open(os.devnull) as file:
        assert file.fileno() < 3


def breaks_stdout():
    """Puts an object in the place of `sys.stdout` that cannot write"""
    sys.stdout = sys.stderr = object()


def changes_directory():
    """Changes to a folder and removes it"""
    os.mkdir("gone")
    os.chdir("gone")
    shutil.rmtree(os.getcwd())


def changes_umask():
    """Sets the umask to 0777"""
    os.umask(0o777)


def ignores_signals():
    """Ignores every signal it can, and starts a timer"""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 600)


def changes_locale():
    """Changes the locale and the variables of it"""
    os.environ.update(LANG="C", LC_ALL="C", PYTHONIOENCODING="ascii")
    locale.setlocale(locale.LC_ALL, "C")
    return "\u00fc"


def exits_at_exit():
    """Has an atexit function that exits with 7"""
    atexit.register(os._exit, 7)


def leaves_thread():
    """Leaves a thread behind that never ends"""
    threading.Thread(target=threading.Event().wait).start()


class Hooks(launcher.Callback):
    """Has a hook at either end of a job; what fired is in the JobReturn."""

    def on_job_start(self, config, **kwargs):
        """Fires."""

    def on_job_end(self, config, **kwargs):
        """Fires."""


def task(cfg):
    """Ends the way that cfg.how says."""
    return globals()[cfg.how]()
