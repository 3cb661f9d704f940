"""Run Hydra apps and plain functions on SSH hosts, with callbacks on both sides. A table of contents, loaded lazily.

`import launcher` is cheap and works on a bare host, to which this file is sent, too: there the names of the contract
(`Callback`, `JobReturn`, ...) are the agent's, and the controller's names can be imported, and say when they are used that
they belong to the controller.
"""

from __future__ import annotations

import sys

#: What type checkers take for true. `typing` has it, too, but takes longer to import than all else that a command needs to find a waiting process.
TYPE_CHECKING = False

if sys.platform == "win32":
    raise ImportError("hydra-remote-launcher does not run on Windows; run it in WSL, the Windows Subsystem for Linux")

__version__ = "0.1.0"

#: Modules that only old pickles ask for are in a folder of their own (docs/stored.md).
__path__.append(__path__[0] + "/former")

if TYPE_CHECKING:
    from typing import Any, List

    from launcher.api import multirun, run
    from launcher.errors import LauncherError
    from launcher.notification import NotifyCallback
    from launcher.options import LaunchConf
    from launcher.session.session import Job, Session
    from remote_agent.callbacks.base import Callback
    from remote_agent.callbacks.builtin import LogJobReturnCallback, PickleJobInfoCallback
    from remote_agent.job import JobError, JobReturn, JobStatus, RemoteJobError, ResourcesUsed
    from remote_agent.job_process.current import CurrentJob, EarlierAttempt, current_job
    from remote_agent.job_process.reports import StopRequested, report

_CONTENTS = {
    "Callback": "remote_agent.callbacks.base",
    "CurrentJob": "remote_agent.job_process.current",
    "EarlierAttempt": "remote_agent.job_process.current",
    "Job": "launcher.session.session",
    "JobError": "remote_agent.job",
    "JobReturn": "remote_agent.job",
    "JobStatus": "remote_agent.job",
    "LaunchConf": "launcher.options",
    "LauncherError": "launcher.errors",
    "LogJobReturnCallback": "remote_agent.callbacks.builtin",
    "NotifyCallback": "launcher.notification",
    "PickleJobInfoCallback": "remote_agent.callbacks.builtin",
    "RemoteJobError": "remote_agent.job",
    "ResourcesUsed": "remote_agent.job",
    "Session": "launcher.session.session",
    "StopRequested": "remote_agent.job_process.reports",
    "current_job": "remote_agent.job_process.current",
    "multirun": "launcher.api",
    "report": "remote_agent.job_process.reports",
    "run": "launcher.api",
}

__all__ = [
    "Callback",
    "CurrentJob",
    "EarlierAttempt",
    "Job",
    "JobError",
    "JobReturn",
    "JobStatus",
    "LaunchConf",
    "LauncherError",
    "LogJobReturnCallback",
    "NotifyCallback",
    "PickleJobInfoCallback",
    "RemoteJobError",
    "ResourcesUsed",
    "Session",
    "StopRequested",
    "current_job",
    "multirun",
    "report",
    "run",
]


if not TYPE_CHECKING:  # a name that is not there is an error for a type checker

    def __getattr__(name: str) -> Any:
        module = _CONTENTS.get(name)
        if module is None:
            raise AttributeError("module {!r} has no attribute {!r}".format(__name__, name))
        import importlib

        _check_agent(importlib.import_module("remote_agent"))
        try:
            found = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if not (module + ".").startswith("{}.".format(error.name)):
                raise
            return importlib.import_module("remote_agent.controller_names").stand_in(name)
        globals()[name] = found  # a job may report very often
        return found


def _check_agent(found: Any) -> None:
    """What is imported as `remote_agent` is ours: that of this installation or, in a job, of the bundle."""
    import os

    file = getattr(found, "__file__", None) or ""
    if not os.path.isfile(os.path.join(os.path.dirname(file), "controller_names.py")):
        raise ImportError(
            "{} has the same name as hydra-remote-launcher's own package 'remote_agent', and comes before "
            "it on sys.path. Rename it, or move it into a package (mypackage/remote_agent)".format(file)
        )


def __dir__() -> List[str]:
    return sorted(__all__)
