"""What a reference into the application's `__main__` becomes where a pickle is loaded.

Rule: needs nothing but the standard library, for it is the first thing that a pickle asks for.
"""

import importlib
from typing import Any

__all__ = ["resolve"]


def resolve(module: str, qualname: str) -> Any:
    """The function or class of that name; `module` is the name under which the script can be imported."""
    value: Any = importlib.import_module(module)
    for part in qualname.split("."):
        value = getattr(value, part)
    return value
