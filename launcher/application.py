"""An application as the user names it: which function runs, where it is imported from, whether it is a Hydra app.

Rule: the module is imported under the name that a host can import it by too, with the folder first on `sys.path` that
Python itself would put there: for a file its own folder, for a module name the working folder.

| named as                  | as in                         | first on `sys.path` |
|---------------------------|-------------------------------|---------------------|
| `dir/my_app.py`           | `python dir/my_app.py`        | `dir`               |
| `dir/my_app.py:function`  |                               | `dir`               |
| `package.module`          | `python -m package.module`    | the working folder  |
| `package.module:function` |                               | the working folder  |

Without a function: the one that `@hydra.main` decorates; else `main`, if it can be called with one config; else the
only public function of the module that can. `if __name__ == "__main__":` is not executed, and where a script calls its
`@hydra.main` function without that, the call does nothing.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from launcher.errors import UsageError
from remote_agent.job import with_article

__all__ = [
    "Application",
    "accepts_one_config",
    "application_of",
    "load_application",
    "named_function",
    "signature_of",
]

#: Functions of a module that a message names.
_MAX_NAMED = 10
_IMPORTS_HYDRA = re.compile(rb"^\s*(?:import|from)\s+hydra\b", re.MULTILINE)


@dataclass(frozen=True)
class Application:
    """What runs.

    Attributes:
        task: the function, without the decoration of `@hydra.main`.
        module_name: the name that its module was imported by, here and on hosts.
        qualname: where the module has it (of a Hydra app: the decorated function).
        file: the module's file, if it has one.
        root: the folder that is first on `sys.path` for it.
        is_hydra: `@hydra.main` decorates it.
        config_path, config_name: as given to `@hydra.main`; None for a plain function.
        version_base: Hydra's, as major.minor; None for a plain function.
    """

    task: Callable[[Any], Any]
    module_name: str
    qualname: str
    file: Path | None
    root: Path
    is_hydra: bool = False
    config_path: str | None = None
    config_name: str | None = None
    version_base: str | None = None

    @property
    def name(self) -> str:
        """Its name in job logs and messages: Hydra's job name, which is that of the file."""
        if self.file is not None:
            return self.file.stem
        return self.module_name.rpartition(".")[2]

    @property
    def reference(self) -> str:
        """`module:function`, as a host can import it."""
        return f"{self.module_name}:{self.qualname}"


def load_application(text: str) -> Application:
    """Import an application, named as in the table above.

    Raises:
        UsageError: there is no such file, module or function, or it cannot be imported; names what there is.
    """
    name, colon, function = text.partition(":")
    if (colon and not function) or not name:
        raise UsageError(f"{text!r} is not an application: file.py, file.py:function, module or module:function")
    if name.endswith(".py") or os.sep in name:
        module, root = _import_file(name)
    else:
        module, root = _import_module(name)
    if function:
        return _application(module, root, function, named_function(module, function))
    return _application(module, root, *_chosen(module))


def application_of(task: Callable[[Any], Any]) -> Application:
    """The application of a function that was imported already, decorated by `@hydra.main` or not.

    Raises:
        UsageError: it cannot be called with one config.
    """
    module_name = getattr(task, "__module__", None) or "__main__"
    module = sys.modules.get(module_name)
    file = getattr(module, "__file__", None)
    root = _folder_on_path(Path(file)) if file else Path.cwd()
    qualname = getattr(task, "__qualname__", type(task).__qualname__)
    return _application(module, root, qualname, task, module_name)


# -- importing -----------------------------------------------------------------------------------------------------


