"""The controller's link to a host: what it believes, and what it does when the link is broken."""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.agents import connection, facts, link
from launcher.agents.connection import AgentConnection
from launcher.agents.plan import Blob
from launcher.errors import ConnectionLost, HostError, HostUnreachable, UsageError
from launcher.results.output_folder import OutputFolder
from launcher.transports.base import Way
from remote_agent.protocol import wire
from tests.launcher.agents.links import WELCOME, plan
from tests.specs import DONE, job_spec

# -- the threads -----------------------------------------------------------------------------------------------------


class FakeChannel:
    """A channel whose other end is the test."""

    def __init__(self) -> None:
        self.incoming: queue.Queue[bytes] = queue.Queue()
        self.sent = bytearray()
        self.closed = threading.Event()
        self.takes = threading.Event()
        self.takes.set()
        #: What comes a byte at a time, and how much of it came; what comes whenever nothing else does.
        self.drip = b""
        self.dripped = 0
        self.chatter = b""
        #: Each send takes half of a heartbeat.
        self.slow = False

    def send(self, data: bytes) -> None:
        if self.slow:
            self.closed.wait(link.HEARTBEAT / 2)
        while not self.takes.wait(0.02):
            if self.closed.is_set():
                raise ConnectionLost("h", "session", "closed")
        if self.closed.is_set():
            raise ConnectionLost("h", "session", "closed")
        self.sent += data

    def recv(self, size: int) -> bytes:
        while True:
            try:
                return self.incoming.get(timeout=0.02)
            except queue.Empty:
                if not self.closed.is_set() and self.dripped < len(self.drip):
                    self.dripped += 1
                    return self.drip[self.dripped - 1 : self.dripped]
                if not self.closed.is_set() and self.chatter:
                    return self.chatter
                if self.closed.is_set():
                    raise ConnectionLost("h", "session", "the channel was closed") from None

    def stderr(self) -> str:
        return "said on stderr"

    def exit_status(self, timeout: float) -> int | None:
        return None

    def close(self) -> None:
        self.closed.set()

    def say(self, header: dict[str, Any], payload: bytes = b"") -> None:
        self.incoming.put(wire.encode(header, payload))

    @property
    def frames(self) -> list[dict[str, Any]]:
        return [frame.header for frame in wire.Decoder().feed(bytes(self.sent))]


class FakeTransport:
    """A transport that the test connects and breaks."""

    host = "h"
    way: Way | None = None

    def __init__(self) -> None:
        self.errors: list[HostError] = []
        self.channels: queue.Queue[FakeChannel] = queue.Queue()
        self.resets = 0

    def open(self, command: str) -> FakeChannel:
        if self.errors:
            raise self.errors.pop(0)
        channel = FakeChannel()
        self.channels.put(channel)
        return channel

    def reset(self) -> None:
        self.resets += 1

    def close(self) -> None: ...


class Running:
    """A connection with its threads."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.facts: queue.Queue[facts.Fact] = queue.Queue()
        self.transport = FakeTransport()
        self.tell: Callable[[facts.Fact], None] = self.facts.put
        self.session = AgentConnection(
            "h",
            self.transport,
            lambda transport: (transport.open(""), b""),
            lambda: plan(**more),
            lambda fact: self.tell(fact),  # noqa: PLW0108 - a test puts another one there
            lambda host, attempt: OutputFolder(folder / "out"),
            folder / "results",
            "c",
        )

    def fact(self, kind: type) -> Any:
        """Wait for the next fact, which must have this type."""
        fact = self.facts.get(timeout=30)
        assert isinstance(fact, kind), fact
        return fact

    def channel(self) -> FakeChannel:
        """Wait for the next channel that is opened."""
        return self.transport.channels.get(timeout=30)

    def ready(self) -> FakeChannel:
        """Make a link that has begun."""
        channel = self.channel()
        channel.say(WELCOME)
        self.fact(facts.Connected)
        return channel


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A connection that was started, with a short heartbeat and short pauses."""
    monkeypatch.setattr(link, "HEARTBEAT", 0.4)
    monkeypatch.setattr(connection, "_MAX_BACKOFF", 0.06)
    made = Running(tmp_path)
    yield made
    made.session.close()
    assert not made.session._reader.is_alive()


