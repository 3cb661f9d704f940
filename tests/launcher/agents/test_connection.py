"""The controller's end of a link: what it believes of a host, and what it does when the link is not what it should be."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import queue
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.agents import connection, facts, receiver
from launcher.agents.connection import AgentConnection
from launcher.agents.plan import Blob, HostPlan
from launcher.agents.receiver import FrameReceiver
from launcher.engine import requests
from launcher.engine.decider import Decider
from launcher.engine.requests import QueuedJob
from launcher.engine.scheduler import Policies, Scheduler
from launcher.errors import AgentError, ConnectionLost, HostError, HostUnreachable, UsageError
from launcher.results.output_folder import OutputFolder
from remote_agent.shared import disk, wire
from remote_agent.shared.job_spec import JobSpec
from remote_agent.shared.result_parts import NO_PARTS
from tests.simulation.journal import Disk, SimJournal
from tests.specs import DONE, FAILED, envelope, job_spec, zygote_spec

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


def plan(**more: Any) -> HostPlan:
    """What the host is told."""
    return HostPlan("r1", 1, None, "z", zygote_spec(), **more)


class Link:
    """A FrameReceiver with everything around it, and what came of it."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.facts: list[facts.Fact] = []
        self.sent: list[wire.Frame] = []
        self.folder = OutputFolder(folder / "0")
        self.wanted = {"0.1"}
        self.results = folder / "results"
        self.receiver = FrameReceiver("h", plan(**more), self.facts.append, self._folder_of, self.results, self._send)

    def _folder_of(self, host: str, attempt: str) -> OutputFolder | None:
        return self.folder if attempt in self.wanted else None

    def _send(self, item: Iterator[bytes] | bytes) -> None:
        data = item if isinstance(item, bytes) else b"".join(item)
        self.sent += wire.Decoder().feed(data)

    def hear(self, header: dict[str, Any], payload: bytes = b"") -> list[facts.Fact]:
        """A frame comes; returns the facts that follow."""
        before = len(self.facts)
        self.receiver.feed(wire.encode(header, payload))
        return self.facts[before:]

    def welcome(self) -> Link:
        """A link that has begun."""
        self.hear(WELCOME)
        self.facts.clear()
        return self


@pytest.fixture
def link(tmp_path: Path) -> Link:
    """A link that has begun."""
    return Link(tmp_path).welcome()


