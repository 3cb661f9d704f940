"""Everything that a host sends is checked before it is used. A hostile host affects only itself."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.agents import facts, receiver
from launcher.agents.link import MAX_REPLIES
from launcher.agents.plan import Blob
from launcher.agents.receiver import FrameReceiver
from launcher.engine import requests
from launcher.engine.decider import Decider
from launcher.engine.requests import QueuedJob
from launcher.engine.scheduling.policies import Policies
from launcher.engine.scheduling.scheduler import Scheduler
from launcher.errors import AgentError
from remote_agent.protocol import wire
from remote_agent.protocol.result_parts import NO_PARTS
from remote_agent.protocol.specs.job import JobSpec
from remote_agent.protocol.specs.sync import SyncSpec
from remote_agent.shared import disk
from tests.examples import examples
from tests.launcher.agents.links import WELCOME, Link, messages, part, plan
from tests.simulation.journal import Disk, SimJournal
from tests.specs import DONE, FAILED, envelope, job_spec


@pytest.fixture
def link(tmp_path: Path) -> Link:
    """A link that has begun."""
    return Link(tmp_path).welcome()


class TestValidFrames:
    """Frames that obey the protocol become facts."""

    def test_a_welcome_may_come_in_parts(self, tmp_path):
        """Attempts may need several frames. The fact comes with the last one."""
        link = Link(tmp_path)
        assert link.hear({**WELCOME, "more": True}, b'{"0.1": "running"}') == []
        (fact,) = link.hear({**WELCOME, "gpus": ["a"], "notes": ["n"]}, b'{"1.1": "final"}')
        assert fact == facts.Connected("h", 2, "3.11.2", ("a",), "b", {"0.1": "running", "1.1": "final"}, ("n",))

    def test_an_attempt_from_start_to_end(self, link):
        """Started, the outcome with its bytes, and collected with its sizes."""
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

    def test_what_stays_on_the_host_is_checked(self, link):
        """Three names, each a line that a terminal can show. Anything else than names, a number and a folder is refused."""
        end = {"t": "files_end", "attempt": "0.1", "refused": []}
        left = {"folder": "/x\x1b[2J", "count": 7, "names": ["a\nb", "c" * 9999, "d", "e"]}
        (said,) = link.hear({**end, "left": left})
        assert said.left.count == 7
        assert len(said.left.names) == 3
        assert len(said.left.names[1]) < 5000
        assert not any(char in text for text in (said.left.folder, *said.left.names) for char in "\n\x1b")
        for wrong in ({}, {**left, "count": "many"}, {**left, "names": 5}, {**left, "count": True}):
            with pytest.raises(AgentError, match=r"files_end|not a whole number"):
                Link(link.folder.path.parent / "again").welcome().hear({**end, "left": wrong})

    def test_a_kill_after_the_result_is_reported_in_words(self, link):
        """The host may send only names and a number. They are shortened, and anything else is refused."""
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
        """It gets its file name when it is complete and its digest was checked."""
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
    def test_a_large_result_is_checked_while_it_arrives(self, link, said, monkeypatch):
        """If the first chunk describes the parts, they need not be read again. The description is checked like
        everything else.
        """
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
        """This holds even if the digest was sent before."""
        value, cfg = b"v" * 7, b"cfg"
        parts = {"value": part(value), "cfg": part(cfg, len(value))}
        sent = {"value": b"vvvvvvX" + cfg, "cfg": value + b"cfX"}[name]
        link.hear({"t": "chunk", "attempt": "0.1", "kind": "result", "size": 10, "offset": 0, "parts": parts}, sent)
        (outcome,) = link.hear({"t": "final", "attempt": "0.1", "envelope": DONE, "parts": parts})
        assert outcome.envelope.status == "FAILED"
        assert f"the digest of {name} does not match" in outcome.envelope.error.message
        assert list(link.results.iterdir()) == []

    def test_nothing_of_a_replaced_attempt_is_written(self, link):
        """Neither its files, nor its output, nor its result."""
        link.wanted.clear()
        link.hear({"t": "output", "attempt": "0.1", "stream": "stdout", "offset": 0}, b"x")
        link.hear({"t": "files", "attempt": "0.1", "items": [["a", 0, 1]]}, b"x")
        link.hear({"t": "chunk", "attempt": "0.1", "kind": "file", "path": "a", "size": 1, "offset": 0}, b"x")
        link.hear({"t": "chunk", "attempt": "0.1", "kind": "result", "size": 1, "offset": 0}, b"x")
        assert not link.folder.path.exists()
        assert not link.results.exists()

    def test_a_new_link_begins_every_file_again(self, link, tmp_path):
        """A part of a file from a broken link does no harm."""
        link.hear({"t": "chunk", "attempt": "0.1", "kind": "file", "path": "a", "size": 4, "offset": 0}, b"ol")
        link.receiver.attempts.close()
        again = Link(tmp_path).welcome()
        again.folder = link.folder
        for offset, data in ((0, b"ne"), (2, b"w!")):
            again.hear({"t": "chunk", "attempt": "0.1", "kind": "file", "path": "a", "size": 4, "offset": offset}, data)
        assert (link.folder.path / "a").read_bytes() == b"new!"
        assert link.folder.refused == []

    def test_code_is_sent_on_request(self, tmp_path):
        """First the manifest, then missing contents: small ones together, large ones in chunks."""
        contents = {str(n): Blob(str(n), size, lambda size=size: bytes(size)) for n, size in enumerate((3, 5, 600_000))}
        contents["m"] = Blob("m", 2, lambda: b"mm")
        link = Link(tmp_path, manifest="m", contents=contents, files=3).welcome()
        link.hear({"t": "missing", "sha256": [], "manifest": "m"})
        (sent,) = link.hear({"t": "missing", "sha256": ["0", "1", "2"], "manifest": None})
        assert sent == facts.Sent("h", 3, 3, 600_010)
        assert [frame.header["t"] for frame in link.sent] == ["blob", "blob", "blob", "blob", "blobs"]

    def test_a_host_that_asks_for_the_same_again_and_again_is_refused(self, tmp_path):
        """A few requests may be necessary. Endless ones would only keep us busy."""
        contents = {"m": Blob("m", 2, lambda: b"mm"), "0": Blob("0", 1, lambda: b"0")}
        link = Link(tmp_path, manifest="m", contents=contents, files=1)
        link.welcome()
        for _ in range(4):
            link.hear({"t": "missing", "sha256": [], "manifest": "m"})
            link.hear({"t": "missing", "sha256": ["0"], "manifest": None})
        with pytest.raises(AgentError, match="requested again"):
            for _ in range(1000):
                link.hear({"t": "missing", "sha256": ["0"], "manifest": None})

    def test_a_sync_takes_two_pings(self, link):
        """A job that could not be spooled is given back after the first answer."""
        assert link.hear({"t": "pong", "n": receiver.SYNC + 10}) == []
        assert link.sent[-1].header == {"t": "ping", "n": receiver.SYNC + 11}
        assert link.hear({"t": "pong", "n": receiver.SYNC + 11}) == [facts.Synced("h", 5)]
        assert link.hear({"t": "pong", "n": 3}) == []


class TestInvalidFrames:
    """A hostile or broken host does little harm."""

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
            ({"value": part(b"value" * MAX_REPLIES)}, b""),
        ],
    )
    def test_a_result_that_differs_from_its_description_is_no_success(self, link, parts, payload):
        """A truncated or altered result fails its job with a clear error. The link stays."""
        (outcome,) = link.hear({"t": "final", "attempt": "0.1", "envelope": DONE, "parts": parts}, payload)
        assert isinstance(outcome, facts.Ended)
        assert outcome.envelope.status == "FAILED"
        assert outcome.envelope.error.kind == "host"
        assert "truncated or altered" in outcome.envelope.error.message
        assert (outcome.parts, outcome.payload, outcome.file) == (NO_PARTS, b"", None)
        assert link.hear({"t": "opened"}) == [facts.Opened("h")]

    def test_an_incomplete_large_result_is_no_success(self, link):
        """It leaves no file."""
        link.hear({"t": "chunk", "attempt": "0.1", "kind": "result", "size": 9, "offset": 0}, b"half")
        (outcome,) = link.hear(
            {"t": "final", "attempt": "0.1", "envelope": DONE, "parts": {"value": part(b"half, and")}}
        )
        assert isinstance(outcome, facts.Ended)
        assert outcome.envelope.status == "FAILED"
        assert list(link.results.iterdir()) == []

    def test_an_exception_that_was_altered_costs_only_its_bytes(self, link):
        """The error stays as text."""
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
            {"t": "chunk", "attempt": "0.1", "kind": "file", "path": "a", "size": 9, "offset": 0, "hole": 1},
            {"t": "chunk", "attempt": "0.1", "kind": "file", "path": "a", "size": 9, "offset": 0, "hole": -1},
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
            {"t": "zygote", "zygote": "z", "state": "ready", "imported": {"configs": "no"}},
            {"t": "missing", "sha256": ["0" * 64]},
            {"t": "fatal", "code": "version", "message": "another one"},
        ],
        ids=lambda header: json.dumps(header)[:70],
    )
    def test_a_breach_of_the_protocol_ends_the_link(self, link, header):
        """The error is typed and names the host. No fact comes of it."""
        with pytest.raises(AgentError, match=r"^h: ") as caught:
            link.hear(header)
        assert caught.value.host == "h"
        assert link.facts == []

    @pytest.mark.parametrize("slots", [0, -5, 10**9])
    def test_an_invalid_number_of_slots_is_refused(self, tmp_path, slots):
        """A host cannot get all jobs by claiming many slots."""
        with pytest.raises(AgentError, match="slots"):
            Link(tmp_path).hear({**WELCOME, "slots": slots})

    @pytest.mark.parametrize("payload", [b"[]", b'{"x": "queued"}', b'{"1.1.1": ""}', b"\xff", b"{"])
    def test_invalid_names_of_attempts_are_refused(self, tmp_path, payload):
        """Their names become files and numbers."""
        with pytest.raises(AgentError):
            Link(tmp_path).hear(WELCOME, payload)

    def test_an_agent_of_another_run_is_refused(self, tmp_path):
        """We do not talk to it."""
        with pytest.raises(AgentError, match="belongs to run 'other'"):
            Link(tmp_path).hear({**WELCOME, "run": "other"})

    def test_a_ping_may_come_before_the_welcome(self, tmp_path):
        """The agent lives and waits for our hello, because this machine was slow."""
        link = Link(tmp_path)
        link.hear({"t": "ping", "n": 1})
        assert link.facts == []
        assert [frame.header for frame in link.sent] == [{"t": "pong", "n": 1}]

    def test_other_messages_before_the_welcome_are_refused(self, tmp_path):
        """The order matters."""
        with pytest.raises(AgentError, match="before welcome"):
            Link(tmp_path).hear({"t": "opened"})

    def test_frames_before_an_error_count(self, link):
        """This holds even if they came in the same bytes."""
        good = wire.encode({"t": "final", "attempt": "0.1", "envelope": DONE})
        with pytest.raises(AgentError, match="mark"):
            link.receiver.feed(good + b"x" * 50)
        assert len(link.facts) == 1


class Everything:
    """A link with a real decider: everything that handles a host's messages, without threads."""

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
        self.decider.decide([requests.Submit(tuple(jobs))])
        self.decider.commit()

    def wall(self) -> float:
        return 1.0

    def monotonic(self) -> float:
        return 1.0

    def tell(self, fact: facts.Fact) -> None:
        try:
            self.decider.decide([fact])
            self.decider.commit()
        except Exception as error:  # what ends the deciding thread must not look like an error of the host
            pytest.fail(f"{fact!r} would end the run: {error!r}")

    def send_job(self, spec: JobSpec, payload: bytes, *, is_last: bool = False) -> None: ...

    def cancel(self, attempts: list[str] | None, **more: Any) -> None:
        self.cancelled.append((attempts, more.get("kind")))

    def sync(self, number: int) -> None: ...

    def go(self) -> None: ...


