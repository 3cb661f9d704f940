"""A former place, kept for pickles that earlier versions wrote (docs/stored.md); nothing here imports it."""

from remote_agent.callbacks.base import Callback

__all__ = ["Callback"]
