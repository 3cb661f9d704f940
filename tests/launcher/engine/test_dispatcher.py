"""The dispatcher's thread: what waits for what, and what it does when it cannot go on. Its decisions are tested elsewhere."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher import events
from launcher.agents import facts
from launcher.agents.plan import HostPlan
from launcher.agents.receiver import FrameReceiver
from launcher.engine import dispatcher
from launcher.engine.dispatcher import Dispatcher
from launcher.engine.requests import Detach, QueuedJob, Submit, TakenOver
from launcher.engine.scheduling.scheduler import Scheduler
from launcher.errors import JournalError, SessionError
from launcher.runs.journal import Journal, JournalReader, Returned, StoredResult
from remote_agent.protocol import wire
from remote_agent.protocol.result_parts import NO_PARTS
from remote_agent.protocol.specs.job import JobSpec
from tests.specs import envelope, job_spec, zygote_spec

DONE = envelope()
FAILED = envelope(status="FAILED", error={"kind": "exception"})
WELCOME = {
    "t": "welcome",
    "version": wire.VERSION,
    "run": "r1",
    "hostname": "gpu1",
    "boot_id": "b",
    "pid": 1,
    "python": "3.11.2",
    "slots": 2,
    "spool": "/spool",
}


class FakeSession:
    """A connection that records what it is told."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.is_connected = True
        self.said: list[tuple[str, Any]] = []
        #: Jobs with which it came that no other is known.
        self.last: list[str] = []
        self.changed = threading.Condition()

    def _say(self, name: str, what: Any = None) -> None:
        with self.changed:
            self.said.append((name, what))
            self.changed.notify_all()

    def start(self) -> None:
        self._say("start")

    def send_job(self, spec: JobSpec, payload: bytes, *, is_last: bool = False) -> None:
        self._say("job", spec.attempt_id)
        if is_last:
            self.last.append(spec.attempt_id)

    def cancel(self, attempts: list[str] | None, **more: Any) -> None:
        self._say("cancel", attempts)

    def acknowledge(self, attempts: list[str]) -> None:
        self._say("ack", attempts)

    def take_back(self, attempts: list[str]) -> None:
        self._say("take_back", attempts)

    def sync(self, number: int) -> None:
        self._say("sync", number)

    def go(self) -> None:
        self._say("go")

    def finish(self, *, keep: bool = False, interrupted: bool = False) -> None:
        self._say("interrupted" if interrupted else "finish", keep)

    def wait_finished(self, timeout: float) -> bool:
        return self.is_connected

    def close(self) -> None:
        self._say("close")

    def expect(self, name: str, what: Any = None) -> None:
        """Wait until this was sent."""
        with self.changed:
            assert self.changed.wait_for(lambda: (name, what) in self.said, 30), self.said


class Run:
    """A dispatcher with a real journal and fake connections."""

    def __init__(self, folder: Path, hosts: tuple[str, ...] = ("a",)) -> None:
        self.folder = folder
        self.sessions = {host: FakeSession(host) for host in hosts}
        self.scheduler = Scheduler(list(hosts))
        self.journal = Journal(folder / ".launcher")
        self.returned: list[Returned] = []
        self.seen: list[events.Event] = []
        self.changed = threading.Condition()
        self.is_closed = False
        self.woken = 0
        self.dispatcher = Dispatcher(
            self.scheduler,
            self.journal,
            self.sessions,
            self._deliver,
            self._observe,  # type: ignore[arg-type]
            self._wake,
        )

    def _wake(self) -> None:
        with self.changed:
            self.woken += 1
            self.changed.notify_all()

    def _deliver(self, returned: Returned) -> None:
        with self.changed:
            self.returned.append(returned)
            self.changed.notify_all()

    def _observe(self, event: events.Event) -> None:
        with self.changed:
            self.seen.append(event)
            self.changed.notify_all()

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Wait until something was observed or delivered."""
        with self.changed:
            assert self.changed.wait_for(condition, 30), (self.seen, self.returned)
            return condition()

    def job(self, num: int) -> QueuedJob:
        """Make a job."""
        return QueuedJob(num, (f"x={num}",), self.folder / str(num), b"payload", job_spec(num))

    def end_all(self) -> None:
        """End the dispatcher if it runs, and close the journal if it is open."""
        if self.dispatcher.is_running:
            self.dispatcher.close()
        if not self.is_closed:
            self.is_closed = True
            self.dispatcher.close_journal()

    def connect(self, host: str = "a", slots: int = 1, **attempts: str) -> None:
        """A host sends its welcome."""
        self.dispatcher.put_fact(facts.Connected(host, slots, "3.11", (), "boot", attempts, ()))

    def end(self, attempt: str, host: str = "a", payload: bytes = b"v") -> None:
        """An attempt ends, and everything of it arrives."""
        self.dispatcher.put_fact(facts.Ended(host, attempt, DONE, NO_PARTS, payload, None))
        self.dispatcher.put_fact(facts.Collected(host, attempt, (), {}))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A run that soon tries to write its journal again."""
    monkeypatch.setattr(dispatcher, "_JOURNAL_RETRY", 0.01)
    made = Run(tmp_path)
    yield made
    made.end_all()


