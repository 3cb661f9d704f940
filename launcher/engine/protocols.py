"""The interfaces that the decider uses: a clock, the hosts' links and the journal.

Rule: they have only what the decider uses, so that a test can replace each by something simple.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from launcher import events
from launcher.runs.journal import StoredResult
from remote_agent.protocol.specs.job import JobSpec

__all__ = ["Clock", "Link", "ReadableJournal", "WritableJournal"]


class Clock(Protocol):
    """The time. Seconds since the epoch are for people; monotonic seconds decide."""

    def wall(self) -> float:
        """Return seconds since the epoch."""

    def monotonic(self) -> float:
        """Return the seconds of a clock that nobody sets."""


class Link(Protocol):
    """Sends to a host. Without a connection everything is dropped, and the next welcome shows what is missing."""

    def send_job(self, spec: JobSpec, payload: bytes, *, is_last: bool = False) -> None:
        """Send a job. `is_last`: it is known that no other follows soon."""

    def cancel(self, attempts: list[str] | None, *, kill: bool = False, kind: str = "cancelled", why: str = "") -> None:
        """Cancel these attempts, or all."""

    def stop(self, attempts: list[str]) -> None:
        """Ask these attempts to stop at their next report."""

    def take_back(self, attempts: list[str]) -> None:
        """Ask for attempts that have not started."""

    def sync(self, number: int) -> None:
        """Ask the agent to confirm what was sent so far."""

    def go(self) -> None:
        """Let jobs in the spool start. Those that must not start were cancelled before."""


class WritableJournal(Protocol):
    """The part of a journal that the decider writes."""

    def append(self, happened: list[events.Event]) -> None:
        """Append events, in order."""

    def put_job(self, num: int, overrides: tuple[str, ...], output_dir: str, payload: bytes, spec: JobSpec) -> None:
        """Store a job with everything that is needed to send it again."""

    def put_result(self, result: StoredResult) -> StoredResult:
        """Store an attempt's result. Returns it as it will be read."""

    def put_meta(self, **values: str) -> None:
        """Store facts about the whole run."""

    def put_blob(self, name: str, data: bytes) -> None:
        """Store something large."""

    def commit(self) -> None:
        """Bring it to the disk. Raises JournalError."""


class ReadableJournal(Protocol):
    """The part of a journal that is read when a run is resumed."""

    def events(self) -> Iterator[tuple[int, events.Event]]:
        """Return all events, in order, with their numbers."""

    def job_without_payload(self, num: int) -> tuple[tuple[str, ...], str, JobSpec] | None:
        """Return (overrides, output_dir, spec) of a job."""

    def payload(self, num: int) -> bytes:
        """Return the payload that a host gets for the job."""

    def result(self, num: int, attempt: int) -> StoredResult | None:
        """Return an attempt's result."""