def test_the_runs_own_limits_hold_here_too(tmp_path):
    """No output files if none were requested, and no endless stdout."""
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
    """The job fails at once, with the system's error, and is not tried elsewhere. The link and the other jobs go on."""
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


def test_a_folder_that_breaks_after_the_result_is_the_jobs_error_too(tmp_path):
    """The journal has the error, too, so a resumed run does not find a success."""
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
def test_an_error_that_may_pass_ends_the_link_and_costs_no_job(tmp_path, monkeypatch, number):
    """With a full disk, for example, the host keeps its data and sends it again."""
    everything = Everything(tmp_path)
    everything.receiver.feed(wire.encode(WELCOME))

    def fail(*args: Any, **more: Any) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(OSError, match="no"):
        everything.receiver.feed(wire.encode({"t": "output", "attempt": "0.1", "stream": "stdout", "offset": 0}, b"x"))
    assert everything.delivered == []


@pytest.mark.slow
@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(messages(), max_size=12), st.booleans())
def test_the_controller_goes_on_whatever_a_host_sends(tmp_path_factory, messages, is_welcome):
    """Fuzz: messages out of order, repeated, malformed or absurd end the link with a typed error, or lead to a
    decision that makes sense.
    """
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
        assert host.ahead() >= 0
        assert host.job_seconds is None or (math.isfinite(host.job_seconds) and host.job_seconds >= 0)
    fresh = Scheduler(["h", "other"])
    for _, event in everything.disk.events():
        fresh.apply(event)
    assert fresh.jobs == scheduler.jobs
    assert {path.parts[len(folder.parts)] for path in folder.rglob("*")} <= {"0", "1", "2", "results"}


