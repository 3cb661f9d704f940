"""A former place, kept for pickles that earlier versions wrote (docs/stored.md); nothing here imports it."""

from remote_agent.by_reference import job_return as _job_return_from

__all__ = ["_job_return_from"]
