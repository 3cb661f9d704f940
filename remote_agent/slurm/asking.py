"""Asking Slurm for allocations, as many as the jobs that wait need, and asking it what has become of them.

Rule: what is asked of Slurm is in the submitter's log before, and the answer after. A request without an answer is looked up by its name.
Slurm is asked rarely: its controller serves everybody.
"""

import functools
import json
import os
import shlex
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Set

from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.job import JobError
from remote_agent.slurm.allocation import CLASS, IDLE_WORDS
from remote_agent.slurm.batch import Batch, Listed, NoAnswer, NoRoom, Phase, Request
from remote_agent.slurm.following import Following
from remote_agent.slurm.heirs import OWED
from remote_agent.slurm.incarnations import Incarnations
from remote_agent.slurm.pool import Pool
from remote_agent.slurm.shared_files import SharedFiles
from remote_agent.slurm.submitter_log import SubmitterLog
from remote_agent.system.background import BackgroundThread

__all__ = ["MOST", "Asking"]

#: The most jobs that the controller may have here at a time.
MOST = 10_000
#: Seconds: jobs that come one after the other are asked for together.
_GATHER = 0.3
#: Seconds between two questions to Slurm what it lists: the first ones, and all others.
_POLLS = (5.0, 10.0, 20.0, 30.0)
_POLL = 60.0
#: A question is asked no more often than this many times the time that the last one took.
_POLL_FACTOR = 50.0
#: Kinds of an end for which the request is not to blame.
_NOT_OURS = ("preempted", "node_failed")
#: After so many allocations that ended without a beginning, and no other one, no more are asked for.
_MAX_FRUITLESS = 3
#: Seconds for which an allocation waits for a reason that never goes away by itself, before its jobs fail.
_PATIENCE = 60.0


