"""What becomes of the attempts of a Slurm run: what allocations write down is passed on, and what dead ones leave is settled.

Rule: the log of an incarnation is the only source of results. What nobody has, or what a dead allocation leaves, ends by the submitter's own
word, which is in its log before the controller hears of it.
"""

import functools
import os
import time
from typing import Any, Callable, Dict, Iterator, Optional, Set, Tuple

from remote_agent.agent.delivery import Delivery
from remote_agent.agent.link.controller import Controller
from remote_agent.agent.spool.attempt import Attempt, failed_envelope
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.agent.spool.records import apply_record
from remote_agent.agent.zygotes.pool import Zygotes
from remote_agent.job import JobError
from remote_agent.protocol.messages import Ack
from remote_agent.protocol.result_parts import NO_PARTS
from remote_agent.protocol.specs.job import JobSpec
from remote_agent.slurm.pool.heirs import MAX_HEIRS, Owed, owe
from remote_agent.slurm.pool.incarnations import FOLDER, Debt, Fate, Incarnation, Incarnations, holders
from remote_agent.slurm.pool.next_attempts import make_next, next_id
from remote_agent.slurm.pool.pool import Pool, Stop
from remote_agent.slurm.shared_disk.shared_files import SharedFiles
from remote_agent.slurm.submitter.demand import ShortJobs
from remote_agent.slurm.submitter.submitter_log import SubmitterLog
from remote_agent.system.background import BackgroundThread
from remote_agent.system.host import Folders

__all__ = ["SUBMITTER", "Following"]

#: Submitters take attempts under names that begin with it.
SUBMITTER = "submitter-"


class _Followed:
    """Attempts of one log, for `Delivery`: those of an incarnation, or those that no allocation has."""

    def __init__(
        self, attempts: Dict[str, Attempt], log: Any, counts: Callable[[str], bool], on_ack: Callable[[str], None]
    ) -> None:
        self._attempts = attempts
        #: Whether what this log says of an attempt is what the controller gets.
        self._counts = counts
        self._on_ack = on_ack
        self.log = log

    def __iter__(self) -> Iterator[Attempt]:
        return iter([one for one in self._attempts.values() if self._counts(one.id)])

    def __contains__(self, attempt_id: str) -> bool:
        return attempt_id in self._attempts and self._counts(attempt_id)

    def get(self, attempt_id: str) -> Optional[Attempt]:
        return self._attempts.get(attempt_id) if attempt_id in self else None

    def remove(self, attempt: Attempt) -> None:
        self._on_ack(attempt.id)


