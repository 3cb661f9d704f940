"""Pickles: by reference where a host can import it, by value where it cannot, and safe where the host is not trusted."""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import enum
import fractions
import functools
import importlib
import io
import json
import os
import pathlib
import pickle
import pickletools
import socket
import subprocess
import sys
import textwrap
import threading
import uuid
from dataclasses import dataclass

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import MISSING, OmegaConf

from launcher import pickling
from launcher.errors import CallbackError, CodeError
from launcher.pickling import check_state, dumps, loads, main_module_name, out_of_reach
from launcher.safe_pickle import Forbidden, safe_loads
from remote_agent.job import JobError, JobStatus, RemoteJobError

ROOT = pathlib.Path(__file__).parent.parent

SCRIPT = """
    import enum, functools, json, sys, typing
    from dataclasses import dataclass

    sys.path.insert(0, {root!r})

    @dataclass
    class Point:
        x: int

        class Inner:
            pass

    class Colour(enum.Enum):
        RED = 1

    T = typing.TypeVar("T")

    class Meta(type):
        pass

    class WithMeta(metaclass=Meta):
        def method(self):
            return Point(7)

    def wrapping(function):
        @functools.wraps(function)
        def wrapper(*args):
            return ("wrapped", function(*args))
        return wrapper

    @wrapping
    @wrapping
    def decorated(cfg):
        return Point(1)

    def plain(cfg):
        return Point(2)

    if __name__ == "__main__":
        from launcher import pickling
        name = pickling.main_module_name()
        values = {{
            "instance": Point(3), "class": Point, "inner": Point.Inner(), "enum": Colour.RED, "function": plain,
            "decorated": decorated, "middle": decorated.__wrapped__, "undecorated": decorated.__wrapped__.__wrapped__,
            "meta": WithMeta, "bound": WithMeta().method, "typevar": T, "module": sys.modules["__main__"],
            "partial": functools.partial(plain, None),
        }}
        dumped = pickling.dumps(values, main_module=name)
        back = pickling.loads(dumped.data, main_module=name)
        same = [key for key, value in values.items() if back[key] is value or back[key] == value]
        by_value = pickling.dumps(lambda cfg: Point(1), main_module=name)
        nothing = pickling.dumps(plain, main_module=None)
        print(json.dumps({{
            "name": name, "data": dumped.data.hex(), "by_value": dumped.by_value, "values": dumped.values,
            "same": same, "keys": list(values), "lambda": [by_value.by_value, by_value.data.hex()],
            "nothing": [nothing.by_value, nothing.values], "modules": sorted(dumped.modules),
        }}))
"""

HOST = """
    import json, pickle, sys
    sys.path[:0] = [{root!r}, {folder!r}]
    data = json.loads(sys.stdin.read())
    values = pickle.loads(bytes.fromhex(data["data"]))
    import {name} as module
    import importlib
    module = importlib.import_module({name!r})
    assert values["class"] is module.Point
    assert type(values["instance"]) is module.Point
    assert values["enum"] is module.Colour.RED
    assert values["function"] is module.plain
    assert values["decorated"] is module.decorated
    assert values["undecorated"] is module.decorated.__wrapped__.__wrapped__
    assert values["undecorated"](None) == module.Point(1)
    assert values["meta"] is module.WithMeta
    assert values["bound"]() == module.Point(7)
    assert values["typevar"] is module.T
    assert values["module"] is module
    assert type(pickle.loads(bytes.fromhex(data["lambda"][1]))(None)) is module.Point
    print("right")
"""


