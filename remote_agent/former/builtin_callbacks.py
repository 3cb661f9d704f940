"""Found as `remote_agent.builtin_callbacks`, which pickles of earlier versions ask for."""

from remote_agent.callbacks.builtin import LogJobReturnCallback, PickleJobInfoCallback

__all__ = ["LogJobReturnCallback", "PickleJobInfoCallback"]