class TestEnding:
    """Ending the run on the hosts."""

    def test_all_hosts_are_told_of_the_end_before_any_is_waited_for(self, tmp_path):
        """The screen names those that have not ended."""
        run = Run(tmp_path, tuple("abc"))
        order: list[tuple[str, str]] = []
        for name, session in run.sessions.items():
            session._say = lambda what, _=None, name=name: order.append((what, name))  # type: ignore[method-assign]
            session.wait_finished = lambda timeout, name=name: order.append(("wait", name)) or name == "a"  # type: ignore[method-assign]
        run.dispatcher.start()
        assert run.dispatcher.close() == ["b", "c"]
        run.journal.close()
        what = [entry[0] for entry in order]
        assert what.index("wait") > max(place for place, one in enumerate(what) if one == "finish")
        assert what.count("finish") == what.count("close") == 3
        (note,) = [event for event in run.seen if isinstance(event, events.Note)]
        assert note.message == "waiting up to 10 s for hosts to end the run: b, c"


class TestDriving:
    """A run from its first job to its end."""

    def test_nothing_of_the_journal_is_left_beside_its_file(self, run):
        """The reader for jobs that share a folder is closed before the writer."""
        run.dispatcher.start()
        run.connect()
        run.dispatcher.ask(Submit((run.job(0),)))
        run.sessions["a"].expect("job", "0.1")
        assert run.dispatcher.decider.effects.folder_of("a", "0.1") is not None
        run.end("0.1")
        run.wait(lambda: run.returned)
        run.end_all()
        assert [path.name for path in (run.folder / ".launcher").glob("journal.sqlite*")] == ["journal.sqlite"]

    def test_the_last_job_is_said_to_be_the_last(self, run):
        """If the run has said that it has all of them, and each has a host. Else nobody knows whether others follow."""
        run.dispatcher.start()
        run.connect(slots=2)
        run.dispatcher.ask(Submit((run.job(0),)))
        run.sessions["a"].expect("job", "0.1")
        assert run.sessions["a"].last == []
        run.dispatcher.ask(Submit((run.job(1), run.job(2)), is_complete=True))
        run.sessions["a"].expect("job", "2.1")
        run.wait(lambda: run.sessions["a"].last == ["2.1"])

    def test_a_pattern_that_matched_nothing_is_an_event(self, run):
        """Only for completed jobs, and only for patterns that the job was given: a host may send any number."""
        run.dispatcher.start()
        run.connect(slots=3)
        for num, outputs in enumerate((["*.jsn", "*.pt"], ["*.jsn"], True)):
            job = run.job(num)
            job.spec = job.spec._replace(outputs=outputs)
            run.dispatcher.ask(Submit((job,)))
        for num, came in enumerate((DONE, FAILED, DONE)):
            run.sessions["a"].expect("job", f"{num}.1")
            run.dispatcher.put_fact(facts.Ended("a", f"{num}.1", came, NO_PARTS, b"v", None))
            run.dispatcher.put_fact(facts.Collected("a", f"{num}.1", (), {}, (0, 7)))
        run.wait(lambda: len(run.returned) == 3)
        said = [event for event in run.seen if isinstance(event, events.OutputsUnmatched)]
        assert [(event.num, event.host, event.patterns) for event in said] == [(0, "a", ("*.jsn",))]

    def test_files_that_stay_on_a_host_are_told_once_and_when_they_are_many_more(self, run):
        """With a thousand jobs, that is four times. The message says where they are, and what to do."""
        run.dispatcher.start()
        run.connect(slots=5)
        for num, count in enumerate((2, 3, 19, 20, 1000)):
            run.dispatcher.ask(Submit((run.job(num),)))
            run.sessions["a"].expect("job", f"{num}.1")
            left = facts.LeftFiles("/spool/left", count, ("x.npy", "y.npy"))
            run.dispatcher.put_fact(facts.Ended("a", f"{num}.1", DONE, NO_PARTS, b"v", None))
            run.dispatcher.put_fact(facts.Collected("a", f"{num}.1", (), {}, left=left))
        run.wait(lambda: len(run.returned) == 5)
        said = [event.message for event in run.seen if isinstance(event, events.Warned)]
        assert ["2 files" in said[0], "20 files" in said[1], "1,000 files" in said[2]] == [True] * 3
        assert len(said) == 3
        assert "x.npy, y.npy and 998 more" in said[2]
        assert "in /spool/left on a, until 'launcher clean'" in said[0]

    @pytest.mark.parametrize(
        ("refused", "told"),
        [
            (
                [(f"{'d/' * 65}{num}", "too deep") for num in range(400)] + [("a/pipe", "no file"), ("x", "a link")],
                [
                    f"{'d/' * 65}0 was refused: too deep; and 399 more below {'d/' * 64}d",
                    "a/pipe was refused: no file",
                    "x was refused: a link",
                ],
            ),
            ([(f"a/{num}", "no") for num in range(3)], [f"a/{num} was refused: no" for num in range(3)]),
            (
                [(f"{num}", "no") for num in range(25)],
                [f"{num} was refused: no" for num in range(20)] + ["and 5 more"],
            ),
        ],
        ids=["one tree", "few", "many apart"],
    )
    def test_refused_files_are_reported_in_few_lines(self, run, refused, told):
        """Each file is named. Many files of one folder with the same reason are one line with their number."""
        run.dispatcher.start()
        run.connect()
        run.dispatcher.ask(Submit((run.job(0),)))
        run.sessions["a"].expect("job", "0.1")
        run.dispatcher.put_fact(facts.Ended("a", "0.1", DONE, NO_PARTS, b"v", None))
        run.dispatcher.put_fact(facts.Collected("a", "0.1", tuple(refused), {}, ()))
        run.wait(lambda: run.returned)
        assert [event.message for event in run.seen if isinstance(event, events.Warned)] == told

    def test_a_kill_after_the_result_is_a_warning(self, run):
        """It names the host and the job."""
        run.dispatcher.start()
        run.connect()
        run.dispatcher.ask(Submit((run.job(0),)))
        run.sessions["a"].expect("job", "0.1")
        run.dispatcher.put_fact(facts.Ended("a", "0.1", DONE, NO_PARTS, b"v", None))
        run.dispatcher.put_fact(facts.Collected("a", "0.1", (), {}, (), "still running: thread 't'"))
        run.wait(lambda: run.returned)
        (said,) = [event for event in run.seen if isinstance(event, events.Warned)]
        assert (said.source, said.num, said.host, said.message) == ("shutdown", 0, "a", "still running: thread 't'")

    @pytest.mark.slow
    def test_a_job_is_sent_and_comes_back(self, run):
        """It is journalled before it is sent, delivered after its result was journalled, and then acknowledged."""
        run.dispatcher.start()
        run.dispatcher.ask(Submit((run.job(0),)))
        run.connect()
        run.sessions["a"].expect("job", "0.1")
        reader = JournalReader(run.folder / ".launcher")
        assert reader.job(0) == (("x=0",), str(run.folder / "0"), b"payload", job_spec(0))
        run.end("0.1")
        (returned,) = run.wait(lambda: run.returned)
        assert returned.stored is not None
        assert returned.stored.payload == b"v"
        assert reader.result(0, 1) == returned.stored
        run.sessions["a"].expect("ack", ["0.1"])
        assert run.dispatcher.close() == []
        run.sessions["a"].expect("finish", False)

    def test_a_job_of_an_earlier_run_is_taken_over(self, run):
        """The journal has all of it when the call returns. No host gets it or hears of it, and nobody waits for it."""
        run.dispatcher.start()
        run.connect()
        stored = StoredResult(0, 2, "gone", DONE, NO_PARTS, b"v", None)
        returned = events.JobReturned(1.0, 0, 2, "gone", "COMPLETED", 0.5, None, ("x=0",))
        run.dispatcher.take_over([TakenOver(run.job(0), stored, returned, "earlier", 7)])
        reader = JournalReader(run.folder / ".launcher")
        assert reader.job(0) == (("x=0",), str(run.folder / "0"), b"payload", job_spec(0))
        assert reader.result(0, 2) == stored
        assert [event.kind for _, event in reader.events(num=0)] == ["job_queued", "job_taken_over", "job_returned"]
        run.dispatcher.ask(Submit((run.job(1),)))
        run.sessions["a"].expect("job", "1.1")
        run.end("1.1")
        run.wait(lambda: run.returned)
        assert [one.event.num for one in run.returned] == [1]
        assert run.scheduler.counts["COMPLETED"] == 2
        assert run.dispatcher.close() == []

    def test_to_take_over_ends_with_the_run(self, run):
        """If nobody decides any more, the caller does not wait for ever."""
        run.dispatcher.start()
        run.dispatcher.close()
        with pytest.raises(SessionError, match="the run ended while it took over jobs"):
            run.dispatcher.take_over([])

    def test_hosts_are_told_that_the_run_was_interrupted(self, run):
        """They leave no process for later runs then."""
        run.dispatcher.start()
        run.connect()
        run.dispatcher.interrupt("Ctrl-C")
        assert run.dispatcher.close() == []
        run.sessions["a"].expect("interrupted", False)

    def test_events_are_shown_in_the_order_of_the_journal(self, run):
        """Observers get what is in the journal, event by event."""
        run.dispatcher.start()
        run.connect(slots=3)
        for num in range(30):
            run.dispatcher.ask(Submit((run.job(num),)))
        for num in range(30):
            run.sessions["a"].expect("job", f"{num}.1")
            run.end(f"{num}.1")
        run.wait(lambda: len(run.returned) == 30)
        run.dispatcher.close()
        written = [event for _, event in JournalReader(run.folder / ".launcher").events()]
        assert written == run.seen

    def test_output_is_shown_once(self, run):
        """On a new link a host sends all output again. Nobody sees it twice, and nothing from a host that does not
        have the job.
        """
        run.dispatcher.start()
        run.connect()
        run.dispatcher.ask(Submit((run.job(0),)))
        run.sessions["a"].expect("job", "0.1")
        said = [
            ("a", "0.1", b"one \xff", 0),
            ("b", "0.1", b"evil", 5),
            ("a", "0.1", b"one \xfftwo", 0),
            ("a", "0.1", b"three", 8),
        ]
        for host, attempt, data, offset in said:
            run.dispatcher.put_fact(facts.Output(host, attempt, "stdout", data, offset))
        run.end("0.1")
        run.wait(lambda: run.returned)
        run.dispatcher.put_fact(facts.Output("a", "0.1", "stdout", b"late", 13))
        run.dispatcher.close()
        shown = [event for event in run.seen if isinstance(event, events.OutputArrived)]
        assert [(event.data, event.offset, event.attempt) for event in shown] == [
            (b"one \xff", 0, 1),
            (b"two", 5, 1),
            (b"three", 8, 1),
        ]
        assert {event.file for event in shown} == {str(run.folder / "0" / ".launcher" / "stdout")}

    def test_all_jobs_of_a_batch_are_journalled_before_one_is_sent(self, run):
        """If the controller dies after it has sent one, the journal has all of them."""
        there = []
        send = run.sessions["a"].send_job

        def sending(spec, payload, **more):
            reader = JournalReader(run.folder / ".launcher")
            there.append(reader.count_jobs())
            reader.close()
            send(spec, payload, **more)

        run.sessions["a"].send_job = sending
        run.dispatcher.start()
        run.connect(slots=3)
        run.dispatcher.ask(Submit(tuple(run.job(num) for num in range(3))))
        run.sessions["a"].expect("job", "2.1")
        assert there == [3, 3, 3]

    def test_a_job_that_cannot_be_sent_fails_at_once(self, run):
        """It has the given kind and message."""
        run.dispatcher.start()
        run.dispatcher.ask(Submit((dataclasses.replace(run.job(0), failure=("config", "does not compose")),)))
        (returned,) = run.wait(lambda: run.returned)
        assert returned.event.error["kind"] == "config"
        assert returned.event.error["message"] == "does not compose"

    def test_close_names_the_hosts_that_were_not_told(self, run):
        """Those without a link, and those that do not answer."""
        run.dispatcher.start()
        run.connect()
        run.wait(lambda: run.seen)
        run.sessions["a"].is_connected = False
        run.dispatcher.put_fact(facts.Disconnected("a", "reset"))
        run.wait(lambda: [event for event in run.seen if isinstance(event, events.HostUnknown)])
        assert run.dispatcher.close() == ["a"]

    def test_a_defect_does_not_leave_the_caller_waiting(self, run, monkeypatch):
        """The error has the traceback. No job counts as failed, because the hosts have them."""
        run.dispatcher.start()
        run.dispatcher.ask(Submit((run.job(0),)))
        run.wait(lambda: run.seen)
        monkeypatch.setattr(run.scheduler, "plan", lambda at, now: 1 / 0)
        run.connect()
        run.wait(lambda: run.woken)
        assert isinstance(run.dispatcher.crash, ZeroDivisionError)
        (warned,) = [event for event in run.seen if isinstance(event, events.Warned)]
        assert "in <lambda>" in warned.traceback
        assert run.returned == []
        run.dispatcher.put_fact(facts.Opened("a"))

    def test_the_death_of_the_acknowledger_is_reported_too(self, run, monkeypatch):
        """Otherwise hosts would keep everything, and nobody would know why."""
        monkeypatch.setattr("launcher.engine.acknowledger._EVERY", 0.01)
        monkeypatch.setattr("launcher.engine.acknowledger._sync_files", lambda folders: 1 / 0)
        run.dispatcher.start()
        run.dispatcher.ask(Submit((run.job(0),)))
        run.connect()
        run.sessions["a"].expect("job", "0.1")
        run.end("0.1")
        run.wait(lambda: run.woken)
        assert isinstance(run.dispatcher.crash, ZeroDivisionError)
        monkeypatch.setattr("launcher.engine.acknowledger._sync_files", lambda folders: None)

    def test_it_can_detach_while_nothing_can_be_decided(self, run, monkeypatch):
        """It detaches at once and tells no host. Hosts keep what was not acknowledged."""
        run.dispatcher.start()
        run.connect()
        run.dispatcher.ask(Submit((run.job(0),)))
        run.sessions["a"].expect("job", "0.1")

        def full() -> None:
            raise JournalError("journal.sqlite: database or disk is full")

        monkeypatch.setattr(run.journal, "commit", full)
        run.end("0.1")
        run.wait(lambda: run.dispatcher.stalled)
        assert run.dispatcher.detach_at_once(30)
        monkeypatch.undo()
        assert [what for name, what in run.sessions["a"].said if name in ("ack", "finish")] == []
        assert run.returned == []

    def test_detach_returns_the_hosts_that_have_their_jobs(self, run):
        """A host counts after it has confirmed everything that was sent to it."""
        run.dispatcher.start()
        run.connect()
        run.dispatcher.ask(Submit((run.job(0),)))
        run.sessions["a"].expect("job", "0.1")
        run.dispatcher.put_fact(facts.ZygoteTold("a", "ready", None, "fork", "", ()))
        run.dispatcher.ask(Detach("r", "--detach", hurry=False))
        run.sessions["a"].expect("sync", 1)
        assert not run.dispatcher.delivered.is_set()
        run.dispatcher.put_fact(facts.Synced("a", 1))
        assert run.dispatcher.delivered.wait(30)
        assert run.dispatcher.detach() == ["a"]
        assert ("finish", False) not in run.sessions["a"].said


