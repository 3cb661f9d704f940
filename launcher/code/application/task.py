"""Where a task comes from: its name, its project, and the name under which a host imports a script.

Rule: `__main__` means something in this process only, so a host gets the name under which the module can be imported. What is
installed belongs to no project, and is not sent.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from launcher.code.application.functions import innermost, named_function, signature_of, why_no_task
from launcher.errors import UsageError
from launcher.serialization.modules import is_installed, main_module_name
from launcher.util.frozen import frozen
from remote_agent.hydra.compat import undecorated
from remote_agent.job import with_article

__all__ = [
    "Script",
    "as_main",
    "check_task",
    "check_working_folder",
    "main_name",
    "own_sys_path",
    "script_of",
    "started_script",
    "task_name_of",
    "where_from",
]


@frozen
class Script:
    """The script that Python was started with, or would be. Jobs see it in `sys.argv[0]` and in `__main__`.

    Attributes:
        file: the script, or the file of the module.
        is_absolute: `sys.argv[0]` is an absolute path.
        is_module: it was started by `python -m`, so that `__main__.__spec__` names it.
    """

    file: Path
    is_absolute: bool = False
    is_module: bool = False


@contextlib.contextmanager
def as_main(module: str) -> Iterator[None]:
    """Within this context `__main__` is that module, as configs and pickles of the application expect."""
    before = sys.modules["__main__"]
    sys.modules["__main__"] = sys.modules.get(module, before)
    try:
        yield
    finally:
        sys.modules["__main__"] = before


def started_script(main_module: str | None) -> Script | None:
    """The script of this process, if it is the one that hosts import as `main_module`."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if main_module is None or not file or main_module_name() != main_module:
        return None
    is_module = getattr(main, "__spec__", None) is not None
    return Script(Path(os.path.abspath(file)), is_module or os.path.isabs(sys.argv[0]), is_module)


def script_of(module: str) -> Script | None:
    """A module as if Python had been started with its file."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return Script(Path(os.path.abspath(file)), is_absolute=True) if file else None


def check_task(task: Any, *, with_config: bool = True) -> None:
    """Refuse a task that cannot be called with one config.

    Args:
        with_config: False for a task that gets its own arguments. Then it only has to be callable.

    Raises:
        UsageError: it cannot be called so. The message gives its signature or, for an unknown name, the nearest one.
    """
    name = task if isinstance(task, str) else f"the task {getattr(task, '__qualname__', type(task).__name__)}"
    if isinstance(task, str):
        module, _, qualname = task.partition(":")
        task = undecorated(named_function(_imported(task, module), qualname or module))
    if not callable(task):
        raise UsageError(f"the task is {with_article(type(task).__name__)}; it must be callable with one config")
    why = why_no_task(task, with_config=with_config)
    if why:
        raise UsageError(f"{name}{signature_of(task)}{why}")


def _imported(task: str, module: str) -> ModuleType:
    try:
        return sys.modules.get(module) or importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"the task {task!r} cannot be imported: {error}") from error


def check_working_folder() -> None:
    """Check that the working folder, from which paths and modules are looked up, still exists.

    Raises:
        UsageError: somebody has removed it.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UsageError(
            "the folder in which this was started does not exist any more; change to one that does (`cd`), and start again"
        ) from None


def task_name_of(task: Any) -> str:
    """The task's name in jobs, logs and folders."""
    if task is None:
        return main_name() or "session"
    if isinstance(task, str):
        return task.partition(":")[2].rpartition(".")[2] or task.rpartition(".")[2]
    name = getattr(task, "__name__", type(task).__name__)
    module = sys.modules.get(getattr(task, "__module__", "") or "")
    file = getattr(module, "__file__", None)
    if getattr(task, "__module__", "") == "__main__" and file:
        return Path(str(file)).stem
    return name.replace("<lambda>", "lambda")


def main_name() -> str | None:
    """The name of the script that runs, if there is one."""
    name = main_module_name()
    return name.rpartition(".")[2] if name else None


def where_from(task: Any) -> tuple[Path | None, str | None]:
    """The file or folder whose project is sent, and the name under which `__main__` is imported on the host."""
    main_module = main_module_name()
    # The user's own function counts: a decorator may come from another module.
    name = task.partition(":")[0] if isinstance(task, str) else getattr(innermost(task), "__module__", "__main__")
    module = sys.modules.get(name or "")
    main_file = getattr(sys.modules.get("__main__"), "__file__", None)
    if isinstance(task, str) and module is None:
        module = _imported(task, name or "")
    file = getattr(module, "__file__", None)
    if file is None:
        # In a notebook or at a prompt the project is the working folder, if that is a repository.
        return (Path.cwd() if (Path.cwd() / ".git").exists() else None), main_module
    if is_installed(file):
        return (Path(main_file) if main_file and not is_installed(main_file) else None), main_module
    return _top_of(Path(file), (main_module if name == "__main__" else name) or ""), main_module


def _top_of(file: Path, module: str) -> Path:
    """A module's file; for a module in a package, the folder from which the package is imported."""
    depth = module.count(".") + (file.stem == "__init__")
    return file.parents[depth] if depth else file


def own_sys_path() -> list[str]:
    """The entries of sys.path that a new process of this Python would not have."""
    prefixes = tuple(os.path.realpath(prefix) + os.sep for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix})
    out = []
    for path in sys.path:
        real = os.path.realpath(path or os.getcwd())
        if os.path.exists(real) and not (real + os.sep).startswith(prefixes) and real not in out:
            out.append(real)
    return out