class TestWhatIsHeld:
    """A host asks what is here of files that came while their job ran, and sends the rest."""

    @pytest.fixture
    def asked(self, tmp_path: Path) -> Link:
        """A host that was told what is here: of `log` the first three bytes."""
        link = Link(tmp_path, sync=SyncSpec(1.0, [], says_held=True)).welcome()
        header = {"t": "synced", "attempt": "0.1", "path": "log", "mode": 0o644, "size": 3, "base": 0, "offset": 0}
        link.hear(header, b"one")
        link.hear({"t": "ask_held", "attempt": "0.1"})
        return link

    @staticmethod
    def rest(**changed: Any) -> dict[str, Any]:
        """The rest of that file."""
        fields = {"path": "log", "mtime": 1, "size": 7, "base": 3, "offset": 3}
        return {"t": "rest", "attempt": "0.1", **fields, **changed}

    def test_the_answer_has_the_hash_of_what_is_on_the_disk(self, asked: Link) -> None:
        """Not of what the host said."""
        (frame,) = asked.sent
        assert frame.header == {"t": "held", "attempt": "0.1", "more": False}
        digest = hashlib.sha256((asked.folder.path / "log").read_bytes()).hexdigest()
        assert json.loads(frame.payload) == [{"path": "log", "size": 3, "sha256": digest, "is_executable": False}]

    def test_the_rest_is_added(self, asked: Link) -> None:
        """In parts. Who reads the file, reads on."""
        with open(asked.folder.path / "log") as reader:
            assert reader.read() == "one"
            asked.hear(self.rest(), b" t")
            asked.hear(self.rest(offset=5), b"wo")
            assert reader.read() == " two"
        asked.hear({"t": "files_end", "attempt": "0.1", "refused": []})
        assert (asked.folder.path / "log").read_text() == "one two"
        assert (asked.folder.path / "log").stat().st_mtime_ns == 1
        assert not list((asked.folder.path / ".launcher").iterdir())

    def test_a_long_answer_comes_in_parts(self, tmp_path: Path) -> None:
        """Each of them fits into a frame."""
        link = Link(tmp_path, sync=SyncSpec(1.0, [], says_held=True)).welcome()
        for number in range(250):
            header = {
                "t": "synced",
                "attempt": "0.1",
                "path": str(number),
                "mode": 0,
                "size": 1,
                "base": 0,
                "offset": 0,
            }
            link.hear(header, b"x")
        link.hear({"t": "ask_held", "attempt": "0.1"})
        assert [frame.header["more"] for frame in link.sent] == [True, True, False]
        assert sum(len(json.loads(frame.payload)) for frame in link.sent) == 250

    def test_nothing_is_held_of_a_replaced_attempt(self, tmp_path: Path) -> None:
        """It has an answer all the same."""
        link = Link(tmp_path, sync=SyncSpec(1.0, [], says_held=True)).welcome()
        link.wanted.clear()
        link.hear({"t": "ask_held", "attempt": "0.1"})
        assert [frame.payload for frame in link.sent] == [b"[]"]
        assert not link.folder.path.exists()

    def test_a_file_that_was_changed_here_ends_the_link_and_comes_as_a_whole(self, asked: Link, tmp_path: Path) -> None:
        """Over the next link nothing is held of it."""
        (asked.folder.path / "log").write_text("mine")
        with pytest.raises(OSError, match="changed here"):
            asked.hear(self.rest(), b" two")
        assert (asked.folder.path / "log").read_text() == "mine"
        again = Link(tmp_path, sync=SyncSpec(1.0, [], says_held=True)).welcome()
        again.folder = asked.folder
        again.hear({"t": "ask_held", "attempt": "0.1"})
        assert [frame.payload for frame in again.sent] == [b"[]"]
        again.hear({"t": "files", "attempt": "0.1", "items": [["log", 0o644, 7]]}, b"one two")
        assert (asked.folder.path / "log").read_text() == "one two"

    @pytest.mark.parametrize(
        "wrong",
        [{"base": 0}, {"base": -1}, {"base": 4}, {"offset": 2}, {"size": 6}, {"path": 1}, {"mtime": None}, {"attempt": "0.2"}],
        ids=str,
    )  # fmt: skip
    def test_what_makes_no_sense_ends_the_link(self, asked: Link, wrong: dict[str, Any]) -> None:
        """And changes nothing."""
        with pytest.raises(AgentError, match="protocol"):
            asked.hear(self.rest(**wrong), b" two")
        assert (asked.folder.path / "log").read_text() == "one"

    @pytest.mark.parametrize(
        "wrong", [{"path": "other"}, {"base": 2, "offset": 2}, {"offset": 4}, {"path": "../log"}], ids=str
    )
    def test_a_rest_of_what_is_not_held_is_not_written(self, asked: Link, wrong: dict[str, Any]) -> None:
        """No hole is made, and nothing outside."""
        try:
            asked.hear(self.rest(**wrong), b" t")
        except OSError as error:
            assert "changed here" in str(error)  # noqa: PT017 - a name that is refused ends no link
        else:
            assert asked.folder.refused == [("../log", "its path leads out of the output directory")]
        assert (asked.folder.path / "log").read_text() == "one"
        assert not (asked.folder.path / "other").exists()

    def test_it_is_asked_once(self, asked: Link, tmp_path: Path) -> None:
        """An answer takes as long as reading all files. And it is not asked by a host that sends none early."""
        for link in (asked, Link(tmp_path).welcome()):
            with pytest.raises(AgentError, match="ask_held"):
                link.hear({"t": "ask_held", "attempt": "0.1"})
