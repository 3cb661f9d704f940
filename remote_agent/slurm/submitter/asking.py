"""Asking Slurm for allocations, as many as the jobs that wait need, and asking it what has become of them.

Rule: what is asked of Slurm is in the submitter's log before, and the answer after. A request without an answer is looked up by its name.
Slurm is asked rarely: its controller serves everybody.
"""

import functools
import os
import time
from collections import Counter
from typing import Callable, Dict, List, Optional, Set

from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.job import JobError
from remote_agent.slurm.batch.batch import (
    Batch,
    BatchError,
    Limits,
    Listed,
    NoAnswer,
    NoRoom,
    Phase,
)
from remote_agent.slurm.batch.classes import DEFAULT, is_alone, shown, takes_many
from remote_agent.slurm.pool.incarnations import Incarnations
from remote_agent.slurm.pool.order import IDLE_WORDS
from remote_agent.slurm.pool.pool import Pool
from remote_agent.slurm.shared_disk.shared_files import SharedFiles
from remote_agent.slurm.submitter.demand import Demand, Limit, divided
from remote_agent.slurm.submitter.following import Following
from remote_agent.slurm.submitter.pace import MOST_GATHERED, Gathering
from remote_agent.slurm.submitter.reasons import Reasons
from remote_agent.slurm.submitter.requests import Requests
from remote_agent.slurm.submitter.submitter_log import Asked, SubmitterLog
from remote_agent.slurm.submitter.supply import Supply
from remote_agent.system.background import BackgroundThread

__all__ = ["MOST", "Asking"]

#: The most jobs that the controller may have here at a time.
MOST = 10_000
#: The most allocations at once, if they take many jobs and the user does not say it.
_MANY_AT_ONCE = 16
#: Seconds: what a new controller has to send is waited for so long.
_GREETING = 0.2
#: Seconds between two questions to Slurm what it lists: the first ones, and all others.
_POLLS = (5.0, 10.0, 20.0, 30.0)
_POLL = 60.0
#: A question is asked no more often than this many times the time that the last one took.
_POLL_FACTOR = 50.0
#: Kinds of an end for which the request is not to blame.
_NOT_OURS = ("preempted", "node_failed")
#: After so many allocations that ended without a beginning, and no other one, no more are asked for.
_MAX_FRUITLESS = 3


