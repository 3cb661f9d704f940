"""What an agent keeps of what jobs report, what it sends, and how it asks a job to stop."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from remote_agent.agent.jobs import reports as reports_module
from remote_agent.agent.jobs.reports import Pace
from remote_agent.agent.spool import attempt as attempt_module
from remote_agent.agent.spool.attempts import Attempts
from remote_agent.protocol.report import Report
from remote_agent.shared.report_ring import STOP, RingWriter, has_mark
from tests.remote_agent.agent.test_agent_machine import spec
from tests.remote_agent.stepped_agent import Peer, SteppedAgent


class StillPace(Pace):
    """A pace whose time goes on only when the test says so."""

    now = 0.0

    def __init__(self, now: float) -> None:
        super().__init__(StillPace.now)

    def allowed(self, now: float, kept: int) -> int:
        """As at the test's time."""
        return super().allowed(StillPace.now, kept)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[SteppedAgent]:
    """An agent with two slots."""
    monkeypatch.setattr(StillPace, "now", 0.0)
    monkeypatch.setattr(reports_module, "Pace", StillPace)
    made = SteppedAgent()
    yield made
    made.close()


def start(host: SteppedAgent, num: int = 0) -> Peer:
    """A controller, and a job that runs."""
    peer = host.controller()
    peer.say({"t": "job", "spec": spec(attempt_id=f"{num}.1", num=num)}, b"payload")
    host.settle()
    return peer


def folder(host: SteppedAgent, attempt: str = "0.1") -> str:
    """Where the job reports."""
    return os.path.join(host.agent.paths.spool, "reports", attempt)


class Job:
    """A process of the job that reports."""

    def __init__(self, host: SteppedAgent, attempt: str = "0.1") -> None:
        self.ring = RingWriter(folder(host, attempt))
        self.at = 0.0

    def report(self, step: int, at: float | None = None, **values: Any) -> None:
        """One report."""
        self.at = self.at + 1.0 if at is None else at
        self.ring.write(json.dumps(Report(step, values, self.at).to_json()).encode())


def turn(host: SteppedAgent, seconds: float = 0.0) -> None:
    """The agent looks after the jobs; so many seconds have gone by for the pace of reports."""
    StillPace.now += seconds
    host.agent._next_poll = 0.0
    host.settle()


def heard(peer: Peer, attempt: str = "0.1") -> list[tuple[int, int]]:
    """(number, step) of each report that came."""
    frames = [header for header in peer.all("reports") if header["attempt"] == attempt]
    return [(number, Report.from_json(report).step) for header in frames for number, report in header["items"]]


def test_the_pace_allows_a_burst_and_then_less_the_more_was_kept() -> None:
    """Ten a second at first, five after a thousand, and so on."""
    pace = Pace(0.0)
    assert pace.allowed(0.0, 0) == 100
    pace.use(100)
    assert pace.allowed(0.05, 100) == 0
    assert pace.allowed(1.01, 100) == 10
    pace.use(10)
    assert pace.allowed(2.02, 1000) == 5
    pace.use(5)
    assert pace.allowed(3.03, 2000) == 2
    assert pace.allowed(1e9, 10**9) == 2
    pace.use(200)
    assert pace.allowed(1e9, 0) == 0


def test_reports_are_sent_while_the_job_runs_and_numbered(host: SteppedAgent) -> None:
    """In order, each once."""
    peer = start(host)
    job = Job(host)
    job.report(0, loss=1.0)
    job.report(1, loss=0.5)
    turn(host)
    assert heard(peer) == [(1, 0), (2, 1)]
    job.report(2, loss=0.25)
    turn(host)
    turn(host)
    assert heard(peer) == [(1, 0), (2, 1), (3, 2)]