def part(data: bytes, offset: int = 0) -> dict[str, Any]:
    """How a part of a result is described."""
    return {"offset": offset, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


class TestWhatIsBelieved:
    """Frames that keep to the protocol become facts."""

    def test_welcome_in_parts(self, tmp_path):
        """Attempts may need several frames; the fact comes with the last."""
        link = Link(tmp_path)
        assert link.hear({**WELCOME, "more": True}, b'{"0.1": "running"}') == []
        (fact,) = link.hear({**WELCOME, "gpus": ["a"], "notes": ["n"]}, b'{"1.1": "final"}')
        assert fact == facts.Connected("h", 2, "3.11.2", ("a",), "b", {"0.1": "running", "1.1": "final"}, ("n",))

    def test_an_attempt_from_start_to_end(self, link):
        """Started, outcome with its bytes, collected with its sizes."""
        assert link.hear({"t": "started", "attempt": "0.1", "slot": 0, "at": 5}) == [facts.Started("h", "0.1", 0, 5.0)]
        (outcome,) = link.hear({"t": "final", "attempt": "0.1", "envelope": DONE, "parts": {"value": part(b"v")}}, b"v")
        assert isinstance(outcome, facts.Ended)
        assert (outcome.envelope, outcome.payload, outcome.file) == (envelope(), b"v", None)
        link.hear({"t": "files", "attempt": "0.1", "items": [["a/b", 0o644, 2], ["c", 0o755, 1]]}, b"abc")
        (collected,) = link.hear(
            {"t": "files_end", "attempt": "0.1", "refused": [["x", "a link"]], "sizes": {"files": 2}}
        )
        assert collected == facts.Collected("h", "0.1", (("x", "a link"),), {"files": 2})
        assert (link.folder.path / "a" / "b").read_bytes() == b"ab"
        (more,) = link.hear({"t": "files_end", "attempt": "1.1", "refused": [], "unmatched": [0, 2]})
        assert more.unmatched == (0, 2)

    def test_what_was_killed_after_a_result_is_told_in_words(self, link):
        """What a host says of it is no more than names and a number: it is cut, and nothing else passes."""
        end = {"t": "files_end", "attempt": "0.1", "refused": []}
        cut = {"running": ["thread 'a'", "x" * 999] + ["y"] * 999, "seconds": 2.4, "is_cancelled": True}
        (late,) = link.hear({**end, "cut": cut})
        assert "2 s after its result" in late.cut
        assert "thread 'a', x" in late.cut
        assert "grace gives it more time" in late.cut
        assert len(late.cut) < 2000
        (left,) = link.hear({**end, "cut": {"running": ["process sleep (pid 7)"], "seconds": None}})
        assert ": process sleep (pid 7). " in left.cut
        with pytest.raises(AgentError, match="files_end"):
            link.hear({**end, "cut": {"running": [], "seconds": "long"}})

    def test_a_large_result_comes_in_chunks(self, link):
        """It gets its name when it is whole and its digest was checked."""
        data = b"x" * 10
        for offset in (0, 6):
            link.hear(
                {"t": "chunk", "attempt": "0.1", "kind": "result", "size": 10, "offset": offset},
                data[offset : offset + 6],
            )
        assert not (link.results / "0.1.result").exists()
        (outcome,) = link.hear({"t": "final", "attempt": "0.1", "envelope": DONE, "parts": {"value": part(data)}})
        assert isinstance(outcome, facts.Ended)
        assert outcome.file is not None
        assert Path(outcome.file).read_bytes() == data
        assert Path(outcome.file).stat().st_mode & 0o077 == 0

    @pytest.mark.parametrize("said", ["as it is", "otherwise", "not at all"])
    def test_a_large_result_is_checked_as_it_comes(self, link, said, monkeypatch):
        """What the first chunk says of the parts saves reading them again, and is believed no more than the rest."""
        read_again: list[tuple[int, int]] = []

        def digest_of(file: Any, at: int, size: int) -> Any:
            read_again.append((at, size))
            return disk.digest_of(file, at, size)

        monkeypatch.setattr("launcher.runs.result_file.digest_of", digest_of)
        value, cfg = b"v" * 7, b"cfg"
        parts = {"value": part(value), "cfg": part(cfg, len(value))}
        told = {
            "as it is": parts,
            "otherwise": {"value": part(b"x" * 4), "cfg": part(cfg, 2)},
            "not at all": None,
        }[said]
        for offset in range(0, 10, 4):
            header = {"t": "chunk", "attempt": "0.1", "kind": "result", "size": 10, "offset": offset}
            link.hear({**header, "parts": told} if offset == 0 else header, (value + cfg)[offset : offset + 4])
        (outcome,) = link.hear({"t": "final", "attempt": "0.1", "envelope": DONE, "parts": parts})
        assert outcome.envelope == envelope()
        assert Path(outcome.file).read_bytes() == value + cfg
        assert read_again == ([] if said == "as it is" else [(0, 7), (7, 3)])

    @pytest.mark.parametrize("name", ["value", "cfg"])
    def test_a_large_result_that_was_altered_is_no_success(self, link, name):
        """Also where the digest was said beforehand."""
        value, cfg = b"v" * 7, b"cfg"
        parts = {"value": part(value), "cfg": part(cfg, len(value))}
        sent = {"value": b"vvvvvvX" + cfg, "cfg": value + b"cfX"}[name]
        link.hear({"t": "chunk", "attempt": "0.1", "kind": "result", "size": 10, "offset": 0, "parts": parts}, sent)
        (outcome,) = link.hear({"t": "final", "attempt": "0.1", "envelope": DONE, "parts": parts})
        assert outcome.envelope.status == "FAILED"
        assert f"the digest of {name} does not match" in outcome.envelope.error.message
        assert list(link.results.iterdir()) == []

    def test_what_is_fenced_off_is_not_written(self, link):
        """Neither files nor streams nor results of an attempt that is not the job's any more."""
        link.wanted.clear()
        link.hear({"t": "output", "attempt": "0.1", "stream": "stdout", "offset": 0}, b"x")
        link.hear({"t": "files", "attempt": "0.1", "items": [["a", 0, 1]]}, b"x")
        link.hear({"t": "chunk", "attempt": "0.1", "kind": "file", "path": "a", "size": 1, "offset": 0}, b"x")
        link.hear({"t": "chunk", "attempt": "0.1", "kind": "result", "size": 1, "offset": 0}, b"x")
        assert not link.folder.path.exists()
        assert not link.results.exists()

    def test_a_new_link_begins_every_file_anew(self, link, tmp_path):
        """Part of a file that a broken link left does not stand in the way."""
        link.hear({"t": "chunk", "attempt": "0.1", "kind": "file", "path": "a", "size": 4, "offset": 0}, b"ol")
        link.receiver.attempts.close()
        again = Link(tmp_path).welcome()
        again.folder = link.folder
        for offset, data in ((0, b"ne"), (2, b"w!")):
            again.hear({"t": "chunk", "attempt": "0.1", "kind": "file", "path": "a", "size": 4, "offset": offset}, data)
        assert (link.folder.path / "a").read_bytes() == b"new!"
        assert link.folder.refused == []

    def test_code_is_sent_as_it_is_asked_for(self, tmp_path):
        """The manifest, then what is missing: small contents together, large ones in chunks."""
        contents = {str(n): Blob(str(n), size, lambda size=size: bytes(size)) for n, size in enumerate((3, 5, 600_000))}
        link = Link(tmp_path, manifest=Blob("m", 2, lambda: b"mm"), contents=contents, files=3).welcome()
        link.hear({"t": "missing", "sha256": [], "manifest": "m"})
        (sent,) = link.hear({"t": "missing", "sha256": ["0", "1", "2"], "manifest": None})
        assert sent == facts.Sent("h", 3, 3, 600_010)
        assert [frame.header["t"] for frame in link.sent] == ["blob", "blob", "blob", "blob", "blobs"]

    def test_a_host_that_asks_for_the_same_again_and_again_is_refused(self, tmp_path):
        """A few times may be needed; without end it is a way to keep us busy."""
        link = Link(tmp_path, manifest=Blob("m", 2, lambda: b"mm"), contents={"0": Blob("0", 1, lambda: b"0")}, files=1)
        link.welcome()
        for _ in range(4):
            link.hear({"t": "missing", "sha256": [], "manifest": "m"})
            link.hear({"t": "missing", "sha256": ["0"], "manifest": None})
        with pytest.raises(AgentError, match="again and again"):
            for _ in range(1000):
                link.hear({"t": "missing", "sha256": ["0"], "manifest": None})

    def test_a_sync_goes_round_twice(self, link):
        """What could not be spooled is given back behind the first answer."""
        assert link.hear({"t": "pong", "n": receiver.SYNC + 10}) == []
        assert link.sent[-1].header == {"t": "ping", "n": receiver.SYNC + 11}
        assert link.hear({"t": "pong", "n": receiver.SYNC + 11}) == [facts.Synced("h", 5)]
        assert link.hear({"t": "pong", "n": 3}) == []


class TestWhatIsNot:
    """A hostile or broken host is contained."""

    @pytest.mark.parametrize(
        ("parts", "payload"),
        [
            ({"value": part(b"other")}, b"value"),
            ({"value": {"offset": 0, "size": 5}}, b"value"),
            ({"value": {"offset": 3, "size": 5, "sha256": ""}}, b"value"),
            ({"value": 5}, b"value"),
            ({"value": {**part(b"value"), "offset": "0"}}, b"value"),
            ({"value": {**part(b"value"), "offset": -1}}, b"value"),
            ({"value": part(b"value"), "codec": 5}, b"value"),
            ({"value": part(b"value"), "cfg": part(b"x", 5)}, b"value"),
            ({"value": part(b"value" * connection.MAX_REPLIES)}, b""),
        ],
    )
    def test_a_result_that_is_not_what_it_is_said_to_be_is_no_success(self, link, parts, payload):
        """Truncated or altered: that job fails, by name; the link goes on."""
        (outcome,) = link.hear({"t": "final", "attempt": "0.1", "envelope": DONE, "parts": parts}, payload)
        assert isinstance(outcome, facts.Ended)
        assert outcome.envelope.status == "FAILED"
        assert outcome.envelope.error.kind == "host"
        assert "truncated or altered" in outcome.envelope.error.message
        assert (outcome.parts, outcome.payload, outcome.file) == (NO_PARTS, b"", None)
        assert link.hear({"t": "opened"}) == [facts.Opened("h")]

    def test_a_large_result_whose_chunks_stop_short_is_no_success(self, link):
        """And leaves no file."""
        link.hear({"t": "chunk", "attempt": "0.1", "kind": "result", "size": 9, "offset": 0}, b"half")
        (outcome,) = link.hear(
            {"t": "final", "attempt": "0.1", "envelope": DONE, "parts": {"value": part(b"half, and")}}
        )
        assert isinstance(outcome, facts.Ended)
        assert outcome.envelope.status == "FAILED"
        assert list(link.results.iterdir()) == []

    def test_an_exception_that_did_not_survive_costs_nothing_more(self, link):
        """The error stands as text."""
        (outcome,) = link.hear(
            {"t": "final", "attempt": "0.1", "envelope": FAILED, "parts": {"value": part(b"x")}}, b"y"
        )
        assert isinstance(outcome, facts.Ended)
        assert outcome.envelope.error.kind == "exception"
        assert outcome.parts == NO_PARTS

    @pytest.mark.parametrize(
        "header",
        [
            WELCOME,
            {"t": "hello", "version": 1, "run": "r", "controller": "c", "host": "h"},
            {"t": "started", "attempt": "x", "slot": 0, "at": 0},
            {"t": "started", "attempt": "0.1", "slot": -1, "at": 0},
            {"t": "started", "attempt": "../../../x.1", "slot": 0, "at": 0},
            {"t": "started", "attempt": "²." + "1", "slot": 0, "at": 0},
            {"t": "started", "attempt": "0." + "1" * 40, "slot": 0, "at": 0},
            {"t": "dropped", "attempt": "0", "why": ""},
            {"t": "output", "attempt": "0.1", "stream": "../x", "offset": 0},
            {"t": "output", "attempt": "0.1", "stream": "stdout", "offset": -1},
            {"t": "output", "attempt": "0.1", "stream": "stdout", "offset": 1 << 62},
            {"t": "files", "attempt": "0.1", "items": [["a", 0, 5]]},
            {"t": "files", "attempt": "0.1", "items": [["a", 0, -1], ["b", 0, 1]]},
            {"t": "files", "attempt": "0.1", "items": [["a", 0]]},
            {"t": "files", "attempt": "0.1", "items": [5]},
            {"t": "chunk", "attempt": "0.1", "kind": "no such", "size": 1, "offset": 0},
            {"t": "chunk", "attempt": "0.1", "kind": "file", "size": 1, "offset": 0},
            {"t": "chunk", "attempt": "0.1", "kind": "file", "path": "a", "mode": "x", "size": 1, "offset": 0},
            {"t": "chunk", "attempt": "0.1", "kind": "result", "size": -1, "offset": 0},
            {"t": "chunk", "attempt": "0.1", "kind": "result", "size": 9, "offset": 0, "parts": []},
            {"t": "chunk", "attempt": "0.1", "kind": "result", "size": 1 << 60, "offset": 0},
            {"t": "chunk", "attempt": "0.1", "kind": "result", "size": 10, "offset": 5},
            {"t": "final", "attempt": "0.1", "envelope": {}},
            {"t": "final", "attempt": "0.1", "envelope": {**DONE, "status": "UNKNOWN"}},
            {"t": "final", "attempt": "0.1", "envelope": {**DONE, "error": FAILED["error"]}},
            {"t": "final", "attempt": "0.1", "envelope": {**FAILED, "error": None}},
            {"t": "final", "attempt": "0.1", "envelope": {**FAILED, "error": {"kind": "no such"}}},
            {"t": "final", "attempt": "0.1", "envelope": {**FAILED, "error": "text"}},
            {"t": "final", "attempt": "0.1", "envelope": {**DONE, "duration": "1"}},
            {"t": "final", "attempt": "0.1", "envelope": {**DONE, "duration": -1}},
            {"t": "final", "attempt": "0.1", "envelope": {**DONE, "hooks": [1]}},
            {"t": "final", "attempt": "0.1", "envelope": {**DONE, "abort": {}}},
            {"t": "files_end", "attempt": "0.1", "refused": [["a"]]},
            {"t": "files_end", "attempt": "0.1", "refused": [], "sizes": {"stdout": "x"}},
            {"t": "zygote", "zygote": "z", "state": "no such"},
            {"t": "zygote", "zygote": "z", "state": "failed"},
            {"t": "zygote", "zygote": "z", "state": "failed", "error": {"kind": 5}},
            {"t": "missing", "sha256": ["0" * 64]},
            {"t": "fatal", "code": "version", "message": "another one"},
        ],
        ids=lambda header: json.dumps(header)[:70],
    )
    def test_what_does_not_keep_to_the_protocol_ends_the_link(self, link, header):
        """With a typed error that names the host; no fact comes of it."""
        with pytest.raises(AgentError, match=r"^h: ") as caught:
            link.hear(header)
        assert caught.value.host == "h"
        assert link.facts == []

    @pytest.mark.parametrize("slots", [0, -5, 10**9])
    def test_slots_that_are_none(self, tmp_path, slots):
        """A host does not get all jobs by saying so."""
        with pytest.raises(AgentError, match="slots"):
            Link(tmp_path).hear({**WELCOME, "slots": slots})

    @pytest.mark.parametrize("payload", [b"[]", b'{"x": "queued"}', b'{"1.1.1": ""}', b"\xff", b"{"])
    def test_attempts_that_are_none(self, tmp_path, payload):
        """Their names become files and numbers."""
        with pytest.raises(AgentError):
            Link(tmp_path).hear(WELCOME, payload)

    def test_another_run(self, tmp_path):
        """An agent of somebody else's run is not spoken to."""
        with pytest.raises(AgentError, match="belongs to run 'other'"):
            Link(tmp_path).hear({**WELCOME, "run": "other"})

    def test_a_ping_before_welcome(self, tmp_path):
        """A sign of life of an agent that waits for our hello: this machine was slow."""
        link = Link(tmp_path)
        link.hear({"t": "ping", "n": 1})
        assert link.facts == []
        assert [frame.header for frame in link.sent] == [{"t": "pong", "n": 1}]

    def test_anything_before_welcome(self, tmp_path):
        """Order matters."""
        with pytest.raises(AgentError, match="before welcome"):
            Link(tmp_path).hear({"t": "opened"})

    def test_what_came_before_the_nonsense_counts(self, link):
        """In the same bytes."""
        good = wire.encode({"t": "final", "attempt": "0.1", "envelope": DONE})
        with pytest.raises(AgentError, match="mark"):
            link.receiver.feed(good + b"x" * 50)
        assert len(link.facts) == 1


_ATTEMPTS = st.sampled_from(["0.1", "0.2", "1.1", "9.9", "x", "", "../0.1", "99999999999999999999.1", "0.1\0"])
_NUMBERS = st.one_of(
    st.integers(-3, 10), st.sampled_from([2**62, -(2**62)]), st.floats(allow_nan=False, allow_infinity=False)
)
_TEXTS = st.one_of(
    st.text(max_size=6), st.sampled_from(["stdout", "result", "file", "ready", "failed", "COMPLETED", "\ud800", "../x"])
)
_ERRORS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["exception", "lost", "no such"])},
    optional={"message": _TEXTS, "traceback": _TEXTS, "causes": st.lists(_NUMBERS, max_size=1)},
)
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=5,
)
_ENVELOPES = st.fixed_dictionaries(
    {"status": st.sampled_from(["COMPLETED", "FAILED", 5])},
    optional={
        "error": st.none() | _ERRORS,
        "duration": _NUMBERS | st.none(),
        "hooks": st.lists(
            st.dictionaries(st.sampled_from(["hook", "callback", "ok", "error"]), _VALUES, max_size=4), max_size=2
        ),
        "abort": st.none() | _TEXTS,
        "started_at": _VALUES,
    },
)
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "attempt": _ATTEMPTS,
    "envelope": _ENVELOPES,
    "parts": st.dictionaries(st.sampled_from(["value", "cfg", "codec"]), st.just(part(b"")) | _VALUES, max_size=2),
    "kind": st.sampled_from(["file", "result", "x"]),
    "path": _TEXTS,
    "items": st.lists(st.tuples(_TEXTS, _NUMBERS, _NUMBERS), max_size=2),
    "refused": st.lists(st.tuples(_TEXTS, _TEXTS), max_size=2),
    "sizes": st.dictionaries(_TEXTS, _NUMBERS, max_size=2),
    "error": st.none() | _ERRORS,
    "state": st.sampled_from(["ready", "failed", "x"]),
    "stream": st.sampled_from(["stdout", "stderr", "x"]),
    "code": st.sampled_from(["note", "over", "x"]),
    "manifest": st.none() | _TEXTS,
    "run": st.just("r1"),
    "version": st.just(wire.VERSION),
}


