"""The events of a run, as frozen values. Display, journal and hooks all use them. A table of contents.

Rule: an event says what has happened, and not what to do about it. `at` is seconds since the epoch, by the controller's clock.
"""

from launcher.events.base import EventBase, from_json
from launcher.events.hosts import (
    CodeSent,
    EnvironmentChanged,
    EnvironmentReady,
    HostClosed,
    HostLost,
    HostOpened,
    HostReady,
    HostUnknown,
    HostUnusable,
    WayChosen,
)
from launcher.events.jobs import (
    AttemptEnded,
    AttemptStarted,
    JobAssigned,
    JobCancelling,
    JobQueued,
    JobReported,
    JobRequeued,
    JobRetried,
    JobReturned,
    JobStopping,
    JobTakenOver,
    OutputArrived,
    OutputsUnmatched,
)
from launcher.events.run import (
    HookFired,
    Note,
    RunDetached,
    RunDetaching,
    RunEnded,
    RunInterrupt,
    RunResumed,
    RunStarted,
    Warned,
)

__all__ = [
    "AttemptEnded",
    "AttemptStarted",
    "CodeSent",
    "EnvironmentChanged",
    "EnvironmentReady",
    "Event",
    "EventBase",
    "HookFired",
    "HostClosed",
    "HostLost",
    "HostOpened",
    "HostReady",
    "HostUnknown",
    "HostUnusable",
    "JobAssigned",
    "JobCancelling",
    "JobQueued",
    "JobReported",
    "JobRequeued",
    "JobRetried",
    "JobReturned",
    "JobStopping",
    "JobTakenOver",
    "Note",
    "OutputArrived",
    "OutputsUnmatched",
    "RunDetached",
    "RunDetaching",
    "RunEnded",
    "RunInterrupt",
    "RunResumed",
    "RunStarted",
    "Warned",
    "WayChosen",
    "from_json",
]

#: All events. A `match` that misses one is a type error.
Event = (
    AttemptEnded
    | AttemptStarted
    | CodeSent
    | EnvironmentChanged
    | EnvironmentReady
    | HookFired
    | HostClosed
    | HostLost
    | HostOpened
    | HostReady
    | HostUnknown
    | HostUnusable
    | JobAssigned
    | JobCancelling
    | JobQueued
    | JobReported
    | JobRequeued
    | JobRetried
    | JobReturned
    | JobStopping
    | JobTakenOver
    | Note
    | OutputArrived
    | OutputsUnmatched
    | RunDetached
    | RunDetaching
    | RunEnded
    | RunInterrupt
    | RunResumed
    | RunStarted
    | Warned
    | WayChosen
)
