"""Finds what an application gives to `@hydra.main`, even if a decorator or the `__main__` guard hides it.

Rule: a Hydra task is never called without its config. The arguments of a decorated function are read. If the function
is decorated only below `if __name__ == "__main__":`, as with `zen(task).hydra_main(...)`, that code is run up to the
call of Hydra. The call is recorded instead of made.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from launcher.code.application.application_text import names_of_hydra
from launcher.code.application.functions import innermost
from launcher.errors import UsageError
from launcher.util.frozen import frozen

__all__ = ["HydraEntry", "entry_at_start", "entry_of", "hydra_apps", "import_noting", "last_place"]

#: By the name of a module: the module, and what it started Hydra with when it was imported, or starts it with below its
#: guard.
_entries: dict[str, tuple[types.ModuleType, HydraEntry]] = {}

#: How many objects to search for what a decorator holds.
_MAX_LOOKED_AT = 200
_PARTS = frozenset({"task_function", "config_path", "config_name"})
_RUNS = "_run_hydra"


@frozen
class HydraEntry:
    """The arguments of `@hydra.main`.

    Attributes:
        task: the function that it decorates, with other decorators between them.
    """

    task: Callable[[Any], Any]
    config_path: str | None
    config_name: str | None

    @classmethod
    def of_parts(cls, parts: Mapping[str, Any]) -> HydraEntry:
        """Make it from Hydra's own names of the parts."""
        return cls(parts["task_function"], parts["config_path"], parts["config_name"])


# -- of a module ----------------------------------------------------------------------------------------------------------


def import_noting(name: str) -> types.ModuleType:
    """Import a module. If the import starts Hydra, that is recorded for `entry_at_start` and not done."""
    with _noting_entries() as noted:
        module = importlib.import_module(name)
    if noted:
        _entries[name] = (module, noted[0])
    return module


