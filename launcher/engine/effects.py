"""Acts on events: sends jobs, delivers results, opens and closes folders.

Rule: nothing is done for an event that the journal does not have. The decider calls `act` with each event of a round after the
round is on the disk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from launcher import events
from launcher.engine.protocols import Clock, Link, ReadableJournal
from launcher.engine.requests import QueuedJob
from launcher.engine.scheduling.scheduler import Scheduler
from launcher.engine.scheduling.state import HostPhase
from launcher.errors import JournalError
from launcher.results.output_folder import MAX_BYTES, MAX_FILES, OutputFolder
from launcher.results.owners import Ownership
from launcher.results.writing import RefusedFile, UnusableFolder
from launcher.runs.journal import Returned, StoredResult

__all__ = ["Effects"]


class Effects:
    """Acts on events, and holds what it needs of the jobs that have not returned. The arguments are those of `Decider`.

    Attributes:
        reader: the journal, if the run was resumed.
        ownership: the argument.
        jobs: number of a job -> the job.
        stored: number of a job -> the result of its last attempt.
        assigned: attempt -> its host. Frames about it from any other host are ignored.
        shown: attempt -> stream -> how many of its bytes were shown.
        prepared: hosts whose zygote has answered.
        confirmed: hosts that have confirmed everything that was sent to them since they got a job.
        last: host -> the last attempt that it gets in this round, if no other job is known; see `Decider.commit`.
        has_delivered: whether every job that a host can have is complete on its host. It counts when the controller detaches.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        links: Mapping[str, Link],
        acknowledge: Callable[[str, str], None],
        deliver: Callable[[Returned], None],
        observe: Callable[[events.Event], None],
        clock: Clock,
        ownership: Ownership | None,
        hold: Callable[[], None] | None,
    ) -> None:
        self._scheduler = scheduler
        self._links = links
        self.acknowledge = acknowledge
        self._deliver = deliver
        self._observe = observe
        self._clock = clock
        self.ownership = ownership
        self._hold = hold
        self.reader: ReadableJournal | None = None
        self.jobs: dict[int, QueuedJob] = {}
        self.stored: dict[int, StoredResult] = {}
        self.assigned: dict[str, str] = {}
        self.shown: dict[str, dict[str, int]] = {}
        self.prepared: set[str] = set()
        self.confirmed: set[str] = set()
        self.last: dict[str, tuple[int, int]] = {}
        self.has_delivered = False
        self._asked: dict[str, int] = {}
        self._last_asked = 0

    def folder_of(self, host: str, attempt: str) -> OutputFolder | None:
        """Return the output folder of an attempt; None if it is not the job's current attempt on this host. Readers call this."""
        if self.assigned.get(attempt) != host:
            return None
        job = self.jobs.get(int(attempt.partition(".")[0]))
        if job is None:
            return None
        if job.folder is None:
            if job.owners is None and self.ownership is not None:
                job.owners = self.ownership.of(job.num, job.output_dir)
            job.folder = _folder_of(job, self._hold)
        return job.folder

    def _opened(self, num: int) -> ReadableJournal:
        if self.reader is None:
            raise JournalError(f"job {num}: the journal was not opened for reading")
        return self.reader

    def from_journal(self, num: int) -> QueuedJob:
        """Return a job from the journal. Its payload is read when it is sent."""
        job = self._opened(num).job_without_payload(num)
        if job is None:
            raise JournalError(f"job {num} is in the journal's events, but not among its jobs")
        overrides, output_dir, spec = job
        return QueuedJob(num, overrides, Path(output_dir), None, spec)

    def act(self, event: events.Event) -> None:
        """Carry out an event."""
        if isinstance(event, events.JobAssigned):
            self.send(event.num, event.attempt, event.host)
        elif isinstance(event, events.JobReturned):
            self._return(event)
        elif isinstance(event, events.JobRequeued):
            self._requeued(event)
        elif isinstance(event, events.JobRetried):
            self._set_aside(event.num, event.attempt)
        elif isinstance(event, events.RunInterrupt):
            for link in self._links.values():
                link.cancel(None, kill=event.kill)

    def send(self, num: int, attempt: int, host: str) -> None:
        """Send an attempt to a host."""
        job = self.jobs[num]
        payload = self._opened(num).payload(num) if job.payload is None else job.payload
        spec = job.spec._replace(attempt=attempt, earlier=list(self._scheduler.jobs[num].earlier))
        self.assigned[spec.attempt_id] = host
        self.forget_confirmation(host)
        self._links[host].send_job(spec, payload, is_last=self.last.get(host) == (num, attempt))

    def forget_confirmation(self, host: str) -> None:
        """Record that what was sent to the host may not have arrived."""
        self.confirmed.discard(host)
        self._asked.pop(host, None)

    def confirm(self, host: str, number: int) -> None:
        """Record that a host has confirmed everything, if this is the answer to the last `sync`."""
        if self._asked.get(host) == number:
            self.confirmed.add(host)

    def check_delivered(self) -> None:
        """While the controller detaches, ask the hosts to confirm, and check whether all have."""
        scheduler = self._scheduler
        if scheduler.detaching is None or scheduler.pending:
            return
        ready = [host for host in scheduler.hosts.values() if host.phase is HostPhase.READY and host.jobs]
        for host in ready:
            if host.name not in self._asked:
                self._last_asked += 1
                self._asked[host.name] = self._last_asked
                self._links[host.name].sync(self._last_asked)
        if all(host.name in self.confirmed and host.name in self.prepared for host in ready):
            self.has_delivered = True

    def _requeued(self, event: events.JobRequeued) -> None:
        attempt = f"{event.num}.{event.attempt}"
        self.assigned.pop(attempt, None)
        self.shown.pop(attempt, None)
        self.stored.pop(event.num, None)
        self._set_aside(event.num, event.attempt)
        self.acknowledge(event.host, attempt)

    def _set_aside(self, num: int, attempt: int) -> None:
        """Move what an attempt printed to its own folder, before the next attempt prints."""
        job = self.jobs[num]
        folder, job.folder = job.folder or _folder_of(job, self._hold), None
        folder.aside.append(attempt)
        try:
            folder.set_aside_pending()
        except (OSError, RefusedFile, UnusableFolder) as error:
            lost = f"the output of attempt {attempt} cannot be kept: {error}"
            self._observe(events.Warned(self._clock.wall(), "output", lost, "", num))
        finally:
            # If the folder is not in its place, this is done before the next attempt writes there.
            job.aside = tuple(folder.aside)
            folder.close()

    def _return(self, event: events.JobReturned) -> None:
        job = self.jobs.pop(event.num, None)
        if job is None:
            return  # it was taken over from an earlier run, and nothing is under way
        if job.folder is None and job.aside:
            job.folder = _folder_of(job, self._hold)
        if job.folder is not None:
            with contextlib.suppress(OSError, RefusedFile, UnusableFolder):
                # If the last attempt printed nothing, the files there are from the one before it.
                job.folder.set_aside_pending()
            job.folder.close()
        attempt = f"{event.num}.{event.attempt}"
        self.assigned.pop(attempt, None)
        self.shown.pop(attempt, None)
        stored = self.stored.pop(event.num, None)
        if event.host:
            self.acknowledge(event.host, attempt)
        self._deliver(Returned(event, stored, job.output_dir, job.payload))


def _folder_of(job: QueuedJob, hold: Callable[[], None] | None) -> OutputFolder:
    """Return the output directory of a job, with the run's limits. Files that a host should not send are refused here, too."""
    cap = job.spec.max_output_bytes
    return OutputFolder(
        job.output_dir,
        job.num,
        job.owners,
        max_files=0 if job.spec.outputs is False else MAX_FILES,
        max_stream_bytes=MAX_BYTES if cap is None else cap,
        hold=hold,
        aside=list(job.aside),
    )