class TestJournalFails:
    """Nothing is decided that cannot be written."""

    def fail(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        """Let commits fail. Returns a function that ends this."""
        whole = run.journal.commit
        full = threading.Event()
        full.set()

        def commit() -> None:
            if full.is_set():
                raise JournalError("journal.sqlite: database or disk is full")
            whole()

        monkeypatch.setattr(run.journal, "commit", commit)
        return full.clear

    def test_it_warns_and_waits_until_the_journal_can_be_written(self, run, monkeypatch):
        """There is one warning, and no job is sent. Afterwards everything happens once and in order."""
        run.dispatcher.start()
        run.connect()
        run.wait(lambda: run.seen)
        free = self.fail(run, monkeypatch)
        run.dispatcher.ask(Submit((run.job(0),)))
        run.wait(lambda: [e for e in run.seen if isinstance(e, events.Warned) and "disk is full" in e.message])
        # These come while nothing can be decided; their order must not change.
        run.dispatcher.put_fact(facts.Started("a", "0.1", 0, 1.0))
        run.end("0.1")
        for _ in range(3):
            run.dispatcher.put_fact(facts.Noted("a", "hello"))
        assert ("job", "0.1") not in run.sessions["a"].said
        assert run.returned == []
        free()
        run.wait(lambda: run.returned)
        run.wait(lambda: [e for e in run.seen if isinstance(e, events.Note) and "written again" in e.message])
        kinds = [event.kind for event in run.seen]
        assert kinds.count("warning") == 1
        assert kinds.index("job_assigned") < kinds.index("attempt_started") < kinds.index("attempt_ended")
        assert len(run.returned) == 1

    def test_it_can_be_closed_while_the_journal_cannot_be_written(self, run, monkeypatch):
        """Ctrl-C ends the run even on a full disk."""
        run.dispatcher.start()
        run.connect()
        run.wait(lambda: run.seen)
        free = self.fail(run, monkeypatch)
        run.dispatcher.ask(Submit((run.job(0),)))
        run.wait(lambda: [e for e in run.seen if isinstance(e, events.Warned)])
        run.dispatcher.close()
        assert not run.dispatcher.is_running
        free()


class TestResume:
    """Another controller continues from the journal alone."""

    def take_over(self, run: Run, *hosts: str) -> tuple[Run, list[int]]:
        """The first controller is gone. Returns the second one, started."""
        run.dispatcher.detach()
        run.end_all()
        second = Run(run.folder, hosts or ("a",))
        unfinished = second.dispatcher.decider.restore(JournalReader(run.folder / ".launcher"))
        second.journal.append(second.scheduler.resume(0.0, "r"))
        second.dispatcher.start()
        return second, unfinished

    @pytest.fixture
    def half_done(self, run: Run) -> Run:
        """Jobs 0 to 4: 0 has returned, 1 has started, 2 was sent, 3 and 4 wait."""
        run.dispatcher.start()
        run.connect()
        for num in range(5):
            run.dispatcher.ask(Submit((run.job(num),)))
        run.sessions["a"].expect("job", "0.1")
        run.end("0.1")
        run.sessions["a"].expect("job", "2.1")
        run.dispatcher.put_fact(facts.Started("a", "1.1", 0, 1.0))
        run.wait(lambda: [e for e in run.seen if isinstance(e, events.AttemptStarted)])
        return run

    def test_jobs_on_the_host_are_waited_for_and_the_rest_is_sent_again(self, half_done):
        """They are sent as the same attempts. Returned jobs are left alone. Jobs that were never sent are sent."""
        second, unfinished = self.take_over(half_done)
        assert unfinished == [1, 2, 3, 4]
        second.connect(**{"0.1": "final", "1.1": "running"})
        session = second.sessions["a"]
        session.expect("job", "2.1")
        session.expect("cancel", ["0.1"])
        session.expect("go")
        assert ("job", "1.1") not in session.said
        assert session.said.index(("cancel", ["0.1"])) < session.said.index(("go", None))
        for num in (1, 2):
            second.end(f"{num}.1")
        for num in (3, 4):
            session.expect("job", f"{num}.1")
            second.end(f"{num}.1")
        second.wait(lambda: len(second.returned) == 4)
        assert [returned.event.num for returned in second.returned] == [1, 2, 3, 4]
        second.end_all()

    @pytest.mark.slow
    def test_a_returned_job_that_comes_again_is_acknowledged(self, half_done):
        """Its host had not heard that it may forget it."""
        second, _ = self.take_over(half_done)
        second.connect(**{"0.1": "final", "1.1": "running", "2.1": "queued"})
        second.end("0.1")
        second.sessions["a"].expect("ack", ["0.1"])
        assert second.returned == []
        second.end_all()

    def test_a_journalled_outcome_is_not_requested_again(self, half_done):
        """Only its files were missing. The result is the one in the journal."""
        half_done.dispatcher.put_fact(facts.Ended("a", "1.1", DONE, NO_PARTS, b"first", None))
        half_done.wait(lambda: [e for e in half_done.seen if isinstance(e, events.AttemptEnded) and e.num == 1])
        second, _ = self.take_over(half_done)
        second.connect(**{"1.1": "final"})
        second.dispatcher.put_fact(facts.Ended("a", "1.1", DONE, NO_PARTS, b"again", None))
        second.dispatcher.put_fact(facts.Collected("a", "1.1", (), {}))
        (returned,) = second.wait(lambda: second.returned)
        assert returned.stored is not None
        assert returned.stored.payload == b"first"
        second.end_all()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["the run's folder", ".launcher", "the journal", "another in its place"])
