"""An application as the user names it: which function runs, where it is imported from, whether it is a Hydra app.

Rule: the module gets the name under which a host can import it, too. First on `sys.path` is the folder that Python itself would
put there: the file's own folder, or, for a module name, the working folder.

| named as                  | as in                         | first on `sys.path` |
|---------------------------|-------------------------------|---------------------|
| `dir/my_app.py`           | `python dir/my_app.py`        | `dir`               |
| `dir/my_app.py:function`  |                               | `dir`               |
| `package.module`          | `python -m package.module`    | the working folder  |
| `package.module:function` |                               | the working folder  |

If no function is named, these are tried in order:

1. the function that `@hydra.main` decorates;
2. the function with which the script starts Hydra when it runs, as `zen(task).hydra_main(...)` does;
3. `main`, if it can be called with one config;
4. the only public function of the module that can be called with one config.

Only the second runs what is below `if __name__ == "__main__":`, and stops where Hydra would start. If a script starts Hydra
without that line, Hydra is not run.

If the import fails here for want of something that is not the project's, such as a package that only hosts have, the command line reads
the function and the arguments of `@hydra.main` from the text of the module (`launcher.code.application.application_text`).
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from launcher.code.application.application_text import NotInTheText, defines_class, read_function
from launcher.code.application.foreign_imports import is_foreign_failure
from launcher.code.application.functions import (
    accepts_one_config,
    innermost,
    named_function,
    public_functions,
    signature_of,
    why_no_task,
)
from launcher.code.application.hydra_entry import (
    HydraEntry,
    entry_at_start,
    entry_of,
    hydra_apps,
    import_noting,
    last_place,
)
from launcher.code.application.task import check_working_folder
from launcher.errors import UsageError
from launcher.util.frozen import frozen
from launcher.util.text.near import names_like
from remote_agent.job import with_article

__all__ = [
    "Application",
    "import_or_read",
    "is_class_in_text",
    "load_application",
    "read_application",
]

#: The top-level names that are ours.
_OURS = ("launcher", "remote_agent")


@frozen
class Application:
    """The application that a run executes.

    Attributes:
        task: the function, without the decoration of `@hydra.main`.
        module_name: the name that its module was imported by, here and on hosts.
        qualname: its name in the module; for a Hydra app that of the decorated function, if the module has one.
        file: the module's file, if it has one.
        root: the folder that is first on `sys.path` for it.
        is_hydra: `@hydra.main` decorates it.
        config_path, config_name: as given to `@hydra.main`; None for a plain function.
        version_base: Hydra's, as major.minor; None for a plain function.
        named: the file or module, as the user names it.
        is_read: it was read from its text, and not imported. Then `task` is a stand-in.
        failure: why it could not be imported here, if it was read for that.
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
    named: str = ""
    is_read: bool = False
    failure: UsageError | None = None

    @property
    def is_module(self) -> bool:
        """Whether the user named a module, as for `python -m`, and not a file."""
        return not _is_file_name(self.named)

    @property
    def project(self) -> Path:
        """The file or folder whose project is sent: the file, or the folder from which its package is imported."""
        return self.root if self.file is None or "." in self.module_name else self.file

    @property
    def name(self) -> str:
        """Its name in job logs and messages: Hydra's job name, which is the name of the file."""
        if self.file is not None:
            return self.file.stem
        return self.module_name.rpartition(".")[2]

    @property
    def reference(self) -> str:
        """`module:function`, as a host can import it."""
        return f"{self.module_name}:{self.qualname}"


@frozen
class _Place:
    """Where a module is imported from: its name, its file if that is known before, and the folder that is first on `sys.path`."""

    name: str
    file: Path | None
    root: Path


def load_application(text: str, *, may_read: bool = False) -> Application:
    """Import an application, named as in the table above.

    Args:
        may_read: read it from its text where the import fails for want of something that is not the project's.

    Raises:
        UsageError: there is no such file, module or function (the message names those that exist), or it cannot be imported.
    """
    place, function = _place_of(text)
    name = text.partition(":")[0]
    try:
        module = _imported_from(place)
    except Exception as error:
        refusal = _import_error(name, error, place.root)
        app = _read(place, function, refusal) if may_read and is_foreign_failure(error, place.root) else None
        if app is None:
            raise refusal from error
    else:
        if place.file is not None:
            _refuse_another(module, place.file, name)
        app = _named(module, place.root, function) if function else _chosen(module, place.root)
    return replace(app, named=name)


def read_application(text: str) -> Application | None:
    """Read an application from its text, without importing it; None if its text does not say enough, or something is wrong with it."""
    try:
        place, function = _place_of(text)
        app = _read(place, function, None)
    except UsageError:
        return None
    return replace(app, named=text.partition(":")[0]) if app is not None else None


