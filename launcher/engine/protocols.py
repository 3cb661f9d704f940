"""What the decider needs of its surroundings: a clock, the hosts' links and the journal.

Rule: no more than it uses, so that a test can put something simple in the place of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from launcher import events
from launcher.runs.journal import StoredResult
from remote_agent.protocol.job_spec import JobSpec

__all__ = ["Clock", "Link", "ReadableJournal", "WritableJournal"]


class Clock(Protocol):
    """The time. Seconds since the epoch are for people, monotonic seconds decide."""

    def wall(self) -> float:
        """Seconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds of a clock that nobody sets."""


class Link(Protocol):
    """What is sent to a host. Without a connection everything is dropped; the next welcome says what is missing."""

    def send_job(self, spec: JobSpec, payload: bytes) -> None:
        """Send a job."""

    def cancel(self, attempts: list[str] | None, *, kill: bool = False, kind: str = "cancelled", why: str = "") -> None:
        """Cancel these attempts, or all."""

    def sync(self, number: int) -> None:
        """Have the agent confirm what was sent so far."""

    def go(self) -> None:
        """What waits in the spool may start: everything that must not was cancelled before."""


class WritableJournal(Protocol):
    """What the decider writes of a journal."""

    def append(self, happened: list[events.Event]) -> None:
        """Events, in order."""

    def put_job(self, num: int, overrides: tuple[str, ...], output_dir: str, payload: bytes, spec: JobSpec) -> None:
        """A job, as it must be known to be sent again."""

    def put_result(self, result: StoredResult) -> StoredResult:
        """What an attempt brought; returns it as it will be read."""

    def put_meta(self, **values: str) -> None:
        """Facts about the run as a whole."""

    def put_blob(self, name: str, data: bytes) -> None:
        """Something large."""

    def commit(self) -> None:
        """Bring it to the disk; raises JournalError."""


class ReadableJournal(Protocol):
    """What is read of a journal when a run is resumed."""

    def events(self) -> Iterator[tuple[int, events.Event]]:
        """All events, in order, with their numbers."""

    def job_without_payload(self, num: int) -> tuple[tuple[str, ...], str, JobSpec] | None:
        """(overrides, output_dir, spec) of a job."""

    def payload(self, num: int) -> bytes:
        """What is sent to a host as the job."""

    def result(self, num: int, attempt: int) -> StoredResult | None:
        """What an attempt brought."""
