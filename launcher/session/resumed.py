"""Resumes a run: after `--detach`, after SIGHUP, or after `kill -9` of its controller.

Rule: only the journal and the spools decide. A job that has returned is never run again. A job that a host has is collected. A job
that no host has is sent. The code is that of the run's beginning, which hosts have. If a host lacks one of its files, the file is
sent only if it is still the same here.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from launcher import events
from launcher.engine.scheduling.state import HostPhase
from launcher.errors import RunError
from launcher.results.job_returns import load_returned
from launcher.runs import ownership
from launcher.runs import record as run_record
from launcher.runs.record import RunRecord
from launcher.session.loop import drive_from
from launcher.session.opening import index_run
from launcher.session.run_session import RunSession, SessionConf
from launcher.setup.kinds.run_setup import RunSetup
from launcher.setup.prepared import PreparedRun

__all__ = ["ResumedRun"]

#: How many seconds to wait for a host that has nothing left to send, to end its agent.
_PATIENCE = 10.0


class ResumedRun(RunSession):
    """Drives a run that another controller began. Users see it as `launcher.session.session.ResumedSession`."""

    def __init__(
        self,
        setup: RunSetup,
        conf: SessionConf,
        record: RunRecord,
        *,
        configs: Iterable[Any] | None = None,
        retry: Callable[[events.JobReturned], bool] | None = None,
    ) -> None:
        super().__init__(setup, conf)
        self.record = record
        self._configs = configs
        self._retry = retry
        self._rest: Iterator[tuple[Any, Sequence[str]]] = iter(())
        #: Jobs that had returned before, each with the positions of the callbacks whose `on_job_return` must still fire.
        self._owed: list[tuple[int, list[int]]] = []

    # -- opening -------------------------------------------------------------------------------------------------

    def open_run(self) -> None:
        """Resume the run from its journal, and connect to the hosts."""
        self.build()
        try:
            self._take_up()
        except BaseException:
            try:
                self.engine.close()
                self.engine.close_journal()
            finally:
                self.restore_signals()
            raise

    def _take_up(self) -> None:
        reader = self.engine.reader
        # Check it before anybody acts on it, so that the dispatcher's thread meets no damage.
        reader.check()
        # Read it again, because only now it is certain that nobody else writes.
        record = self.record = run_record.read(reader)
        self.prepared = PreparedRun(
            self.setup, reader.blob("shared") or b"", told=record.zygotes, by_value=record.by_value
        )
        # Jobs that were taken over from an earlier run are in the journal before the jobs between them.
        self.next_num = reader.first_free_num(self.setup.first_num)
        self.taken = reader.nums_after(self.next_num)
        self.made_returns.restore(reader.meta())
        ended = reader.last_event("run_ended", "job_retried", "run_resumed", "run_started")
        again = self._chosen()
        if isinstance(ended, events.RunEnded) and not again:
            self.is_over = True
            return
        if not self.record.zygotes:
            self._close_unsent()
        unfinished = self.engine.restore()
        self.unfinished.update({num: self.new_job(num) for num in unfinished})
        self._rest = self._sources()
        self._owed = self._owed_hooks()
        index_run(self.setup, self.hooks, self.record.started, self._secret())
        if not self.conf.in_own_thread:
            self.handle_signals()
        self.engine.start()
        for returned in again:
            self.unfinished[returned.num] = self.new_job(returned.num)
            self.engine.retry(returned)
        for note in self.callbacks.notes:
            self.hooks.publish([events.Note(time.time(), note)])

    def _secret(self) -> str:
        """Return the secret that shows that the run is ours. A run from an earlier version gets one now, and may be moved afterwards."""
        secret = self.engine.reader.meta().get(ownership.KEY, "")
        if not secret:
            secret = ownership.make_secret()
            self.engine.journal.put_meta(**{ownership.KEY: secret})
            self.engine.journal.commit()
        return secret

    def _owed_hooks(self) -> list[tuple[int, list[int]]]:
        """Return the hooks that an earlier controller did not fire, or in which it was interrupted."""
        places = [place for place, entry in enumerate(self.callbacks) if entry.hook("on_job_return") is not None]
        names = [entry.name for entry in self.callbacks]
        taken = {
            event.num
            for _, event in self.engine.reader.events_of("job_taken_over")
            if isinstance(event, events.JobTakenOver)
        }
        owed = []
        for num, fired in self.engine.reader.unhooked_returns(len(places)) if places else ():
            left = [place for place in places if names[place] not in fired]
            if left and num not in taken:
                owed.append((num, left))
        return owed

    def _fire_owed(self) -> None:
        """Fire `on_job_return` of jobs that had returned before, for the callbacks in which it has not ended."""
        while self._owed:
            self.detach_if_must()
            num, places = self._owed.pop(0)
            self.arrivals.receive(load_returned(self.engine.reader, num), places)

    def _chosen(self) -> list[events.JobReturned]:
        """Return the jobs that should run once more."""
        if self._retry is None:
            return []
        reader = self.engine.reader
        returned = (reader.returned(num) for num in range(self.setup.first_num, self.next_num))
        return [one for one in returned if one is not None and self._retry(one)]

    def _close_unsent(self) -> None:
        """Close a run that died before anything was sent. Its end hook must fire all the same.

        Raises:
            RunError: always.
        """
        self.fire_end()
        ended = self.ended_event()
        self.engine.journal.append([ended])
        raise RunError(
            f"run {self.run_id} died before anything was sent to a host, so there is nothing to resume; its end hook "
            "has fired; start it again"
        )

    def _sources(self) -> Iterator[tuple[Any, Sequence[str]]]:
        """Yield the jobs that were never submitted."""
        reader, first = self.engine.reader, self.setup.first_num
        if self._configs is not None:
            return ((config, ()) for config in itertools.islice(self._configs, self.next_num - first, None))
        if reader.meta().get("open"):
            self.hooks.warn(
                "configs",
                f"the configs of this run came from an iterator that was not used up; those from job {self.next_num} "
                "on are unknown, so they do not run (give all configs again: Session.resume(run, configs=...))",
            )
        return run_record.read_planned(reader, self.next_num, self.setup.pickler.loads)

    # -- the end -------------------------------------------------------------------------------------------------

    def collect(self, *, detach: bool = False) -> None:
        """Wait for all jobs, and fire hooks as results arrive.

        Args:
            detach: leave again as soon as the hosts have everything.

        Raises:
            RunInterrupted: after Ctrl-C or SIGTERM, when everything has been collected.
            RunDetached: after SIGHUP.
        """
        if self.is_over:
            return
        with self.interrupts.ours():
            self._fire_owed()
        rest, self._rest = self._rest, iter(())
        drive_from(self, rest, None, detach=detach, is_planned=self._configs is None)

    def cancel_run(self, why: str, *, kill: bool = False) -> None:
        """Cancel everything. When the session is left, it collects the results and fires the end hook."""
        if self.is_over:
            return
        self._rest = iter(())
        self.interrupts.add(why, kill=kill)

    def cancel_job(self, num: int, timeout: float) -> bool:
        """Cancel one job, wait for its end, and leave the rest to the hosts. Returns whether the job has returned.

        Args:
            timeout: seconds. If the job's host is not reached by then, the job is cancelled when the run is next resumed.
        """
        job = self.unfinished.get(num)
        if self.is_over or job is None:
            return True
        self.engine.cancel(num)
        deadline = time.monotonic() + timeout
        while not job.done() and time.monotonic() < deadline:
            self.receive_next(0.1)
        if not self.engine.is_idle or next(self._rest, None) is not None:
            self.detach("only to cancel a job")
            if not self.is_detached:
                self.detach_now("only to cancel a job")
        return job.done()

    def drain(self) -> None:
        """Take everything that is still to come, and what an earlier controller did not handle."""
        if self.is_over:
            return
        if not self.interrupts:
            self.collect()
        self._fire_owed()
        super().drain()

    def end(self) -> None:
        """End the run, unless it had already ended."""
        if self.is_over:
            self.engine.close_journal()
            return
        # Agents that have sent everything should end, too.
        deadline = time.monotonic() + _PATIENCE
        hosts = self.engine.scheduler.hosts.values()
        while (
            any(host.phase is HostPhase.UNKNOWN for host in hosts)
            and time.monotonic() < deadline
            and not self.interrupts
            and self.engine.crash is None
        ):
            self.engine.wait(0.1)
        super().end()

    def fire_end(self) -> None:
        """Fire the end hook, unless an earlier controller has fired it and nothing has run since."""
        if self.record.end_hooks.get(self.hooks.end_hook) == "done" and not self.engine.submitted:
            return
        super().fire_end()
