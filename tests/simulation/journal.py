"""A journal whose disk outlives the controller, which may die at any write of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from launcher import events
from launcher.errors import JournalError
from launcher.runs.journal import StoredResult
from remote_agent.protocol.specs.job import JobSpec

__all__ = ["Disk", "Killed", "SimJournal"]


class Killed(BaseException):
    """kill -9 of the controller; nothing catches it but the world."""


class Disk:
    """What is durable: a file that every life of the controller opens again."""

    def __init__(self) -> None:
        #: As their JSON gives them back: each goes through it once, when it is written.
        self.happened: list[events.Event] = []
        self.jobs: dict[int, tuple[tuple[str, ...], str, bytes, str]] = {}
        self.results: dict[tuple[int, int], StoredResult] = {}
        self.writes = 0
        self.is_full = False
        #: Called before and after each write; may raise Killed.
        self.hook: Callable[[int, str], None] = lambda write, when: None

    # -- as JournalReader ----------------------------------------------------------------------------------------

    def events(self) -> Iterator[tuple[int, events.Event]]:
        """All events."""
        yield from enumerate(self.happened)

    def job_without_payload(self, num: int) -> tuple[tuple[str, ...], str, JobSpec] | None:
        """(overrides, output_dir, spec) of a job."""
        if num not in self.jobs:
            return None
        overrides, output_dir, _, spec = self.jobs[num]
        return overrides, output_dir, JobSpec.from_journal(json.loads(spec))

    def payload(self, num: int) -> bytes:
        """What is sent to a host as the job."""
        return self.jobs[num][2]

    def result(self, num: int, attempt: int) -> StoredResult | None:
        """What an attempt brought."""
        return self.results.get((num, attempt))


def through_json(event: events.Event) -> events.Event:
    """The event as the journal's file gives it back."""
    data = json.loads(json.dumps(event.to_json()))
    for name in ("hosts", "jobs", "overrides", "gpus"):
        if isinstance(data.get(name), list):
            data[name] = tuple(data[name])
    return events.from_json(data)


class SimJournal:
    """The journal of one life of the controller."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._events: list[events.Event] = []
        self._jobs: list[tuple[int, tuple[tuple[str, ...], str, bytes, str]]] = []
        self._results: list[StoredResult] = []

    @property
    def pending(self) -> list[events.Event]:
        """What the next commit writes."""
        return list(self._events)

    def append(self, happened: list[events.Event]) -> None:
        """Events, in order."""
        self._events += happened

    def put_job(self, num: int, overrides: tuple[str, ...], output_dir: str, payload: bytes, spec: JobSpec) -> None:
        """A job."""
        self._jobs.append((num, (overrides, output_dir, payload, json.dumps(spec.to_json()))))

    def put_result(self, result: StoredResult) -> StoredResult:
        """What an attempt brought."""
        self._results.append(result)
        return result

    def put_meta(self, **values: str) -> None:
        """Facts about the run are of no concern here."""

    def put_blob(self, name: str, data: bytes) -> None:
        """Nor are blobs."""

    def commit(self) -> None:
        """Bring it to the disk, or die before or behind it."""
        if not (self._events or self._jobs or self._results):
            return
        disk = self._disk
        if disk.is_full:
            raise JournalError("the disk is full")
        disk.writes += 1
        disk.hook(disk.writes, "before")
        disk.happened += map(through_json, self._events)
        disk.jobs.update(self._jobs)
        disk.results.update({(result.num, result.attempt): result for result in self._results})
        self._events, self._jobs, self._results = [], [], []
        disk.hook(disk.writes, "after")
