"""Functions of the user: finding one by its name, and what it can be called with."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

from launcher.errors import UsageError
from launcher.util.text.near import names_like

__all__ = ["accepts_one_config", "innermost", "named_function", "public_functions", "signature_of", "why_no_task"]

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


def why_no_task(task: Any, *, with_config: bool = True) -> str:
    """Return why a callable is no task, in words that follow its signature; empty if it is one.

    Args:
        with_config: whether it gets one config; else its own arguments.
    """
    if inspect.iscoroutinefunction(task):
        return " is async, and nothing of it would run: have a plain function call asyncio.run(...)"
    if inspect.isgeneratorfunction(task) or inspect.isasyncgenfunction(task):
        return (
            " is a generator, and nothing of it would run: return a list instead, or report values with launcher.report"
        )
    if not with_config:
        return ""
    return "" if accepts_one_config(task) else f" cannot be called with one config{_needed(task)}"


def _needed(task: Any) -> str:
    """What a function needs instead, and how it would take it from a config; empty if there is no such way."""
    try:
        signature = inspect.signature(task)
    except (TypeError, ValueError):
        return ""
    names = [
        name
        for name, one in signature.parameters.items()
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    if not names:
        return ": its first parameter must take the config"
    first, *more = ("cfg", *names) if "cfg" not in names else ("cfg", *(one for one in names if one != "cfg"))
    fields = ", ".join(f"{first}.{name}" for name in more)
    return (
        f": it needs {', '.join(names)}; write it as {task.__name__}({first}), with {fields}"
        if fields and hasattr(task, "__name__")
        else ""
    )


def signature_of(function: Any) -> str:
    """Its signature as text; empty if it has none."""
    try:
        return str(inspect.signature(function))
    except (TypeError, ValueError):
        return "(...)"
