"""Functions that pickles call when they are loaded: references into the application, objects of `functools`,
JobReturns.

Rule: this module and these names stay for ever, because old pickles need them (docs/stored.md lists all such names),
and so does an agent that an earlier version started. A function here may get more arguments with defaults, but never
another meaning. `same` and `job_return` are defined where they belong, but have the name of this module.
"""

import functools
import importlib
import linecache
import types
from typing import Any, Callable, Dict, List, Optional, Tuple

from remote_agent.hydra.compat import job_return_from as job_return
from remote_agent.job import JobReturn, same

__all__ = [
    "cached_property",
    "caching",
    "code_of_cell",
    "dispatching",
    "job_return",
    "own_job_return",
    "resolve",
    "same",
]


def resolve(module: str, qualname: str) -> Any:
    """Return the function or class of that name. `module` is the name under which the script can be imported."""
    value: Any = importlib.import_module(module)
    for part in qualname.split("."):
        value = getattr(value, part)
    return value


def caching(function: Callable[..., Any], maxsize: Optional[int], typed: bool) -> Any:
    """Return the function with an empty `functools.lru_cache` around it."""
    return functools.lru_cache(maxsize, typed)(function)


def dispatching(function: Callable[..., Any], implementations: List[Tuple[type, Callable[..., Any]]]) -> Any:
    """Return a `functools.singledispatch` of these implementations."""
    made = functools.singledispatch(function)
    for cls, one in implementations:
        made.register(cls, one)
    return made


def code_of_cell(parts: Tuple[Any, ...], name: str, source: str) -> types.CodeType:
    """Return code that was defined in a cell of a notebook or at a prompt. Tracebacks find the lines of its source under that name."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    return types.CodeType(*parts)


def cached_property(function: Callable[[Any], Any], name: Optional[str]) -> Any:
    """Return a `functools.cached_property` of this name."""
    made: Any = functools.cached_property(function)
    made.attrname = name
    return made


def own_job_return(fields: Dict[str, Any]) -> Any:
    """Make a JobReturn from its fields. Fields that this version does not have any more are left out."""
    return JobReturn(**{name: value for name, value in fields.items() if name in JobReturn.__dataclass_fields__})
