"""The imports of paramiko and fabric, which are the slowest step between a command and its login.

Rule: a login imports only paramiko. Fabric takes over the connection while the host starts its first command (`link`),
when this process only waits.

Both import much that a connection never uses: all of invoke, for `Match exec` in a file that is never read here
(`ssh -G` reads it); `importlib.metadata` with email, for paramiko's own version; `unittest.mock` with asyncio and ssl, for
a helper of invoke's own tests. While they are imported, a placeholder stands in for each of the three. It becomes the real
module when an attribute of it is used, because another thread may import that module at any time. docs/decisions.md has
the figures.
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

__all__ = ["import_fabric", "import_paramiko"]

_LOCK = threading.RLock()


def import_paramiko() -> None:
    """Import paramiko.

    Raises:
        ImportError: it is not installed.
    """
    with _LOCK:
        if "paramiko" not in sys.modules:
            with _standing_in(_Placeholder("invoke"), _Placeholder("importlib.metadata", version=_version)):
                importlib.import_module("paramiko")


def import_fabric() -> None:
    """Import fabric, and paramiko before it.

    Raises:
        ImportError: one of them is not installed.
    """
    with _LOCK:
        if "fabric" not in sys.modules:
            import_paramiko()
            with _standing_in(_Placeholder("unittest.mock", Mock=_mock)):
                importlib.import_module("fabric")


class _Placeholder(ModuleType):
    """A placeholder for a module, until one of its attributes is used that is not among `known`."""

    def __init__(self, name: str, **known: Any) -> None:
        super().__init__(name)
        vars(self).update(known)

    def __getattr__(self, name: str) -> Any:
        if name == "__path__" and "." not in self.__name__:
            # If another thread imports a module of the package, it gets that module, and the package later.
            spec = importlib.machinery.PathFinder.find_spec(self.__name__)
            return list(spec.submodule_search_locations or ()) if spec is not None else []
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real(self.__name__), name)


def _real(name: str) -> Any:
    if isinstance(sys.modules.get(name), _Placeholder):
        del sys.modules[name]
    return importlib.import_module(name)


def _version(name: str) -> str:
    """`importlib.metadata.version`. The folder beside paramiko has paramiko's version in its name."""
    if name == "paramiko":
        folder = os.path.dirname(os.path.dirname(str(getattr(sys.modules.get(name), "__file__", ""))))
        found = [one for one in os.listdir(folder or ".") if one.startswith(f"{name}-") and one.endswith(".dist-info")]
        if len(found) == 1:
            return found[0][len(name) + 1 : -len(".dist-info")]
    return str(_real("importlib.metadata").version(name))


def _mock(*args: Any, **kwargs: Any) -> Any:
    """`unittest.mock.Mock`. invoke imports the name, and a connection never calls it."""
    return _real("unittest.mock").Mock(*args, **kwargs)


@contextlib.contextmanager
def _standing_in(*placeholders: _Placeholder) -> Iterator[None]:
    """Within this context, an import of these modules gets the placeholders, unless they are imported already."""
    modules = sys.modules
    for one in placeholders:
        package, _, leaf = one.__name__.rpartition(".")
        if one.__name__ not in modules:
            modules[one.__name__] = one
            if package:
                # As an import does. It stays, because another thread may have imported only the package.
                vars(importlib.import_module(package)).setdefault(leaf, one)
    try:
        yield
    finally:
        for one in placeholders:
            if modules.get(one.__name__) is one:
                del modules[one.__name__]
                _complete(one.__name__)


def _complete(name: str) -> None:
    """Import a package of which another thread has imported modules meanwhile, so that it has them, as after any import."""
    inner = [other for other in sys.modules if other.startswith(f"{name}.")]
    if inner:
        package = importlib.import_module(name)
        for other in inner:
            vars(package).setdefault(other[len(name) + 1 :], sys.modules[other])
