"""The loop that drives a run: it submits configs while there is room, takes arrivals, and obeys interrupts.

Rule: jobs and results do not wait for each other. Arrivals are taken before anything more is submitted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from launcher.runs import record as run_record

if TYPE_CHECKING:
    from launcher.session.run_session import RunSession

__all__ = ["drive", "drive_from"]

#: (config, overrides) of a job that is not yet submitted.
Source = tuple[Any, Sequence[str]]

#: If a list has at most this many jobs, all of them are made before the first is sent, while the hosts are being connected. The configs
#: of a longer list are journalled together, and then again with their jobs, because making a hundred thousand jobs takes seconds.
_AT_ONCE = 500


def drive(session: RunSession, sources: Iterable[Source], task: Any, *, detach: bool) -> None:
    """Submit everything, and take everything. A sequence of sources is journalled completely before its first job is sent.

    Args:
        detach: submit everything, and detach as soon as the hosts have it.
    """
    is_planned = isinstance(sources, Sequence)
    if isinstance(sources, Sequence):
        total = str(session.next_num - session.setup.first_num + len(sources))
        is_continued = session.setup.continues is not None
        if (
            not is_continued
            and len(sources) <= _AT_ONCE
            and all(config is not None for config, _ in sources)
            and not session.interrupts
        ):
            # Each config is pickled once, and journalled as what is sent.
            made = [session.setup.job(num, task, *one) for num, one in enumerate(sources, session.next_num)]
            session.submit_made(made, is_complete=True)
            sources = ()
        blobs = run_record.planned_blobs(session.next_num, sources, session.setup.pickler.dumps_here)
        session.engine.record(meta={"total": total}, blobs=blobs)
        if is_continued:
            session.take_over(sources, task)
    drive_from(session, iter(sources), task, detach=detach, is_planned=is_planned)


def drive_from(session: RunSession, source: Iterator[Source], task: Any, *, detach: bool, is_planned: bool) -> None:
    """Like `drive`, for the rest of the sources.

    Args:
        is_planned: whether the journal has all of them.
    """
    if not is_planned:
        session.engine.record(meta={"open": str(session.next_num)})
    if task is session.setup.task:
        # It was pickled for all jobs when the run began, and counts as it was then.
        task = None
    if not _Loop(session, source, task, is_planned=is_planned, is_asked_to_detach=detach).run() and session.interrupts:
        session.detach_if_must()
        raise session.interrupts.error()


@dataclasses.dataclass
class _Loop:
    """One call of `drive`.

    Attributes:
        is_planned: whether the journal has the whole source, so that detaching need not wait for its end.
        is_asked_to_detach: whether to detach as soon as the hosts have everything.
    """

    session: RunSession
    source: Iterator[Source]
    task: Any
    is_planned: bool
    is_asked_to_detach: bool
    has_more: bool = True

    def run(self) -> bool:
        """Run until everything has returned or the run is detached. Returns whether it is detached, or should have been."""
        while self.has_more or not self.session.engine.is_idle:
            if self._step():
                return True
        return False

    def _step(self) -> bool:
        """Submit, then take. Returns whether the run is detached."""
        session, engine, interrupts = self.session, self.session.engine, self.session.interrupts
        is_detaching = (self.is_asked_to_detach or bool(interrupts.hangup)) and not interrupts
        if is_detaching:
            engine.lift_limit()
        if self.has_more and not self._submit_some(without_pause=is_detaching):
            self.has_more = False
            if not self.is_planned and not interrupts:
                engine.record(meta={"open": ""})
        is_complete = not self.has_more or not (self.is_asked_to_detach or self.is_planned)
        if is_detaching and not interrupts and is_complete:
            if interrupts.hangup:
                session.detach_at_hangup()
            session.detach()
            return not interrupts
        if not engine.is_idle and not is_detaching:
            session.receive_next(0.5 if not self.has_more else 0.05)
        return False

    def _submit_some(self, *, without_pause: bool) -> bool:
        """Submit while there is room and nothing has arrived. Returns whether there may be more to submit."""
        session, engine, interrupts = self.session, self.session.engine, self.session.interrupts
        while engine.has_room and not interrupts:
            if not without_pause and (interrupts.hangup or not engine.arrivals.empty()):
                break
            try:
                # A user's generator may wait for anything.
                with interrupts.users_code(raise_at=1):
                    config, overrides = next(self.source)
            except StopIteration:
                return False
            except KeyboardInterrupt:
                if not interrupts.has_raised:
                    interrupts.add_ctrl_c()
                return False
            if session.next_num in session.taken:
                session.next_num += 1
                continue
            session.submit_made([session.setup.job(session.next_num, self.task, config, overrides)])
        return not interrupts
