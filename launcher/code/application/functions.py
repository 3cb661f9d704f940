"""Functions of the user: finding one by its name, and what it can be called with."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

from launcher.errors import UsageError
from launcher.util.text.near import names_like

__all__ = ["accepts_one_config", "innermost", "named_function", "public_functions", "signature_of"]

#: Functions of a module that a message names.
_MAX_NAMED = 10


def named_function(module: ModuleType, qualname: str) -> Any:
    """The object with this name in a module.

    Raises:
        UsageError: there is none; the message gives the nearest name, or those that exist.
    """
    value: Any = module
    for part in qualname.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            names = [name for name, _ in public_functions(module)]
            near = names_like(qualname, names)
            there = ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")
            hint = f"did you mean {near[0]!r}?" if near else f"it has {there or 'no functions'}"
            raise UsageError(f"{module.__name__} has no function {qualname!r}; {hint}") from None
    return value


def public_functions(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The public functions that a module itself defines, in the order of their definition."""
    for name, value in list(vars(module).items()):
        if not name.startswith("_") and isinstance(value, FunctionType) and value.__module__ == module.__name__:
            yield name, value


def innermost(task: Any) -> Any:
    """Return the user's function inside its wrappers: a decorator, functools.partial, hydra-zen's `zen`."""
    for _ in range(100):
        inner = getattr(task, "__wrapped__", None) or getattr(task, "func", None)
        if inner is None:
            break
        task = inner
    return task


def accepts_one_config(task: Any) -> bool:
    """Whether it can be called with one positional argument; True for what has no signature."""
    if not callable(task):
        return False
    try:
        signature = inspect.signature(task, follow_wrapped=False)
    except (TypeError, ValueError):
        return True
    try:
        bound = signature.bind(object())
    except TypeError:
        return False
    inner = getattr(task, "__wrapped__", None)
    hands_on = any(signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL for name in bound.arguments)
    # A decorator that takes any arguments passes them on; one that takes a config may change it.
    return accepts_one_config(inner) if hands_on and callable(inner) else True


def signature_of(function: Any) -> str:
    """Its signature as text; empty if it has none."""
    try:
        return str(inspect.signature(function))
    except (TypeError, ValueError):
        return "(...)"