def _place_of(text: str) -> tuple[_Place, str]:
    check_working_folder()
    name, colon, function = text.partition(":")
    if (colon and not function) or not name:
        raise UsageError(f"{text!r} is not an application: file.py, file.py:function, module or module:function")
    return _place_of_file(name) if _is_file_name(name) else _place_of_module(name), function


def _is_file_name(name: str) -> bool:
    return name.endswith(".py") or os.sep in name


# -- importing -----------------------------------------------------------------------------------------------------


def _place_of_file(name: str) -> _Place:
    path = Path(name).expanduser()
    if not path.is_file():
        near = [f"{path.parent / one}" for one in _python_files(path.parent)]
        match = names_like(str(path), near) or near[:5]
        there = f"; there is {', '.join(match)}" if match else ""
        raise UsageError(f"{name}: no such file{there}")
    path = Path(os.path.abspath(path))
    stem = path.stem
    if path.suffix != ".py":
        raise UsageError(f"{name}: an application is a Python file, NAME.py, or a module's name")
    if "." in stem:
        raise UsageError(f"{name}: {stem!r} cannot be imported as a module, because it has a dot; rename the file")
    loaded = sys.modules.get(stem)
    if loaded is not None:
        _refuse_another(loaded, path, name)
    root = path.parent
    _put_first(root)
    importlib.invalidate_caches()
    _refuse_namesakes(name, root)
    return _Place(stem, path, root)


def _refuse_another(module: ModuleType, path: Path, name: str) -> None:
    file = getattr(module, "__file__", None)
    if file is None or not os.path.exists(file) or not os.path.samefile(file, path):
        where = file or "Python itself"
        raise UsageError(f"{name}: the name {path.stem!r} belongs to a module of {where}; rename the file")


def _place_of_module(name: str) -> _Place:
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name):
        raise UsageError(f"{name!r} is neither a Python file (NAME.py) nor a module's name")
    root = Path.cwd()
    _put_first(root)
    importlib.invalidate_caches()
    _refuse_namesakes(name, root)
    return _Place(name, None, root)


def _imported_from(place: _Place) -> ModuleType:
    if place.file is not None:
        return sys.modules.get(place.name) or _imported(place.name, place.file)
    module = _imported(place.name)
    if hasattr(module, "__path__") and importlib.util.find_spec(f"{place.name}.__main__") is not None:
        # As `python -m package` does.
        module = _imported(f"{place.name}.__main__")
    return module


# -- reading what cannot be imported ---------------------------------------------------------------------------------


def _read(place: _Place, function: str, refusal: UsageError | None) -> Application | None:
    """The application as its text has it; None if there is no text, or it does not say enough, which the refusal then says, too."""
    found = (place.name, place.file) if place.file is not None else _module_file(place.name)
    if found is None:
        return None
    module_name, file = found
    try:
        told = read_function(file, module_name, function or None)
    except NotInTheText as lack:
        if refusal is not None:
            refusal.args = (f"{refusal}\nIt was not read from its text either, which does not say {lack}",)
        return None
    value: Any = told.stand_in
    if told.hydra is not None:
        import hydra

        value = hydra.main(**told.hydra)(value)
    app = _application(None, place.root, told.name, value, module_name)
    return replace(app, file=file, is_read=True, failure=refusal)


def import_or_read(reference: str, root: Path) -> None:
    """Import the module of `module:function`, as composing its configs needs. If that fails for want of something that is not the
    project's, only Hydra's version base is set, from the text of the module.

    Args:
        root: the folder that is first on `sys.path` for it.

    Raises:
        Exception: whatever the import raises, for another reason.
    """
    name, _, function = reference.partition(":")
    try:
        importlib.import_module(name)
    except Exception as error:
        found = _module_file(name) if is_foreign_failure(error, root) else None
        if found is None:
            raise
        try:
            told = read_function(found[1], name, function or None)
        except NotInTheText:
            raise error from None
        if told.hydra is not None:
            import hydra

            hydra.main(**told.hydra)


def is_class_in_text(module: str, name: str) -> bool:
    """Whether the text of a module that was not imported defines a class of this name."""
    found = _module_file(module)
    return found is not None and defines_class(found[1], name)


def _module_file(name: str) -> tuple[str, Path] | None:
    """The module that Python would run by this name, and its file, found without importing the packages above it."""
    places: list[str] | None = None
    parts = name.split(".")
    for depth in range(len(parts)):
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[: depth + 1]), places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or [])
    if places:
        main = importlib.machinery.PathFinder.find_spec(f"{name}.__main__", places)
        name, spec = (f"{name}.__main__", main) if main is not None else (name, spec)
    if spec is None or not spec.has_location or not str(spec.origin).endswith(".py"):
        return None
    return name, Path(os.path.abspath(str(spec.origin)))


