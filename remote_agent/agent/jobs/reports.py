"""What jobs report: it is read from their rings, kept in the log, and sent to the controller. A job that should stop is told so.

Rule: a job waits for none of it. Of many reports a part is kept, and the last one always: at most ten a second, after a thousand of them at
most five, after two thousand at most two and a half, and so on. A report is in the log's file before it is sent, so it has the same number
for every controller. The last reports of a job are sent before its result.
"""

import json
import os
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

from remote_agent.agent.jobs.queue import JobQueue
from remote_agent.agent.link.controller import Controller
from remote_agent.agent.link.outbox import Piece
from remote_agent.agent.spool.attempt import Attempt
from remote_agent.agent.spool.attempts import Attempts
from remote_agent.agent.spool.log import Reference
from remote_agent.agent.spool.paths import SpoolPaths
from remote_agent.protocol import messages, wire
from remote_agent.protocol.report import Report
from remote_agent.shared.disk import remove_tree
from remote_agent.shared.report_ring import STOP, RingReader, is_ring, mark

__all__ = ["Pace", "Reports", "report_frames"]

#: How many reports may be kept at once, and how many seconds it takes until another one may be.
_BURST = 100
_INTERVAL = 0.1
#: After so many kept reports, the interval is twice as long.
_DOUBLED_AFTER = 1000
#: How many processes of a job may report, and how many reports go into one message.
_MAX_RINGS = 1000
_PER_MESSAGE = 100


class Pace:
    """Says how many of a job's reports may be kept. Times are monotonic."""

    def __init__(self, now: float) -> None:
        self._allowed = float(_BURST)
        self._at = now

    def allowed(self, now: float, kept: int) -> int:
        """Return how many may be kept now. `kept`: how many were kept so far."""
        interval = _INTERVAL * 2.0 ** min(kept // _DOUBLED_AFTER, 60)
        self._allowed = min(float(_BURST), self._allowed + max(now - self._at, 0.0) / interval)
        self._at = now
        return max(int(self._allowed), 0)

    def use(self, number: int) -> None:
        """Record that so many were kept."""
        self._allowed -= number


class _Read(NamedTuple):
    """A report as it was read: the time in it, its ring, and its place there."""

    at: float
    ring: str
    place: int
    report: Report


class _Unkept:
    """Of a running attempt: its rings, and the last report of each that waits until it may be kept."""

    def __init__(self, now: float) -> None:
        self.readers: Dict[str, RingReader] = {}
        self.pace = Pace(now)
        self.waiting: List[_Read] = []


class Reports:
    """The reports of all attempts."""

    def __init__(self, paths: SpoolPaths, attempts: Attempts, queue: JobQueue, controller: Controller) -> None:
        self._paths = paths
        self._attempts = attempts
        self._queue = queue
        self._controller = controller
        self._unkept: Dict[str, _Unkept] = {}

    @property
    def is_reading(self) -> bool:
        """Whether a running job has reported, so that there will be more."""
        return bool(self._unkept)

    # -- from jobs -----------------------------------------------------------------------------------------------

    def read(self, attempt: Attempt, now: float, *, is_last: bool = False) -> None:
        """Read what an attempt has reported since the last call, and keep what may be kept. `is_last`: keep the last one in any case."""
        folder = self._paths.reports(attempt)
        try:
            names = [name for name in os.listdir(folder) if is_ring(name)]
        except OSError:
            return  # nothing has reported yet
        if not names or attempt.final is not None:
            return  # after the result, nobody waits for reports
        unkept = self._unkept.get(attempt.id)
        floor = 0.0
        if unkept is None:
            unkept = self._unkept[attempt.id] = _Unkept(now)
            # An earlier agent has read some already. Of a ring that it does not know any more, it has kept what is older.
            floor = attempt.reports.latest
        found = unkept.waiting + self._new(attempt, unkept.readers, folder, sorted(names), floor)
        found.sort(key=lambda one: (one.at, one.ring, one.place))
        allowed = unkept.pace.allowed(now, attempt.reports.last_number)
        kept, rest = found[:allowed], found[allowed:]
        last = list({one.ring: one for one in rest}.values())
        if is_last:
            kept += last
        unkept.waiting = [] if is_last else last
        unkept.pace.use(len(kept))
        for one in kept:
            self._keep(attempt, one)

    def _new(
        self, attempt: Attempt, readers: Dict[str, RingReader], folder: str, names: List[str], floor: float
    ) -> List[_Read]:
        found = []
        for name in names:
            is_known = name in attempt.reports.places
            if name not in readers and len(readers) < _MAX_RINGS:
                readers[name] = RingReader(os.path.join(folder, name), attempt.reports.places.get(name, 0))
            try:
                records = readers[name].read() if name in readers else []
            except OSError:
                continue  # the application has removed it
            for place, data in records:
                report = _report_of(data)
                if report is not None and (is_known or report.at > floor):
                    found.append(_Read(report.at, name, place, report))
        return found

    def _keep(self, attempt: Attempt, one: _Read) -> None:
        """Record a report, and send it if all before it were sent."""
        number = attempt.reports.last_number + 1
        data = json.dumps(one.report.to_json()).encode("ascii")
        self._attempts.record_report(attempt, number, one.ring, one.place, one.at, data)
        if self._controller.link is not None and attempt.reports.sent == number - 1:
            self._controller.say(_message(attempt, [[number, one.report.to_json()]]))
            attempt.reports.sent = number

    def forget(self, attempt: Attempt) -> None:
        """Remove the rings of an attempt whose process is gone. What was kept is in the log."""
        self._unkept.pop(attempt.id, None)
        try:
            remove_tree(self._paths.reports(attempt))
        except OSError:
            pass  # it never reported; or the rest goes with the spool

    # -- to jobs -------------------------------------------------------------------------------------------------

    def on_stop(self, header: messages.Stop, payload: bytes) -> None:
        """Ask attempts to stop. One that waits never starts; one that has its outcome is left alone."""
        for attempt_id in header["attempts"]:
            attempt = self._attempts.get(attempt_id)
            if attempt is None or attempt.final is not None or attempt.outcome is not None:
                continue
            if attempt.state == "queued":
                self._queue.cancel(attempt, "cancelled", "stopped before it started")
                continue
            try:
                mark(self._paths.reports(attempt), STOP)
            except OSError as error:
                self._controller.note("job {}: it cannot be asked to stop: {}".format(attempt.id, error))


def report_frames(attempt: Attempt, read: Callable[[Reference], bytes]) -> Iterator[Piece]:
    """Yield the reports that were not sent over the present link. `read` returns what a record has."""
    while True:
        due = [one for one in attempt.reports.kept if one[0] > attempt.reports.sent][:_PER_MESSAGE]
        if not due:
            return
        items = [[number, json.loads(read(reference).decode("ascii"))] for number, reference in due]
        attempt.reports.sent = due[-1][0]
        yield wire.encode(_message(attempt, items))


def _message(attempt: Attempt, items: List[Any]) -> messages.Reports:
    return {"t": "reports", "attempt": attempt.id, "items": items}


def _report_of(data: bytes) -> Optional[Report]:
    """Return the report in a record; None if something else wrote the record."""
    try:
        return Report.from_json(json.loads(data.decode("utf-8")))
    except (ValueError, RecursionError):
        return None
