"""What happens to a host: how it is reached, what is sent to it, whether it takes jobs."""

from __future__ import annotations

from typing import Any, ClassVar

from launcher.events.base import EventBase
from launcher.util.frozen import frozen

__all__ = [
    "CodeSent",
    "EnvironmentChanged",
    "EnvironmentReady",
    "HostClosed",
    "HostLost",
    "HostOpened",
    "HostReady",
    "HostUnknown",
    "HostUnusable",
    "WayChosen",
]


@frozen
class WayChosen(EventBase):
    """How a host is reached: `way` is fabric or openssh (the `ssh` program), and `why` says why so."""

    kind: ClassVar[str] = "way"
    host: str
    way: str
    why: str


@frozen
class CodeSent(EventBase):
    """The code snapshot is on the host. `sent_bytes`: how many bytes had to be sent."""

    kind: ClassVar[str] = "code_sent"
    host: str
    files: int
    sent_files: int
    sent_bytes: int


@frozen
class EnvironmentChanged(EventBase):
    """An environment is on its way; only for display. `state`: resolving, sending, waiting (another run builds it) or building.

    `done` of `total` bytes are on the host, which has fetched `fetched` itself.
    """

    kind: ClassVar[str] = "environment"
    host: str
    state: str
    done: int
    total: int
    fetched: int = 0


@frozen
class EnvironmentReady(EventBase):
    """A host has the environment of the run; `key` names it there. `is_new`: it was built for this run.

    Of the `total` bytes of its files, the host has fetched `fetched` itself for this run.
    """

    kind: ClassVar[str] = "environment_ready"
    host: str
    key: str
    is_new: bool
    total: int
    fetched: int = 0


@frozen
class HostReady(EventBase):
    """A host takes jobs. `boot_id` names this life of its machine. `room`: what of it the jobs may take, as its agent says."""

    kind: ClassVar[str] = "host_ready"
    host: str
    slots: int
    python: str
    gpus: tuple[str, ...] = ()
    reconnected: bool = False
    boot_id: str = ""
    room: dict[str, Any] | None = None

    @property
    def is_cluster(self) -> bool:
        """Whether a batch system runs its jobs; `slots` is then only the most that it may have."""
        return self.boot_id.startswith("slurm/")


@frozen
class HostClosed(EventBase):
    """A host takes no more jobs, though its link may be up: its spool is full, or its application is unusable.

    `may_open`: this may end by itself, like a full disk.
    """

    kind: ClassVar[str] = "host_closed"
    host: str
    why: str
    may_open: bool = False


@frozen
class HostOpened(EventBase):
    """A host that was closed takes jobs again."""

    kind: ClassVar[str] = "host_opened"
    host: str


@frozen
class HostUnknown(EventBase):
    """The link to a host is gone. Its jobs are unknown, not failed."""

    kind: ClassVar[str] = "host_unknown"
    host: str
    why: str
    jobs: tuple[int, ...] = ()


@frozen
class HostLost(EventBase):
    """A host was given up. `jobs` are those that it still had."""

    kind: ClassVar[str] = "host_lost"
    host: str
    why: str
    jobs: tuple[int, ...] = ()


@frozen
class HostUnusable(EventBase):
    """A host that never accepted jobs: its key, authentication, no Python, a failed setup line."""

    kind: ClassVar[str] = "host_unusable"
    host: str
    phase: str
    why: str
    next_step: str = ""