def test_nothing_is_done_while_the_journal_is_not_in_its_place(run, what):
    """Nothing is delivered, sent or acknowledged, and the user is told. When it is back, everything goes on."""
    run.dispatcher.start()
    run.connect()
    run.dispatcher.ask(Submit((run.job(0),)))
    run.sessions["a"].expect("job", "0.1")
    own = run.folder / ".launcher"
    path = {"the run's folder": run.folder, ".launcher": own}.get(what, own / "journal.sqlite")
    aside = run.folder.with_name(f"{run.folder.name}-aside")
    os.rename(path, aside)
    if what == "another in its place":
        path.write_bytes(aside.read_bytes())
    run.end("0.1")
    run.dispatcher.ask(Submit((run.job(1),)))
    (told,) = run.wait(lambda: [one for one in run.seen if isinstance(one, events.Warned)])
    assert told.source == "journal"
    assert f"{own}/journal.sqlite: it was removed, moved or replaced" in told.message
    assert "put it back as it was" in told.message
    assert run.returned == []
    assert {name for name, _ in run.sessions["a"].said} == {"go", "job", "start"}
    path.unlink(missing_ok=True)
    os.rename(aside, path)
    run.wait(lambda: run.returned)
    run.sessions["a"].expect("ack", ["0.1"])
    run.sessions["a"].expect("job", "1.1")
    reader = JournalReader(own)
    assert reader.returned(0) is not None
    assert [event.num for _, event in reader.events_of("job_returned")] == [0]
    reader.close()


