"""What a notebook makes with `functools` is pickled by value, or refused here by name.

It never fails on the host because of its name.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import CodeError
from launcher.serialization.pickler import dumps
from remote_agent.job_process.pickles import unpickling

_ROOT = Path(__file__).resolve().parents[3]
_CELL = """
import functools, threading

@functools.lru_cache(maxsize=7, typed=True)
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)

fib.about = "numbers"

@functools.cache
def cached(n):
    return n

@functools.wraps(fib)
def wrapped(n):
    return fib(n)

@functools.singledispatch
def kind(x):
    return "any"

@kind.register
def _(x: int):
    return "int" if x < 2 else kind(str(x))

@kind.register(str)
def _(x):
    return "str"

class Model:
    seen = 0

    @functools.cached_property
    def size(self):
        type(self).seen += 1
        return Model.double(4)

    @functools.singledispatchmethod
    def put(self, x):
        return "any"

    @put.register
    def _(self, x: int):
        return "int"

    @functools.lru_cache
    def told(self):
        return 6

    @staticmethod
    @functools.lru_cache
    def double(x):
        return 2 * x

    more = functools.partialmethod(put, 1)

add = functools.partial(lambda a, b: a + b, 1)
lock = threading.Lock()

class Named:
    def __init__(self):
        self.__qualname__ = "named"
    def __call__(self):
        return 1
    def __reduce__(self):
        return self.__qualname__

named = Named()

def task_lru(cfg): return fib(10), fib.cache_info().maxsize, fib.cache_parameters()["typed"], fib.about, fib.__name__
def task_cache(cfg): return cached(3), cached.cache_info().maxsize
def task_wraps(cfg): return wrapped(6), wrapped.__wrapped__ is fib
def task_dispatch(cfg): return kind(1), kind(5), kind("a"), kind(2.0), kind.__name__
def task_partial(cfg): return add(2)
def task_method(cfg):
    model = Model()
    return [model.size, model.size, Model.seen, model.put(1), model.put(""), model.told(), model.more(), Model.double(3)]
def task_itself(cfg): return [type(fib).__name__, fib is fib.__wrapped__.__globals__["fib"]]
def task_named(cfg): return named()
def task_lock(cfg): return lock
"""
_VALUES = {
    "lru": [55, 7, True, "numbers", "fib"],
    "cache": [3, None],
    "wraps": [8, True],
    "dispatch": ["int", "str", "str", "any", "kind"],
    "partial": 3,
    "method": [8, 8, 1, "int", "any", 6, "int", 6],
    "itself": ["_lru_cache_wrapper", True],
}
_LOAD = "import json, sys; from remote_agent.job_process.pickles.unpickling import loads; print(json.dumps(loads(sys.stdin.buffer.read())(None)))"


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A `__main__` without a file, with the definitions of the cell."""
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec(_CELL, vars(main))  # as a notebook does it
    return main


@pytest.mark.parametrize("name", _VALUES)
def test_it_works_in_another_process(cell: Any, name: str) -> None:
    """It is pickled by value, which is recorded. Its references to one function are still to one function."""
    dumped = dumps(vars(cell)[f"task_{name}"], main_module=None)
    assert dumped.by_value
    done = subprocess.run([sys.executable, "-c", _LOAD], input=dumped.data, capture_output=True, check=True, cwd=_ROOT)
    assert json.loads(done.stdout) == _VALUES[name]


def test_the_object_itself_may_be_the_task(cell: Any) -> None:
    """`launcher.run(fib, ...)` works, and `fib` is named among what is pickled by value."""
    dumped = dumps({"task": cell.fib}, main_module=None)
    assert "__main__.fib" in dumped.values
    assert unpickling.loads(dumped.data)["task"](9) == 34


@pytest.mark.parametrize(("name", "says"), [("named", "named can only be pickled by its name"), ("lock", "lock")])
def test_objects_that_cannot_be_pickled_are_refused_here(cell: Any, name: str, says: str) -> None:
    """It is refused by name, before anything is sent."""
    with pytest.raises(CodeError, match=says):
        dumps(vars(cell)[f"task_{name}"], main_module=None)


def test_in_a_script_the_function_is_that_of_its_module(cell: Any) -> None:
    """A host imports the script, so the cached function is the one in the script's module, with its cache."""
    dumped = dumps([cell.fib, cell.kind, cell.Model.double], main_module="my_app")
    assert not dumped.by_value
    module = types.ModuleType("my_app")
    vars(module).update({key: value for key, value in vars(cell).items() if not key.startswith("__")})
    sys.modules["my_app"] = module
    try:
        assert pickle.loads(dumped.data) == [cell.fib, cell.kind, cell.Model.double]
    finally:
        del sys.modules["my_app"]


def test_importable_functions_are_pickled_by_name() -> None:
    """A cached function of a module is not copied."""
    import fnmatch

    dumped = dumps(fnmatch._compile_pattern)  # an lru_cache of the standard library
    assert not dumped.by_value
    assert pickle.loads(dumped.data) is fnmatch._compile_pattern


def test_an_object_with_any_attribute_is_not_a_function() -> None:
    """A config's node that is None raises another error than AttributeError."""
    from omegaconf import DictConfig

    class Strange:
        def __getattr__(self, name: str) -> str:
            if name.startswith("__") and name != "__qualname__":
                raise AttributeError(name)
            return name

    config = DictConfig({"inner": DictConfig(None)})
    assert unpickling.loads(dumps(config).data)["inner"] is None
    assert pickle.loads(dumps(Strange()).data).anything == "anything"