_BY_TYPE = {int: st.integers(-3, 2**62), str: _TEXTS, float: _NUMBERS, bool: st.booleans()}
_NAMES = st.sampled_from(sorted(wire.SCHEMA))
_PAYLOADS = st.binary(max_size=6)


@st.composite
def messages(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A message with fields of the right kind, most of the time."""
    name = draw(_NAMES)
    header: dict[str, Any] = {"t": name}
    for field, (types, required) in wire.SCHEMA[name].items():
        if not required and draw(_BY_TYPE[bool]):
            continue
        header[field] = draw(_FIELDS[field] if field in _FIELDS else _BY_TYPE.get(types[0], _VALUES))
    return header, draw(_PAYLOADS)


class Everything:
    """A link with a real decider behind it: the whole way of what a host says, but for threads."""

    def __init__(
        self, folder: Path, spec: dict[str, Any] | None = None, output_dir: Callable[[int], Path] | None = None
    ) -> None:
        where = output_dir or (lambda num: folder / str(num))
        self.cancelled: list[Any] = []
        self.scheduler = Scheduler(["h", "other"], Policies(retries={"*": 3}))
        self.disk = Disk()
        self.delivered: list[requests.Returned] = []
        links: dict[str, Any] = {"h": self, "other": self}
        self.decider = Decider(
            self.scheduler,
            SimJournal(self.disk),
            links,
            lambda host, attempt: None,
            self.delivered.append,
            lambda event: None,
            self,
        )
        jobs = [QueuedJob(num, (), where(num), b"p", job_spec(num, **(spec or {}))) for num in range(3)]
        self.receiver = FrameReceiver(
            "h", plan(), self.tell, self.decider.effects.folder_of, folder / "results", lambda item: None
        )
        self.decider.decide([requests.Submit(job) for job in jobs])
        self.decider.commit()

    def wall(self) -> float:
        return 1.0

    def monotonic(self) -> float:
        return 1.0

    def tell(self, fact: facts.Fact) -> None:
        self.decider.decide([fact])
        self.decider.commit()

    def send_job(self, spec: JobSpec, payload: bytes) -> None: ...

    def cancel(self, attempts: list[str] | None, **more: Any) -> None:
        self.cancelled.append((attempts, more.get("kind")))

    def sync(self, number: int) -> None: ...

    def go(self) -> None: ...


def test_what_a_host_was_not_to_send_is_not_taken(tmp_path):
    """The run's own caps hold here, too: no output files where none were asked for, and no endless stdout."""
    everything = Everything(tmp_path, {"outputs": False, "max_output_bytes": 100})
    everything.receiver.feed(wire.encode(WELCOME))
    feed = everything.receiver.feed
    feed(wire.encode({"t": "files", "attempt": "0.1", "items": [["loot", 0o644, 1]]}, b"x"))
    chunk = {"t": "chunk", "attempt": "0.1", "kind": "file", "path": "large", "size": 2, "offset": 0}
    feed(wire.encode(chunk, b"x"))
    feed(wire.encode({"t": "output", "attempt": "0.1", "stream": "stdout", "offset": 0}, b"y" * 5000))
    folder = everything.decider.effects.folder_of("h", "0.1")
    assert [path for path, _ in folder.refused] == ["loot", "large", ".launcher/stdout"]
    assert [path.name for path in (tmp_path / "0").rglob("*") if path.is_file()] == ["stdout"]
    assert (tmp_path / "0" / ".launcher" / "stdout").stat().st_size < 2000


def _in_the_way(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a file")
    return path


#: What makes a job's folder one that can never be written, and how the system calls it.
NEVER: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a name over 255 bytes": (lambda folder: folder / ("x=" + "a" * 300), "File name too long"),
    "such a name below a folder that is not there yet": (
        lambda folder: folder / "a" / ("ä" * 130),
        "File name too long",
    ),
    "a path over 4096 bytes": (lambda folder: folder.joinpath(*["d" * 200] * 25), "File name too long"),
    "a file in its place": (lambda folder: _in_the_way(folder / "0"), "Not a directory|File exists"),
    "a file above it": (lambda folder: _in_the_way(folder / "lr") / "0" / "1", "Not a directory"),
    "a link that leads to itself": (
        lambda folder: _linked(folder / "loop"),
        "Too many levels of symbolic links|File exists",
    ),
    "no name at all": (lambda folder: folder / "a\0b", "null"),
}
#: Frames of an attempt, any of which may be the first that this controller hears of it.
FIRST: dict[str, tuple[dict[str, Any], bytes]] = {
    "started": ({"t": "started", "slot": 0, "at": 0}, b""),
    "output": ({"t": "output", "stream": "stdout", "offset": 0}, b"x"),
    "files": ({"t": "files", "items": [["done.txt", 0o644, 1]]}, b"x"),
    "chunk": ({"t": "chunk", "kind": "file", "path": "model", "size": 2, "offset": 0}, b"x"),
    "final": ({"t": "final", "envelope": DONE}, b""),
}


def _linked(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(path)
    return path


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("never", NEVER)
def test_a_folder_that_can_never_be_written_is_the_jobs_error(tmp_path, never, first):
    """At once, by the system's own words, and tried nowhere else; the link goes on, and so do the other jobs."""
    place, words = NEVER[never]
    folder = tmp_path / "run"
    everything = Everything(tmp_path, output_dir=lambda num: folder / "ok" if num else place(folder))
    everything.receiver.feed(wire.encode(WELCOME))
    if everything.receiver.attempts._folder("0.1") is None:
        pytest.fail("the job is not this host's")
    header, payload = FIRST[first]
    everything.receiver.feed(wire.encode({**header, "attempt": "0.1"}, payload))
    (returned,) = everything.delivered
    assert returned.event.num == 0
    assert returned.event.status == "FAILED"
    error = returned.event.error
    assert error["kind"] == "host"
    assert "its output directory cannot be written here: " in error["message"]
    assert re.search(words, error["message"])
    assert (["0.1"], "lost") in everything.cancelled
    # All that comes of it later is fenced off, and another job of the same host is not concerned.
    for header, payload in FIRST.values():
        everything.receiver.feed(wire.encode({**header, "attempt": "0.1"}, payload))
    assert len(everything.delivered) == 1
    num = next(iter(everything.scheduler.hosts["h"].jobs))
    everything.receiver.feed(wire.encode({"t": "final", "attempt": f"{num}.1", "envelope": DONE}))
    everything.receiver.feed(wire.encode({"t": "files_end", "attempt": f"{num}.1", "refused": []}))
    assert [one.event.status for one in everything.delivered] == ["FAILED", "COMPLETED"]


def test_a_folder_that_is_spoilt_after_the_result_is_the_jobs_error_too(tmp_path):
    """Also in the journal: whoever takes the run up does not find a success."""
    everything = Everything(tmp_path)
    everything.receiver.feed(wire.encode(WELCOME))
    everything.receiver.feed(wire.encode({"t": "final", "attempt": "0.1", "envelope": DONE}))
    (tmp_path / "0").write_text("a file")
    everything.receiver.feed(wire.encode({"t": "files", "attempt": "0.1", "items": [["a", 0, 1]]}, b"x"))
    (returned,) = everything.delivered
    assert returned.event.status == "FAILED"
    assert "File exists" in returned.event.error["message"]
    assert everything.disk.results[0, 1].envelope.status == "FAILED"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.EIO])