class Asking:
    """Asks Slurm.

    Args:
        asks: a thread for Slurm's programs, which may take seconds, and must not wait for a disk.
        note: tells the user something.
        turn: the number of this submitter.

    Attributes:
        options: what `slurm:` of the host says.
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
        self._files = files
        self._log = log
        self._pool = pool
        self._incarnations = incarnations
        self._following = following
        self._batch = batch
        self._asks = asks
        self._note = note
        self._turn_number = turn
        self.options: Dict[str, Any] = {}
        self._ask_at: Optional[float] = None
        self._is_asking = False
        self._polls = 0
        self._poll_at: Optional[float] = None
        self._is_polling = False
        self._listed: Dict[str, Listed] = {}
        #: The most allocations that one request may have now.
        self._most = MOST
        self._asked = 0
        self._said_no_room = False
        #: Allocations that ended and began nothing -> Slurm's word, or their own.
        self._fruitless: Dict[str, str] = {}
        #: Why allocations wait -> since when.
        self._reasons: Dict[str, float] = {}

    def tick(self, now: float, *, is_prepared: bool) -> None:
        """Ask if it is time to. `is_prepared`: allocations would find what they need to run a job."""
        if self._ask_at is not None and now >= self._ask_at and is_prepared:
            self._ask(now)
        if self._poll_at is not None and now >= self._poll_at and not self._is_polling:
            self._poll(now)

    def soon(self) -> None:
        """Ask for what is needed, together with what comes in the next moment."""
        self._ask_at = time.monotonic() + _GATHER

    def at_once(self) -> None:
        """Ask for what is needed in the next turn."""
        self._ask_at = time.monotonic()

    def look(self) -> None:
        """Ask Slurm what has become of allocations before more are asked for: it may start one again by itself."""
        self._poll_at = time.monotonic()

    def greet(self) -> None:
        """A controller has come: look up what has no answer, and ask for what is needed."""
        if self._log.is_unanswered:
            self._poll_at = time.monotonic()
        self.soon()

    # -- asking for allocations ----------------------------------------------------------------------------------

    def _ask(self, now: float) -> None:
        """Ask for as many allocations as there are jobs, and owed hooks, that wait without one."""
        if self._is_asking or self._log.is_unanswered:
            return
        self._ask_at = None
        waiting = [one for one in self._pool.waiting(CLASS) if one not in self._log.back]
        takers = self._pool.takers()
        owed = [one for one, (times, _) in self._log.owed.items() if "{}.{}".format(one, times) not in takers]
        owed = [one for one in owed if one not in self._log.own and one not in self._log.acked]
        if (waiting or owed) and self._is_in_vain(takers):
            self._give_up(waiting, owed)
            return
        count = min(len(waiting) + len(owed) - self._idle(), self._most)
        outstanding = self._outstanding()
        if self.options.get("allocations") and outstanding:
            # Slurm holds back what is too much within one request, and not across several.
            count = min(count, self.options["allocations"] - outstanding)
        if count <= 0:
            return
        name = "hrl-{}-{}-{}".format(self._paths.run, self._turn_number, self._asked)
        self._asked += 1
        self._log.record("asking", name=name, count=count)
        self._log.requests[name] = count
        self._is_asking = True
        answer: List[str] = []
        request = self._request(name, count, len(self._pool.attempts(CLASS)) + len(self._log.acked))
        self._asks.submit(
            lambda: answer.append(self._batch.submit(request)), functools.partial(self._on_answer, name, answer)
        )

    def _is_in_vain(self, takers: Dict[str, str]) -> bool:
        """Whether the last allocations ended and had begun nothing."""
        used = {taker.partition(".")[0] for taker in takers.values()}
        for one in self._incarnations:
            if one.left is not None and one.left not in IDLE_WORDS and str(one.job) not in used:
                self._fruitless.setdefault(str(one.job), one.left)
        begun = {str(one.job) for one in self._incarnations if one.has_begun}
        for listed in self._listed.values():
            if listed.phase is Phase.ENDED and listed.job not in used | begun and listed.kind not in _NOT_OURS:
                self._fruitless.setdefault(listed.job, "Slurm says {}".format(listed.word))
        last_used = max((int(one) for one in used if one.isdigit()), default=0)
        return len([one for one in self._fruitless if int(one) > last_used]) >= _MAX_FRUITLESS

    def _give_up(self, waiting: List[str], owed: List[str]) -> None:
        said = list(self._fruitless.values())[-1]
        why = "{} allocations ended before they could begin a job, the last one because: {}; what they printed is in {}".format(
            len(self._fruitless), said, os.path.join(self._paths.spool, "allocations")
        )
        self._fruitless = {}
        self._following.refuse_waiting(why)
        for attempt in owed:
            self._following.end(attempt, JobError("lost", message="its allocation died, and {}".format(why)))

    def _outstanding(self) -> int:
        """How many allocations were asked for that are not known to have ended."""
        ended = {str(one.job) for one in self._incarnations if one.left is not None}
        ended |= {one.job for one in self._listed.values() if one.phase is Phase.ENDED}
        return max(0, sum(self._log.requests.values()) - len(ended))

    def _idle(self) -> int:
        """How many allocations were asked for that have taken nothing and are not known to have ended."""
        asked = sum(self._log.requests.values())
        takers = self._pool.takers().values()
        used = {taker.partition(".")[0] for taker in takers}
        used |= {str(one.job) for one in self._incarnations if one.left is not None}
        used |= {one.job for one in self._listed.values() if one.phase is Phase.ENDED}
        # One that Slurm starts again by itself takes something then.
        used -= {one.job for one in self._listed.values() if one.phase is Phase.WAITING}
        return max(0, asked - len([one for one in used if one.isdigit()]))

    def _request(self, name: str, count: int, expects: int) -> Request:
        paths, options = self._paths, self.options
        program = (
            "import sys;sys.path.insert(0,{!r});sys.dont_write_bytecode=True;"
            "from remote_agent.system.bytecode import keep_bytecode_whole;keep_bytecode_whole();"
            "from remote_agent.__main__ import main;sys.exit(main())"
        ).format(paths.bundle)
        role = ["allocation", "--run", paths.run, "--host", paths.host, "--umask", str(paths.umask), "--most", "1"]
        role += ["--slots", "1", "--expects", str(expects), "--owed", str(len(self._files.names(OWED)))]
        role += ["--requeue", json.dumps(self._following.requeue)]
        role += ["--workdir", options["workdir"]] if options.get("workdir") else []
        command = " ".join(shlex.quote(word) for word in [sys.executable, "-I", "-S", "-c", program, *role])
        names = ("partition", "account", "time", "cpus", "gpus", "mem", "nodes")
        return Request(
            name,
            count,
            options.get("allocations"),
            "#!/bin/sh\numask 077\nexec {}\n".format(command),
            os.path.join(paths.spool, "allocations", "%j.out"),
            {key: str(options[key]) for key in names if options.get(key)},
            tuple(options.get("options") or ()),
        )

    def _on_answer(self, name: str, answer: List[str], error: Optional[BaseException]) -> None:
        self._is_asking = False
        now = time.monotonic()
        if isinstance(error, NoAnswer):
            self._note("slurm: {}; asking Slurm whether it has the request".format(error))
            self._poll_at = now
            return
        if error is not None:
            self._log.record("refused", name=name, why=str(error))
            count = self._log.requests.pop(name)
            if isinstance(error, NoRoom):
                self._no_room(count, str(error), now)
            else:
                self._following.refuse_waiting("Slurm refused the allocation: {}".format(error))
            return
        self._log.record("answered", name=name, job=answer[0])
        self._log.answered.add(name)
        self._polls, self._poll_at = 0, now + _POLLS[0]

    def _no_room(self, count: int, why: str, now: float) -> None:
        """Ask for fewer, or wait until some of those that there are have ended."""
        if count > 1:
            self._most = count // 2
            self._ask_at = now
            return
        if not self._said_no_room:
            self._said_no_room = True
            self._note("slurm: no room for another allocation now, so jobs wait: {}".format(why))
        self._ask_at = now + _POLL

    # -- asking what has become of them --------------------------------------------------------------------------

    def _poll(self, now: float) -> None:
        """Ask Slurm what has become of allocations."""
        self._is_polling = True
        found: List[Listed] = []
        names = sorted(self._log.requests)
        seen = {one.name for one in self._incarnations}
        self._asks.submit(
            lambda: found.extend(self._batch.listed(names)), functools.partial(self._on_polled, now, names, seen, found)
        )

    def _on_polled(
        self, asked_at: float, names: List[str], seen: Set[str], found: List[Listed], error: Optional[BaseException]
    ) -> None:
        now = time.monotonic()
        self._is_polling = False
        pause = _POLLS[self._polls] if self._polls < len(_POLLS) else _POLL
        self._polls += 1
        self._poll_at = now + max(pause, _POLL_FACTOR * (now - asked_at))
        if error is not None:
            self._note("slurm: {}".format(error))
            return
        self._listed.update({one.job: one for one in found})
        for name in names:
            if name in self._log.answered:
                continue
            of_name = [one for one in found if one.name == name]
            if of_name:
                self._log.record("answered", name=name, job=of_name[0].job)
                self._log.answered.add(name)
            else:
                self._log.record("refused", name=name, why="Slurm does not know it")
                self._log.requests.pop(name)
            self._ask_at = now
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

    def _see_reasons(self, found: List[Listed], now: float) -> None:
        """Say why allocations wait, when that changes. Fail jobs whose allocations wait for what never comes."""
        reasons = sorted({one.reason for one in found if one.phase is Phase.WAITING and one.reason})
        for reason in reasons:
            if reason not in self._reasons:
                self._note("slurm: allocations wait: {}".format(reason))
        self._reasons = {reason: self._reasons.get(reason, now) for reason in reasons}
        vain = [one for one in reasons if self._batch.is_hopeless(one) and now - self._reasons[one] >= _PATIENCE]
        if vain:
            names = sorted({one.name for one in found if one.reason in vain})
            self._asks.submit(lambda: self._batch.cancel(names, waiting_only=True), lambda error: None)
            self._following.refuse_waiting(
                "Slurm took the request and will never start it, because of {}; ask for less time, fewer nodes, or another partition".format(
                    ", ".join(vain)
                )
            )
