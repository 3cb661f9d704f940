"""What happened on, or on the way to, a host: what a session tells the decider.

Rule: facts, no decisions; plain values that were checked, whoever said them. Facts of one host are told in the order in
which they happened.
"""

from __future__ import annotations

from typing import Any

from launcher.errors import HostError
from launcher.util.frozen import frozen
from remote_agent.shared.envelope import Envelope

__all__ = [
    "Collected",
    "Connected",
    "Disconnected",
    "Dropped",
    "Fact",
    "Noted",
    "Opened",
    "Outcome",
    "Output",
    "Refused",
    "Sent",
    "Started",
    "Synced",
    "Unusable",
    "Unwritable",
    "ZygoteTold",
]


@frozen
class Fact:
    """Something that happened on, or on the way to, a host."""

    host: str


@frozen
class Connected(Fact):
    """The agent said welcome. `attempts` are those it knows, with their short states."""

    slots: int
    python: str
    gpus: tuple[str, ...]
    boot_id: str
    attempts: dict[str, str]
    notes: tuple[str, ...]


@frozen
class Disconnected(Fact):
    """The link is gone, perhaps before its first welcome; a new one is being tried."""

    why: str


@frozen
class Refused(Fact):
    """The agent can be reached, and says each time that it cannot go on: its disk is full, it speaks another version."""

    why: str


@frozen
class Unusable(Fact):
    """There was no first welcome, and there will be none."""

    error: HostError


@frozen
class ZygoteTold(Fact):
    """The application was prepared (`ready`) or cannot be (`failed`)."""

    state: str
    error: dict[str, Any] | None
    isolation: str
    why: str
    notes: tuple[str, ...]


@frozen
class Sent(Fact):
    """The code snapshot is complete on the host."""

    files: int
    sent_files: int
    sent_bytes: int


@frozen
class Started(Fact):
    """An attempt's process began."""

    attempt: str
    slot: int
    at: float


@frozen
class Output(Fact):
    """A job wrote something; it is in its file already. `offset`: where in its stream."""

    attempt: str
    stream: str
    data: bytes
    offset: int = 0


@frozen
class Outcome(Fact):
    """An attempt has its outcome. The payload is inline, or in `file`."""

    attempt: str
    envelope: Envelope
    parts: dict[str, Any]
    payload: bytes
    file: str | None


@frozen
class Unwritable(Fact):
    """An attempt's output directory cannot be written on this machine, now or later."""

    attempt: str
    why: str


@frozen
class Collected(Fact):
    """Everything that an attempt left has arrived.

    `unmatched`: places of output patterns that matched no file; `noted`: what has arrived and may not be what was meant; `cut`: what was
    killed while it may still have written, and why, in words.
    """

    attempt: str
    refused: tuple[tuple[str, str], ...]
    sizes: dict[str, Any]
    unmatched: tuple[int, ...] = ()
    cut: str = ""
    noted: tuple[tuple[str, str], ...] = ()


@frozen
class Dropped(Fact):
    """The host gave an attempt back unstarted."""

    attempt: str
    why: str


@frozen
class Opened(Fact):
    """The host, which had given attempts back, takes some again."""


@frozen
class Noted(Fact):
    """The agent has something to say that concerns the user."""

    message: str


@frozen
class Synced(Fact):
    """The agent has taken in everything that was sent to it before `sync(number)` was called."""

    number: int