@pytest.mark.parametrize("name", ["my_script", "pkg.app"])
def test_what_a_script_defines_is_its_modules_on_the_host(tmp_path, name):
    """Classes, functions, methods, enums of `__main__`: the host gets those of the module, the controller its own back."""
    path = tmp_path / f"{name.replace('.', '/')}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(textwrap.dedent(SCRIPT.format(root=str(ROOT))))
    command = [sys.executable, str(path)] if "." not in name else [sys.executable, "-m", name]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    told = json.loads(done.stdout)
    assert told["name"] == name
    assert (told["by_value"], told["values"]) == (False, [])
    assert sorted(told["same"]) == sorted(key for key in told["keys"] if key not in ("inner", "bound", "partial"))
    assert told["lambda"][0] is True
    assert told["nothing"] == [True, ["__main__.plain", "__main__.Point"]] or told["nothing"][0] is True
    assert name in told["modules"]
    host = textwrap.dedent(HOST.format(root=str(ROOT), folder=str(tmp_path), name=name))
    done = subprocess.run([sys.executable, "-c", host], input=done.stdout, capture_output=True, text=True, check=False)
    assert done.stdout == "right\n", done.stderr


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["-c", "{}"], "None"),
        (["dotted.name.py"], "None"),
        (["with-dash.py"], "with-dash"),
        (["-m", "pkg"], "pkg.__main__"),
    ],
)
def test_the_name_of_what_runs(tmp_path, command, expected):
    """Only what a host can import has a name."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from launcher.pickling import main_module_name as n; print(n())"
    (tmp_path / "pkg").mkdir()
    for file in ("dotted.name.py", "with-dash.py", "pkg/__main__.py", "pkg/__init__.py"):
        (tmp_path / file).write_text(code if not file.endswith("__init__.py") else "")
    command = [code if part == "{}" else part for part in command]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip() == expected


def test_an_installed_program_has_no_name():
    """Under pytest `__main__` is pytest's, which no host needs."""
    assert main_module_name() is None


def module_level(cfg):
    return cfg


@functools.lru_cache
def cached(cfg):
    return cfg


def _decorating(function):
    @functools.wraps(function)
    def wrapper(cfg):
        return function(cfg)

    return wrapper


@_decorating
def wrapped_function(cfg):
    return cfg


@pytest.fixture
def importable(monkeypatch):
    """This test module, under the name that its functions have."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or importlib.import_module(__name__))


@pytest.mark.usefixtures("importable")
def test_module_functions_go_by_reference():
    """As do those below a decorator that tells: the pickle is short, and what comes back is the same object."""
    for value in (module_level, cached, wrapped_function, wrapped_function.__wrapped__, json.dumps, os.path.join):
        dumped = dumps(value)
        assert not dumped.by_value, value
        assert loads(dumped.data) is value
    assert __name__ in dumps(wrapped_function.__wrapped__).modules


def test_local_functions_and_classes_go_by_value():
    """And are named, so that the error across Python versions can say what it is about."""

    class Local:
        pass

    for value, name in ((lambda cfg: 1, "<lambda>"), (Local, "Local"), (Local(), "Local")):
        dumped = dumps(value)
        assert dumped.by_value
        assert any(name in one for one in dumped.values)
    assert not dumps({"a": [1, type(None), ...]}).by_value


def test_modules_out_of_reach_are_named(tmp_path, monkeypatch):
    """A module that is neither in the snapshot nor installed cannot be imported on a host."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "elsewhere_of_test.py").write_text("class Thing: pass\n")
    module = importlib.import_module("elsewhere_of_test")
    dumped = dumps([module.Thing(), json.JSONDecoder])
    file = str(tmp_path / "elsewhere_of_test.py")
    assert out_of_reach(dumped.modules, lambda path: False) == [("elsewhere_of_test", file)]
    assert out_of_reach(dumped.modules, lambda path: path == file) == []
    assert out_of_reach({"json", "builtins", "launcher.errors", "omegaconf"}, lambda path: False) == []


def test_what_is_installed_in_place_is_not_out_of_reach(tmp_path, monkeypatch):
    """It may be installed on the host, as anything may; wherever its files lie here."""
    monkeypatch.syspath_prepend(tmp_path / "project" / "src")
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "project" / "src").mkdir(parents=True)
    (tmp_path / "project" / "src" / "in_place_of_test.py").write_text("class Thing: pass\n")
    info = tmp_path / "site" / "in_place_of_test-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: in_place_of_test\nVersion: 1\n")
    importlib.import_module("in_place_of_test")
    pickling._editable_projects.cache_clear()
    assert out_of_reach({"in_place_of_test"}, lambda path: False)
    (info / "direct_url.json").write_text(
        json.dumps({"url": (tmp_path / "project").as_uri(), "dir_info": {"editable": True}})
    )
    pickling._editable_projects.cache_clear()
    assert out_of_reach({"in_place_of_test"}, lambda path: False) == []
    pickling._editable_projects.cache_clear()


