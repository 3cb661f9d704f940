"""Found as `remote_agent.current_job`, which pickles of earlier versions ask for."""

from remote_agent.job_process.current import CurrentJob

__all__ = ["CurrentJob"]
