"""Found as `remote_agent.callback`, which pickles of earlier versions ask for."""

from remote_agent.callbacks.base import Callback

__all__ = ["Callback"]