def _refuse_namesakes(name: str, root: Path) -> None:
    """Refuse a project whose top-level modules have our names: in this process these names mean our modules.

    A folder without an `__init__.py` does no harm: Python prefers every package to it.
    """
    for ours in _OURS:
        spec = importlib.machinery.PathFinder.find_spec(ours, [str(root)])
        file = spec.origin if spec is not None and spec.has_location else None
        here = getattr(sys.modules.get(ours), "__file__", None)
        if file and os.path.realpath(file) != os.path.realpath(here or ""):
            raise UsageError(
                f"{name}: {file} has the same name as hydra-remote-launcher's own package {ours!r}, and the two "
                f"cannot be in one process. Rename it, or move it into a package (mypackage/{ours})"
            )


def _imported(name: str, file: Path | None = None) -> ModuleType:
    """Import a module. If it starts Hydra as it is imported, Hydra is not run; what it would be run with is noted."""
    if file is None:
        spec = importlib.util.find_spec(name)
        file = Path(spec.origin) if spec is not None and spec.origin is not None else None
    if file is None or not file.is_file() or b"hydra" not in file.read_bytes():
        # Hydra takes a tenth of a second to import.
        return importlib.import_module(name)
    return import_noting(name)


def _put_first(root: Path) -> None:
    """Put a folder first on `sys.path`, as Python does when it is started there."""
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
    where = last_place(error)
    return UsageError(f"{name} cannot be imported: {type(error).__name__}: {error}{where}{hint}")


def _python_files(folder: Path) -> list[str]:
    try:
        return sorted(one.name for one in folder.iterdir() if one.suffix == ".py" and one.is_file())
    except OSError:
        return []


# -- choosing the function -------------------------------------------------------------------------------------------


def _named(module: ModuleType, root: Path, qualname: str) -> Application:
    """The function that was named, even if the script decorates it only when it starts Hydra."""
    value = named_function(module, qualname)
    if entry_of(value) is None:
        try:
            entry = entry_at_start(module)
        except UsageError:
            entry = None  # what the script does is not what was asked for
        if entry is not None and innermost(entry.task) is value:
            return _hydra_application(module, root, qualname, entry)
    return _application(module, root, qualname, value)


def _chosen(module: ModuleType, root: Path) -> Application:
    """The function to run if the user named none."""
    decorated = list(hydra_apps(module))
    if len(decorated) == 1:
        return _application(module, root, *decorated[0])
    if decorated:
        names = ", ".join(f"{module.__name__}:{name}" for name, _ in decorated)
        raise UsageError(f"{module.__name__} has several functions with @hydra.main; say which: {names}")
    entry = entry_at_start(module)
    if entry is not None:
        return _hydra_application(module, root, getattr(innermost(entry.task), "__qualname__", "main"), entry)
    return _application(module, root, *_only_fitting(module))


def _only_fitting(module: ModuleType) -> tuple[str, Any]:
    """The plain function to run if the user named none."""
    functions = list(public_functions(module))
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


def _application(
    module: ModuleType | None, root: Path, qualname: str, value: Any, module_name: str | None = None
) -> Application:
    name = module_name or (module.__name__ if module is not None else "__main__")
    if not callable(value):
        raise UsageError(f"{name}:{qualname} is {with_article(type(value).__name__)}, not a function")
    entry = entry_of(value)
    if entry is not None:
        return _hydra_application(module, root, qualname, entry, name)
    why = why_no_task(value)
    if why:
        raise UsageError(f"{name}:{qualname}{signature_of(value)}{why}")
    return Application(value, name, qualname, _file_of(module), root)


def _hydra_application(
    module: ModuleType | None, root: Path, qualname: str, entry: HydraEntry, module_name: str | None = None
) -> Application:
    from hydra import version

    name = module_name or (module.__name__ if module is not None else "__main__")
    why = why_no_task(entry.task)
    if why:
        raise UsageError(f"{name}:{qualname}{signature_of(entry.task)}{why}")
    base = version.getbase()
    is_set = base is not None and type(base) is not type(version._UNSPECIFIED_)
    return Application(
        task=entry.task,
        module_name=name,
        qualname=qualname,
        file=_file_of(module),
        root=root,
        is_hydra=True,
        config_path=entry.config_path,
        config_name=entry.config_name,
        version_base=str(base) if is_set else None,
    )


def _file_of(module: ModuleType | None) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(os.path.abspath(file)) if file else None
