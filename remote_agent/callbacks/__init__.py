"""The interface of callbacks, their composite, and the built-in ones. A table of contents.

Configs may name what is in it: `_target_: remote_agent.callbacks.LogJobReturnCallback`.
"""

from remote_agent.callbacks.base import Callback
from remote_agent.callbacks.builtin import LogJobReturnCallback, PickleJobInfoCallback
from remote_agent.callbacks.composite import Callbacks

__all__ = ["Callback", "Callbacks", "LogJobReturnCallback", "PickleJobInfoCallback"]
