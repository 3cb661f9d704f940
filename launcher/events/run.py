"""What happens to a run as a whole: its beginning and end, its hooks, what its user must see."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

from launcher.events.base import EventBase
from launcher.util.frozen import frozen

__all__ = [
    "HookFired",
    "Note",
    "RunDetached",
    "RunDetaching",
    "RunEnded",
    "RunInterrupt",
    "RunResumed",
    "RunStarted",
    "Warned",
]


@frozen
class RunStarted(EventBase):
    """A run began; `folder` is its local directory, `mode` is RUN or MULTIRUN."""

    kind: ClassVar[str] = "run_started"
    run: str
    mode: str
    folder: str
    hosts: tuple[str, ...]


@frozen
class RunInterrupt(EventBase):
    """Ctrl-C, SIGTERM, fail-fast or an aborting callback: running jobs are cancelled (`kill`: at once)."""

    kind: ClassVar[str] = "run_interrupt"
    why: str
    kill: bool = False


@frozen
class RunEnded(EventBase):
    """The run has ended, and everything that could be collected was. Counts by outcome."""

    kind: ClassVar[str] = "run_ended"
    run: str
    completed: int
    failed: int
    counts: dict[str, int] = field(default_factory=dict)


@frozen
class RunResumed(EventBase):
    """A controller has resumed the run: another process, or the same one after `RunDetached`. All links are new."""

    kind: ClassVar[str] = "run_resumed"
    run: str
    hosts: tuple[str, ...] = ()


@frozen
class RunDetaching(EventBase):
    """The controller is about to leave, so hosts get every waiting job. `hurry`: do not wait for hosts that are not reached yet."""

    kind: ClassVar[str] = "run_detaching"
    run: str
    why: str
    hurry: bool = False


@frozen
class RunDetached(EventBase):
    """The controller has left, and hosts keep all jobs. `hosts` are those that had all their jobs by then."""

    kind: ClassVar[str] = "run_detached"
    run: str
    why: str
    hosts: tuple[str, ...] = ()


@frozen
class HookFired(EventBase):
    """A hook fired. For hooks on a host, the event comes when the attempt ends. `side` is controller or host.

    `began_at` is by the clock of that side. It and `seconds` are None if nobody knows.
    """

    kind: ClassVar[str] = "hook"
    hook: str
    callback: str
    side: str
    ok: bool
    num: int | None = None
    host: str = ""
    attempt: int | None = None
    began_at: float | None = None
    seconds: float | None = None


@frozen
class Warned(EventBase):
    """Something that the user must see: a hook that raised, a refused file. `source` says where it comes from."""

    kind: ClassVar[str] = "warning"
    source: str
    message: str
    traceback: str = ""
    num: int | None = None
    host: str = ""


@frozen
class Note(EventBase):
    """Something worth saying once: isolation became spawn, a callback is built from its spec.

    `topic`: `logout` if the note says what the end of a login session does to a host's agent; otherwise empty.
    """

    kind: ClassVar[str] = "note"
    message: str
    host: str = ""
    topic: str = ""