def test_output_that_comes_while_the_run_folder_is_moved_waits(tmp_path, monkeypatch):
    """Nothing is made in its old place, so that a plain `mv` brings it back. Then the output is written. Otherwise it
    stays on its host.
    """
    monkeypatch.setattr(dispatcher, "_JOURNAL_RETRY", 0.01)
    run = Run(tmp_path / "run")
    run.dispatcher.start()
    run.connect(slots=2)
    for num in range(2):
        run.dispatcher.ask(Submit((run.job(num),)))
    for num in range(2):
        run.sessions["a"].expect("job", f"{num}.1")
    plan = HostPlan("r1", 1, None, "z", zygote_spec())
    inbound = FrameReceiver(
        "a", plan, lambda fact: None, run.dispatcher.decider.effects.folder_of, tmp_path / "r", lambda item: None
    )
    inbound.feed(wire.encode(WELCOME))

    def say(num: int, offset: int, text: bytes) -> None:
        header = {"t": "output", "attempt": f"{num}.1", "stream": "stdout", "offset": offset}
        inbound.feed(wire.encode(header, text))

    looked = threading.Semaphore(0)
    in_place = Journal.is_in_place.fget

    def look(journal: Journal) -> bool:
        if threading.current_thread() is reader:
            looked.release()
        return in_place(journal)

    say(0, 0, b"one\n")
    run.folder.rename(tmp_path / "moved")
    say(0, 4, b"two\n")
    reader = threading.Thread(target=say, args=(1, 0, b"other\n"))
    monkeypatch.setattr(Journal, "is_in_place", property(look))
    reader.start()
    for _ in range(3):
        assert looked.acquire(timeout=30)
    assert not run.folder.exists()
    (tmp_path / "moved").rename(run.folder)
    reader.join(30)
    assert (run.folder / "0" / ".launcher" / "stdout").read_bytes() == b"one\ntwo\n"
    assert (run.folder / "1" / ".launcher" / "stdout").read_bytes() == b"other\n"
    folder = run.dispatcher.decider.effects.folder_of("a", "1.1")
    folder.release()
    run.folder.rename(tmp_path / "moved")
    run.dispatcher.detach_at_once(30)
    with pytest.raises(OSError, match="not in its place"):
        say(1, 6, b"more\n")
    assert not run.folder.exists()
    run.end_all()