def hydra_apps(module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield the functions that a module itself decorates with `@hydra.main`, each once. Imported ones do not count."""
    if "hydra" not in sys.modules:
        return
    seen = set()
    for name, value in list(vars(module).items()):
        if name.startswith("_") or not _may_be_function(value):
            continue
        entry = entry_of(value)
        if entry is not None and id(entry.task) not in seen and not _is_imported(value, entry.task, module):
            seen.add(id(entry.task))
            yield name, value


def _is_imported(value: Any, task: Any, module: types.ModuleType) -> bool:
    """Whether it comes from another module, which has it too."""
    others = {getattr(value, "__module__", None), getattr(innermost(task), "__module__", None)} - {
        module.__name__,
        None,
    }
    found = [sys.modules[str(name)] for name in others if name in sys.modules]
    return any(one is value for other in found for one in list(vars(other).values()))


def entry_at_start(module: types.ModuleType) -> HydraEntry | None:
    """Return what the module starts Hydra with when Python runs it; None if it does not start Hydra.

    Raises:
        UsageError: it seems to start Hydra, but not in a way that can be read.
    """
    known = _entries.get(module.__name__)
    if known is not None and known[0] is module:
        return known[1]
    file = getattr(module, "__file__", None)
    if "hydra" not in sys.modules or not file or not file.endswith(".py"):
        return None
    source = Path(file).read_text(encoding="utf-8", errors="replace")
    calls_it = _calls_hydra(source)
    functions = [one for one in list(vars(module).values()) if _may_be_function(one)]
    if not calls_it and not any(entry_of(value) is not None for value in functions):
        return None
    name = os.path.basename(file)
    try:
        entry = _entry_below_guard(module, source, file)
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"{name}: the code below `if __name__ == '__main__':` ended before it started Hydra: "
            f"{type(error).__name__}: {error}{last_place(error)}"
        ) from error
    if entry is None:
        if not calls_it:
            return None
        raise UsageError(
            f"{name} starts Hydra in a way that does not show which config it uses. Decorate a function of the module "
            "itself with "
            f"@hydra.main, start Hydra below `if __name__ == '__main__':`, or let Hydra start it: "
            f"python {name} -m hydra/launcher=remote"
        )
    _entries[module.__name__] = (module, entry)
    return entry


def last_place(error: BaseException) -> str:
    """Return the place in the user's code where an import failed."""
    last = None
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<frozen") and file not in (__file__, importlib.__file__):
            last = f" ({file}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return last or ""


# -- what can be read ------------------------------------------------------------------------------------------------


def entry_of(value: Any) -> HydraEntry | None:
    """Return the arguments of `@hydra.main`, or of a decorator that does the same (it calls Hydra's `_run_hydra`).

    It may be below other decorators, with or without `functools.wraps`.
    """
    for one in _held_by(value):
        if isinstance(one, types.FunctionType) and _is_entry(one):
            names = one.__code__.co_freevars
            cells = zip(names, one.__closure__ or (), strict=True)
            return HydraEntry.of_parts({name: cell.cell_contents for name, cell in cells if name in _PARTS})
    return None


def _is_entry(function: types.FunctionType) -> bool:
    # functools.wraps changes __module__ and __qualname__. The globals are still those of hydra/main.py.
    by_hydra = function.__globals__.get("__name__") == "hydra.main"
    return (by_hydra or _RUNS in function.__code__.co_names) and _PARTS.issubset(function.__code__.co_freevars)


def _held_by(value: Any) -> Iterator[Any]:
    """Yield a callable, and the callables that it holds and may call. The outermost comes first."""
    waiting, seen = [value], {id(value)}
    for one in waiting:
        yield one
        if isinstance(one, types.FunctionType) and _is_entry(one):
            continue  # the function that it decorates is the task
        for held in _parts_of(one):
            if _may_be_function(held) and id(held) not in seen:
                seen.add(id(held))
                waiting.append(held)
        if len(seen) > _MAX_LOOKED_AT:
            return


def _parts_of(value: Any) -> Iterator[Any]:
    if isinstance(value, functools.partial):
        yield value.func
    elif isinstance(value, types.MethodType):
        yield value.__func__
        yield value.__self__
    elif isinstance(value, types.FunctionType):
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # a name that was never bound
                yield cell.cell_contents
    with contextlib.suppress(TypeError):
        yield from list(vars(value).values())


# -- what has to be started for it -----------------------------------------------------------------------------------


class _Entered(BaseException):
    """Raised when Hydra is about to run, so that nothing after that happens."""


@contextlib.contextmanager
def _noting_entries(*, stopping: bool = False) -> Iterator[list[HydraEntry]]:
    """Within this context, Hydra is not run. The list gets the arguments of each call.

    Args:
        stopping: stop the code that runs Hydra at once, with a BaseException.
    """
    noted: list[HydraEntry] = []
    utils: Any = importlib.import_module("hydra._internal.utils")
    importlib.import_module("hydra.main")
    original = getattr(utils, _RUNS)

    def note(*_: Any, **parts: Any) -> None:
        if _PARTS.issubset(parts):
            noted.append(HydraEntry.of_parts(parts))
        if stopping:
            raise _Entered

    # A module with its own decorator, such as hydra/main.py, has imported the function by name.
    holders = [one for one in list(sys.modules.values()) if getattr(one, "__dict__", {}).get(_RUNS) is original]
    argv = list(sys.argv)
    for one in holders:
        setattr(one, _RUNS, note)
    # The decorator first parses the command line, which is not the application's.
    sys.argv[1:] = []
    try:
        yield noted
    except _Entered:
        pass
    finally:
        sys.argv[:] = argv
        for one in list(sys.modules.values()):
            if getattr(one, "__dict__", {}).get(_RUNS) is note:
                setattr(one, _RUNS, original)


def _calls_hydra(source: str) -> bool:
    """Whether a module calls `hydra.main` or a `hydra_main` somewhere."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return False
    hydras, mains = names_of_hydra(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            of_hydra = node.attr == "main" and isinstance(node.value, ast.Name) and node.value.id in hydras
            if node.attr == "hydra_main" or of_hydra:
                return True
        elif isinstance(node, ast.Name) and node.id in mains:
            return True
    return False


def _may_be_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, type)


def _entry_below_guard(module: types.ModuleType, source: str, file: str) -> HydraEntry | None:
    """Return what the code below `if __name__ == "__main__":` starts Hydra with. That code is run up to the call.

    Raises:
        BaseException: whatever that code raises before.
    """
    tree = ast.parse(source, file)
    body: list[ast.stmt] = [one for one in tree.body if isinstance(one, ast.ImportFrom) and one.module == "__future__"]
    guarded = [inner for one in tree.body if isinstance(one, ast.If) and _is_guard(one.test) for inner in one.body]
    if not guarded:
        return None
    code = compile(ast.Module([*body, *guarded], []), file, "exec", dont_inherit=True)
    with _noting_entries(stopping=True) as noted:
        exec(code, vars(module))  # noqa: S102 - the application's own code, which it is asked to run
    return noted[0] if noted else None


def _is_guard(test: ast.expr) -> bool:
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq)):
        return False
    sides = (test.left, test.comparators[0])
    has_name = any(isinstance(one, ast.Name) and one.id == "__name__" for one in sides)
    return has_name and any(isinstance(one, ast.Constant) and one.value == "__main__" for one in sides)
