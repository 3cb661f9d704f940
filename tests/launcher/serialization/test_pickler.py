"""Pickles: by reference if a host can import the object, by value if it cannot."""

from __future__ import annotations

import functools
import importlib
import io
import json
import linecache
import os
import pathlib
import pickletools
import re
import subprocess
import sys
import textwrap
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from launcher.errors import CallbackError
from launcher.serialization.pickler import PROTOCOL, check_state, dumps, loads
from tests.launcher.serialization.holders import Holder, Raises, Tidy

ROOT = pathlib.Path(__file__).parents[3]

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
        from launcher.serialization import pickler as pickling
        from launcher.serialization.modules import main_module_name
        name = main_module_name()
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
def test_objects_of_a_script_belong_to_its_module_on_the_host(tmp_path, name):
    """For classes, functions, methods and enums of `__main__`, the host gets those of the module, and the controller
    gets its own back.
    """
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
    """Make this test module importable under the name that its functions have."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or importlib.import_module(__name__))


@pytest.mark.usefixtures("importable")
def test_module_functions_go_by_reference():
    """So do functions below a decorator with `__wrapped__`.

    The pickle is short, and unpickling gives the same object.
    """
    for value in (module_level, cached, wrapped_function, wrapped_function.__wrapped__, json.dumps, os.path.join):
        dumped = dumps(value)
        assert not dumped.by_value, value
        assert loads(dumped.data) is value
    assert __name__ in dumps(wrapped_function.__wrapped__).modules


def test_local_functions_and_classes_go_by_value():
    """They are named, so that an error across Python versions can name them."""

    class Local:
        pass

    for value, name in ((lambda cfg: 1, "<lambda>"), (Local, "Local"), (Local(), "Local")):
        dumped = dumps(value)
        assert dumped.by_value
        assert any(name in one for one in dumped.values)
    assert not dumps({"a": [1, type(None), ...]}).by_value


# -- what cannot be pickled ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("importable")
def test_a_callback_that_holds_a_lock_is_refused_by_name():
    """The message names the callback and the attribute.

    It is not refused if it leaves the lock out itself, or can be built again.
    """
    callback = Holder(upload=Holder(lock=threading.RLock()))
    with pytest.raises(CallbackError, match=r"callback 'up' .* attribute 'upload.lock' is a lock"):
        check_state("up", callback, has_spec=False)
    check_state("up", callback, has_spec=True)
    check_state("up", Tidy(lock=threading.Lock()), has_spec=False)
    check_state("up", Holder(log=io.BytesIO(b"x")), has_spec=False)


def test_an_interrupt_is_not_a_pickling_error():
    """Ctrl-C during pickling stays a KeyboardInterrupt."""
    with pytest.raises(KeyboardInterrupt):
        dumps(Raises(KeyboardInterrupt()))


def test_pickles_work_with_the_agents_oldest_python():
    """Protocol 5 is known to Python 3.8."""
    protocol = next(argument for opcode, argument, _ in pickletools.genops(dumps([1]).data) if opcode.name == "PROTO")
    assert protocol <= 5
    assert protocol == PROTOCOL
    assert uuid.UUID(int=1) == loads(dumps(uuid.UUID(int=1)).data)


@pytest.fixture
def cell() -> Iterator[Callable[[str], dict[str, Any]]]:
    """Runs the source of a cell, as a notebook does: its file is in no folder, and its lines are known."""
    made: list[str] = []

    def run(source: str) -> dict[str, Any]:
        name = f"/nowhere/cell-{len(made)}-{os.getpid()}.py"
        made.append(name)
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        scope: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(source, name, "exec"), scope)
        return scope

    yield run
    for name in made:
        linecache.cache.pop(name, None)


def test_code_of_a_cell_comes_with_its_source(cell: Callable[[str], dict[str, Any]]) -> None:
    """A traceback has its lines, also of what is defined in it. The same source gives the same pickle, wherever it was."""
    source = "def outer():\n    def inner():\n        return 1 / 0  # here\n    return inner\nfunction = outer()\n"
    first, second = (dumps(cell(source)["function"]).data for _ in range(2))
    assert first == second
    for name in list(linecache.cache):
        if name.startswith("/nowhere/"):
            del linecache.cache[name]
    with pytest.raises(ZeroDivisionError) as raised:
        loads(first)()
    text = "".join(traceback.format_exception(raised.value))
    assert re.search(r'File "<cell [0-9a-f]{8}>", line 3, in inner\n +return 1 / 0  # here', text)


def test_code_of_a_file_comes_without_its_source() -> None:
    """Its lines are on no host, and may be many."""
    assert b"comes without" not in dumps(lambda: None).data
