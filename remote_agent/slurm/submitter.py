"""The controller's end of a Slurm run, on a login node: it speaks to the controller as an agent does, and stays only as long as the link.

Rule: it holds nothing that is not on the shared disk. It puts jobs into the pool, asks Slurm for allocations, follows the logs of those that
began, and says what became of jobs whose allocation died. It runs no code of the user's, and none of its processes outlives the link. What is
asked of Slurm is in its log before, and the answer after; a request without an answer is looked up by its name. It reads the logs of the
submitters before it, and writes its own (see `turns`).

    submitter.<turn>     as the log in the spool of a host, for attempts that no allocation has, and in it:
        asking     {"name", "count"}     allocations are about to be asked for
        answered   {"name", "job"}       Slurm has taken the request
        refused    {"name", "why"}       it has not, and no such request will come
        acked      {"a"}                 the controller has the result
        back       {"a"}                 the attempt was given back to the controller, and never starts
        owed       {"a", "n", "source"}  the end hooks of a job whose allocation died are owed, for the nth time
        left       {}                    nothing follows
"""

import errno
import functools
import os
import selectors
import shlex
import socket
import sys
import time
from array import array
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

from remote_agent.agent.delivery import Delivery
from remote_agent.agent.link.controller import Controller
from remote_agent.agent.spool.attempt import Attempt, failed_envelope
from remote_agent.agent.spool.attempts import apply_record
from remote_agent.agent.spool.log import LogReader, Reference, SpoolLog
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.agent.zygotes.pool import Prepared, Zygotes
from remote_agent.job import JobError
from remote_agent.protocol.job_spec import JobSpec
from remote_agent.protocol.messages import Ack, Cancel, Finish, Go, Hello, SendJob, TakeBack
from remote_agent.protocol.result_parts import NO_PARTS
from remote_agent.shared.disk import remove_tree
from remote_agent.slurm.allocation import CLASS, IDLE_WORDS, PREPARED, write_prepared
from remote_agent.slurm.batch import Batch, Listed, NoAnswer, NoRoom, Phase, Request
from remote_agent.slurm.heirs import OWED, Owed, owe
from remote_agent.slurm.incarnations import FOLDER, Debt, Fate, Incarnation, Incarnations, holders
from remote_agent.slurm.pool import Pool, Stop
from remote_agent.slurm.shared_files import SharedFiles
from remote_agent.slurm.turns import Turn
from remote_agent.system.background import BackgroundThread
from remote_agent.system.host import Folders, boot_id
from remote_agent.system.private_files import make_private_folder

__all__ = ["Submitter"]

#: Submitters take attempts under such names.
_NAME = "submitter-"
#: Seconds: jobs that come one after the other are asked for together.
_GATHER = 0.3
#: Seconds between two looks at the logs of allocations.
_LOOK_EVERY = 0.25
_LOOK_FACTOR = 10.0
#: Seconds between two questions to Slurm what it lists: the first ones, and all others.
_POLLS = (5.0, 10.0, 20.0, 30.0)
_POLL = 60.0
#: A question is asked no more often than this many times the time that the last one took.
_POLL_FACTOR = 50.0
#: The most jobs that the controller may have here at a time.
_MOST = 10_000
_TIMEOUT = 0.25
#: Kinds of an end for which the request is not to blame.
_NOT_OURS = ("preempted", "node_failed")
#: How many allocations may die while they fire the end hooks of the same attempt.
_MAX_HEIRS = 3
#: After so many allocations that ended without a beginning, and no other one, no more are asked for.
_MAX_FRUITLESS = 3
#: Seconds for which an allocation waits for a reason that never goes away by itself, before its jobs fail.
_PATIENCE = 60.0
#: Seconds for which the end of a run waits for its allocations to end.
_FINISH = 60.0


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


