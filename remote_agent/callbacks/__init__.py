"""The interface of callbacks, their composite, and the built-in ones. A table of contents, loaded lazily.

Configs may name what is in it: `_target_: remote_agent.callbacks.LogJobReturnCallback`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from remote_agent.callbacks.base import Callback as Callback
    from remote_agent.callbacks.builtin import LogJobReturnCallback as LogJobReturnCallback
    from remote_agent.callbacks.builtin import PickleJobInfoCallback as PickleJobInfoCallback
    from remote_agent.callbacks.composite import Callbacks as Callbacks

_CONTENTS = {
    "Callback": "remote_agent.callbacks.base",
    "Callbacks": "remote_agent.callbacks.composite",
    "LogJobReturnCallback": "remote_agent.callbacks.builtin",
    "PickleJobInfoCallback": "remote_agent.callbacks.builtin",
}

__all__ = ["Callback", "Callbacks", "LogJobReturnCallback", "PickleJobInfoCallback"]


if not TYPE_CHECKING:  # a name that is not there is an error for a type checker

    def __getattr__(name: str) -> Any:
        module = _CONTENTS.get(name)
        if module is None:
            raise AttributeError("module {!r} has no attribute {!r}".format(__name__, name))
        import importlib

        return getattr(importlib.import_module(module), name)