def test_what_may_pass_ends_the_link_and_costs_no_job(tmp_path, monkeypatch, number):
    """A full disk, say: the host keeps what it has, and sends it again."""
    everything = Everything(tmp_path)
    everything.receiver.feed(wire.encode(WELCOME))

    def fail(*args: Any, **more: Any) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(OSError, match="no"):
        everything.receiver.feed(wire.encode({"t": "output", "attempt": "0.1", "stream": "stdout", "offset": 0}, b"x"))
    assert everything.delivered == []


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(messages(), max_size=12), st.booleans())
def test_whatever_a_host_says_the_controller_goes_on(tmp_path_factory, messages, is_welcome):
    """Fuzz: out of order, repeated, malformed, absurd: a typed error for that link, or a decision that makes sense."""
    folder = tmp_path_factory.mktemp("fuzz")
    everything = Everything(folder)
    if is_welcome:
        everything.receiver.feed(wire.encode(WELCOME))
    for header, payload in messages:
        try:
            everything.receiver.feed(wire.encode(header, payload))
        except (AgentError, OSError):
            everything.receiver.attempts.close()
            everything.tell(facts.Disconnected("h", "ended"))
            everything.receiver = FrameReceiver(
                "h",
                plan(),
                everything.tell,
                everything.decider.effects.folder_of,
                folder / "results",
                lambda item: None,
            )
            if is_welcome:
                everything.receiver.feed(wire.encode(WELCOME))
    scheduler = everything.scheduler
    assert len(everything.delivered) + len(scheduler.jobs) == 3
    for host in scheduler.hosts.values():
        assert host.room() >= 0
        assert host.job_seconds is None or (math.isfinite(host.job_seconds) and host.job_seconds >= 0)
    fresh = Scheduler(["h", "other"])
    for _, event in everything.disk.events():
        fresh.apply(event)
    assert fresh.jobs == scheduler.jobs
    assert {path.parts[len(folder.parts)] for path in folder.rglob("*")} <= {"0", "1", "2", "results"}


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
            self.closed.wait(connection.HEARTBEAT / 2)
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
    """A way to a host that the test makes and breaks."""

    host = "h"

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
    """A session with its threads."""

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
        """The next fact, which must be of that kind."""
        fact = self.facts.get(timeout=30)
        assert isinstance(fact, kind), fact
        return fact

    def channel(self) -> FakeChannel:
        """The next channel that is opened."""
        return self.transport.channels.get(timeout=30)

    def ready(self) -> FakeChannel:
        """A link that has begun."""
        channel = self.channel()
        channel.say(WELCOME)
        self.fact(facts.Connected)
        return channel


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A session that was started, with a short heartbeat and short pauses."""
    monkeypatch.setattr(connection, "HEARTBEAT", 0.4)
    monkeypatch.setattr(connection, "_MAX_BACKOFF", 0.06)
    made = Running(tmp_path)
    yield made
    made.session.close()
    assert not made.session._reader.is_alive()


@pytest.mark.slow
class TestThreads:
    """Connecting, watching, connecting again."""

    def test_a_host_waits_for_its_turn_to_connect(self, running, monkeypatch):
        """Of hundreds only some connect at a time; a close ends the wait."""
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
        """Disconnected says why, with what was said on stderr; the connection is not taken up again."""
        running.session.start()
        channel = running.ready()
        assert channel.frames[0]["t"] == "hello"
        channel.incoming.put(b"")
        assert "said on stderr" in running.fact(facts.Disconnected).why
        running.ready()
        assert running.transport.resets == 1

    def test_a_first_connection_that_fails_is_final(self, running):
        """The host is unusable, and nothing is tried again."""
        running.transport.errors = [HostUnreachable("h", "connect", "no route")]
        running.session.start()
        assert running.fact(facts.Unusable).error.message == "no route"
        assert running.session.wait_finished(30)

    def test_a_host_with_jobs_is_tried_again(self, running):
        """One that is expected is not given up by a first failure."""
        running.transport.errors = [HostUnreachable("h", "connect", "no route")] * 3
        running.session.expect()
        running.session.start()
        for _ in range(3):
            assert running.fact(facts.Disconnected).why == "no route"
        running.ready()

    def test_a_silent_host_is_let_go(self, running):
        """Pings go out; without an answer the link is closed within the heartbeat and a quarter of it."""
        running.session.start()
        channel = running.ready()
        running.fact(facts.Disconnected)
        assert channel.closed.is_set()
        assert "ping" in [frame["t"] for frame in channel.frames]

    def test_a_host_that_stops_reading_is_let_go(self, running):
        """Though the writer waits in a send that never ends."""
        running.session.start()
        channel = running.ready()
        channel.takes.clear()
        running.session.send_job(job_spec(), b"x")
        running.fact(facts.Disconnected)
        assert channel.closed.is_set()

    def test_a_host_that_drips_is_let_go(self, running):
        """A byte now and then is no sign of life, whatever it is a part of."""
        running.session.start()
        channel = running.ready()
        channel.drip = wire.encode({"t": "final", "attempt": "0.1", "envelope": DONE}, bytes(1 << 20))
        running.fact(facts.Disconnected)
        assert channel.closed.is_set()
        assert channel.dripped < wire.STEP

    @pytest.mark.slow
    def test_a_host_that_talks_and_does_not_read_is_let_go(self, running):
        """Its pings are no excuse for what it does not take."""
        running.session.start()
        channel = running.ready()
        channel.takes.clear()
        channel.chatter = wire.encode({"t": "pong", "n": 1})
        running.session.send_job(job_spec(), b"x")
        running.fact(facts.Disconnected)
        assert channel.closed.is_set()

    def test_a_host_that_asks_and_does_not_read_is_refused(self, running):
        """What it asks for does not gather here without end."""
        running.session.start()
        channel = running.ready()
        channel.takes.clear()
        channel.incoming.put(wire.encode({"t": "ping", "n": 1}) * 20 * connection.MAX_REPLIES)
        assert "does not take" in running.fact(facts.Disconnected).why
        assert running.session._outgoing.qsize() <= connection.MAX_REPLIES + 10
        running.ready()

    @pytest.mark.slow
    def test_a_slow_host_that_reads_is_not(self, running):
        """A long payload on a slow link: it takes its time, piece by piece."""
        running.session.start()
        channel = running.ready()
        channel.slow = True
        channel.chatter = wire.encode({"t": "pong", "n": 1})
        running.session.send_job(job_spec(attempt=1), bytes(1 << 20))
        _wait(lambda: "job" in [frame["t"] for frame in channel.frames])
        assert not channel.closed.is_set()

    @pytest.mark.slow
    def test_a_host_that_we_keep_waiting_is_not(self, running):
        """A full inbox is our fault: the link stays."""
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

    def test_nonsense_is_a_fact_and_the_host_is_tried_again(self, running):
        """The error names what was wrong."""
        running.session.start()
        channel = running.ready()
        channel.incoming.put(b"garbage, and enough of it to be looked at")
        assert "protocol (mark)" in running.fact(facts.Disconnected).why
        running.ready()

    def test_an_agent_that_refuses_each_time_is_refused(self, running):
        """After a few times the host is given up; a result in between begins the count anew."""
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

    def test_an_agent_that_speaks_nonsense_each_time_is_refused(self, running):
        """It would be tried again without end, and never be away for long enough to be given up."""
        running.session.start()
        for _ in range(3):
            running.ready().incoming.put(b"garbage, and enough of it to be looked at")
            assert "protocol (mark)" in running.fact(facts.Disconnected).why
        assert "protocol (mark)" in running.fact(facts.Refused).why
        assert running.session.wait_finished(30)

    def test_a_refusal_in_one_breath_with_the_welcome_is_a_lost_link(self, running):
        """Not a host that was never there: jobs may have been given to it since its welcome."""
        running.session.start()
        refusal = {"t": "fatal", "code": "store", "message": "No space left"}
        running.channel().incoming.put(wire.encode(WELCOME, b"{}") + wire.encode(refusal))
        running.fact(facts.Connected)
        assert "No space left" in running.fact(facts.Disconnected).why
        running.ready()

    def test_a_full_disk_here_is_not_the_hosts_fault(self, running, monkeypatch):
        """The link ends with a message that says where; what the host has is kept there and comes again."""
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

    def test_finish_ends_it(self, running):
        """When the agent says that it is over, nobody connects again."""
        running.session.start()
        channel = running.ready()
        running.session.finish()
        channel.say({"t": "fatal", "code": "over", "message": "the run is over"})
        assert running.session.wait_finished(30)
        assert running.transport.channels.empty()

    @pytest.mark.parametrize("is_welcome", [True, False])
    def test_an_agent_that_ends_unasked_is_a_lost_link(self, running, is_welcome):
        """It had heard of nobody, and ended in the moment in which we came. The next connection finds another."""
        running.session.start()
        channel = running.ready() if is_welcome else running.channel()
        channel.say({"t": "fatal", "code": "over", "message": "the run is over"})
        assert "its agent ended" in running.fact(facts.Disconnected).why
        running.ready()

    def test_what_is_said_without_a_link_is_not_kept(self, running):
        """The next welcome says what is missing, and the decider sends it then."""
        running.session.send_job(job_spec(), b"x")
        running.session.start()
        channel = running.ready()
        channel.incoming.put(b"")
        running.fact(facts.Disconnected)
        assert "job" not in [frame["t"] for frame in channel.frames]

    def test_a_long_payload_goes_ahead(self, running):
        """As a blob, under its hash."""
        running.session.start()
        channel = running.ready()
        running.session.send_job(job_spec(attempt=1), bytes(connection.MAX_INLINE + 1))
        channel.say({"t": "ping", "n": 5})
        job = _wait(lambda: next((frame for frame in channel.frames if frame["t"] == "job"), None))
        blobs = [frame for frame in channel.frames if frame["t"] == "blob"]
        assert {blob["sha256"] for blob in blobs} == {job["payload_blob"]}
        assert sum(1 for _ in blobs) == 5

    def test_content_that_cannot_be_sent_is_said_to_the_host(self, running, tmp_path):
        """What waits for it there fails, with the reason."""

        def read() -> bytes:
            raise UsageError("app.py has changed since the run began")

        running.session._plan_of = lambda: plan(manifest=Blob("m", 1, read))
        running.session.start()
        channel = running.ready()
        channel.say({"t": "missing", "sha256": [], "manifest": "m"})
        frame = _wait(lambda: next((frame for frame in channel.frames if frame["t"] == "withheld"), None))
        assert "has changed" in frame["message"]


def _wait(condition: Callable[[], Any]) -> Any:
    """Until the condition holds."""
    pause = threading.Event()
    for _ in range(3000):
        result = condition()
        if result:
            return result
        pause.wait(0.01)
    raise AssertionError("it did not come about")
