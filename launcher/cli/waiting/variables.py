"""Which variables a process is made of: those that Python and libraries read when they start, and those that modules read while they are imported.

Rule: the process that waits is started with the first alone, so that it has nothing secret. The second are noted while it imports: a command that has
one of them is not served.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["at_start", "import_recording"]

#: Read by Python, the C library, its memory allocator and OpenSSL, before or while anything is imported.
_BEGINNINGS = ("PYTHON", "LC_", "LD_", "MALLOC_", "GLIBC_", "OPENSSL_")
_NAMES = frozenset({"LANG", "LANGUAGE", "HOME", "LOCPATH", "NLSPATH", "GCONV_PATH", "TZDIR"})


def at_start(variables: Mapping[str, str]) -> dict[str, str]:
    """Return those that are read before anything is imported."""
    return {name: value for name, value in variables.items() if name in _NAMES or name.startswith(_BEGINNINGS)}


class _Recorded(dict[Any, Any]):
    """The content of `os.environ`, while it is noted what is read."""

    def __init__(self, content: Mapping[Any, Any]) -> None:
        super().__init__(content)
        self.read: set[str] = set()
        self.is_all = False

    def __getitem__(self, name: Any) -> Any:
        self.read.add(os.fsdecode(name))
        return super().__getitem__(name)

    def __iter__(self) -> Iterator[Any]:
        self.is_all = True
        return super().__iter__()


def import_recording(modules: Sequence[str], then: Callable[[], None] | None = None) -> frozenset[str] | None:
    """Import modules, and return which variables are read meanwhile; None if one of them reads all.

    Args:
        then: called afterwards; what it reads is noted, too.
    """
    # What reads `os.environ`, as `get` and `in` do, looks here. There is no public way to take part in that.
    content = os.environ._data  # type: ignore[attr-defined]  # noqa: SLF001
    recorded = _Recorded(content)
    os.environ._data = recorded  # type: ignore[attr-defined]  # noqa: SLF001
    try:
        for name in modules:
            with contextlib.suppress(ImportError):  # the command that needs it says so
                importlib.import_module(name)
        if then is not None:
            then()
    finally:
        # They may have set some.
        content.clear()
        content.update(dict.items(recorded))
        os.environ._data = content  # type: ignore[attr-defined]  # noqa: SLF001
    return None if recorded.is_all else frozenset(recorded.read)
