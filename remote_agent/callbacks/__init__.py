"""The contract of callbacks, several as one, and those that come along. A table of contents.

Configs name what is in it: `_target_: remote_agent.callbacks.LogJobReturnCallback`.
"""

from remote_agent.callbacks.base import Callback
from remote_agent.callbacks.builtin import LogJobReturnCallback, PickleJobInfoCallback
from remote_agent.callbacks.composite import Callbacks

__all__ = ["Callback", "Callbacks", "LogJobReturnCallback", "PickleJobInfoCallback"]
