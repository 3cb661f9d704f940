"""Importing much at once, quickly, and telling what is installed from what is the user's.

Rule: whatever is imported, garbage collection is as it was afterwards.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import sysconfig
from collections.abc import Iterator

__all__ = ["is_installed", "uncollected"]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """While this is entered no garbage is looked for: imports make little, and looking for it takes a tenth of their time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@functools.cache
def is_installed(file: str) -> bool:
    """A file of the standard library or of an installed package, rather than of the user's project."""
    path = os.path.realpath(file)
    if any(part in ("site-packages", "dist-packages") for part in path.split(os.sep)):
        return True
    library = os.path.realpath(sysconfig.get_paths()["stdlib"])
    return path.startswith((library + os.sep, os.path.realpath(sysconfig.get_paths()["scripts"]) + os.sep))