def _import_file(name: str) -> tuple[ModuleType, Path]:
    path = Path(name).expanduser()
    if not path.is_file():
        near = [f"{path.parent / one}" for one in _python_files(path.parent)]
        match = difflib.get_close_matches(str(path), near, 1) or near[:5]
        there = f"; there is {', '.join(match)}" if match else ""
        raise UsageError(f"{name}: no such file{there}")
    path = Path(os.path.abspath(path))
    stem = path.stem
    if path.suffix != ".py":
        raise UsageError(f"{name}: an application is a Python file, NAME.py, or a module's name")
    if "." in stem:
        raise UsageError(f"{name}: {stem!r} cannot be imported as a module, having a dot; rename the file")
    loaded = sys.modules.get(stem)
    if loaded is not None:
        _refuse_another(loaded, path, name)
    root = path.parent
    _put_first(root)
    importlib.invalidate_caches()
    try:
        module = loaded if loaded is not None else _imported(stem, path)
    except Exception as error:
        raise _import_error(name, error, root) from error
    _refuse_another(module, path, name)
    return module, root


def _refuse_another(module: ModuleType, path: Path, name: str) -> None:
    file = getattr(module, "__file__", None)
    if file is None or not os.path.exists(file) or not os.path.samefile(file, path):
        where = file or "Python itself"
        raise UsageError(f"{name}: the name {path.stem!r} belongs to a module of {where}; rename the file")


def _import_module(name: str) -> tuple[ModuleType, Path]:
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name):
        raise UsageError(f"{name!r} is neither a Python file (NAME.py) nor a module's name")
    root = Path.cwd()
    _put_first(root)
    importlib.invalidate_caches()
    try:
        module = _imported(name)
        if hasattr(module, "__path__") and importlib.util.find_spec(f"{name}.__main__") is not None:
            # As `python -m package` does.
            module = _imported(f"{name}.__main__")
    except Exception as error:
        raise _import_error(name, error, root) from error
    return module, root


def _imported(name: str, file: Path | None = None) -> ModuleType:
    """Import a module; one that calls its `@hydra.main` function without asking for its `__name__` is not started by it."""
    if file is None:
        spec = importlib.util.find_spec(name)
        file = Path(spec.origin) if spec is not None and spec.origin is not None else None
    if file is None or not file.is_file() or _IMPORTS_HYDRA.search(file.read_bytes()) is None:
        # Hydra takes a tenth of a second to import.
        return importlib.import_module(name)
    from remote_agent.hydra_state import starting_nothing

    with starting_nothing():
        return importlib.import_module(name)


def _put_first(root: Path) -> None:
    """Make a folder the first of `sys.path`, as starting Python there would."""
    text = str(root)
    if sys.path and sys.path[0] == text:
        return
    if text in sys.path:
        sys.path.remove(text)
    sys.path.insert(0, text)


def _import_error(name: str, error: Exception, root: Path) -> UsageError:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is not None and (missing == name or name.startswith(f"{missing}.")):
        there = ", ".join(_python_files(root)[:8])
        files = f" (there are {there})" if there else ""
        return UsageError(f"{name}: no module {missing!r} can be imported from {root}{files}")
    hint = ""
    if isinstance(error, ImportError) and "relative import" in str(error):
        hint = "\nIts imports are relative: name it as package.module, from the folder that holds the package"
    where = _last_place(error)
    return UsageError(f"{name} cannot be imported: {type(error).__name__}: {error}{where}{hint}")


def _last_place(error: BaseException) -> str:
    """Where in the user's code an import failed."""
    last = None
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<frozen") and file not in (__file__, importlib.__file__):
            last = f" ({file}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return last or ""


def _python_files(folder: Path) -> list[str]:
    try:
        return sorted(one.name for one in folder.iterdir() if one.suffix == ".py" and one.is_file())
    except OSError:
        return []


def _folder_on_path(file: Path) -> Path:
    """The folder that the outermost package of a file lies in."""
    folder = file.parent
    while (folder / "__init__.py").exists() and folder.parent != folder:
        folder = folder.parent
    return folder


# -- choosing the function -------------------------------------------------------------------------------------------