# -- what cannot be pickled ------------------------------------------------------------------------------------------


class Holder:
    """A user's object; at module level, so that it travels by reference."""

    def __init__(self, **fields):
        self.__dict__.update(fields)


class Raises:
    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error


class Tidy(Holder):
    def __getstate__(self):
        return {}


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.usefixtures("importable")
def test_the_part_at_fault_is_named(tmp_path):
    """Through attributes, containers, closures and partials, down to the thing itself."""
    lock = threading.Lock()
    with socket.socket() as sock, (tmp_path / "log.txt").open("w") as writing, open(__file__) as reading:
        cases = [
            (Holder(client=Holder(pool=[1, {"k": lock}])), "client.pool[1]['k'] is a lock"),
            (Holder(a=1, sock=sock), "sock is a socket"),
            (Holder(log=writing), f"log is an open file ({tmp_path}/log.txt)"),
            ({"r": reading}, "['r'] is an open file"),
            (Holder(g=(one for one in [1])), "g is a generator"),
            (functools.partial(module_level, lock), ".args[0] is a lock".lstrip(".")),
            (lambda: lock, "<variable lock> is a lock"),
            (Holder(x=Raises(ValueError("mine"))), "x is a "),
            (Holder(x=Raises(SystemExit(3))), "x is a "),
            (Holder(event=threading.Event()), "event"),
            (nested(100_000), "nested too deeply"),
        ]
        for value, says in cases:
            with pytest.raises(CodeError) as caught:
                dumps(value)
            assert says in str(caught.value)


@pytest.mark.usefixtures("importable")
def test_a_callback_that_holds_a_lock_is_refused_by_name():
    """By callback and attribute; not where it leaves the lock out itself, nor where it can be built anew."""
    callback = Holder(upload=Holder(lock=threading.RLock()))
    with pytest.raises(CallbackError, match=r"callback 'up' .* attribute 'upload.lock' is a lock"):
        check_state("up", callback, has_spec=False)
    check_state("up", callback, has_spec=True)
    check_state("up", Tidy(lock=threading.Lock()), has_spec=False)
    check_state("up", Holder(log=io.BytesIO(b"x")), has_spec=False)


def test_interrupts_are_not_taken_for_failures():
    """Ctrl-C while something is pickled stays Ctrl-C."""
    with pytest.raises(KeyboardInterrupt):
        dumps(Raises(KeyboardInterrupt()))


# -- safe ------------------------------------------------------------------------------------------------------------


def plain_values():
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(),
        st.binary(),
        st.complex_numbers(allow_nan=False),
        st.datetimes(),
        st.dates(),
        st.times(),
        st.timedeltas(),
        st.decimals(allow_nan=False),
        st.fractions(),
        st.uuids(),
        st.sampled_from(
            [
                pathlib.Path("/a/b"),
                pathlib.PurePosixPath("x"),
                pathlib.PureWindowsPath("C:/y"),
                range(3, 9, 2),
                slice(1, None),
                bytearray(b"ab"),
                collections.OrderedDict(a=1),
                collections.Counter("aab"),
                collections.deque([1, 2], 5),
                dt.datetime(2024, 1, 2, tzinfo=dt.timezone.utc),
                frozenset({1}),
                collections.defaultdict(list, a=[1]),
                int,
                dict,
                JobStatus.FAILED,
            ]
        ),
    )
    hashable = st.one_of(st.text(), st.integers(), st.booleans())
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner),
            st.tuples(inner, inner),
            st.dictionaries(hashable, inner),
            st.sets(hashable),
        ),
        max_leaves=12,
    )