class Asking:
    """Asks Slurm.

    Args:
        asks: a thread for Slurm's programs, which may take seconds, and must not wait for a disk.
        note: tells the user something.
        turn: the number of this submitter.

    Attributes:
        requests: what each request says; see there.
        on_taken: called when Slurm has taken a request, so that an allocation may begin.
    """

    def __init__(
        self,
        paths: SpoolPaths,
        files: SharedFiles,
        log: SubmitterLog,
        pool: Pool,
        incarnations: Incarnations,
        following: Following,
        batch: Batch,
        asks: BackgroundThread,
        note: Callable[[str], None],
        turn: int,
    ) -> None:
        self._paths = paths
        self._log = log
        self._pool = pool
        self._incarnations = incarnations
        self._following = following
        self._batch = batch
        self._asks = asks
        self._note = note
        self._turn_number = turn
        self.on_taken: Callable[[], None] = _nothing
        self._ask_at: Optional[float] = None
        self._gathering = Gathering()
        self._is_asking = False
        self._polls = 0
        self._poll_at: Optional[float] = None
        self._is_polling = self._looks_first = False
        self._listed: Dict[str, Listed] = {}
        self._held: Set[str] = set()
        #: How many requests in a row had no answer, and are not known to Slurm; and what was said of the last one.
        self._unknown = 0
        self._no_answer = ""
        #: Before this time no more allocations are asked for, even if jobs come.
        self._not_before = 0.0
        #: Why Slurm could not be asked the last time; empty if it could.
        self._silence = ""
        self._supply = Supply(log, incarnations, pool)
        self.requests = Requests(paths, files, log, pool, batch, turn)
        #: The most allocations that one request may have; None until Slurm has said it.
        self._most: Optional[int] = None
        self._limit = Limit()
        #: Class -> slots of its allocations, if no node is large enough for as many as the user says.
        self._fewer_slots: Dict[str, int] = {}
        self._asked = 0
        #: Class -> allocations that ended and began nothing -> Slurm's word, or their own.
        self._fruitless: Dict[str, Dict[str, str]] = {}
        self._reasons = Reasons(batch.is_hopeless)

    def tick(self, now: float, *, is_prepared: bool) -> None:
        """Ask if it is time to. `is_prepared`: allocations would find what they need to run a job."""
        if self._ask_at is not None and now >= self._ask_at and is_prepared:
            self._ask(now)
        if self._poll_at is not None and now >= self._poll_at and not self._is_polling:
            self._poll(now)

    def is_due(self, now: float) -> bool:
        """Whether Slurm is being asked, or will be in the next moment. What its limits do not permit now is not waited for."""
        is_soon = self._ask_at is not None and self._ask_at <= now + MOST_GATHERED
        return self._is_asking or self._looks_first or self._log.is_unanswered or is_soon

    def soon(self, *, is_last: bool = False) -> None:
        """A job has come. Ask for what is needed, together with what comes in the next moment, if anything does."""
        now = time.monotonic()
        self._ask_at = now if is_last else self._gathering.came(now)

    def due_in(self, now: float) -> Optional[float]:
        """In how many seconds there is something to ask; None if nothing is, or what is due waits for something else."""
        times = [at for at in (self._ask_at, self._poll_at) if at is not None and at > now]
        return min(times) - now if times else None

    def at_once(self) -> None:
        """Ask for what is needed in the next turn."""
        self._ask_at = time.monotonic()

    @property
    def names(self) -> List[str]:
        """The names of all requests."""
        return sorted([*self._log.requests, *self._log.epilogues])

    def look(self) -> None:
        """Ask Slurm what has become of allocations before more are asked for: it may start one again by itself."""
        self._poll_at = time.monotonic()
        self._looks_first = True

    def leave(self) -> None:
        """The controller goes. Ask for an allocation that fires what is owed when all others have ended, because nobody else may be there then."""
        answered = self._log.answered
        after = [answered[name] for name in self._log.requests if name in answered]
        if self.requests.options.get("epilogue_job") is False or not after or not self._supply.outstanding():
            return
        name = "hrl-{}-{}-end".format(self._paths.run, self._turn_number)
        self._log.record("epilogue", name=name)
        try:
            self._batch.submit(self.requests.epilogue(name, after))
        except BatchError:
            # Nobody hears of it. Whoever comes next looks it up, and fires what is owed.
            return

    def greet(self) -> None:
        """A controller has come: look up what has no answer, and ask for what is needed."""
        if self._most is None:
            found: List[Limits] = []
            self._asks.submit(lambda: found.append(self._batch.limits()), functools.partial(self._on_limits, found))
        if self._log.is_unanswered:
            self._poll_at = time.monotonic()
        if self._log.epilogues:
            # Those that have not begun are not needed while somebody is here.
            names = list(self._log.epilogues)
            self._asks.submit(lambda: self._batch.cancel(names, waiting_only=True), self._on_withdrawn)
        self._ask_at = time.monotonic() + _GREETING

    def _on_limits(self, found: List[Limits], error: Optional[BaseException]) -> None:
        if error is not None:
            self._note("slurm: {}".format(error))
        self._most = min(MOST, found[0].tasks) if found else MOST
        if found:
            self.requests.kill_wait = found[0].kill_wait

    # -- asking for allocations ----------------------------------------------------------------------------------

    def _is_many(self, klass: str = DEFAULT) -> bool:
        return takes_many(self.requests.options, klass)

    def _slots_of(self, klass: str) -> int:
        if is_alone(klass, self.requests.options):
            return 1
        return self._fewer_slots.get(klass) or int(self.requests.options.get("slots") or 1)

    def _demands(self) -> Dict[str, Demand]:
        """What each class needs."""
        owed = Counter(self._pool.class_of(attempt) or DEFAULT for attempt in self._owed())
        found = {}
        for klass in sorted({*self._pool.classes(), *owed}):
            waiting = len([one for one in self._pool.waiting(klass) if one not in self._log.back])
            coming, free = self._supply.of(klass, is_many=self._is_many(klass))
            found[klass] = Demand(waiting + owed.get(klass, 0), self._slots_of(klass), free, coming)
        return found

    def _owed(self) -> List[str]:
        """Attempts whose hooks are owed, and that no allocation has."""
        takers = self._pool.takers()
        return [
            attempt
            for attempt, (times, _) in self._log.owed.items()
            if "{}.{}".format(attempt, times) not in takers
            and attempt not in self._log.own
            and not self._log.is_done(attempt)
        ]

    def _ask(self, now: float) -> None:
        """Ask for the allocations that jobs, and owed hooks, wait for: those of one class."""
        if self._is_asking or self._most is None or self._log.is_unanswered or self._looks_first:
            return
        if now < self._not_before:
            self._ask_at = self._not_before
            return
        self._ask_at = None
        self._gathering.asked()
        demands = self._demands()
        for klass, demand in demands.items():
            if demand.jobs and self._is_in_vain(klass):
                self._give_up(klass)
                return
        limit = self.requests.options.get("allocations") or (_MANY_AT_ONCE if self._is_many() else None)
        room = None if limit is None else limit - self._supply.at_once()
        classes = divided({klass: demand.missing for klass, demand in demands.items()}, room)
        if not classes:
            return
        klass = min(classes, key=self._supply.outstanding_of)
        count = min(demands[klass].missing, self._limit.most(self._most, self._supply.outstanding(), now))
        # Within one request Slurm holds back what is too much, and not across several.
        share = None if room is None else max(1, room // len(classes))
        if self._is_many(klass) and share is not None:
            count, share = min(count, share), None
        if count <= 0:
            self._ask_at = self._limit.next(now)
            return
        self._submit(klass, count, share)

    def _submit(self, klass: str, count: int, at_once: Optional[int]) -> None:
        name = "hrl-{}-{}-{}".format(self._paths.run, self._turn_number, self._asked)
        self._asked += 1
        slots = self._slots_of(klass)
        self._log.record("asking", name=name, count=count, slots=slots, at_once=at_once, **{"class": klass})
        self._log.requests[name] = Asked(count, klass, slots, at_once)
        self._is_asking = True
        answer: List[str] = []
        request = self.requests.allocations(name, is_many=self._is_many(klass))
        self._asks.submit(
            lambda: answer.append(self._batch.submit(request)), functools.partial(self._on_answer, name, answer)
        )

    def _is_in_vain(self, klass: str) -> bool:
        """Whether the last allocations for a class ended and had begun nothing."""
        fruitless = self._fruitless.setdefault(klass, {})
        used = {taker.partition(".")[0] for taker in self._pool.takers().values()}
        for one in self._incarnations:
            is_fruitless = one.left is not None and one.left not in IDLE_WORDS and str(one.job) not in used
            if is_fruitless and self._supply.class_of(one.request) == klass:
                fruitless.setdefault(str(one.job), one.left or "")
        begun = {str(one.job) for one in self._incarnations if one.has_begun}
        for listed in self._listed.values():
            if listed.phase is not Phase.ENDED or listed.job in used | begun:
                continue
            if listed.kind in _NOT_OURS and not listed.is_held:
                continue
            is_withdrawn = listed.kind == "cancelled" and self._supply.is_withdrawn(listed.name)
            if self._supply.class_of(listed.name) == klass and not is_withdrawn:
                fruitless.setdefault(listed.job, "Slurm says {}".format(listed.word))
        last_used = max((int(one) for one in used if one.isdigit()), default=0)
        return len([one for one in fruitless if int(one) > last_used]) >= _MAX_FRUITLESS

    def _give_up(self, klass: str) -> None:
        fruitless = self._fruitless.pop(klass)
        said = list(fruitless.values())[-1]
        why = "{} allocations ended before they could begin a job, the last one because: {}; what they printed is in {}".format(
            len(fruitless), said, os.path.join(self._paths.spool, "allocations")
        )
        self._following.refuse_waiting(klass, why)
        for attempt in self._owed():
            if (self._pool.class_of(attempt) or DEFAULT) == klass:
                self._following.end(attempt, JobError("lost", message="its allocation died, and {}".format(why)))

    def _on_answer(self, name: str, answer: List[str], error: Optional[BaseException]) -> None:
        self._is_asking = False
        now = time.monotonic()
        if isinstance(error, NoAnswer):
            self._no_answer = str(error)
            self._note("slurm: {}; asking Slurm whether it has the request".format(error))
            self._poll_at = now
            return
        if error is not None:
            self._log.record("refused", name=name, why=str(error))
            asked = self._log.requests.pop(name)
            self._on_refused(asked, error, now)
            return
        self._log.record("answered", name=name, job=answer[0])
        self._log.answered[name] = answer[0]
        self._unknown = 0
        self._limit.taken()
        self.on_taken()
        self._polls, self._poll_at = 0, now + _POLLS[0]
        # There may be more to ask for: other classes, and what was too much for one request.
        self._ask_at = now

    def _on_refused(self, asked: Asked, error: BaseException, now: float) -> None:
        if isinstance(error, NoRoom):
            if self._limit.refused(asked.tasks, self._supply.outstanding(), now):
                self._note("slurm: no room for more allocations now, so jobs wait: {}".format(error))
            self._ask_at = self._limit.next(now)
        elif asked.slots > 1:
            # No node may be large enough for so many of these jobs, and one for fewer.
            self._fewer_slots[asked.klass] = asked.slots // 2
            self._ask_at = now
        else:
            self._following.refuse_waiting(
                asked.klass,
                "Slurm refused an allocation for {}: {}; ask for less, or correct `slurm:` of the host".format(
                    shown(asked.klass), error
                ),
            )

    # -- asking what has become of them --------------------------------------------------------------------------

    def _poll(self, now: float) -> None:
        """Ask Slurm what has become of allocations."""
        self._is_polling = True
        found: List[Listed] = []
        names = self.names
        seen = {one.name for one in self._incarnations}
        self._asks.submit(
            lambda: found.extend(self._batch.listed(names)), functools.partial(self._on_polled, now, names, seen, found)
        )

    def _on_polled(
        self, asked_at: float, names: List[str], seen: Set[str], found: List[Listed], error: Optional[BaseException]
    ) -> None:
        now = time.monotonic()
        self._is_polling = self._looks_first = False
        pause = _POLLS[self._polls] if self._polls < len(_POLLS) else _POLL
        self._polls += 1
        if error is not None:
            # Its programs take long because it does not answer, and not because it has much to do.
            self._poll_at = now + pause
            self._see_silence(str(error))
            return
        self._poll_at = now + max(pause, _POLL_FACTOR * (now - asked_at))
        self._see_silence("")
        for one in found:
            if one.is_held and one.job not in self._held:
                self._held.add(one.job)
                self._note(
                    "slurm: no node could start allocation {}: {}; another one is asked for".format(one.job, one.word)
                )
        self._listed.update({one.job: one for one in found})
        for name in names:
            if name in self._log.answered or name in self._log.epilogues:
                continue
            of_name = [one for one in found if one.name == name]
            if of_name:
                self._log.record("answered", name=name, job=of_name[0].job)
                self._log.answered[name] = of_name[0].job
                self._unknown = 0
            else:
                self._log.record("refused", name=name, why="Slurm does not know it")
                self._see_unknown(self._log.requests.pop(name), now)
        self._see_vanished(names, found)
        self._supply.polled(sorted(self._log.requests), found)
        self._withdraw()
        self._see_reasons(found, now)
        by_job = {one.job: one for one in found}
        for incarnation in self._incarnations:
            if incarnation.name not in seen or incarnation.left is not None:
                continue
            listed = by_job.get(str(incarnation.job))
            if listed is None:
                self._incarnations.bury(incarnation.name, "lost", "Slurm does not list its allocation any more", now)
            elif listed.phase is Phase.ENDED:
                why = "Slurm says {} of allocation {} on {}".format(listed.word, listed.job, listed.node)
                self._incarnations.bury(incarnation.name, listed.kind or "killed", why, now)
        self._ask_at = now

    def _see_vanished(self, names: List[str], found: List[Listed]) -> None:
        """Slurm has listed what it has of these. A request that it took, of which nothing is listed and nothing has begun, has brought nothing."""
        # What it had ended counts where it was listed.
        listed = {one.name for one in found} | {one.name for one in self._listed.values() if one.phase is Phase.ENDED}
        begun = {one.request for one in self._incarnations}
        for name in names:
            is_taken = name in self._log.requests and name in self._log.answered
            if is_taken and name not in listed | begun and not self._supply.is_withdrawn(name):
                fruitless = self._fruitless.setdefault(self._supply.class_of(name), {})
                fruitless.setdefault(self._log.answered[name], "Slurm took the request and does not list it")

    def _see_unknown(self, asked: Asked, now: float) -> None:
        """A request that had no answer is not known to Slurm. Ask again after a pause; after several such requests, jobs fail."""
        self._unknown += 1
        if self._unknown < _MAX_FRUITLESS:
            self._not_before = now + _POLLS[self._unknown - 1]
            return
        self._following.refuse_waiting(
            asked.klass,
            "Slurm was asked {} times for an allocation for {}, and got none of the requests: {}; try sbatch by hand on the login node".format(
                self._unknown, shown(asked.klass), self._no_answer
            ),
        )
        self._unknown = 0

    def _see_silence(self, error: str) -> None:
        """Say that Slurm does not answer, and when it does again."""
        if error and error != self._silence:
            self._note("slurm: {}; jobs that run go on, and it is asked again".format(error))
        elif not error and self._silence:
            self._note("slurm: it answers again")
        self._silence = error

    def _see_reasons(self, found: List[Listed], now: float) -> None:
        """Say why allocations wait, when that changes. Fail jobs whose allocations wait for what never comes."""
        notes, vain = self._reasons.see(found, now)
        for text in notes:
            self._note(text)
        if vain:
            names = sorted({one.name for one in found if one.reason in vain})
            self._asks.submit(lambda: self._batch.cancel(names, waiting_only=True), lambda error: None)
            for klass in sorted({self._supply.class_of(name) for name in names}):
                self._following.refuse_waiting(
                    klass,
                    "Slurm took the request for {} and will never start it, because of {}; ask for less time, fewer nodes, or another "
                    "partition".format(shown(klass), ", ".join(vain)),
                )

    def _withdraw(self) -> None:
        """Cancel allocations that wait and that nobody needs."""
        names = [
            name for klass, demand in self._demands().items() for name in self._supply.withdraw(klass, demand.excess)
        ]
        if names:
            self._asks.submit(lambda: self._batch.cancel(names, waiting_only=True), self._on_withdrawn)

    def _on_withdrawn(self, error: Optional[BaseException]) -> None:
        if error is not None:
            self._note("slurm: {}".format(error))


def _nothing() -> None:
    pass
