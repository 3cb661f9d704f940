"""A former place, kept for pickles that earlier versions wrote (docs/stored.md); nothing here imports it."""

from launcher.pickled import config_with_node as with_node
from remote_agent.by_reference import same as made_now

__all__ = ["made_now", "with_node"]
