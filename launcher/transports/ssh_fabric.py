"""The import of fabric, which is the longest thing between a command and its first job.

Rule: what is skipped here is what fabric and invoke import and never use for a connection, and nothing that another
thread imports at the same time may notice.

Of 180 ms: `unittest.mock` (with asyncio) 35 ms, for invoke's own test helper; a second PyYAML that invoke brings along
11 ms, in whose place the installed one is given to it.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

__all__ = ["import_fabric", "preload"]

_LOCK = threading.Lock()
_MOCK = "unittest.mock"
_YAML = "invoke.vendor.yaml"


def import_fabric() -> None:
    """Import fabric (and paramiko with it); at once where that has happened.

    Raises:
        ImportError: it is not installed.
    """
    with _LOCK:
        if "fabric" not in sys.modules:
            with _without_luggage():
                importlib.import_module("fabric")


def preload() -> threading.Thread:
    """Import fabric in a thread, while the caller does other things; returns the thread."""

    def work() -> None:
        # What fails here fails again, and is reported, where fabric is needed.
        with contextlib.suppress(ImportError):
            import_fabric()

    thread = threading.Thread(target=work, name="preload fabric", daemon=True)
    thread.start()
    return thread


class _LateMock(ModuleType):
    """`unittest.mock` for invoke, which wants one name of it and never calls it; for anybody else, the real one."""

    @staticmethod
    def Mock(*args: Any, **kwargs: Any) -> Any:  # noqa: N802 (the name that invoke imports)
        """A real Mock, late."""
        return _real_mock().Mock(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real_mock(), name)


def _real_mock() -> Any:
    if isinstance(sys.modules.get(_MOCK), _LateMock):
        del sys.modules[_MOCK]
    return importlib.import_module(_MOCK)


@contextlib.contextmanager
def _without_luggage() -> Iterator[None]:
    modules: dict[str, Any] = sys.modules
    modules.setdefault(_MOCK, _LateMock(_MOCK))
    is_yaml_hidden = _YAML not in modules
    if is_yaml_hidden:
        # Not None: where its yaml is missing, invoke takes the whole of its vendored packages from elsewhere.
        modules[_YAML] = importlib.import_module("yaml")
    try:
        yield
    finally:
        if is_yaml_hidden:
            modules.pop(_YAML, None)
        if isinstance(modules.get(_MOCK), _LateMock):
            del modules[_MOCK]
            if "unittest" in modules:
                # Another thread has come for unittest meanwhile, perhaps for its mock.
                importlib.import_module(_MOCK)
