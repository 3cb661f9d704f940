"""The imports of paramiko and fabric, which are the longest thing between a command and its first job.

Rule: what is skipped here is what they import and never use for a connection, and nothing that another thread imports at the
same time may notice.

A login needs paramiko alone; fabric takes the connection over while the host starts its first command (`link`). With
paramiko alone would come: all of invoke, for `Match exec` in a file that is never read here (`ssh -G` answers); and
`importlib.metadata` with `email`, for paramiko's own version. With fabric: `unittest.mock` with asyncio, for invoke's own test
helper; and a second PyYAML that invoke brings along, in whose place the installed one is given to it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import os
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from launcher.util.imports import uncollected

__all__ = ["import_fabric", "import_paramiko"]

_LOCK = threading.RLock()
_MOCK = "unittest.mock"
_METADATA = "importlib.metadata"
_YAML = "invoke.vendor.yaml"


def import_paramiko() -> None:
    """Import paramiko; at once where that has happened.

    Raises:
        ImportError: it is not installed.
    """
    with _LOCK:
        if "paramiko" not in sys.modules:
            with uncollected(), _standing_in(_Late("invoke"), _Late(_METADATA, version=_version)):
                importlib.import_module("paramiko")


def import_fabric() -> None:
    """Import fabric, and paramiko before it; at once where that has happened.

    Raises:
        ImportError: one is not installed.
    """
    with _LOCK:
        if "fabric" not in sys.modules:
            import_paramiko()
            with uncollected(), _without_luggage():
                importlib.import_module("fabric")


class _Late(ModuleType):
    """A module in whose place this stands until something is asked of it that is not among `known`."""

    def __init__(self, name: str, **known: Any) -> None:
        super().__init__(name)
        self.__dict__.update(known)

    def __getattr__(self, name: str) -> Any:
        if name == "__path__" and "." not in self.__name__:
            # Another thread wants a module of the package: it gets that, and the package later.
            spec = importlib.machinery.PathFinder.find_spec(self.__name__)
            return list(spec.submodule_search_locations or ()) if spec is not None else []
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real(self.__name__), name)


def _real(name: str) -> Any:
    if isinstance(sys.modules.get(name), _Late):
        del sys.modules[name]
    return importlib.import_module(name)


def _mock(*args: Any, **kwargs: Any) -> Any:
    """`unittest.mock.Mock`, late: invoke wants the name and never calls it."""
    return _real(_MOCK).Mock(*args, **kwargs)


def _version(name: str) -> str:
    """`importlib.metadata.version`; paramiko's own, while it is imported, is in the name of a folder beside it."""
    if name == "paramiko":
        folder = os.path.dirname(os.path.dirname(str(getattr(sys.modules.get(name), "__file__", ""))))
        found = [one for one in os.listdir(folder or ".") if one.startswith(f"{name}-") and one.endswith(".dist-info")]
        if len(found) == 1:
            return found[0][len(name) + 1 : -len(".dist-info")]
    return str(_real(_METADATA).version(name))


@contextlib.contextmanager
def _standing_in(*stand_ins: _Late) -> Iterator[None]:
    """Let these stand for modules that are not imported yet, until they are asked for, or no longer needed."""
    modules = sys.modules
    for one in stand_ins:
        if one.__name__ not in modules:
            modules[one.__name__] = one
            package, leaf = _place(one.__name__)
            if package is not None:
                # As an import would. It stays: who has the package may come back for it.
                vars(package).setdefault(leaf, one)
    try:
        yield
    finally:
        for one in stand_ins:
            if modules.get(one.__name__) is one:
                del modules[one.__name__]
                _make_up_for(one.__name__)


def _place(name: str) -> tuple[ModuleType | None, str]:
    package, _, leaf = name.rpartition(".")
    return sys.modules.get(package), leaf


def _make_up_for(name: str) -> None:
    """Import a module that another thread has come for meanwhile, or for what is in it."""
    package, leaf = _place(name)
    inner = [other for other in sys.modules if other.startswith(f"{name}.")]
    if inner or (package is not None and not hasattr(package, leaf)):
        module = importlib.import_module(name)
        for other in inner:
            vars(module).setdefault(other[len(name) + 1 :], sys.modules[other])


@contextlib.contextmanager
def _without_luggage() -> Iterator[None]:
    modules: dict[str, Any] = sys.modules
    is_yaml_hidden = _YAML not in modules
    if is_yaml_hidden:
        # Not None: where its yaml is missing, invoke takes the whole of its vendored packages from elsewhere.
        modules[_YAML] = importlib.import_module("yaml")
    try:
        with _standing_in(_Late(_MOCK, Mock=_mock)):
            yield
    finally:
        if is_yaml_hidden:
            modules.pop(_YAML, None)
