"""A former place, kept for pickles that earlier versions wrote (docs/stored.md); nothing here imports it."""

from remote_agent.job_process.current import CurrentJob

__all__ = ["CurrentJob"]