@settings(max_examples=60, deadline=None)
@given(plain_values(), st.sampled_from(range(2, 6)))
def test_plain_values_are_decoded(value, protocol):
    """Everything in the table of the module comes back equal, from any protocol that a host uses."""
    assert safe_loads(pickle.dumps(value, protocol)) == value
    assert safe_loads(cloudpickle.dumps(value, protocol=protocol)) == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.ones((3, 2), "f4")),
        np.array(["ab", "c"]),
        np.array([b"x"]),
        np.array([True, False]),
        np.zeros((0, 3)),
        np.array(3.5),
        np.arange(4, dtype=">i2"),
        np.array([1 + 2j]),
        np.array(["2024-01-01", "2025-02-03"], "M8[D]"),
        np.array([5], "m8[ms]"),
        np.float32(1.5),
        np.int64(7),
        np.bool_(True),
        np.datetime64("2024-01-01T10"),
        np.dtype("f8"),
        np.dtype(">u2"),
        [np.ones(2, ">f8")] * 2,
    ],
    ids=lambda one: f"{getattr(one, 'dtype', one)}",
)
def test_arrays_are_decoded(array, protocol):
    """Numbers, booleans, texts and times, in any layout and byte order: as pickle itself decodes them."""
    back = safe_loads(pickle.dumps(array, protocol))
    array = pickle.loads(pickle.dumps(array, protocol))
    assert type(back) is type(array)
    if isinstance(array, (np.ndarray, np.generic)):
        assert back.dtype == array.dtype
        assert back.shape == array.shape
        np.testing.assert_array_equal(back, array)
    elif isinstance(array, list):
        np.testing.assert_array_equal(back, array)
        assert back[0].dtype == array[0].dtype
    else:
        assert back == array


class Size(enum.Enum):
    BIG = 1


@dataclass
class Structured:
    size: Size = Size.BIG
    number: int = MISSING


@pytest.mark.usefixtures("importable")
def test_configs_are_decoded():
    """DictConfig and ListConfig with interpolations, missing values and annotations; a user's types by name."""
    config = OmegaConf.create(
        {"a": {"b": [1, "${a.c}", None], "c": 2.5, "d": "???"}, "e": True, "f": b"x", "g": pathlib.Path("/q")}
    )
    config.a._set_flag("readonly", True)
    back = safe_loads(cloudpickle.dumps(config))
    assert back == config
    assert back.a.b[1] == 2.5
    assert OmegaConf.is_readonly(back.a)
    structured = OmegaConf.structured(Structured(number=3))
    data = cloudpickle.dumps(structured)
    with pytest.raises(Forbidden, match=r"Structured|Size"):
        safe_loads(data)
    for allow in ([Structured, Size], [f"{__name__}.Structured", f"{__name__}:Size"]):
        assert safe_loads(data, allow) == structured


def test_the_hydra_node_is_decoded():
    """What comes back as `hydra_cfg` names Hydra's own dataclasses."""
    from hydra.conf import HydraConf
    from hydra.types import RunMode

    config = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf)})
    config.hydra.mode = RunMode.MULTIRUN
    config.hydra.sweep.dir = "/x"
    back = safe_loads(cloudpickle.dumps(config))
    assert back.hydra.mode is RunMode.MULTIRUN
    assert back.hydra.sweep.dir == "/x"


def test_exceptions_are_decoded():
    """Python's own, with their arguments and state; ours, with the remote traceback; not those that end the program."""
    error = ValueError("a", 1)
    error.note = "more"
    back = safe_loads(cloudpickle.dumps(error))
    assert (type(back), back.args, back.note) == (ValueError, ("a", 1), "more")
    assert safe_loads(pickle.dumps(OSError(2, "no", "f"))).filename == "f"
    remote = safe_loads(pickle.dumps(RemoteJobError(JobError("killed", signal=9), "gpu1")))
    assert remote.error.signal == 9
    with pytest.raises(Forbidden):
        safe_loads(pickle.dumps(SystemExit(1)))


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def state_on_a_type() -> bytes:
    """Sets an attribute of a class, as a BUILD after a mere mention would."""
    return b"\x80\x02comegaconf.dictconfig\nDictConfig\n(Nc__builtin__\nint\ntp0\n0comegaconf.dictconfig\nDictConfig\n(N}X\x04\x00\x00\x00evilK\x01stb."


