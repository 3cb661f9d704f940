"""The imports of paramiko and fabric, which are the slowest step between a command and its login.

Rule: a login imports only paramiko. Fabric takes over the connection while the host starts its first command (`link`),
when this process only waits.

paramiko imports all of invoke, for `Match exec` in a file that is never read here (`ssh -G` reads it). Until fabric
needs invoke, a placeholder module stands in for it. It becomes the real module when an attribute of it is used, because
another thread may import invoke at any time. Without it, both imports take a third more CPU time, all of it before the
login (docs/decisions.md has the figures).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

__all__ = ["import_fabric", "import_paramiko"]

_LOCK = threading.RLock()
_INVOKE = "invoke"


def import_paramiko() -> None:
    """Import paramiko.

    Raises:
        ImportError: it is not installed.
    """
    with _LOCK:
        if "paramiko" not in sys.modules:
            with _invoke_later():
                importlib.import_module("paramiko")


def import_fabric() -> None:
    """Import fabric, and paramiko before it.

    Raises:
        ImportError: one of them is not installed.
    """
    with _LOCK:
        import_paramiko()
        importlib.import_module("fabric")


class _LateInvoke(ModuleType):
    """A placeholder for invoke, until one of its attributes is used."""

    def __getattr__(self, name: str) -> Any:
        if name == "__path__":
            # If another thread imports a module of the package, it gets that module, and the package later.
            spec = importlib.machinery.PathFinder.find_spec(_INVOKE)
            return list(spec.submodule_search_locations or ()) if spec is not None else []
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(_INVOKE) is self:
            del sys.modules[_INVOKE]
        return getattr(importlib.import_module(_INVOKE), name)


@contextlib.contextmanager
def _invoke_later() -> Iterator[None]:
    """Within this context, an import of invoke gets the placeholder, unless invoke is imported already."""
    late = sys.modules.setdefault(_INVOKE, _LateInvoke(_INVOKE))
    try:
        yield
    finally:
        if isinstance(late, _LateInvoke) and sys.modules.get(_INVOKE) is late:
            del sys.modules[_INVOKE]
            inner = [name for name in sys.modules if name.startswith(f"{_INVOKE}.")]
            if inner:
                # If another thread has imported modules of the package, it finds them in the package, as after any
                # import.
                package = importlib.import_module(_INVOKE)
                for name in inner:
                    vars(package).setdefault(name[len(_INVOKE) + 1 :], sys.modules[name])
