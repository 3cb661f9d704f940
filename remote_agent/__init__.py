"""The agent, which runs on the host beside the application. A table of contents, loaded lazily.

A callback or an application may import these names on a bare host: they need only the standard library until they are
used. `launcher` offers the same names on the controller.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Modules that only old pickles ask for are in a folder of their own (docs/stored.md).
__path__.append(__path__[0] + "/former")

if TYPE_CHECKING:
    from remote_agent.callbacks.base import Callback
    from remote_agent.callbacks.builtin import LogJobReturnCallback, PickleJobInfoCallback
    from remote_agent.callbacks.composite import Callbacks
    from remote_agent.job import JobError, JobReturn, JobStatus, RemoteJobError, ResourcesUsed
    from remote_agent.job_process.current import CurrentJob, EarlierAttempt, current_job
    from remote_agent.job_process.reports import StopRequested, report

_CONTENTS = {
    "Callback": "remote_agent.callbacks.base",
    "Callbacks": "remote_agent.callbacks.composite",
    "LogJobReturnCallback": "remote_agent.callbacks.builtin",
    "PickleJobInfoCallback": "remote_agent.callbacks.builtin",
    "CurrentJob": "remote_agent.job_process.current",
    "EarlierAttempt": "remote_agent.job_process.current",
    "JobError": "remote_agent.job",
    "JobReturn": "remote_agent.job",
    "JobStatus": "remote_agent.job",
    "RemoteJobError": "remote_agent.job",
    "ResourcesUsed": "remote_agent.job",
    "StopRequested": "remote_agent.job_process.reports",
    "current_job": "remote_agent.job_process.current",
    "report": "remote_agent.job_process.reports",
}

__all__ = [
    "Callback",
    "Callbacks",
    "CurrentJob",
    "EarlierAttempt",
    "JobError",
    "JobReturn",
    "JobStatus",
    "LogJobReturnCallback",
    "PickleJobInfoCallback",
    "RemoteJobError",
    "ResourcesUsed",
    "StopRequested",
    "current_job",
    "report",
]


if not TYPE_CHECKING:  # a name that is not there is an error for a type checker

    def __getattr__(name: str) -> Any:
        module = _CONTENTS.get(name)
        if module is None:
            raise AttributeError("module {!r} has no attribute {!r}".format(__name__, name))
        import importlib

        return getattr(importlib.import_module(module), name)
