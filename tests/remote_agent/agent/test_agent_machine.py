"""The agent as a state machine. Its controllers obey the protocol, break it, disappear, come back and repeat themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from remote_agent.protocol import wire
from remote_agent.protocol.constants import HEARTBEAT
from tests.examples import examples
from tests.remote_agent.stepped_agent import Peer, SteppedAgent
from tests.specs import zygote_spec

#: Bytes that may wait for a controller that reads nothing.
MOST = 8 << 20

CODES = {
    "mark",
    "version",
    "size",
    "crc",
    "json",
    "header",
    "unknown",
    "field",
    "order",
    "run",
    "over",
    "store",
    "manifest",
}

_NAMES = st.sampled_from([f"{num}.{attempt}" for num in range(6) for attempt in (1, 2)])
_TEXTS = st.one_of(st.text(max_size=6), _NAMES, st.sampled_from(["z", "0" * 64, "../x", "\0", "\ud800", "gone", "run"]))
_NUMBERS = st.one_of(
    st.integers(-3, 10), st.sampled_from([2**62, -(2**62), 2**31]), st.floats(allow_nan=False, allow_infinity=False)
)
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=5,
)
_SPEC = {
    "attempt_id": _NAMES,
    "job_id": st.just("j"),
    "zygote": st.just("z"),
    "output_dir": st.just("0"),
}


def _numbers(name: str) -> dict[str, int]:
    num, attempt = name.split(".")
    return {"num": int(num), "attempt": int(attempt)}


#: A job's spec with one field, or one more, of any value.
_SPECS = st.tuples(
    st.fixed_dictionaries(_SPEC),
    st.dictionaries(
        st.sampled_from(
            [
                *_SPEC,
                "num",
                "attempt",
                "timeout",
                "grace",
                "hook_timeout",
                "shutdown_timeout",
                "max_output_bytes",
                "children_timeout",
                "outputs",
                "more",
            ]
        ),
        st.none() | _VALUES,
        max_size=2,
    ),
).map(lambda both: {**both[0], **_numbers(both[0]["attempt_id"]), **both[1]})
_ZYGOTES = st.dictionaries(
    st.sampled_from(
        ["sys_path", "cwd", "environ", "setup", "python", "shared", "code_blob", "isolation", "umask", "controller"]
    ),
    _VALUES,
    max_size=2,
).map(lambda odd: {**zygote_spec().to_json(), **odd})
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "version": st.sampled_from([wire.VERSION, 0, 99]),
    "run": st.sampled_from(["r1", "r2"]),
    "attempts": st.none() | st.lists(_NAMES | _VALUES, max_size=3),
    "attempt": _NAMES | st.none() | _TEXTS,
    "items": st.lists(st.tuples(_TEXTS, _NUMBERS) | _VALUES, max_size=2),
    "kind": st.sampled_from(["cancelled", "timeout", "lost", "x"]),
    "scope": st.sampled_from(["run", "cache"]),
}


@st.composite
def _messages(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A message whose fields usually have the right types."""
    # `finish` is what a controller may say at any time, and ends everything.
    name = draw(st.sampled_from(sorted(set(wire.SCHEMA) - {"finish"})))
    header: dict[str, Any] = {"t": name}
    for field, (types, required) in wire.SCHEMA[name].items():
        if not required and draw(st.booleans()):
            continue
        by_type = {int: st.integers(-3, 2**62), str: _TEXTS, float: _NUMBERS, bool: st.booleans()}
        if field == "spec":
            header[field] = draw(_SPECS if name == "job" else _ZYGOTES)
        elif field in _FIELDS:
            header[field] = draw(_FIELDS[field])
        else:
            header[field] = draw(by_type.get(types[0], _VALUES))
    return header, draw(st.binary(max_size=6))