def named_function(module: ModuleType, qualname: str) -> Any:
    """What a module calls so.

    Raises:
        UsageError: there is no such thing; says what comes near, or what there is.
    """
    value: Any = module
    for part in qualname.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            names = [name for name, _ in _functions(module)]
            near = difflib.get_close_matches(qualname, names, 1)
            there = ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")
            hint = f"did you mean {near[0]!r}?" if near else f"it has {there or 'no functions'}"
            raise UsageError(f"{module.__name__} has no function {qualname!r}; {hint}") from None
    return value


def _chosen(module: ModuleType) -> tuple[str, Any]:
    """The function that is meant where none was named."""
    functions = list(_functions(module))
    hydra_apps = [(name, one) for name, one in functions if _hydra_main(one) is not None]
    if len(hydra_apps) == 1:
        return hydra_apps[0]
    if hydra_apps:
        names = ", ".join(f"{module.__name__}:{name}" for name, _ in hydra_apps)
        raise UsageError(f"{module.__name__} has several functions with @hydra.main; say which: {names}")
    fitting = [(name, one) for name, one in functions if accepts_one_config(one)]
    for name, one in fitting:
        if name == "main":
            return name, one
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        there = ", ".join(f"{name}{signature_of(one)}" for name, one in functions) or "none at all"
        raise UsageError(
            f"{module.__name__} has no function that can be called with one config; its public functions: {there}"
        )
    names = ", ".join(f"{module.__name__}:{name}" for name, _ in fitting)
    raise UsageError(f"{module.__name__} has several functions that take one config; say which: {names}")


def _functions(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The public functions that a module defines itself, in their order there."""
    for name, value in list(vars(module).items()):
        if not name.startswith("_") and isinstance(value, FunctionType) and value.__module__ == module.__name__:
            yield name, value


def accepts_one_config(task: Any) -> bool:
    """It can be called with one positional argument. What has no signature is given the benefit of the doubt."""
    if not callable(task):
        return False
    try:
        signature = inspect.signature(task)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(object())
    except TypeError:
        return False
    return True


def signature_of(function: Any) -> str:
    """How it is to be called, as far as that is known."""
    try:
        return str(inspect.signature(function))
    except (TypeError, ValueError):
        return "(...)"


def _application(
    module: ModuleType | None, root: Path, qualname: str, value: Any, module_name: str | None = None
) -> Application:
    name = module_name or (module.__name__ if module is not None else "__main__")
    file = getattr(module, "__file__", None)
    path = Path(os.path.abspath(file)) if file else None
    if not callable(value):
        raise UsageError(f"{name}:{qualname} is {with_article(type(value).__name__)}, not a function")
    closure = _hydra_main(value)
    if closure is None:
        if not accepts_one_config(value):
            raise UsageError(f"{name}:{qualname}{signature_of(value)} cannot be called with one config")
        return Application(value, name, qualname, path, root)
    from hydra import version

    task = closure["task_function"]
    if not accepts_one_config(task):
        raise UsageError(f"{name}:{qualname}{signature_of(task)} cannot be called with one config")
    base = version.getbase()
    return Application(
        task=task,
        module_name=name,
        qualname=qualname,
        file=path,
        root=root,
        is_hydra=True,
        config_path=closure["config_path"],
        config_name=closure["config_name"],
        version_base=str(base) if base is not None else None,
    )


def _hydra_main(value: Any) -> dict[str, Any] | None:
    """What `@hydra.main` was given, if it is among the decorators of a function; else None."""
    seen = 0
    while isinstance(value, FunctionType) and seen < 100:
        names = value.__code__.co_freevars
        # functools.wraps rewrites __module__ and __qualname__; the globals stay those of hydra/main.py.
        if value.__globals__.get("__name__") == "hydra.main" and "task_function" in names:
            cells = value.__closure__ or ()
            return {name: cell.cell_contents for name, cell in zip(names, cells, strict=True)}
        value = getattr(value, "__wrapped__", None)
        seen += 1
    return None