def test_of_many_reports_a_part_is_kept_and_the_last_one(host: SteppedAgent) -> None:
    """The first hundred, and then as many as the time allows; the last one comes as soon as it may."""
    peer = start(host)
    job = Job(host)
    for step in range(120):
        job.report(step)
    turn(host)
    assert [step for _, step in heard(peer)] == list(range(100))
    turn(host, seconds=0.11)
    assert heard(peer)[100:] == [(101, 119)]
    for step in range(120, 1000):
        job.report(step)
    turn(host)
    assert len(heard(peer)) == 101
    turn(host, seconds=0.11)
    assert heard(peer)[-1] == (102, 999)


def test_the_last_report_comes_before_the_result(host: SteppedAgent) -> None:
    """Also where many were made just before it, which there was no time to read."""
    peer = start(host)
    job = Job(host)
    for step in range(500):
        job.report(step)
    ((zygote, process),) = host.jobs()
    process.finish(b"result")
    zygote.ended(process, 0)
    host.settle()
    assert heard(peer)[-1][1] == 499
    names = [frame.header["t"] for frame in peer.frames]
    assert len(names) - names[::-1].index("reports") <= names.index("final")


def test_what_a_killed_job_has_reported_is_not_lost(host: SteppedAgent) -> None:
    """It is in the ring in the moment in which the call returns."""
    peer = start(host)
    Job(host).report(7, loss=0.5)
    ((zygote, process),) = host.jobs()
    zygote.ended(process, 9)
    host.settle()
    assert heard(peer) == [(1, 7)]


def test_the_processes_of_a_job_report_side_by_side(host: SteppedAgent) -> None:
    """In the order of their times. One that stands still loses nothing."""
    peer = start(host)
    first, second = Job(host), Job(host)
    first.report(1, at=1.0)
    second.report(2, at=2.0)
    first.report(3, at=3.0)
    turn(host)
    assert [step for _, step in heard(peer)] == [1, 2, 3]
    second.report(4, at=2.5)
    turn(host)
    assert [step for _, step in heard(peer)] == [1, 2, 3, 4]


def test_another_controller_gets_the_last_reports_under_the_same_numbers(host: SteppedAgent) -> None:
    """Those that came meanwhile, and those that the first one has had: it may not have stored them."""
    peer = start(host)
    job = Job(host)
    job.report(0)
    turn(host)
    peer.close()
    host.settle()
    for step in range(1, 250):
        job.report(step)
        turn(host, seconds=1.0)
    later = host.controller()
    turn(host)
    assert heard(later) == [(step + 1, step) for step in range(250)]
    job.report(250)
    turn(host)
    assert heard(later)[-1] == (251, 250)