class Submitter:
    """The select loop. `serve` returns when the link is gone, or the run over."""

    def __init__(self, run: str, host: str, where: Folders, bundle: str, umask: int, batch: Batch) -> None:
        self._paths = paths = SpoolPaths(run, host, where, bundle, umask, boot_id())
        self._batch = batch
        self._selector = selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        selector.register(self._wake_read, selectors.EVENT_READ, self._on_wake)
        for name in ("streams", "payload", "blobs", "logs", "allocations"):
            make_private_folder(os.path.join(where.spool, name))
        self._controller = controller = Controller(paths, selector, self._on_hello, self._on_greeted, self._on_gone)
        self._background = background = BackgroundThread(self._wake)
        #: Slurm's programs may take seconds, and must not wait for a disk.
        self._asking = BackgroundThread(self._wake)
        self._files = SharedFiles(where.spool, "{}{}".format(_NAME, os.urandom(6).hex()))
        for name in (PREPARED, OWED):
            self._files.make_folder(name)
        self._turn_taken = Turn(self._files)
        self._pool = Pool(self._files, self._files.writer)
        self._incarnations = Incarnations(self._files)
        self._zygotes = Zygotes(paths, selector, background, controller)
        self._zygotes.publish = self._publish
        self._is_prepared = False
        self._acked: Set[str] = set()
        #: Attempts that were given back.
        self._back: Set[str] = set()
        self._own: Dict[str, Attempt] = {}
        #: name of a request -> how many allocations it has; whether Slurm has answered.
        self._requests: Dict[str, int] = {}
        self._answered: Set[str] = set()
        #: attempt -> how often its end hooks were owed, and by which incarnation now.
        self._owed: Dict[str, Tuple[int, str]] = {}
        self._log = SpoolLog(self._turn_taken.path)
        self._log.flush()
        self._turn_taken.wait()
        for number in self._turn_taken.earlier():
            for header, reference in LogReader(self._turn_taken.log_of(number)).advance():
                self._on_record(header, reference)
        # An end that was not recorded whole is decided anew.
        self._own = {name: attempt for name, attempt in self._own.items() if attempt.final is not None}
        for attempt in self._own.values():
            attempt.is_synced = True
            attempt.state = "final"
        self._give_back_stranded()
        followed = self._followed(self._own, self._log, self._is_own)
        self._deliveries: Dict[str, Delivery] = {"": Delivery(paths, followed, self._zygotes, background, controller)}
        self._options: Dict[str, Any] = {}
        self._ask_at: Optional[float] = None
        self._is_asking = False
        self._is_live = False
        self._look_at = 0.0
        self._polls = 0
        self._poll_at: Optional[float] = None
        self._is_polling = False
        self._listed: Dict[str, Listed] = {}
        #: The most allocations that one request may have now.
        self._most = _MOST
        self._asked = 0
        self._said_no_room = False
        #: Allocations that ended and began nothing -> Slurm's word, or their own.
        self._fruitless: Dict[str, str] = {}
        #: Why allocations wait -> since when.
        self._reasons: Dict[str, float] = {}
        self._finish_by: Optional[float] = None
        self._is_kept = False
        self._is_over = False

    # -- the loop ------------------------------------------------------------------------------------------------

    def serve(self) -> int:
        """Serve the controller on stdin and stdout. Returns the exit code."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._controller.take(ours)
        theirs.sendmsg([b"c"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [0, 1]))])
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1):
            os.dup2(null, fd)
        while not self._is_over and self._controller.has_links and not self._turn_taken.is_over:
            for key, mask in self._selector.select(_TIMEOUT):
                key.data(key.fileobj, mask)
            self._turn(time.monotonic())
        if self._is_over and not self._is_kept:
            self._remove()
        else:
            self._record("left")
        self._controller.close()
        return 0

    def _turn(self, now: float) -> None:
        self._turn_taken.touch(now)
        self._controller.tick(now)
        self._zygotes.tick(now)
        if self._finish_by is not None:
            self._finish(now)
            self._controller.pump()
            return
        if now >= self._look_at:
            self._follow(now)
            # A disk that is slow is asked less often.
            if self._is_live:
                self._watch_streams()
            self._look_at = now + max(_LOOK_EVERY, _LOOK_FACTOR * (time.monotonic() - now))
        if self._ask_at is not None and now >= self._ask_at and self._is_prepared:
            self._ask(now)
        if self._poll_at is not None and now >= self._poll_at and not self._is_polling:
            self._poll(now)
        self._log.flush()
        self._controller.pump()

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"x")
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EBADF):
                raise

    def _on_wake(self, fd: int, mask: int) -> None:
        os.read(fd, 4096)
        self._background.deliver()
        self._asking.deliver()

    # -- its log -------------------------------------------------------------------------------------------------

    def _record(self, record: str, **fields: Any) -> Reference:
        """Append a record and bring it to the disk."""
        reference = self._log.append(dict(fields, r=record))
        self._log.flush()
        self._log.sync()
        return reference

    def _on_record(self, header: Dict[str, Any], reference: Reference) -> None:
        name = header["r"]
        if name == "asking":
            self._requests[header["name"]] = header["count"]
        elif name == "answered":
            self._answered.add(header["name"])
        elif name == "refused":
            self._requests.pop(header["name"], None)
        elif name == "acked":
            self._acked.add(header["a"])
        elif name == "back":
            self._back.add(header["a"])
        elif name == "owed":
            self._owed[header["a"]] = header["n"], header["source"]
        elif name == "left":
            return
        elif name == "accepted":
            self._own[header["a"]] = Attempt(JobSpec.from_json(header["spec"]))
        else:
            apply_record(self._own[header["a"]], name, header, reference)

    def _followed(self, attempts: Dict[str, Attempt], log: Any, counts: Callable[[str], bool]) -> _Followed:
        return _Followed(attempts, log, counts, self._on_acked)

    def _is_done(self, attempt: str) -> bool:
        """Whether the controller has its result, or has it back."""
        return attempt in self._acked or attempt in self._back

    def _is_own(self, attempt: str) -> bool:
        return attempt in self._own and attempt not in self._acked

    def _is_of(self, incarnation: str, attempt: str) -> bool:
        """Whether an incarnation's word on an attempt counts: nobody else says how it ended, and its hooks are not owed by another one."""
        if attempt in self._own or self._is_done(attempt):
            return False
        return attempt not in self._owed or holders(self._pool.takers()).get(attempt) == (
            self._owed[attempt][0],
            incarnation,
        )

    def _give_back_stranded(self) -> None:
        """Give back what an earlier submitter has taken, to cancel it or to take it back, and died before it could say so."""
        for claim, taker in self._pool.takers().items():
            if taker.startswith(_NAME) and claim not in self._own and not self._is_done(claim):
                self._back.add(claim)
                self._record("back", a=claim)

    def _on_acked(self, attempt: str) -> None:
        self._acked.add(attempt)
        self._log.append({"r": "acked", "a": attempt})
        self._pool.forget(CLASS, attempt)

    # -- the controller ------------------------------------------------------------------------------------------

    def _on_hello(self, hello: Hello) -> Dict[str, Any]:
        self._options = dict(hello["batch"] or {})
        self._controller.handlers.update(
            job=self._on_job,
            cancel=self._on_cancel,
            go=self._on_go,
            take_back=self._on_take_back,
            ack=self._on_ack,
            blob=self._zygotes.on_blob,
            blobs=self._zygotes.on_blobs,
            manifest=self._zygotes.on_manifest,
            prepare=self._zygotes.on_prepare,
            withheld=self._zygotes.on_withheld,
            ask_pythons=self._zygotes.environments.on_ask,
            environment=self._zygotes.environments.on_environment,
            finish=self._on_finish,
        )
        self._follow(time.monotonic(), is_quiet=True)
        self._is_live = hello["live"]
        return {
            "boot_id": "slurm/{}".format(self._turn_taken.run_id),
            "slots": _MOST,
            "too_small": "`slurm:` says what every job on a Slurm cluster has" if hello["needs"] else "",
            "room": None,
            "gpus": [],
            "states": self._states(),
        }

    def _states(self) -> Dict[str, str]:
        states = {one.id: one.short_state() for one in self._own.values()}
        held_by = holders(self._pool.takers())
        for attempt in self._pool.attempts(CLASS):
            incarnation = self._incarnations.get(held_by.get(attempt, (0, ""))[1])
            known = incarnation.attempts.get(attempt) if incarnation is not None else None
            if attempt in self._owed and known is None:
                states.setdefault(attempt, "running")
            states.setdefault(attempt, known.short_state() if known is not None else "queued")
        return {attempt: state for attempt, state in states.items() if not self._is_done(attempt)}

    def _on_greeted(self) -> None:
        for delivery in self._deliveries.values():
            delivery.resend()
        for incarnation in self._incarnations:
            for attempt in incarnation.attempts.values():
                self._say_started(attempt)
        if any(name not in self._answered for name in self._requests):
            self._poll_at = time.monotonic()
        self._ask_at = time.monotonic() + _GATHER

    def _on_gone(self) -> None:
        self._zygotes.drop_partial()

    def _on_go(self, header: Go, payload: bytes) -> None:
        """Do nothing: what waits in the pool is not held back."""

    def _on_job(self, header: SendJob, payload: bytes) -> None:
        spec = JobSpec.from_json(header["spec"])
        if spec.attempt_id in self._acked:
            return
        if spec.attempt_id in self._back:
            self._controller.say(
                {"t": "dropped", "attempt": spec.attempt_id, "why": "", "asked": False, "again": False}
            )
            return
        self._pool.put(CLASS, spec.attempt_id, header, payload)
        self._ask_at = time.monotonic() + _GATHER

    def _on_take_back(self, header: TakeBack, payload: bytes) -> None:
        for attempt in header["attempts"]:
            if self._pool.take(attempt):
                self._give_back(attempt, "", asked=True)

    def _give_back(self, attempt: str, why: str, *, asked: bool) -> None:
        self._back.add(attempt)
        self._record("back", a=attempt)
        self._controller.say({"t": "dropped", "attempt": attempt, "why": why, "asked": asked, "again": False})

    def _on_cancel(self, header: Cancel, payload: bytes) -> None:
        every = self._pool.attempts(CLASS) if header["attempts"] is None else header["attempts"]
        stop = Stop(header["kind"], header["kill"], header["why"])
        for attempt in every:
            if attempt in self._own or self._is_done(attempt):
                continue
            if self._pool.take(attempt):
                message = stop.why or "{} before it started".format(stop.kind)
                self._end(attempt, JobError(stop.kind, message=message))
                continue
            self._pool.stop(attempt, stop)
            taker = holders(self._pool.takers()).get(attempt, (0, ""))[1]
            if taker:
                # Without it, the allocation sees the request a moment later.
                self._asking.submit(functools.partial(self._batch.wake, taker.partition(".")[0]), lambda error: None)

    def _end(self, attempt_id: str, error: JobError) -> None:
        """Record the end of an attempt that no allocation has, or none any more."""
        frame = self._pool.job(CLASS, attempt_id)
        if frame is None or frame.header["t"] != "job":
            return
        attempt = self._own[attempt_id] = Attempt(JobSpec.from_json(frame.header["spec"]))
        self._record("accepted", a=attempt_id, spec=frame.header["spec"])
        envelope = failed_envelope(attempt, error, time.time())
        fields = {"a": attempt_id, "envelope": envelope.to_json(), "parts": NO_PARTS.to_json()}
        reference = self._record("final", **fields)
        apply_record(attempt, "final", fields, reference)
        attempt.state = "final"
        attempt.is_synced = True
        self._deliveries[""].send(attempt)

    def _on_ack(self, header: Ack, payload: bytes) -> None:
        for delivery in self._deliveries.values():
            delivery.on_ack(header, payload)

    def _on_finish(self, header: Finish, payload: bytes) -> None:
        self._is_kept = header["keep"]
        self._finish_by = time.monotonic() + _FINISH
        names = sorted(self._requests)
        self._asking.submit(lambda: self._batch.cancel(names), self._on_finish_asked)

    def _on_finish_asked(self, error: Optional[BaseException]) -> None:
        if error is not None:
            self._leave_folder("allocations of the run may be left ({})".format(error))

    def _finish(self, now: float) -> None:
        """End when no allocation writes to the run's folder any more."""
        assert self._finish_by is not None
        if now >= self._finish_by:
            self._leave_folder("allocations of the run have not ended yet")
        elif not self._is_polling:
            self._is_polling = True
            found: List[Listed] = []
            names = sorted(self._requests)
            self._asking.submit(
                lambda: found.extend(self._batch.listed(names)), functools.partial(self._on_finish_polled, found)
            )

    def _on_finish_polled(self, found: List[Listed], error: Optional[BaseException]) -> None:
        self._is_polling = False
        if error is not None:
            self._leave_folder("whether allocations of the run are left is not known ({})".format(error))
        elif all(one.phase is Phase.ENDED for one in found):
            self._is_over = True

    def _leave_folder(self, why: str) -> None:
        """End, and leave what allocations may still write to."""
        self._controller.note(
            "slurm: {}; 'squeue --me' lists them, and 'launcher clean' removes {} later".format(why, self._paths.spool)
        )
        self._is_kept = self._is_over = True

    def _remove(self) -> None:
        self._background.stop()
        self._log.close()
        remove_tree(self._paths.spool)
        try:
            os.rmdir(os.path.dirname(self._paths.spool))
        except OSError:
            pass  # another host entry of the same run has its spool next to ours

    # -- content -------------------------------------------------------------------------------------------------

    def _publish(self, prepared: Prepared) -> None:
        write_prepared(self._files, prepared)
        self._is_prepared = True

    # -- following -----------------------------------------------------------------------------------------------

    def _follow(self, now: float, *, is_quiet: bool = False) -> None:
        """Read what allocations have written, and pass it on."""
        for incarnation, name, header in self._incarnations.advance(now):
            if name == "note":
                self._controller.note("{} on {}: {}".format(incarnation.name, incarnation.node, header["text"]))
            attempt = incarnation.attempts.get(str(header.get("a", "")))
            if attempt is None or not self._is_of(incarnation.name, attempt.id):
                continue
            delivery = self._delivery_of(incarnation)
            if name == "started":
                self._say_started(attempt)
            elif name == "final":
                attempt.is_synced = True
                if not is_quiet:
                    delivery.send(attempt)
            elif name == "gone":
                attempt.state = "final"
                if not is_quiet:
                    delivery.send_outputs(attempt)
        for debt in self._incarnations.debts(self._pool.takers(), now):
            self._settle(debt)

    def _watch_streams(self) -> None:
        """Send what jobs print."""
        for incarnation in self._incarnations:
            if incarnation.left is None and incarnation.buried_at is None:
                for attempt in incarnation.attempts.values():
                    if attempt.started_at is not None and self._is_of(incarnation.name, attempt.id):
                        self._delivery_of(incarnation).watch_streams(attempt)

    def _settle(self, debt: Debt) -> None:
        attempt = debt.attempt
        if attempt in self._own or self._is_done(attempt):
            return
        times, source = self._owed.get(attempt, (0, ""))
        if times > debt.rank:
            return  # the next one that has room fires its hooks
        if debt.fate is Fate.UNBEGUN and not debt.rank:
            self._give_back(attempt, "its allocation {} ended: {}".format(debt.incarnation, debt.why), asked=False)
        elif debt.rank >= _MAX_HEIRS:
            self._end(attempt, JobError(debt.kind, message="{}; its end hooks could not be fired".format(debt.why)))
        else:
            # Who has not begun with what it inherited has copied nothing.
            source = source if debt.fate is Fate.UNBEGUN else debt.incarnation
            owe(self._files, "{}.{}".format(attempt, debt.rank + 1), Owed(source, debt.kind, debt.why))
            self._record("owed", a=attempt, n=debt.rank + 1, source=source)
            self._owed[attempt] = debt.rank + 1, source
            self._ask_at = time.monotonic()

    def _delivery_of(self, incarnation: Incarnation) -> Delivery:
        delivery = self._deliveries.get(incarnation.name)
        if delivery is None:
            own = os.path.join(self._paths.spool, FOLDER, incarnation.name)
            paths = self._paths
            where = Folders(paths.where.cache, own, own)
            its_paths = SpoolPaths(paths.run, paths.host, where, paths.bundle, paths.umask, paths.boot, paths.blobs)
            counts = functools.partial(self._is_of, incarnation.name)
            followed = self._followed(incarnation.attempts, incarnation.reader, counts)
            delivery = Delivery(its_paths, followed, self._zygotes, self._background, self._controller)
            # The files are the allocation's.
            delivery.cuts = False
            self._deliveries[incarnation.name] = delivery
        return delivery

    def _say_started(self, attempt: Attempt) -> None:
        if attempt.id not in self._acked and attempt.started_at is not None:
            self._controller.say(
                {"t": "started", "attempt": attempt.id, "slot": attempt.slot or 0, "at": attempt.started_at}
            )

    # -- asking Slurm --------------------------------------------------------------------------------------------

    def _ask(self, now: float) -> None:
        """Ask for as many allocations as there are jobs, and owed hooks, that wait without one."""
        if self._is_asking or any(name not in self._answered for name in self._requests):
            return
        self._ask_at = None
        waiting = [one for one in self._pool.waiting(CLASS) if one not in self._back]
        takers = self._pool.takers()
        owed = [one for one, (times, _) in self._owed.items() if "{}.{}".format(one, times) not in takers]
        owed = [one for one in owed if one not in self._own and one not in self._acked]
        if (waiting or owed) and self._is_in_vain(takers):
            self._give_up(waiting, owed)
            return
        count = min(len(waiting) + len(owed) - self._idle(), self._most)
        outstanding = self._outstanding()
        if self._options.get("allocations") and outstanding:
            # Slurm holds back what is too much within one request, and not across several.
            count = min(count, self._options["allocations"] - outstanding)
        if count <= 0:
            return
        name = "hrl-{}-{}-{}".format(self._paths.run, self._turn_taken.number, self._asked)
        self._asked += 1
        self._record("asking", name=name, count=count)
        self._requests[name] = count
        self._is_asking = True
        answer: List[str] = []
        request = self._request(name, count, len(self._pool.attempts(CLASS)) + len(self._acked))
        self._asking.submit(
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
        self._refused(why)
        for attempt in owed:
            self._end(attempt, JobError("lost", message="its allocation died, and {}".format(why)))

    def _outstanding(self) -> int:
        """How many allocations were asked for that are not known to have ended."""
        ended = {str(one.job) for one in self._incarnations if one.left is not None}
        ended |= {one.job for one in self._listed.values() if one.phase is Phase.ENDED}
        return max(0, sum(self._requests.values()) - len(ended))

    def _idle(self) -> int:
        """How many allocations were asked for that have taken nothing and are not known to have ended."""
        asked = sum(self._requests.values())
        takers = self._pool.takers().values()
        used = {taker.partition(".")[0] for taker in takers}
        used |= {str(one.job) for one in self._incarnations if one.left is not None}
        used |= {one.job for one in self._listed.values() if one.phase is Phase.ENDED}
        return max(0, asked - len([one for one in used if one.isdigit()]))

    def _request(self, name: str, count: int, expects: int) -> Request:
        paths, options = self._paths, self._options
        program = (
            "import sys;sys.path.insert(0,{!r});sys.dont_write_bytecode=True;"
            "from remote_agent.system.bytecode import keep_bytecode_whole;keep_bytecode_whole();"
            "from remote_agent.__main__ import main;sys.exit(main())"
        ).format(paths.bundle)
        role = ["allocation", "--run", paths.run, "--host", paths.host, "--umask", str(paths.umask), "--most", "1"]
        role += ["--slots", "1", "--expects", str(expects), "--owed", str(len(self._files.names(OWED)))]
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
            self._controller.note("slurm: {}; asking Slurm whether it has the request".format(error))
            self._poll_at = now
            return
        if error is not None:
            self._record("refused", name=name, why=str(error))
            count = self._requests.pop(name)
            if isinstance(error, NoRoom):
                self._no_room(count, str(error), now)
            else:
                self._refused("Slurm refused the allocation: {}".format(error))
            return
        self._record("answered", name=name, job=answer[0])
        self._answered.add(name)
        self._polls, self._poll_at = 0, now + _POLLS[0]

    def _no_room(self, count: int, why: str, now: float) -> None:
        """Ask for fewer, or wait until some of those that there are have ended."""
        if count > 1:
            self._most = count // 2
            self._ask_at = now
            return
        if not self._said_no_room:
            self._said_no_room = True
            self._controller.note("slurm: no room for another allocation now, so jobs wait: {}".format(why))
        self._ask_at = now + _POLL

    def _refused(self, why: str) -> None:
        """Fail the jobs that wait."""
        for attempt in self._pool.waiting(CLASS):
            if attempt not in self._back and self._pool.take(attempt):
                self._end(attempt, JobError("host", message=why))

    def _poll(self, now: float) -> None:
        """Ask Slurm what has become of allocations."""
        self._is_polling = True
        found: List[Listed] = []
        names = sorted(self._requests)
        seen = {one.name for one in self._incarnations}
        self._asking.submit(
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
            self._controller.note("slurm: {}".format(error))
            return
        self._listed.update({one.job: one for one in found})
        for name in names:
            if name in self._answered:
                continue
            of_name = [one for one in found if one.name == name]
            if of_name:
                self._record("answered", name=name, job=of_name[0].job)
                self._answered.add(name)
            else:
                self._record("refused", name=name, why="Slurm does not know it")
                self._requests.pop(name)
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
                self._controller.note("slurm: allocations wait: {}".format(reason))
        self._reasons = {reason: self._reasons.get(reason, now) for reason in reasons}
        vain = [one for one in reasons if self._batch.is_hopeless(one) and now - self._reasons[one] >= _PATIENCE]
        if vain:
            names = sorted({one.name for one in found if one.reason in vain})
            self._asking.submit(lambda: self._batch.cancel(names, waiting_only=True), lambda error: None)
            self._refused(
                "Slurm took the request and will never start it, because of {}; ask for less time, fewer nodes, or another partition".format(
                    ", ".join(vain)
                )
            )
