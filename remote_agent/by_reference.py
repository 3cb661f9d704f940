"""What a reference into the application's `__main__` becomes where a pickle is loaded; and what `functools` made, by value.

Rule: needs nothing but the standard library, for it is the first thing that a pickle asks for.
"""

import functools
import importlib
from typing import Any, Callable, List, Optional, Tuple

__all__ = ["cached_property", "caching", "dispatching", "resolve"]


def resolve(module: str, qualname: str) -> Any:
    """The function or class of that name; `module` is the name under which the script can be imported."""
    value: Any = importlib.import_module(module)
    for part in qualname.split("."):
        value = getattr(value, part)
    return value


def caching(function: Callable[..., Any], maxsize: Optional[int], typed: bool) -> Any:
    """The function behind an empty `functools.lru_cache`."""
    return functools.lru_cache(maxsize, typed)(function)


def dispatching(function: Callable[..., Any], implementations: List[Tuple[type, Callable[..., Any]]]) -> Any:
    """The `functools.singledispatch` of these implementations."""
    made = functools.singledispatch(function)
    for cls, one in implementations:
        made.register(cls, one)
    return made


def cached_property(function: Callable[[Any], Any], name: Optional[str]) -> Any:
    """A `functools.cached_property` of this name."""
    made: Any = functools.cached_property(function)
    made.attrname = name
    return made