class AgentMachine(RuleBasedStateMachine):
    """Model: what was started, and the results of jobs. The next controller gets every result that was not acknowledged.

    Whatever comes: the agent turns on, each attempt is forked at most once, a link that breaks the protocol is closed with a
    typed error, what waits for a peer stays small, and a new link works.
    """

    @initialize()
    def begin(self) -> None:
        self.host = SteppedAgent()
        self.owed: dict[str, bytes] = {}
        self.said = b""
        #: Links that may be in the midst of a message.
        self.cut: list[Peer] = []
        self.number = 0
        self.link: Peer = self.host.controller()

    def teardown(self) -> None:
        if not hasattr(self, "host"):
            return
        try:
            self.come()
            assert self.link.all("pong"), self.link.frames
            self.finals_arrive()
        finally:
            self.host.close()

    def say(self, data: bytes, *, on_a_good_link: bool = False) -> None:
        if on_a_good_link and (self.link.is_over or not self.link.reads or self.link in self.cut):
            self.come()
        self.said = data
        self.link.say_bytes(data)
        self.host.settle()

    def finals_arrive(self) -> None:
        """On this link."""
        finals = {frame.header["attempt"]: frame.payload for frame in self.link.frames if frame.header["t"] == "final"}
        for attempt, result in self.owed.items():
            assert finals.get(attempt) == result, (attempt, finals)

    # -- a controller that keeps to the protocol -------------------------------------------------------------------

    @rule()
    def come(self) -> None:
        """A new link is served, and gets every result that was not acknowledged."""
        before, self.link = self.link, self.host.controller()
        self.link.say({"t": "ping", "n": 1})
        self.host.settle()
        assert not self.link.is_over
        assert self.link.all("welcome")
        assert before.is_over or not before.reads
        self.finals_arrive()

    @rule(copies=st.integers(1, 3), num=st.integers(0, 2))
    def send_job(self, copies: int, num: int) -> None:
        """Send one of a few jobs, so that it soon is a known one."""
        self.send_a_job(copies, num, 1)

    @rule(copies=st.integers(1, 3), num=st.integers(0, 5), attempt=st.integers(1, 2))
    def send_a_job(self, copies: int, num: int, attempt: int) -> None:
        """Send a job, perhaps several times, perhaps a known or an acknowledged one."""
        spec = {"attempt_id": f"{num}.{attempt}", "num": num, "attempt": attempt, "job_id": "j", "zygote": "z"}
        self.say(wire.encode({"t": "job", "spec": {**spec, "output_dir": "0"}}, b"p") * copies, on_a_good_link=True)

    @precondition(lambda self: self.owed)
    @rule(which=st.integers(0, 9))
    def acknowledge(self, which: int) -> None:
        """The controller has stored a result."""
        attempt = sorted(self.owed)[which % len(self.owed)]
        self.say(wire.encode({"t": "ack", "attempts": [attempt]}), on_a_good_link=True)
        del self.owed[attempt]

    @rule(kill=st.booleans(), attempt=_NAMES)
    def cancel(self, kill: bool, attempt: str) -> None:
        """Cancel an attempt."""
        self.say(wire.encode({"t": "cancel", "attempts": [attempt], "kill": kill}), on_a_good_link=True)

    # -- jobs ------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.host.jobs())
    @rule(which=st.integers(0, 9), size=st.integers(0, 9), status=st.sampled_from([0, 9, 256]))
    def job_finishes(self, which: int, size: int, status: int) -> None:
        """A job gives a result and ends, in whatever way."""
        jobs = self.host.jobs()
        zygote, job = jobs[which % len(jobs)]
        if not job.is_epilogue:
            self.number += 1
            result = bytes([self.number % 256]) * size
            job.finish(result)
            if not job.is_spoilt:
                self.owed[job.attempt] = result
            self.host.settle()
        zygote.ended(job, status)
        self.host.settle()

    @precondition(lambda self: self.host.jobs())
    @rule(which=st.integers(0, 9), data=st.binary(min_size=1, max_size=30))
    def job_speaks(self, which: int, data: bytes) -> None:
        """A job sends nonsense, and is not believed any more."""
        jobs = self.host.jobs()
        jobs[which % len(jobs)][1].spoil(data)
        self.host.settle()

    # -- one that does not -----------------------------------------------------------------------------------------

    @rule(message=_messages(), is_greeted=st.booleans())
    def say_anything(self, message: tuple[dict[str, Any], bytes], *, is_greeted: bool) -> None:
        """Send any message, on the main link or on one without a hello."""
        header, payload = message
        if is_greeted and header["t"] == "ack":
            self.owed = {key: value for key, value in self.owed.items() if key not in header["attempts"]}
        if is_greeted:
            self.say(wire.encode(header, payload))
            return
        was_over = self.link.is_over
        peer = self.host.connect()
        peer.say(header, payload)
        self.host.settle()
        if peer.is_over:
            assert self.link.is_over == was_over
        if header["t"] == "hello" and not peer.is_over:
            self.link = peer
        elif header["t"] not in ("look", "pong"):
            assert peer.is_over
            assert peer.all("fatal")[-1]["code"] in CODES

    @rule(spec=_SPECS, blob=st.none() | _TEXTS)
    def send_odd_job(self, spec: dict[str, Any], blob: str | None) -> None:
        """Send a job in which one field has any type, or whose payload has any name."""
        self.say(wire.encode({"t": "job", "spec": spec, "payload_blob": blob}, b"p"))

    @rule(key=st.sampled_from(["z", "z2", "z3"]), spec=_ZYGOTES)
    def prepare_oddly(self, key: str, spec: dict[str, Any]) -> None:
        """Prepare an application in which some fields have any type."""
        self.say(wire.encode({"t": "prepare", "zygote": key, "spec": spec}))

    @rule(
        fields=st.dictionaries(
            st.sampled_from(["slots", "gpus", "lease", "run", "version", "live"]), _VALUES, max_size=1
        ),
        payload=st.sampled_from([b"", b"{"]),
    )
    def greet_oddly(self, fields: dict[str, Any], payload: bytes) -> None:
        """Send a hello in which a field has any type."""
        hello = {"t": "hello", "version": wire.VERSION, "run": "r1", "controller": "c", "host": "h", **fields}
        self.say_anything((hello, payload), is_greeted=False)

    @rule()
    def repeat(self) -> None:
        """Send the last message again."""
        self.say(self.said)

    @rule(noise=st.binary(min_size=20, max_size=60))
    def make_noise(self, noise: bytes) -> None:
        """Send bytes that are no frame. The answer is a typed error, and the link is closed."""
        is_clean = self.link not in self.cut and self.link.reads and not self.link.is_over and noise[:2] != b"RL"
        self.say(noise)
        if is_clean:
            assert self.link.is_over
            assert self.link.all("fatal")[-1]["code"] in CODES

    @rule(message=_messages(), cut=st.integers(1, 200), lose=st.booleans())
    def cut_short(self, message: tuple[dict[str, Any], bytes], cut: int, lose: bool) -> None:
        """Send a message without its end. Then the link is lost, or goes on as if nothing had happened."""
        data = wire.encode(*message)
        self.cut.append(self.link)
        self.link.say_bytes(data[: max(1, len(data) - cut)])
        self.host.settle()
        if lose:
            self.link.close()
            self.host.settle()

    @rule(at=st.integers(0, 200), bit=st.integers(0, 7), message=_messages())
    def flip(self, at: int, bit: int, message: tuple[dict[str, Any], bytes]) -> None:
        """Flip a bit of a message's head or header."""
        header, _ = message
        data = bytearray(wire.encode(header))
        data[at % len(data)] ^= 1 << bit
        self.cut.append(self.link)
        self.link.say_bytes(bytes(data))
        self.host.settle()

    @rule(count=st.integers(1, 30), returns=st.booleans())
    def ask_without_reading(self, count: int, returns: bool) -> None:
        """Ask again and again, and read no answer, or read them later."""
        self.link.reads = False
        self.link.say_bytes(wire.encode({"t": "look", "attempt": "0.1"}) * count)
        self.link.say_bytes(wire.encode({"t": "ping", "n": 5}) * count * 20)
        self.host.settle()
        self.link.reads = returns
        self.host.settle()

    # -- what holds at all times -----------------------------------------------------------------------------------

    @invariant()
    def nothing_starts_twice(self) -> None:
        """Each attempt is forked at most once."""
        if hasattr(self, "host"):
            assert len(self.host.forks) == len(set(self.host.forks))

    @invariant()
    def little_waits_for_a_peer(self) -> None:
        """However little it reads."""
        if hasattr(self, "host"):
            for link in self.host.agent.controller._links:
                assert link.outbox.size <= MOST