@pytest.mark.slow
class TestThreads:
    """Connecting, watching, and connecting again."""

    def test_a_host_waits_for_its_turn_to_connect(self, running, monkeypatch):
        """With hundreds of hosts, only some connect at the same time. Closing ends the wait."""
        turns_left = threading.Semaphore(0)
        waits = threading.Event()

        def acquire(timeout: float) -> bool:
            waits.set()
            return threading.Semaphore.acquire(turns_left, timeout=min(timeout, 0.01))

        monkeypatch.setattr(turns_left, "acquire", acquire)
        monkeypatch.setattr(running.session._connect_limit, "turns", turns_left)
        running.session.start()
        assert waits.wait(30)
        assert running.transport.channels.empty()
        turns_left.release()
        running.ready()

    def test_a_link_that_ends_is_made_again(self, running):
        """Disconnected has the reason and the text of stderr. The old connection is not used again."""
        running.session.start()
        channel = running.ready()
        assert channel.frames[0]["t"] == "hello"
        channel.incoming.put(b"")
        assert "said on stderr" in running.fact(facts.Disconnected).why
        running.ready()
        assert running.transport.resets == 1

    def test_a_first_connection_that_fails_is_final(self, running):
        """The host is unusable and is not tried again."""
        running.transport.errors = [HostUnreachable("h", "connect", "no route")]
        running.session.start()
        assert running.fact(facts.Unusable).error.message == "no route"
        assert running.session.wait_finished(30)

    def test_a_host_with_jobs_is_tried_again(self, running):
        """The first failure does not make an expected host unusable."""
        running.transport.errors = [HostUnreachable("h", "connect", "no route")] * 3
        running.session.expect()
        running.session.start()
        for _ in range(3):
            assert running.fact(facts.Disconnected).why == "no route"
        running.ready()

    def test_the_link_of_a_silent_host_is_closed(self, running):
        """Pings are sent. Without an answer, the link is closed within the heartbeat and a quarter of it."""
        running.session.start()
        channel = running.ready()
        running.fact(facts.Disconnected)
        assert channel.closed.is_set()
        assert "ping" in [frame["t"] for frame in channel.frames]

    def test_the_link_of_a_host_that_stops_reading_is_closed(self, running):
        """This works although the writer is blocked in a send."""
        running.session.start()
        channel = running.ready()
        channel.takes.clear()
        running.session.send_job(job_spec(), b"x")
        running.fact(facts.Disconnected)
        assert channel.closed.is_set()

    def test_the_link_of_a_host_that_sends_single_bytes_is_closed(self, running):
        """Single bytes are no sign of life, whatever they belong to."""
        running.session.start()
        channel = running.ready()
        channel.drip = wire.encode({"t": "final", "attempt": "0.1", "envelope": DONE}, bytes(1 << 20))
        running.fact(facts.Disconnected)
        assert channel.closed.is_set()
        assert channel.dripped < wire.STEP

    @pytest.mark.slow
    def test_the_link_of_a_host_that_sends_but_does_not_read_is_closed(self, running):
        """Its pings do not make up for what it does not read."""
        running.session.start()
        channel = running.ready()
        channel.takes.clear()
        channel.chatter = wire.encode({"t": "pong", "n": 1})
        running.session.send_job(job_spec(), b"x")
        running.fact(facts.Disconnected)
        assert channel.closed.is_set()

    def test_a_host_that_asks_and_does_not_read_is_refused(self, running):
        """The answers to its requests do not fill the memory here."""
        running.session.start()
        channel = running.ready()
        _wait(lambda: running.session.is_connected)
        made = running.session._link
        channel.takes.clear()
        channel.incoming.put(wire.encode({"t": "ping", "n": 1}) * 20 * link.MAX_REPLIES)
        assert "without reading the answers" in running.fact(facts.Disconnected).why
        assert made._outgoing.qsize() <= link.MAX_REPLIES + 10
        running.ready()

    @pytest.mark.slow
    def test_a_slow_host_that_reads_keeps_its_link(self, running):
        """A long payload on a slow link takes its time, piece by piece."""
        running.session.start()
        channel = running.ready()
        channel.slow = True
        channel.chatter = wire.encode({"t": "pong", "n": 1})
        running.session.send_job(job_spec(attempt=1), bytes(1 << 20))
        _wait(lambda: "job" in [frame["t"] for frame in channel.frames])
        assert not channel.closed.is_set()

    @pytest.mark.slow
    def test_a_host_that_waits_for_us_keeps_its_link(self, running):
        """If the inbox is full, that is our fault, and the link stays."""
        running.session.start()
        channel = running.ready()
        taken = threading.Event()
        held: list[facts.Fact] = []

        def slow(fact: facts.Fact) -> None:
            held.append(fact)
            assert taken.wait(30)
            running.facts.put(fact)

        running.tell = slow
        channel.say({"t": "opened"})
        assert not channel.closed.wait(1.2)
        taken.set()
        running.fact(facts.Opened)

    def test_a_protocol_error_is_a_fact_and_the_host_is_tried_again(self, running):
        """The error says what was wrong."""
        running.session.start()
        channel = running.ready()
        channel.incoming.put(b"garbage, and enough of it to be looked at")
        assert "protocol (mark)" in running.fact(facts.Disconnected).why
        running.ready()

    def test_a_host_whose_agent_refuses_every_time_is_given_up(self, running):
        """This happens after a few times. A result in between resets the count."""
        running.session.start()
        for has_result in (False, False, True, False, False):
            channel = running.ready()
            if has_result:
                channel.say({"t": "final", "attempt": "0.1", "envelope": DONE})
                running.fact(facts.Ended)
            channel.say({"t": "fatal", "code": "store", "message": "No space left"})
            assert "No space left" in running.fact(facts.Disconnected).why
        assert "No space left" in running.fact(facts.Refused).why
        assert running.session.wait_finished(30)

    def test_a_host_whose_agent_breaks_the_protocol_every_time_is_given_up(self, running):
        """Otherwise it would be tried again for ever, because it is never away for long."""
        running.session.start()
        for _ in range(3):
            running.ready().incoming.put(b"garbage, and enough of it to be looked at")
            assert "protocol (mark)" in running.fact(facts.Disconnected).why
        assert "protocol (mark)" in running.fact(facts.Refused).why
        assert running.session.wait_finished(30)

    def test_a_refusal_in_the_same_read_as_the_welcome_is_a_lost_link(self, running):
        """The host was there, and may have got jobs since its welcome."""
        running.session.start()
        refusal = {"t": "fatal", "code": "store", "message": "No space left"}
        running.channel().incoming.put(wire.encode(WELCOME, b"{}") + wire.encode(refusal))
        running.fact(facts.Connected)
        assert "No space left" in running.fact(facts.Disconnected).why
        running.ready()

    def test_a_full_disk_of_the_controller_is_not_the_hosts_fault(self, running, monkeypatch):
        """The link ends with a message that names the file. The host keeps its data and sends it again."""
        running.session.start()
        channel = running.ready()

        def full(*args: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", "/out/stdout")

        with monkeypatch.context() as patch:
            patch.setattr(OutputFolder, "write_stream", full)
            channel.say({"t": "output", "attempt": "0.1", "stream": "stdout", "offset": 0}, b"x")
            why = running.fact(facts.Disconnected).why
        assert "cannot be written here: /out/stdout: No space left on device" in why
        running.ready()

    def test_finish_ends_the_connection(self, running):
        """When the agent confirms, nobody connects again."""
        running.session.start()
        channel = running.ready()
        running.session.finish()
        channel.say({"t": "fatal", "code": "over", "message": "the run is over"})
        assert running.session.wait_finished(30)
        assert running.transport.channels.empty()

    @pytest.mark.parametrize("is_welcome", [True, False])
    def test_an_agent_that_ends_unasked_is_a_lost_link(self, running, is_welcome):
        """The agent had no controller for a long time, and ended just when we connected. The next connection starts
        another one.
        """
        running.session.start()
        channel = running.ready() if is_welcome else running.channel()
        channel.say({"t": "fatal", "code": "over", "message": "the run is over"})
        assert "its agent ended" in running.fact(facts.Disconnected).why
        running.ready()

    def test_messages_without_a_link_are_dropped(self, running):
        """The next welcome says what is missing, and the decider sends it then."""
        running.session.send_job(job_spec(), b"x")
        running.session.start()
        channel = running.ready()
        channel.incoming.put(b"")
        running.fact(facts.Disconnected)
        assert "job" not in [frame["t"] for frame in channel.frames]

    def test_a_long_payload_is_sent_before_its_job(self, running):
        """It is sent as a blob, under its hash."""
        running.session.start()
        channel = running.ready()
        running.session.send_job(job_spec(attempt=1), bytes(connection.MAX_INLINE + 1))
        channel.say({"t": "ping", "n": 5})
        job = _wait(lambda: next((frame for frame in channel.frames if frame["t"] == "job"), None))
        blobs = [frame for frame in channel.frames if frame["t"] == "blob"]
        assert {blob["sha256"] for blob in blobs} == {job["payload_blob"]}
        assert sum(1 for _ in blobs) == 5

    def test_the_host_learns_which_content_cannot_be_sent(self, running, tmp_path):
        """Whatever waits for it there fails with the reason."""

        def read() -> bytes:
            raise UsageError("app.py has changed since the run began")

        running.session._plan_of = lambda: plan(manifest="m", contents={"m": Blob("m", 1, read)})
        running.session.start()
        channel = running.ready()
        channel.say({"t": "missing", "sha256": [], "manifest": "m"})
        frame = _wait(lambda: next((frame for frame in channel.frames if frame["t"] == "withheld"), None))
        assert "has changed" in frame["message"]


def _wait(condition: Callable[[], Any]) -> Any:
    """Wait until the condition holds."""
    pause = threading.Event()
    for _ in range(3000):
        result = condition()
        if result:
            return result
        pause.wait(0.01)
    raise AssertionError("it did not come about")
