"""Facts about a host or the way to it, which a connection passes to the decider.

Rule: facts are plain values that were checked, and no decisions. The facts of one host come in the order in which they happened.
"""

from __future__ import annotations

from typing import Any

from launcher.errors import HostError
from launcher.util.frozen import frozen
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.report import Report
from remote_agent.protocol.result_parts import ResultParts
from remote_agent.protocol.specs.resources import Room

__all__ = [
    "Collected",
    "Connected",
    "Disconnected",
    "Dropped",
    "Ended",
    "EnvironmentTold",
    "Fact",
    "HostFact",
    "LeftFiles",
    "Noted",
    "Opened",
    "Output",
    "Refused",
    "Reported",
    "Sent",
    "Started",
    "Synced",
    "Unusable",
    "Unwritable",
    "WayTaken",
    "ZygoteTold",
]


@frozen
class HostFact:
    """Something that happened on, or on the way to, a host."""

    host: str


@frozen
class Connected(HostFact):
    """The agent said welcome. `attempts` are those it knows, with their short states; `logout` are notes on that topic.

    `takes_back`: it gives attempts back that have not started, if it is asked. `stops`: it can ask jobs to stop. `too_small`: why no job of this run's size can run there.
    `room`: what of it the run's jobs may take; None if its agent is of an earlier version.
    """

    slots: int
    python: str
    gpus: tuple[str, ...]
    boot_id: str
    attempts: dict[str, str]
    notes: tuple[str, ...]
    logout: tuple[str, ...] = ()
    takes_back: bool = False
    too_small: str = ""
    room: Room | None = None
    stops: bool = False


@frozen
class WayTaken(HostFact):
    """How the host is reached from now on, and why."""

    way: str
    why: str


@frozen
class Disconnected(HostFact):
    """The link is gone, perhaps before its first welcome. A new one is being tried."""

    why: str


@frozen
class Refused(HostFact):
    """The agent can be reached, but says each time that it cannot go on, for example because its disk is full or its
    version differs.
    """

    why: str


@frozen
class Unusable(HostFact):
    """There was no first welcome, and there will be none."""

    error: HostError


@frozen
class ZygoteTold(HostFact):
    """The application was prepared (`ready`) or cannot be (`failed`)."""

    state: str
    error: dict[str, Any] | None
    isolation: str
    why: str
    notes: tuple[str, ...]


@frozen
class EnvironmentTold(HostFact):
    """How the environment of packages stands: `resolving`, `sending`, `waiting` (another run builds it), `building` or `ready`."""

    key: str
    state: str
    done: int
    total: int
    fetched: int


@frozen
class Sent(HostFact):
    """The code snapshot is complete on the host."""

    files: int
    sent_files: int
    sent_bytes: int


@frozen
class Started(HostFact):
    """An attempt's process has begun."""

    attempt: str
    slot: int
    at: float


@frozen
class Output(HostFact):
    """A job wrote something, which is in its file already. `offset`: its place in the stream."""

    attempt: str
    stream: str
    data: bytes
    offset: int = 0


@frozen
class Reported(HostFact):
    """An attempt has reported how it stands: (number, report) of each, in order."""

    attempt: str
    items: tuple[tuple[int, Report], ...]


@frozen
class Ended(HostFact):
    """An attempt has its outcome. The payload is inline, or in `file`. `again`: its host has made the next attempt itself."""

    attempt: str
    envelope: Envelope
    parts: ResultParts
    payload: bytes
    file: str | None
    again: bool = False


@frozen
class Unwritable(HostFact):
    """An attempt's output directory can never be written on this machine."""

    attempt: str
    why: str


@frozen
class LeftFiles:
    """Files that stay on a host: where, how many, and the names of some."""

    folder: str
    count: int
    names: tuple[str, ...]


@frozen
class Collected(HostFact):
    """Everything that an attempt left has arrived.

    `unmatched`: the positions of output patterns that matched no file. `noted`: files that have arrived and may be
    inconsistent. `cut`: what was killed while it may still have been writing, and why, as text. `left`: what jobs of the run have written beside
    their code, so that it does not come back.
    """

    attempt: str
    refused: tuple[tuple[str, str], ...]
    sizes: dict[str, Any]
    unmatched: tuple[int, ...] = ()
    cut: str = ""
    noted: tuple[tuple[str, str], ...] = ()
    left: LeftFiles | None = None


@frozen
class Dropped(HostFact):
    """The host gave an attempt back unstarted. `asked`: because it was asked to, and not because it is full. `again`: see `Ended`."""

    attempt: str
    why: str
    asked: bool = False
    again: bool = False


@frozen
class Opened(HostFact):
    """A host that had given attempts back accepts jobs again."""


@frozen
class Noted(HostFact):
    """The agent has a note for the user."""

    message: str


@frozen
class Synced(HostFact):
    """The agent has handled everything that was sent before `sync(number)` was called."""

    number: int


#: Every fact there is: a `match` over it that misses one is a type error.
Fact = (
    Collected
    | Connected
    | Disconnected
    | Dropped
    | Ended
    | EnvironmentTold
    | Noted
    | Opened
    | Output
    | Refused
    | Reported
    | Sent
    | Started
    | Synced
    | Unusable
    | Unwritable
    | WayTaken
    | ZygoteTold
)
