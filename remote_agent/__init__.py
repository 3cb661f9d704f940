"""The agent: runs next to the application. A table of contents, loaded lazily.

What a callback or an application may import from here works on a bare host: nothing below needs more than the standard
library until it is used. `launcher` offers the same names on the controller.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from remote_agent.callback import Callback as Callback
    from remote_agent.callbacks import Callbacks as Callbacks
    from remote_agent.callbacks import LogJobReturnCallback as LogJobReturnCallback
    from remote_agent.callbacks import PickleJobInfoCallback as PickleJobInfoCallback
    from remote_agent.current_job import CurrentJob as CurrentJob
    from remote_agent.current_job import current_job as current_job
    from remote_agent.job import JobError as JobError
    from remote_agent.job import JobReturn as JobReturn
    from remote_agent.job import JobStatus as JobStatus
    from remote_agent.job import RemoteJobError as RemoteJobError

_CONTENTS = {
    "Callback": "remote_agent.callback",
    "Callbacks": "remote_agent.callbacks",
    "LogJobReturnCallback": "remote_agent.callbacks",
    "PickleJobInfoCallback": "remote_agent.callbacks",
    "CurrentJob": "remote_agent.current_job",
    "JobError": "remote_agent.job",
    "JobReturn": "remote_agent.job",
    "JobStatus": "remote_agent.job",
    "RemoteJobError": "remote_agent.job",
    "current_job": "remote_agent.current_job",
}

__all__ = [
    "Callback",
    "Callbacks",
    "CurrentJob",
    "JobError",
    "JobReturn",
    "JobStatus",
    "LogJobReturnCallback",
    "PickleJobInfoCallback",
    "RemoteJobError",
    "current_job",
]


if not TYPE_CHECKING:  # a name that is not there is an error for a type checker

    def __getattr__(name: str) -> Any:
        module = _CONTENTS.get(name)
        if module is None:
            raise AttributeError("module {!r} has no attribute {!r}".format(__name__, name))
        import importlib

        return getattr(importlib.import_module(module), name)
