"""A former place, kept for pickles that earlier versions wrote (docs/stored.md); nothing here imports it."""

from remote_agent.callbacks.builtin import LogJobReturnCallback, PickleJobInfoCallback

__all__ = ["LogJobReturnCallback", "PickleJobInfoCallback"]
