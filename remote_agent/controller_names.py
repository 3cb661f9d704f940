"""Stand-ins for names of the controller (`launcher.run` and others) on a host, which has no `launcher` package.

Rule: a script may import these names on a host, because its task needs none of them. Using one raises an error that says where
it belongs.
"""

import os
from typing import Any

from remote_agent.job import IMPORTING

__all__ = ["stand_in"]

_EXCEPTIONS = ("LauncherError",)


class _ControllerOnly(type):
    """The type of a stand-in: every use of it raises an error."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(_why(cls.__name__))

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError(_why(cls.__name__))


def stand_in(name: str) -> Any:
    """Return what `launcher.NAME` is on a host. For an exception it is an exception, so that `except` may name it."""
    if name in _EXCEPTIONS:
        return type(name, (Exception,), {"__doc__": _why(name), "__module__": "launcher"})
    return _ControllerOnly(name, (), {"__doc__": _why(name), "__module__": "launcher"})


def _why(name: str) -> str:
    importing = os.environ.get(IMPORTING)
    if importing:
        return (
            "{} starts a run when it is imported, and every host imports it; put the call of launcher.{} below "
            "`if __name__ == '__main__':`"
        ).format(importing, name)
    return "launcher.{} belongs to the controller and does not exist on a host".format(name)
