"""Decides what follows from facts and requests: events for the journal, and actions. It has no thread and no clock.

Rule: journal first, then act. `decide` makes the decisions of a round and gives them to the journal. `commit` brings them to the
disk, and only then sends, acknowledges, delivers and shows. If a round cannot be written, nothing is done, and nothing else is
decided.

It uses everything through small protocols, so that a test can run ten thousand histories a minute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from launcher import events
from launcher.agents import facts
from launcher.engine import requests
from launcher.engine.effects import Effects
from launcher.engine.host_words import file_lines, hook_events, left_text
from launcher.engine.protocols import Clock, Link, ReadableJournal, WritableJournal
from launcher.engine.scheduling.scheduler import Scheduler
from launcher.engine.scheduling.state import HostPhase, UnfinishedJob
from launcher.hosts.limits import TooMuch, limit
from launcher.results.owners import Ownership, own_folder
from launcher.runs.journal import Returned, StoredResult
from launcher.util.exhaustive import assert_never
from remote_agent.callbacks.base import HOST_HOOKS
from remote_agent.job import ENVIRONMENT_FAILED, PYTHON_FAILED, PYTHON_TOO_OLD, SETUP_FAILED, STORE_FAILED, JobError
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.result_parts import NO_PARTS

__all__ = ["Decider"]

_PYTHON_STEP = "name a Python that runs there, 3.8 or later: --python PATH, or `python` of that host in the hosts file"
_SIZE_STEP = (
    "ask for less in `resources`, or correct what the hosts file says that the host has; `launcher gpus` lists its GPUs"
)
#: Type of the error -> what a host lacks for jobs of any application, with the next step.
_HOST_LACKS = {
    SETUP_FAILED: "correct the line in `setup`, or add `|| true` if it may fail; it runs in `bash -l`, without a terminal",
    PYTHON_FAILED: _PYTHON_STEP,
    PYTHON_TOO_OLD: _PYTHON_STEP,
    STORE_FAILED: "free some room there (`launcher clean`), or name a folder that has more with `workdir`",
}

#: The text before the next step in an error of an environment.
_NEXT = "\n    next: "


@dataclass
class _Round:
    """The decisions of one round: events to journal and actions to take, in one order."""

    steps: list[events.Event | partial[None]] = field(default_factory=list)

    def add(self, happened: Iterable[events.Event]) -> None:
        self.steps += happened

    def act(self, function: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        self.steps.append(partial(function, *args, **kwargs))


class Decider:
    """Takes the facts and requests of a run, in order.

    Args:
        links: by host; may be filled later.
        acknowledge: called with (host, attempt) of a result. Its host may forget it when the files are on the disk, too.
        deliver: called with each JobReturn, once.
        observe: called with each event after it was journalled.
        ownership: knows which job wrote which file in an output directory; None if no two jobs share one.
        hold: called before an output directory is made. Returns when that is allowed, or raises OSError.

    Attributes:
        effects: carries out actions, and holds the jobs that have not returned.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        journal: WritableJournal,
        links: Mapping[str, Link],
        acknowledge: Callable[[str, str], None],
        deliver: Callable[[Returned], None],
        observe: Callable[[events.Event], None],
        clock: Clock,
        ownership: Ownership | None = None,
        hold: Callable[[], None] | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._journal = journal
        self._links = links
        self._observe = observe
        self._clock = clock
        self.effects = Effects(scheduler, links, acknowledge, deliver, observe, clock, ownership, hold)
        self._round = _Round()
        #: Whether the run said that it has no other jobs than those that it has submitted.
        self._is_complete = False
        self._notes: dict[str, set[str]] = {}
        #: Hosts whose environment is being made. Below: hosts that have it.
        self._building: set[str] = set()
        self._has_environment: set[str] = set()
        #: (host, job) -> how often that host gave the job back.
        self._given_back: Counter[tuple[str, int]] = Counter()
        #: Hosts that give attempts back if they are asked.
        self._takes_back: set[str] = set()
        #: Host -> of how many files that stay there the user was told.
        self._left_told: Counter[str] = Counter()
        #: Hosts that can ask jobs to stop.
        self._stops: set[str] = set()

    # -- rounds -------------------------------------------------------------------------------------------------

    def decide(self, items: Iterable[facts.Fact | requests.Request]) -> None:
        """Decide what follows from these items, and give it to the journal. `commit` must follow."""
        decided = self._round = _Round()
        for item in items:
            self._take(self._clock.wall(), item, decided)
        now = self._clock.monotonic()
        decided.add(self._scheduler.plan(self._clock.wall(), now))
        for host, attempts in self._scheduler.take_back(now, self.effects.prepared, self._takes_back).items():
            decided.act(self._links[host].take_back, attempts)
        self._journal.append([step for step in decided.steps if not isinstance(step, partial)])

    def _take(self, at: float, item: facts.Fact | requests.Request, decided: _Round) -> None:  # noqa: C901, PLR0915 - one case for each fact and request
        """Decide what follows from one item. The most frequent kinds come first."""
        match item:
            case facts.Output():
                self._take_output(at, item, decided)
            case facts.Started():
                num, attempt = _split(item.attempt)
                decided.add(self._scheduler.observe_started(at, item.host, num, attempt, item.slot, item.at))
            case facts.Reported():
                self._take_reported(at, item, decided)
            case facts.Ended():
                self._take_ended(at, item, decided)
            case facts.Collected():
                self._take_collected(at, item, decided)
            case requests.Submit():
                self._is_complete = item.is_complete
                for job in item.jobs:
                    self._take_submit(at, job, decided)
            case requests.Cancel():
                self._take_cancel(at, item, decided)
            case requests.Stop():
                self._take_stop(at, item, decided)
            case requests.Interrupt():
                decided.add(self._scheduler.interrupt(at, item.why, item.kill))
            case requests.GiveUp():
                decided.add(self._scheduler.give_up(at, item.host, item.why, for_good=True))
                decided.act(self._links[item.host].cancel, None, kind="lost", why=item.why)
            case requests.AddToJournal():
                decided.add(item.happened)
                self._journal.put_meta(**item.meta)
                for name, data in item.blobs.items():
                    self._journal.put_blob(name, data)
            case requests.Retry():
                job = self.effects.jobs[item.returned.num] = self.effects.from_journal(item.returned.num)
                decided.add(self._scheduler.retry(at, item.returned, job.spec.needs))
            case requests.TakeOver():
                for taken in item.jobs:
                    self._take_taken_over(at, taken, decided)
                decided.act(item.done.set)
            case requests.Detach():
                decided.add(self._scheduler.detach(at, item.run, item.why, hurry=item.hurry))
            case facts.Connected():
                self._take_connected(at, item, decided)
            case facts.Disconnected():
                self._take_disconnected(at, item, decided)
            case facts.Unusable():
                error = item.error
                decided.add(
                    self._scheduler.observe_unusable(
                        at, item.host, error.phase, error.message_of(item.host), error.next_step
                    )
                )
            case facts.Refused():
                decided.add(self._scheduler.give_up(at, item.host, item.why, for_good=True))
            case facts.ZygoteTold():
                self._take_zygote_told(at, item, decided)
            case facts.EnvironmentTold():
                self._take_environment(at, item, decided)
            case facts.Synced():
                self.effects.confirm(item.host, item.number)
            case facts.Sent():
                decided.add([events.CodeSent(at, item.host, item.files, item.sent_files, item.sent_bytes)])
            case facts.WayTaken():
                decided.add([events.WayChosen(at, item.host, item.way, item.why)])
            case facts.Noted():
                self._note(at, item.host, item.message, decided)
            case facts.Opened():
                decided.add(self._scheduler.observe_opened(at, item.host))
            case facts.Unwritable():
                self._take_unwritable(at, item, decided)
            case facts.Dropped():
                self._take_dropped(at, item, decided)
            case _:
                assert_never(item)

    def commit(self) -> None:
        """Bring the round to the disk, and then act on it.

        Raises:
            JournalError: it is not on the disk, and nothing was done. Call `commit` again.
        """
        self._journal.commit()
        decided, self._round = self._round, _Round()
        is_all = self._is_complete and not self._scheduler.pending
        given = [step for step in decided.steps if isinstance(step, events.JobAssigned)] if is_all else []
        self.effects.last = {event.host: (event.num, event.attempt) for event in given}
        for step in decided.steps:
            if isinstance(step, partial):
                step()
            else:
                self.effects.act(step)
                self._observe(step)
        self.effects.check_delivered()

    def deadline(self) -> float | None:
        """Return the monotonic time at which something must be decided even without a new fact."""
        return self._scheduler.deadline()

    def restore(self, reader: ReadableJournal) -> list[int]:
        """Restore the state of a run from its journal, before the first `decide`. Returns the jobs that have not returned.

        An attempt stays assigned to its host. The host's welcome shows whether the attempt is in its spool. If it is, the run
        waits for it. If not, it is sent again. The caller journals `Scheduler.resume`.
        """
        effects = self.effects
        effects.reader = reader
        scheduler = self._scheduler
        for _, event in reader.events():
            scheduler.apply(event)
            if isinstance(event, events.RunStarted) and effects.ownership is not None:
                effects.ownership.resume(event.at)
            elif isinstance(event, events.JobAssigned):
                effects.assigned[f"{event.num}.{event.attempt}"] = event.host
            elif isinstance(event, (events.JobRequeued, events.JobReturned)):
                effects.assigned.pop(f"{event.num}.{event.attempt}", None)
        for num, state in scheduler.jobs.items():
            effects.jobs[num] = effects.from_journal(num)
            if state.ended is not None:
                stored = reader.result(num, state.attempt)
                if stored is not None:
                    effects.stored[num] = stored
        return list(scheduler.jobs)

    # -- requests ------------------------------------------------------------------------------------------------

    def _take_submit(self, at: float, job: requests.QueuedJob, decided: _Round) -> None:
        self.effects.jobs[job.num] = job
        self._journal.put_job(job.num, job.overrides, str(job.output_dir), job.payload or b"", job.spec)
        decided.add(self._scheduler.submit(at, job.num, job.overrides, job.spec.needs))
        if job.failure is not None:
            decided.add(self._scheduler.fail_pending(at, job.num, *job.failure))
        elif self._scheduler.interrupted is not None:
            why = f"cancelled before it started: {self._scheduler.interrupted.why}"
            decided.add(self._scheduler.fail_pending(at, job.num, "cancelled", why))

    def _take_taken_over(self, at: float, taken: requests.TakenOver, decided: _Round) -> None:
        job = taken.job
        self._journal.put_job(job.num, job.overrides, str(job.output_dir), job.payload or b"", job.spec)
        self._journal.put_result(taken.stored)
        decided.add(self._scheduler.take_over(at, taken.returned, taken.of_run, taken.of_num))

    def _take_cancel(self, at: float, item: requests.Cancel, decided: _Round) -> None:
        decided.add(self._scheduler.cancel(at, item.num))
        state = self._scheduler.jobs.get(item.num)
        if state is not None and state.host:
            # This includes a job that has its result, because its process may still be shutting down.
            decided.act(self._links[state.host].cancel, [f"{item.num}.{state.attempt}"])

    def _take_stop(self, at: float, item: requests.Stop, decided: _Round) -> None:
        made = self._scheduler.stop(at, item.num)
        decided.add(made)
        state = self._scheduler.jobs.get(item.num)
        if made and state is not None and state.host in self._stops:
            decided.act(self._links[state.host].stop, [f"{item.num}.{state.attempt}"])

    # -- facts about hosts ---------------------------------------------------------------------------------------

    def _take_connected(self, at: float, fact: facts.Connected, decided: _Round) -> None:
        host = fact.host
        scheduler = self._scheduler
        (self._takes_back.add if fact.takes_back else self._takes_back.discard)(host)
        rebooted = scheduler.hosts[host].boot_id not in ("", fact.boot_id)
        decided.add(scheduler.observe_ready(at, host, fact.slots, fact.python, fact.gpus, fact.boot_id, fact.room))
        if fact.too_small and fact.room is None:
            decided.add(scheduler.observe_unfit(at, host, "resources", fact.too_small, _SIZE_STEP))
        elif fact.too_small:
            self._note(at, host, f"too small for a job as `resources` of the run says it: {fact.too_small}", decided)
        for note in fact.notes:
            self._note(at, host, note, decided, "logout" if note in fact.logout else "")
        decided.add(scheduler.observe_missing(at, host, set(fact.attempts), rebooted))
        link = self._links[host]
        cancelled, stopping = [], []
        for num in sorted(scheduler.hosts[host].jobs):
            job = scheduler.jobs[num]
            if f"{num}.{job.attempt}" not in fact.attempts:
                # It was assigned to the host but never arrived. Send it again as the same attempt.
                decided.act(self.effects.send, num, job.attempt, host)
            if job.is_cancelled:
                cancelled.append(f"{num}.{job.attempt}")
            elif job.is_stopping:
                stopping.append(f"{num}.{job.attempt}")
        if cancelled:
            decided.act(link.cancel, cancelled)
        (self._stops.add if fact.stops else self._stops.discard)(host)
        if stopping and fact.stops:
            decided.act(link.stop, stopping)
        if scheduler.interrupted is not None:
            decided.act(link.cancel, None, kill=scheduler.interrupted.kill)
        # Cancel attempts that were replaced, or that returned long ago, before anything that waits there may start.
        fenced = [attempt for attempt in fact.attempts if scheduler.current(*_split(attempt), host) is None]
        for start in range(0, len(fenced), 1000):
            decided.act(link.cancel, fenced[start : start + 1000], kind="lost")
        decided.act(link.go)

    def _take_disconnected(self, at: float, fact: facts.Disconnected, decided: _Round) -> None:
        made = self._scheduler.observe_unknown(at, fact.host, fact.why)
        decided.add(made)
        if not made:
            is_new = self._scheduler.hosts[fact.host].phase is HostPhase.CONNECTING
            what = "lost before its agent was ready, and tried again" if is_new else "not reached again yet"
            self._note(at, fact.host, f"{what}: {fact.why}", decided)
        self.effects.prepared.discard(fact.host)
        self.effects.forget_confirmation(fact.host)

    def _take_zygote_told(self, at: float, fact: facts.ZygoteTold, decided: _Round) -> None:
        for note in fact.notes:
            self._note(at, fact.host, note, decided)
        self.effects.prepared.add(fact.host)
        step = None if fact.error is None else _HOST_LACKS.get(fact.error["type"])
        if fact.state == "failed" and fact.error is not None and fact.error["type"] == ENVIRONMENT_FAILED:
            why, _, step = fact.error["message"].removeprefix("environment: ").partition(_NEXT)
            decided.add(self._scheduler.observe_unfit(at, fact.host, "environment", why, step))
        elif fact.state == "failed" and fact.error is not None and fact.error["kind"] == "host" and step is not None:
            phase = "store" if fact.error["type"] == STORE_FAILED else "set up"
            decided.add(self._scheduler.observe_unfit(at, fact.host, phase, fact.error["message"], step))
        elif fact.state == "failed" and fact.error is not None:
            message = f"cannot be prepared on {fact.host}: {fact.error['message']}"
            if self._is_new(fact.host, message):
                trace = fact.error.get("traceback", "")
                decided.add([events.Warned(at, "application", message, trace, None, fact.host)])
            decided.add(self._scheduler.observe_unprepared(at, fact.host, fact.error["message"].partition("\n")[0]))
        elif fact.isolation == "spawn" and fact.why:
            self._note(at, fact.host, f"each job gets a fresh process: {fact.why}", decided)
        elif fact.isolation == "reuse" and fact.why:
            self._note(at, fact.host, fact.why, decided)

    def _take_environment(self, at: float, fact: facts.EnvironmentTold, decided: _Round) -> None:
        if fact.state != "ready":
            if fact.state != "resolving":
                self._building.add(fact.host)
            told = events.EnvironmentChanged(at, fact.host, fact.state, fact.done, fact.total, fact.fetched)
            decided.act(self._observe, told)
        elif fact.host not in self._has_environment:
            self._has_environment.add(fact.host)
            is_new = fact.host in self._building
            decided.add([events.EnvironmentReady(at, fact.host, fact.key, is_new, fact.total, fact.fetched)])

    def _note(self, at: float, host: str, message: str, decided: _Round, topic: str = "") -> None:
        if self._is_new(host, message):
            decided.add([events.Note(at, message, host, topic)])

    def _is_new(self, host: str, message: str) -> bool:
        """Whether this note was not shown before. After a certain number of different notes, a host's notes are ignored."""
        known = self._notes.setdefault(host, set())
        if message in known or len(known) >= limit("notes"):
            return False
        known.add(message)
        return True

    # -- facts about attempts ------------------------------------------------------------------------------------

    def _take_output(self, at: float, fact: facts.Output, decided: _Round) -> None:
        num, attempt = _split(fact.attempt)
        job = self.effects.jobs.get(num)
        if job is None or self.effects.assigned.get(fact.attempt) != fact.host:
            return
        # On a new link, all output comes again from its start. Do not show it twice.
        shown = self.effects.shown.setdefault(fact.attempt, {})
        begin, end = max(fact.offset, shown.get(fact.stream, 0)), fact.offset + len(fact.data)
        if begin >= end:
            return
        shown[fact.stream] = end
        text = fact.data[begin - fact.offset :].decode("utf-8", "surrogateescape")
        file = str(own_folder(job.output_dir, num) / fact.stream)
        arrived = events.OutputArrived(at, num, fact.host, fact.stream, text, attempt, begin, file)
        decided.act(self._observe, arrived)

    def _take_reported(self, at: float, fact: facts.Reported, decided: _Round) -> None:
        num, attempt = _split(fact.attempt)
        for number, report in fact.items:
            if number <= limit("reports"):
                decided.add(self._scheduler.observe_reported(at, fact.host, num, attempt, number, report))

    def _take_ended(self, at: float, fact: facts.Ended, decided: _Round) -> None:
        num, attempt = _split(fact.attempt)
        envelope = fact.envelope
        made = self._scheduler.observe_ended(
            at,
            fact.host,
            num,
            attempt,
            envelope.status,
            envelope.duration,
            None if envelope.error is None else envelope.error.to_json(),
            stopped=envelope.stopped,
            resources_used=None
            if envelope.resources_used is None
            else {**envelope.resources_used.to_json(), "bytes_out": fact.parts.size},
            again=fact.again,
        )
        if not made:
            return
        self.effects.stored[num] = self._journal.put_result(
            StoredResult(num, attempt, fact.host, envelope, fact.parts, fact.payload, fact.file)
        )
        decided.add(made)
        asked = self._scheduler.policies.callbacks()
        for hook in envelope.hooks:
            if hook["callback"] in asked and hook["hook"] in HOST_HOOKS:
                decided.add(hook_events(at, num, attempt, fact.host, hook))
        if asked.get(envelope.abort or ""):
            decided.add(self._scheduler.interrupt(at, f"callback {envelope.abort} asked to abort"))

    def _take_unwritable(self, at: float, fact: facts.Unwritable, decided: _Round) -> None:
        num, attempt = _split(fact.attempt)
        made = self._scheduler.observe_unwritable(at, fact.host, num, attempt, fact.why)
        if not made:
            return
        # It may already have had a result, which a resumed run must not find.
        self.effects.stored.pop(num, None)
        for event in made:
            if isinstance(event, events.JobReturned):
                envelope = Envelope.of_failure(JobError.from_json(event.error or {}))
                self._journal.put_result(StoredResult(num, attempt, fact.host, envelope, NO_PARTS, b"", None))
        decided.act(self._links[fact.host].cancel, [fact.attempt], kind="lost", why=fact.why)
        decided.add(made)

    def _take_collected(self, at: float, fact: facts.Collected, decided: _Round) -> None:
        num, attempt = _split(fact.attempt)
        state = self._scheduler.current(num, attempt, fact.host)
        unmatched = self._unmatched(at, fact, state)
        size = sum(fact.sizes.get(name, 0) for name in ("bytes", "stdout", "stderr"))
        made = self._scheduler.observe_collected(at, fact.host, num, attempt, size)
        if not made:
            # It came a second time, or is not the current attempt. In either case the host may forget it.
            if self._scheduler.current(num, attempt, fact.host) is None:
                decided.act(self.effects.acknowledge, fact.host, fact.attempt)
            return
        told = file_lines((path, f"was refused: {why}") for path, why in fact.refused)
        told += file_lines(fact.noted)
        decided.add([events.Warned(at, "output file", one, "", num, fact.host) for one in told])
        if fact.cut:
            decided.add([events.Warned(at, "shutdown", fact.cut, "", num, fact.host)])
        for stream in ("stdout", "stderr"):
            dropped = fact.sizes.get(stream + "_dropped")
            if dropped:
                cut = f"{stream} was cut: about {dropped} bytes beyond the cap are lost"
                decided.add([events.Warned(at, "output", cut, "", num, fact.host)])
        decided.add(unmatched)
        decided.add(self._left_on_host(at, fact))
        decided.add(made)
        if state is not None and (state.ended or {}).get("again") and num not in self._scheduler.jobs:
            # The user has cancelled the job in the meantime, so the attempt that its host has made must not go on.
            decided.act(self._links[fact.host].cancel, [f"{num}.{attempt + 1}"])

    def _left_on_host(self, at: float, fact: facts.Collected) -> list[events.Event]:
        """Warn of files that stay on a host: of the first ones, and each time that there are ten times as many."""
        if fact.left is None or fact.left.count < self._left_told[fact.host] * 10:
            return []
        self._left_told[fact.host] = max(fact.left.count, 1)
        return [events.Warned(at, "files", left_text(fact.host, fact.left), host=fact.host)]

    def _unmatched(self, at: float, fact: facts.Collected, state: UnfinishedJob | None) -> list[events.Event]:
        """Return the output patterns that matched no file of a completed job. A failed job may not have written its files yet."""
        if not fact.unmatched or state is None or (state.ended or {}).get("status") != "COMPLETED":
            return []
        asked = self.effects.jobs[state.num].spec.outputs
        patterns = (
            tuple(asked[place] for place in fact.unmatched if place < len(asked)) if isinstance(asked, list) else ()
        )
        return [events.OutputsUnmatched(at, state.num, fact.host, patterns)] if patterns else []

    def _take_dropped(self, at: float, fact: facts.Dropped, decided: _Round) -> None:
        num, attempt = _split(fact.attempt)
        if self._scheduler.current(num, attempt, fact.host) is None:
            # The host does not have this attempt, so it cannot give it back.
            return
        if not self._scheduler.was_asked(num, attempt, fact.host):
            self._given_back[fact.host, num] += 1
        if self._given_back[fact.host, num] > limit("given_back"):
            self._break_with(at, fact.host, TooMuch("given_back", self._given_back[fact.host, num]), decided)
            return
        if not fact.asked and not fact.again:
            decided.add(self._scheduler.observe_closed(at, fact.host, fact.why, may_open=True))
        made = self._scheduler.observe_dropped(
            at, fact.host, num, attempt, fact.why, asked=fact.asked, again=fact.again
        )
        decided.add(made)
        if fact.again and made and num not in self._scheduler.jobs:
            decided.act(self._links[fact.host].cancel, [f"{num}.{attempt + 1}"])

    def _break_with(self, at: float, host: str, why: TooMuch, decided: _Round) -> None:
        """Give up a host that broke a limit over several messages."""
        told = f"it sent more than the limit: {why}"
        decided.add(self._scheduler.give_up(at, host, told, for_good=True))
        decided.act(self._links[host].cancel, None, kind="lost", why=told)


def _split(attempt: str) -> tuple[int, int]:
    num, _, number = attempt.partition(".")
    return int(num), int(number)