HOSTILE = {
    "system": lambda: pickle.dumps(Evil(os.system, ("true",))),
    "eval": lambda: pickle.dumps(Evil(eval, ("1",))),
    "getattr": lambda: pickle.dumps(Evil(getattr, ("", "join"))),
    "subprocess": lambda: pickle.dumps(Evil(subprocess.Popen, (["true"],))),
    "import": lambda: pickle.dumps(Evil(importlib.import_module, ("antigravity",))),
    "list of a range": lambda: pickle.dumps(Evil(list, (range(10**9),))),
    "bytes of a number": lambda: pickle.dumps(Evil(bytes, (10**12,))),
    "bytearray of a number": lambda: pickle.dumps(Evil(bytearray, (10**12,))),
    "set of a range": lambda: pickle.dumps(Evil(set, (range(10**9),))),
    "long range": lambda: pickle.dumps(range(10**15)),
    "factory": lambda: pickle.dumps(collections.defaultdict(Holder)),
    "fraction bomb": lambda: pickle.dumps(Evil(fractions.Fraction, ("1e999999999",))),
    "object array": lambda: pickle.dumps(np.array([object()])),
    "record array": lambda: pickle.dumps(np.zeros(2, "i4,O")),
    "array too large": lambda: pickle.dumps(np.zeros(3)).replace(b"K\x03\x85", b"K\x09\x85"),
    "dotted": lambda: b"\x80\x04\x8c\x08builtins\x8c\x0astr.format.\x93.".replace(
        b"\x0astr.format.", b"\x0astr.format"
    ),
    "config": lambda: b"\x80\x04\x8c\x0ahydra.conf\x8c\x13os.system.__class__\x93.",
    "lambda": lambda: cloudpickle.dumps(lambda: 1),
    "extension": lambda: b"\x80\x02\x82\x01.",
    "persistent": lambda: b"\x80\x04K\x01Q.",
    "4 GiB of memo": lambda: b"\x80\x04K\x01r\xff\xff\xff\xff.",
    "bytearray of 2**40": lambda: b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b".",
    "bytes of 2**40": lambda: b"\x80\x05\x8e" + (1 << 40).to_bytes(8, "little") + b".",
    "truncated": lambda: pickle.dumps({"a": 1})[:-3],
    "nothing": lambda: b"",
    "noise": lambda: b"\x00\x01\x02",
    "state of a type": state_on_a_type,
    "inst": lambda: b"(S'true'\nios\nsystem\n.",
    "obj": lambda: b"(cposix\nsystem\nS'true'\no.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(name, monkeypatch):
    """None of them runs anything, takes memory, or changes a type."""
    called = []
    monkeypatch.setattr(os, "system", called.append)
    data = HOSTILE[name]()
    if name == "4 GiB of memo":
        assert safe_loads(data) == 1
        return
    with pytest.raises(Forbidden):
        safe_loads(data)
    assert not called
    from omegaconf import DictConfig

    assert not hasattr(DictConfig, "evil")


def test_what_was_refused_can_be_allowed():
    """The message names what to add; added, it works."""
    data = cloudpickle.dumps(argparse.Namespace(a=1))
    with pytest.raises(Forbidden, match=r"allow_types=\[argparse\.Namespace\]"):
        safe_loads(data)
    assert safe_loads(data, ["argparse.Namespace"]).a == 1


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_pickles_end_in_one_kind_of_error(data):
    """Whatever a byte is changed to: a value or Forbidden, nothing else."""
    good = pickle.dumps({"a": [1, 2.5, "x", dt.date(2024, 1, 2), {3}], "b": OmegaConf.create({"c": 1})}, 4)
    index = data.draw(st.integers(0, len(good) - 1))
    bad = good[:index] + bytes([data.draw(st.integers(0, 255))]) + good[index + 1 :]
    try:
        safe_loads(bad)
    except Forbidden:
        return


def test_pickles_need_no_newer_python_than_the_agents():
    """Protocol 5 is known to Python 3.8."""
    protocol = next(argument for opcode, argument, _ in pickletools.genops(dumps([1]).data) if opcode.name == "PROTO")
    assert protocol <= 5
    assert protocol == pickling.PROTOCOL
    assert uuid.UUID(int=1) == loads(dumps(uuid.UUID(int=1)).data)