class Following:
    """Follows the logs of incarnations, and says how attempts end.

    Attributes:
        requeue: the run's limits for attempts that follow by themselves; see `next_attempts`.
        on_next: called when such an attempt was made.
        on_need: called when an allocation has left, or the hooks of an attempt are owed, so that another one may be needed.
        short_jobs: notices that jobs are short; None if nobody wants to know.
    """

    def __init__(
        self,
        paths: SpoolPaths,
        files: SharedFiles,
        log: SubmitterLog,
        pool: Pool,
        incarnations: Incarnations,
        zygotes: Zygotes,
        background: BackgroundThread,
        controller: Controller,
    ) -> None:
        self._paths = paths
        self._files = files
        self._log = log
        self._pool = pool
        self._incarnations = incarnations
        self._zygotes = zygotes
        self._background = background
        self._controller = controller
        self.requeue: Dict[str, int] = {}
        self.on_next: Callable[[], None] = _nothing
        self.on_need: Callable[[], None] = _nothing
        self.short_jobs: Optional[ShortJobs] = None
        #: Attempts whose next one was made here or in an allocation.
        self._again: Set[str] = set()
        #: Attempt -> how often it was inherited, and who has it.
        self._holders: Dict[str, Tuple[int, str]] = {}
        #: (incarnation, attempt) of what the controller may not hear yet, or perhaps never.
        self._held_back: Dict[Tuple[str, str], None] = {}
        #: How the controller wanted attempts to end.
        self._stops: Dict[str, Stop] = {}
        #: Those that it wanted to be asked to stop.
        self._asked: Set[str] = set()
        self._give_back_stranded()
        followed = self._followed(log.own, log.file, log.is_own)
        self._deliveries: Dict[str, Delivery] = {}
        self._deliver("", paths, followed)

    def states(self) -> Dict[str, str]:
        """The state of each attempt of which the controller has no result, as an agent says it."""
        states = {one.id: one.short_state() for one in self._log.own.values()}
        held_by = holders(self._pool.takers())
        for attempt in self._pool.all_attempts():
            incarnation = self._incarnations.get(held_by.get(attempt, (0, ""))[1])
            known = incarnation.attempts.get(attempt) if incarnation is not None else None
            if attempt in self._log.owed and known is None:
                states.setdefault(attempt, "running")
            states.setdefault(attempt, known.short_state() if known is not None else "queued")
        log = self._log
        return {one: state for one, state in states.items() if not (log.is_done(one) or log.is_hidden(one))}

    def resend(self) -> None:
        """Tell a controller that has just come what it may not know."""
        for delivery in self._deliveries.values():
            delivery.resend()
        for incarnation in self._incarnations:
            for attempt in incarnation.attempts.values():
                if not self._log.is_hidden(attempt.id):
                    self._say_started(attempt)

    def on_ack(self, header: Ack, payload: bytes) -> None:
        """The controller has a result."""
        for delivery in self._deliveries.values():
            delivery.on_ack(header, payload)

    # -- logs of allocations -------------------------------------------------------------------------------------

    def follow(self, now: float, *, is_quiet: bool = False) -> bool:
        """Read what allocations have written, and pass it on. Returns whether there was anything."""
        happened = self._incarnations.advance(now)
        # Who writes of an attempt has taken it before.
        takers = self._pool.takers()
        self._holders = holders(takers)
        for incarnation, name, header in happened:
            if name == "note":
                self._controller.note("{} on {}: {}".format(incarnation.name, incarnation.node, header["text"]))
            elif name == "left":
                self.on_need()
            attempt = incarnation.attempts.get(str(header.get("a", "")))
            if attempt is None:
                continue
            if name == "final":
                attempt.is_synced = True
                self._see_end(attempt, self._paths_of(incarnation).own_output(attempt) or "")
            elif name == "gone":
                attempt.state = "final"
            # It is sent from there also to a controller that has just come.
            delivery = self._delivery_of(incarnation)
            if not self._is_of(incarnation.name, attempt.id):
                self._held_back[incarnation.name, attempt.id] = None
            elif name == "started":
                self._say_started(attempt)
            elif name == "final" and not is_quiet:
                delivery.send(attempt)
                self._see_duration(attempt)
            elif name == "report" and not is_quiet:
                delivery.send_reports(attempt)
            elif name == "gone" and not is_quiet:
                delivery.send_outputs(attempt)
        self._tell_held_back(is_quiet=is_quiet)
        for debt in self._incarnations.debts(takers, now):
            self._settle(debt)
        # Reports may come all the time.
        return any(name != "report" for _, name, _ in happened)

    def _tell_held_back(self, *, is_quiet: bool) -> None:
        for name, attempt_id in list(self._held_back):
            if self._log.is_done(attempt_id):
                del self._held_back[name, attempt_id]
            elif self._is_of(name, attempt_id):
                del self._held_back[name, attempt_id]
                incarnation = self._incarnations.get(name)
                attempt = incarnation.attempts.get(attempt_id) if incarnation is not None else None
                if incarnation is None or attempt is None or is_quiet:
                    continue
                self._say_started(attempt)
                if attempt.final is not None:
                    self._delivery_of(incarnation).send(attempt)

    def on_given(self, attempt: str) -> None:
        """The controller knows of this attempt."""
        if self._log.is_hidden(attempt):
            self._log.given.add(attempt)
            self._log.record("given", a=attempt)
            if self._log.is_own(attempt):
                self._deliveries[""].send(self._log.own[attempt])

    def _see_end(self, attempt: Attempt, folder: str) -> None:
        """An attempt has ended. Make the next one, if one follows, before the controller hears of the end."""
        error = attempt.final.envelope.error if attempt.final is not None else None
        if error is None or self._log.is_done(attempt.id) or attempt.id in self._again:
            return
        if make_next(self._pool, attempt.id, self._paths.host, error.kind, self.requeue, folder):
            self._follow_on(attempt.id)

    def _follow_on(self, attempt: str) -> None:
        self._again.add(attempt)
        stop = self._stops.get(attempt) or self._pool.stops().get(attempt)
        if stop is not None and next_id(attempt) not in self._log.given:
            self.stop(next_id(attempt), stop)
        elif (attempt in self._asked or attempt in self._pool.asked()) and next_id(attempt) not in self._log.given:
            self.ask(next_id(attempt))
        else:
            self.on_next()

    def is_followed(self, attempt: str) -> bool:
        """Whether the next attempt was made."""
        following = next_id(attempt)
        return attempt in self._again or following in self._pool.takers() or self._pool.class_of(following) is not None

    def watch_streams(self) -> None:
        """Send what jobs print."""
        for incarnation in self._incarnations:
            if not incarnation.is_over:
                for attempt in incarnation.attempts.values():
                    if attempt.started_at is not None and self._is_of(incarnation.name, attempt.id):
                        self._delivery_of(incarnation).watch_streams(attempt)

    def active(self) -> Iterator[Attempt]:
        """The attempts that run, for `OutputSync`."""
        for incarnation in self._incarnations:
            if not incarnation.is_over:
                for attempt in incarnation.attempts.values():
                    if attempt.started_at is not None and self._is_of(incarnation.name, attempt.id):
                        yield attempt

    def output_folder(self, attempt: Attempt) -> Optional[str]:
        """Where on the shared disk the files of one are, for `OutputSync`; None if they are the user's, or nobody has it."""
        incarnation = self._incarnations.get(self._holders.get(attempt.id, (0, ""))[1])
        return None if incarnation is None else self._paths_of(incarnation).own_output(attempt)

    def _settle(self, debt: Debt) -> None:
        attempt = debt.attempt
        if attempt in self._log.own or self._log.is_done(attempt):
            return
        times, source = self._log.owed.get(attempt, (0, ""))
        if times > debt.rank:
            return  # the next one that has room fires its hooks
        if debt.fate is Fate.UNBEGUN and not debt.rank:
            if make_next(self._pool, attempt, self._paths.host, "", self.requeue):
                self._follow_on(attempt)
            self.give_back(attempt, "its allocation {} ended: {}".format(debt.incarnation, debt.why), asked=False)
        elif debt.rank >= MAX_HEIRS:
            self.end(attempt, JobError(debt.kind, message="{}; its end hooks could not be fired".format(debt.why)))
        else:
            # Who has not begun with what it inherited has copied nothing.
            source = source if debt.fate is Fate.UNBEGUN else debt.incarnation
            owe(self._files, "{}.{}".format(attempt, debt.rank + 1), Owed(source, debt.kind, debt.why))
            self._log.record("owed", a=attempt, n=debt.rank + 1, source=source)
            self._log.owed[attempt] = debt.rank + 1, source
            self.on_need()

    def _is_of(self, incarnation: str, attempt: str) -> bool:
        """Whether an incarnation's word on an attempt counts: nobody else says how it ended, and its hooks are not owed by another one."""
        if attempt in self._log.own or self._log.is_done(attempt) or self._log.is_hidden(attempt):
            return False
        rank, holder = self._holders.get(attempt, (0, ""))
        return holder == incarnation and rank >= self._log.owed.get(attempt, (0, ""))[0]

    def _see_duration(self, attempt: Attempt) -> None:
        assert attempt.final is not None
        if self.short_jobs is not None and self.short_jobs.ended(attempt.final.envelope.duration):
            self._controller.note(
                "slurm: jobs take less than a minute, and each has an allocation of its own; with `jobs: many` in `slurm:` "
                "an allocation takes one after the other"
            )

    def _delivery_of(self, incarnation: Incarnation) -> Delivery:
        delivery = self._deliveries.get(incarnation.name)
        if delivery is None:
            counts = functools.partial(self._is_of, incarnation.name)
            followed = self._followed(incarnation.attempts, incarnation.reader, counts)
            delivery = self._deliver(incarnation.name, self._paths_of(incarnation), followed)
            # The files are the allocation's.
            delivery.cuts = False
        return delivery

    def _deliver(self, name: str, paths: SpoolPaths, followed: _Followed) -> Delivery:
        delivery = Delivery(paths, followed, self._zygotes, self._background, self._controller)
        delivery.is_idle = self._is_idle
        delivery.again = delivery.is_followed = lambda attempt: attempt.id in self._again
        self._deliveries[name] = delivery
        return delivery

    def _is_idle(self) -> bool:
        """Whether no job runs, as far as is known here."""
        return all(
            one.is_over or all(attempt.is_over for attempt in one.attempts.values()) for one in self._incarnations
        )

    def _paths_of(self, incarnation: Incarnation) -> SpoolPaths:
        paths = self._paths
        own = os.path.join(paths.spool, FOLDER, incarnation.name)
        where = Folders(paths.where.cache, own, own)
        return SpoolPaths(paths.run, paths.host, where, paths.bundle, paths.umask, paths.boot, paths.blobs)

    def _say_started(self, attempt: Attempt) -> None:
        if attempt.id not in self._log.acked and attempt.started_at is not None:
            self._controller.say(
                {"t": "started", "attempt": attempt.id, "slot": attempt.slot or 0, "at": attempt.started_at}
            )

    # -- the submitter's own word --------------------------------------------------------------------------------

    def _give_back_stranded(self) -> None:
        """Give back what an earlier submitter has taken, to cancel it or to take it back, and died before it could say so."""
        for claim, taker in self._pool.takers().items():
            if taker.startswith(SUBMITTER) and claim not in self._log.own and not self._log.is_done(claim):
                self._log.back.add(claim)
                self._log.record("back", a=claim)

    def give_back(self, attempt: str, why: str, *, asked: bool) -> None:
        """Give an attempt back to the controller. It must be certain that it never starts."""
        self._log.back.add(attempt)
        self._log.record("back", a=attempt)
        again = self.is_followed(attempt)
        self._controller.say({"t": "dropped", "attempt": attempt, "why": why, "asked": asked, "again": again})

    def stop(self, attempt: str, stop: Stop) -> str:
        """End an attempt, and those that follow it. Returns which incarnation has it, if that has to do it."""
        if self._log.is_done(attempt):
            return ""
        self._stops[attempt] = stop
        if attempt in self._log.own:
            return ""
        if self._pool.take(attempt):
            self.end(attempt, JobError(stop.kind, message=stop.why or "{} before it started".format(stop.kind)))
            return ""
        self._pool.stop(attempt, stop)
        return holders(self._pool.takers()).get(attempt, (0, ""))[1]

    def ask(self, attempt: str) -> str:
        """Ask an attempt to stop at its next report; one that waits never starts. Returns which incarnation has it, if that has to do it."""
        if self._log.is_done(attempt) or attempt in self._log.own:
            return ""
        self._asked.add(attempt)
        if self._pool.take(attempt):
            self.end(attempt, JobError("cancelled", message="stopped before it started"))
            return ""
        self._pool.ask(attempt)
        return holders(self._pool.takers()).get(attempt, (0, ""))[1]

    def end(self, attempt_id: str, error: JobError) -> None:
        """Record the end of an attempt that no allocation has, or none any more."""
        frame = self._pool.job_of(attempt_id)
        if frame is None or frame.header["t"] != "job":
            return
        attempt = self._log.own[attempt_id] = Attempt(JobSpec.from_json(frame.header["spec"]))
        self._log.record("accepted", a=attempt_id, spec=frame.header["spec"])
        envelope = failed_envelope(attempt, error, time.time())
        fields = {"a": attempt_id, "envelope": envelope.to_json(), "parts": NO_PARTS.to_json()}
        reference = self._log.record("final", **fields)
        apply_record(attempt, "final", fields, reference)
        attempt.state = "final"
        attempt.is_synced = True
        self._see_end(attempt, "")
        if self._log.is_own(attempt_id):
            self._deliveries[""].send(attempt)

    def refuse_waiting(self, klass: str, why: str) -> None:
        """Fail the jobs of a class that wait."""
        for attempt in self._pool.waiting(klass):
            self.fail_waiting(attempt, JobError("host", message=why))

    def fail_waiting(self, attempt: str, error: JobError) -> None:
        """Fail a job, unless somebody has taken it."""
        if attempt not in self._log.back and attempt not in self._pool.takers() and self._pool.take(attempt):
            self.end(attempt, error)

    def _followed(self, attempts: Dict[str, Attempt], log: Any, counts: Callable[[str], bool]) -> _Followed:
        return _Followed(attempts, log, counts, self._on_acked)

    def _on_acked(self, attempt: str) -> None:
        self._log.acked.add(attempt)
        self._log.file.append({"r": "acked", "a": attempt})
        self._pool.forget(attempt)


def _nothing() -> None:
    pass