TestAgentMachine = pytest.mark.slow(AgentMachine.TestCase)
TestAgentMachine.settings = settings(
    max_examples=examples(120),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.fixture
def host() -> Iterator[SteppedAgent]:
    """An agent."""
    made = SteppedAgent()
    yield made
    made.close()


def spec(**more: Any) -> dict[str, Any]:
    """That of a job."""
    names = {"attempt_id": "0.1", "num": 0, "attempt": 1, "job_id": "j", "zygote": "z", "output_dir": "0"}
    return {**names, **more}


HELLO = {"t": "hello", "version": wire.VERSION, "run": "r1", "controller": "c", "host": "h"}


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        ({"t": "job", "spec": spec(), "payload_blob": "../../elsewhere"}, b""),
        ({"t": "job", "spec": spec(outputs=5)}, b""),
        ({"t": "job", "spec": spec(outputs=[5])}, b""),
        ({"t": "job", "spec": spec(output_dir="a\0b")}, b""),
        ({"t": "job", "spec": spec(grace=None)}, b""),
        ({"t": "job", "spec": spec(hook_timeout="x")}, b""),
        ({"t": "job", "spec": spec(shutdown_timeout=-1)}, b""),
        ({"t": "job", "spec": spec(attempt="../../x")}, b""),
        ({"t": "job", "spec": spec(attempt_id="\u0663.1", num=3)}, b""),
        ({"t": "prepare", "zygote": "other", "spec": {**zygote_spec().to_json(), "environ": "text"}}, b""),
        ({"t": "prepare", "zygote": "other", "spec": {**zygote_spec().to_json(), "setup": None}}, b""),
        ({"t": "prepare", "zygote": "other", "spec": {**zygote_spec().to_json(), "sys_path": [5]}}, b""),
        ({"t": "prepare", "zygote": "other", "spec": {**zygote_spec().to_json(), "shared": "../x"}}, b""),
        ({"t": "prepare", "zygote": "other", "spec": {}}, b""),
        ({**HELLO, "lease": -1}, b""),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_malformed_message_ends_only_its_link(host, header, payload):
    """The error names it, nothing of it is kept, and the next link is served."""
    link = host.controller()
    link.say(header, payload)
    host.settle()
    assert link.all("fatal")[-1]["code"] == "field"
    assert link.is_over
    again = host.controller()
    again.say({"t": "job", "spec": spec()}, b"p")
    host.settle()
    ((zygote, job),) = host.jobs()
    job.finish(b"result")
    host.settle()
    zygote.ended(job, 0)
    host.settle()
    assert [final["attempt"] for final in again.all("final")] == ["0.1"]


def test_the_agent_stops_reading_from_a_controller_that_does_not_read(host):
    """Its requests wait in its own pipe, and not here. When it reads again, the agent goes on."""
    link = host.controller()
    link.say({"t": "job", "spec": spec()}, b"p")
    host.settle()
    host.print("0.1", bytes(wire.CHUNK))
    link.reads = False
    asked = b"".join(wire.encode({"t": "look", "attempt": "0.1", "stdout": 0}) for _ in range(200))
    asked += wire.encode({"t": "ping", "n": 9})
    sent = 0
    for _ in range(20):
        sent += link.say_bytes(asked[sent:])
        host.settle()
        (of_agent,) = host.agent.controller._links
        assert of_agent.outbox.size < MOST
    link.reads = True
    host.settle()
    while sent < len(asked):
        sent += link.say_bytes(asked[sent:])
        host.settle()
    assert len(link.all("looked")) == 200
    assert [pong["n"] for pong in link.all("pong")] == [9]


def test_the_link_of_a_controller_that_never_reads_again_is_closed(host, monkeypatch):
    """It goes on sending, but the agent does not read that, so after a heartbeat it counts as dead. The next one is served."""
    link = host.controller()
    link.say({"t": "job", "spec": spec()}, b"p")
    host.settle()
    host.print("0.1", bytes(wire.CHUNK))
    link.reads = False
    link.say_bytes(wire.encode({"t": "look", "attempt": "0.1", "stdout": 0}) * 100)
    host.settle()
    began = time.monotonic()
    for seconds in range(int(HEARTBEAT) + 2):
        link.say_bytes(wire.encode({"t": "ping", "n": seconds}))
        monkeypatch.setattr("time.monotonic", lambda seconds=seconds: began + seconds)
        host.settle()
    assert host.agent.controller._links == []
    assert not host.controller().is_over


def test_a_wrong_hello_does_not_replace_a_link(host):
    """The earlier link is served on."""
    link = host.controller()
    other = host.connect()
    other.say({**HELLO, "lease": -1})
    host.settle()
    assert other.all("fatal")[-1]["code"] == "field"
    link.say({"t": "ping", "n": 7})
    host.settle()
    assert [pong["n"] for pong in link.all("pong")] == [7]


def test_an_acknowledged_job_does_not_start_again(host):
    """Even if a controller sends it twice."""
    link = host.controller()
    for _ in range(2):
        link.say({"t": "job", "spec": spec()}, b"p")
        host.settle()
        for zygote, job in host.jobs():
            job.finish(b"result")
            host.settle()
            zygote.ended(job, 0)
            host.settle()
        link.say({"t": "ack", "attempts": ["0.1"]})
        host.settle()
    assert host.forks == ["0.1"]