def test_only_the_last_reports_are_kept(host: SteppedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log counts the others as dead, and the numbers go on."""
    monkeypatch.setattr(attempt_module, "MAX_REPORTS", 5)
    peer = start(host)
    job = Job(host)
    dead = host.agent.attempts.log.dead
    for step in range(20):
        job.report(step)
    turn(host)
    peer.close()
    assert host.agent.attempts.log.dead > dead
    later = host.controller()
    assert heard(later) == [(number, number - 1) for number in range(16, 21)]


def test_a_later_agent_knows_what_was_kept(host: SteppedAgent) -> None:
    """The log says it: the numbers go on, and no record of a ring is read twice. A rewritten log says the same."""
    start(host)
    first, second = Job(host), Job(host)
    first.report(0, at=1.0)
    second.report(1, at=2.0)
    turn(host)
    for _ in range(2):
        log = Attempts(host.agent.attempts.log.path, "b", *([lambda *_: None] * 7))
        log.replay()
        known = log.get("0.1")
        assert known is not None
        assert [number for number, _ in known.reports.kept] == [1, 2]
        steps = [json.loads(log.log.read(reference))["step"] for _, reference in known.reports.kept]
        assert steps == [0, 1]
        assert sorted(known.reports.places.values()) == [1, 1]
        assert known.reports.latest == 2.0
        log.stop()
        log.close()
        host.agent.attempts.compact()


def test_a_later_agent_reads_no_report_twice(host: SteppedAgent) -> None:
    """Also not of a ring whose records it does not know any more."""
    peer = start(host)
    old, job = Job(host), Job(host)
    old.report(0, at=1.0)
    job.report(1, at=2.0)
    turn(host)
    attempt = host.agent.attempts.get("0.1")
    host.agent.reports._unkept.clear()
    attempt.reports.places = {name: place for name, place in attempt.reports.places.items() if name in job_name(job)}
    old.report(2, at=3.0)
    job.report(3, at=4.0)
    turn(host)
    assert [step for _, step in heard(peer)] == [0, 1, 2, 3]


def job_name(job: Job) -> str:
    """The name of its ring."""
    return os.path.basename(os.readlink(f"/proc/self/fd/{job.ring.fd}"))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"at":1,"values":{"a":[]},"step":1}', b"[" * 2000])
def test_what_is_no_report_is_skipped(host: SteppedAgent, data: bytes) -> None:
    """What a job writes can do no harm to others."""
    peer = start(host)
    job = Job(host)
    job.ring.write(data)
    job.report(1)
    turn(host)
    assert heard(peer) == [(1, 1)]


def test_only_so_many_processes_of_a_job_are_read(host: SteppedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that starts a process for each report costs the agent no more than that."""
    monkeypatch.setattr(reports_module, "_MAX_RINGS", 2)
    peer = start(host)
    for step in range(5):
        Job(host).report(step)
    turn(host)
    assert len(heard(peer)) == 2


def test_the_rings_go_with_the_process(host: SteppedAgent) -> None:
    """What was kept is in the log until the controller has acknowledged the result."""
    peer = start(host)
    Job(host).report(1)
    ((zygote, process),) = host.jobs()
    process.finish(b"result")
    zygote.ended(process, 0)
    host.settle()
    assert not os.path.exists(folder(host))
    assert not host.agent.reports.is_reading
    peer.close()
    later = host.controller()
    assert heard(later) == [(1, 1)]
    assert [header["attempt"] for header in later.all("final")] == ["0.1"]
    later.say({"t": "ack", "attempts": ["0.1"]})
    host.settle()
    later.close()
    assert heard(host.controller()) == []


def test_a_job_that_runs_is_asked_to_stop_by_a_mark(host: SteppedAgent) -> None:
    """Asked twice, it is the same. A process that begins later finds it, too."""
    peer = start(host)
    for _ in range(2):
        peer.say({"t": "stop", "attempts": ["0.1", "9.1"]})
        host.settle()
    assert has_mark(folder(host), STOP)
    assert [job.attempt for _, job in host.jobs()] == ["0.1"]


def test_a_job_that_waits_is_cancelled_by_a_stop(host: SteppedAgent) -> None:
    """Nothing of it runs."""
    peer = start(host)
    for num in (1, 2):
        peer.say({"t": "job", "spec": spec(attempt_id=f"{num}.1", num=num)}, b"payload")
    host.settle()
    peer.say({"t": "stop", "attempts": ["2.1"]})
    host.settle()
    (final,) = peer.all("final")
    assert final["attempt"] == "2.1"
    assert (final["envelope"]["error"]["kind"], final["envelope"]["error"]["message"]) == (
        "cancelled",
        "stopped before it started",
    )
    assert host.forks == ["0.1", "1.1"]


def test_a_stop_after_the_outcome_changes_nothing(host: SteppedAgent) -> None:
    """The application has ended, and no mark is made that its end would take for an answer."""
    peer = start(host)
    ((zygote, process),) = host.jobs()
    process.finish(b"result")
    host.settle()
    peer.say({"t": "stop", "attempts": ["0.1"]})
    host.settle()
    assert not os.path.exists(folder(host))
    zygote.ended(process, 0)
    host.settle()
    (final,) = peer.all("final")
    assert final["envelope"]["status"] == "COMPLETED"


def test_a_disk_that_takes_no_mark_is_told(host: SteppedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job goes on, and the user reads why."""
    peer = start(host)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reports_module, "mark", full)
    peer.say({"t": "stop", "attempts": ["0.1"]})
    host.settle()
    notes = [header["message"] for header in peer.all("fatal")]
    assert any("job 0.1: it cannot be asked to stop" in note for note in notes)
