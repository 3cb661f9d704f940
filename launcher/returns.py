"""A former place, kept for pickles that earlier versions wrote (docs/stored.md); nothing here imports it."""

from remote_agent.by_reference import own_job_return as _rebuild

__all__ = ["_rebuild"]
