"""How much a host may say: each cap of the table in `docs/security.md` is held, and costs that host alone."""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher import events
from launcher.agents import connection, facts
from launcher.agents import link as agents_link
from launcher.agents.queries.gpus import read_gpus
from launcher.agents.queries.host_use import read_use
from launcher.agents.queries.query import AgentQuery
from launcher.bootstrap.bundle import Bundle
from launcher.bootstrap.start import start_agent
from launcher.engine.decider import Decider
from launcher.engine.dispatcher import _weight
from launcher.engine.inbox import Inbox
from launcher.engine.requests import QueuedJob, Submit
from launcher.engine.scheduling.policies import Policies
from launcher.engine.scheduling.scheduler import Scheduler
from launcher.engine.scheduling.state import HostPhase
from launcher.errors import AgentError, HostBroken
from launcher.hosts import limits as host_limits
from launcher.hosts.host_spec import HostSpec
from launcher.hosts.limits import CAPS, Cap
from launcher.results.output_folder import OutputFolder
from remote_agent.job import JobError
from remote_agent.protocol import wire
from remote_agent.protocol.envelope import Envelope
from remote_agent.protocol.report import Report
from remote_agent.protocol.result_parts import NO_PARTS
from remote_agent.protocol.specs.job import JobSpec
from remote_agent.protocol.specs.sync import SyncSpec
from tests.launcher.agents.links import WELCOME, Link, part
from tests.simulation.journal import Disk, SimJournal
from tests.specs import DONE, FAILED, job_spec

GPUS_LISTED = {"t": "gpus_listed", "source": "nvml", "error": "", "why": "", "covers_host": True, "more": False}

SECURITY = Path(__file__).parents[3] / "docs" / "security.md"
TESTED: dict[str, Callable[..., None]] = {}


def holds(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """This test holds these caps."""

    def note(test: Callable[..., None]) -> Callable[..., None]:
        for name in names:
            assert name not in TESTED, name
            TESTED[name] = test
        return test

    return note


def shown() -> dict[str, tuple[str, str]]:
    """The table of the page: what is counted, and what becomes of more, by the cap's name."""
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+ [^|]+) \| ([^|]+) \|$", SECURITY.read_text(), re.MULTILINE)
    return {name: (of, then) for name, of, then in rows}


def test_every_cap_is_in_the_page_and_has_a_test() -> None:
    """A cap that is added, changed or taken away is so in all three."""
    assert shown() == {name: (f"{cap.limit:,} {cap.of}", cap.then) for name, cap in CAPS.items()}
    assert sorted(TESTED) == sorted(CAPS)
    assert {cap.then for cap in CAPS.values()} == {"cut", "refused", "waits", "given up"}


def test_every_message_of_a_host_has_a_reader_that_takes_its_texts_clean(tmp_path: Path) -> None:
    """Those of the schema that a controller does not take break the protocol; what is said by the others holds no escape."""
    ugly = "\x1b[31m\ud800\x9b\u202e\r"
    for name, fields in wire.SCHEMA.items():
        link = Link(tmp_path / name).welcome()
        by_type: dict[type, Any] = {int: 0, str: ugly, float: 1.0, bool: False, list: [], dict: {}}
        header = {"t": name, **{field: by_type.get(types[0]) for field, (types, _) in fields.items()}}
        if "attempt" in header:
            header["attempt"] = "0.1"
        try:
            said = link.hear(header)
        except AgentError as error:
            text = str(error)
        else:
            text = json.dumps([vars(fact) for fact in said], default=str, ensure_ascii=False)
        assert not set("\x1b\ud800\x9b\u202e\r") & set(text), (name, text)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Make a cap so small that a test can reach it."""

    def make(name: str, limit: int) -> None:
        monkeypatch.setitem(host_limits.CAPS, name, Cap(limit, CAPS[name].of, CAPS[name].then))

    return make


@pytest.fixture
def link(tmp_path: Path) -> Link:
    """A link that has begun."""
    return Link(tmp_path).welcome()


class Controller:
    """Two hosts with a decider behind them, and all that it journals."""

    def __init__(self, folder: Path, jobs: int = 3, **policies: Any) -> None:
        self.policies = Policies(**{"on_host_loss": "retry", **policies})
        self.scheduler = Scheduler(["h", "other"], self.policies)
        self.events: list[events.Event] = []
        self.cancelled: list[tuple[Any, Any]] = []
        links: dict[str, Any] = {"h": self, "other": self}
        self.decider = Decider(
            self.scheduler, SimJournal(Disk()), links, lambda *_: None, lambda _: None, self.events.append, self
        )
        self.decide(Submit(tuple(QueuedJob(num, (), folder / str(num), b"p", job_spec(num)) for num in range(jobs))))
        self.decide(facts.Connected("h", 2, "3", (), "b", {}, ()))

    def decide(self, *items: Any) -> None:
        """A round."""
        self.decider.decide(items)
        self.decider.commit()

    def wall(self) -> float:
        return 1.0

    monotonic = wall

    def send_job(self, spec: JobSpec, payload: bytes, *, is_last: bool = False) -> None: ...

    def cancel(self, attempts: list[str] | None, **more: Any) -> None:
        self.cancelled.append((attempts, more))

    def go(self) -> None: ...

    def take_back(self, attempts: list[str]) -> None: ...

    def stop(self, attempts: list[str]) -> None: ...

    def sync(self, number: int) -> None: ...

    def of(self, kind: type) -> list[Any]:
        """Events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]


# -- frames --------------------------------------------------------------------------------------------------------


@holds("header", "payload", "depth")
@pytest.mark.parametrize(
    "data",
    [
        wire._HEAD.pack(b"RL", wire.VERSION, CAPS["header"].limit + 1, 0, 0),
        wire._HEAD.pack(b"RL", wire.VERSION, 10, CAPS["payload"].limit + 1, 0),
        wire.encode({"t": "files_end", "attempt": "0.1", "refused": json.loads("[" * 101 + "]" * 101)}),
    ],
)
def test_frames(link: Link, data: bytes) -> None:
    """Before anything of it is stored."""
    with pytest.raises(AgentError, match=r"protocol \((size|json)\)"):
        link.receiver.feed(data)


@holds("noise")
def test_noise() -> None:
    """What a shell says is kept for the message, up to a point."""
    pieces = iter([b"x" * CAPS["noise"].limit, b"x"])
    channel: Any = SimpleNamespace(recv=lambda size: next(pieces), close=lambda: None)
    with pytest.raises(AgentError, match=f"{CAPS['noise'].limit + 1} bytes arrived before the agent"):
        start_agent(channel, Bundle("", 0), "h")


@holds("waiting")
def test_facts_wait_by_their_size_whatever_they_hold() -> None:
    """A reader waits as soon as so many bytes of texts, lists or payloads are undecided."""
    error = {"kind": "exception", "message": "m" * 1000, "causes": [{"type": "t" * 1000}] * 100}
    outcome = facts.Ended("h", "0.1", Envelope.of_failure(JobError(**error)), NO_PARTS, b"", None)
    assert sum(map(_weight, vars(outcome).values())) > 101_000
    assert Inbox()._max_bytes == CAPS["waiting"].limit


@holds("hosts_share")
def test_one_host_cannot_keep_the_others_waiting() -> None:
    """A flood fills a part of what may wait; what other hosts tell goes in all the same."""
    inbox = Inbox(max_bytes=80, max_count=80)
    flood = threading.Thread(target=lambda: [inbox.put_bulk("flood", 1, "h") for _ in range(1000)], daemon=True)
    flood.start()
    while len(inbox._items) < 10:
        pass
    inbox.put_bulk("honest", 1, "other")
    assert len(inbox._items) == 11
    assert inbox.get(100, 1.0) == ["flood"] * 10 + ["honest"]
    inbox.close()
    flood.join(30)


@holds("stderr")
def test_stderr_without_end() -> None:
    """The end of it is kept."""
    from launcher.transports.local import LocalTransport

    channel = LocalTransport().open("head -c 1000000 /dev/zero | tr '\\0' x >&2; echo end >&2")
    while channel.recv(4096):
        pass
    assert channel.exit_status(30) == 0
    said = channel.stderr()
    assert len(said) <= CAPS["stderr"].limit
    assert said.endswith("end\n")
    channel.close()


@holds("breaches")
def test_links_that_break_the_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a few the host is given up."""
    from tests.launcher.agents.test_connection import Running

    monkeypatch.setattr(connection, "_MAX_BACKOFF", 0.06)
    running = Running(tmp_path)
    try:
        running.session.start()
        for _ in range(CAPS["breaches"].limit):
            running.ready().incoming.put(b"garbage, and enough of it to be looked at")
            running.fact(facts.Disconnected)
        running.fact(facts.Refused)
        assert running.session.wait_finished(30)
    finally:
        running.session.close()


@holds("replies")
def test_replies_that_nobody_takes() -> None:
    """The host is refused before they gather here."""
    assert CAPS["replies"].limit == agents_link.MAX_REPLIES
    made = agents_link.Link("h", None)  # type: ignore[arg-type]
    for _ in range(CAPS["replies"].limit):
        made.reply(b"")
    with pytest.raises(AgentError, match="without reading the answers"):
        made.reply(b"")


# -- the host ------------------------------------------------------------------------------------------------------


@holds("attempts", "welcome_frames", "slots")
@pytest.mark.parametrize("name", ["attempts", "welcome_frames", "slots"])
def test_a_welcome_without_end(tmp_path: Path, small: Callable[[str, int], None], name: str) -> None:
    """The host is none that can be used."""
    small(name, 3)
    link = Link(tmp_path)
    with pytest.raises(HostBroken, match="the limit is 3"):
        for page in range(10):
            link.hear({**WELCOME, "more": page < 9, "slots": 4}, json.dumps({f"{page}.1": "running"}).encode())
    assert not link.facts


def test_a_host_gets_no_more_slots_than_it_was_given(tmp_path: Path) -> None:
    """What it says of itself is not believed beyond what the user said of it."""
    controller = Controller(tmp_path, slots={"h": 1})
    assert controller.scheduler.hosts["h"].slots == 1
    assert Controller(tmp_path).scheduler.hosts["h"].slots == 2


@holds("gpus", "name", "text", "reason")
def test_long_words(tmp_path: Path) -> None:
    """They are cut before they are journalled."""
    link = Link(tmp_path)
    long = "x" * 100_000
    (fact,) = link.hear({**WELCOME, "gpus": ["g" * 300] * 2000, "python": long, "boot_id": long, "notes": [long]})
    assert (len(fact.gpus), {len(gpu) for gpu in fact.gpus}) == (CAPS["gpus"].limit, {CAPS["name"].limit})
    assert len(fact.python) == len(fact.boot_id) == CAPS["name"].limit
    assert len(fact.notes[0]) == CAPS["text"].limit
    (fact,) = link.hear({"t": "dropped", "attempt": "0.1", "why": long})
    assert len(fact.why) == CAPS["reason"].limit
    (fact,) = link.hear({"t": "fatal", "code": "note", "message": long})
    assert len(fact.message) == CAPS["text"].limit


@holds("notes")
def test_notes_without_end(tmp_path: Path) -> None:
    """The first ones are told."""
    controller = Controller(tmp_path)
    for number in range(1000):
        controller.decide(facts.Noted("h", f"note {number}"))
        error = {"kind": "import", "type": "E", "message": f"no {number}", "traceback": ""}
        controller.decide(facts.ZygoteTold("h", "failed", error, "", "", ()))
    assert len(controller.of(events.Note)) + len(controller.of(events.Warned)) == CAPS["notes"].limit


@holds("zygotes")
def test_zygotes_without_end(link: Link) -> None:
    """There are as many as may be prepared anew."""
    ready = {"t": "zygote", "zygote": "z", "state": "ready", "error": None}
    with pytest.raises(HostBroken, match="1,001 reports"):
        for _ in range(2000):
            link.hear(ready)


@holds("packages")
def test_packages_without_end(tmp_path: Path) -> None:
    """The first ones are kept."""
    kept: list[Any] = []
    link = Link(tmp_path, remember_import=kept.append).welcome()
    told = {"configs": False, "resolvers": False, "process": False, "modules": [f"m{n}" for n in range(5000)]}
    link.hear({"t": "zygote", "zygote": "z", "state": "ready", "imported": told})
    assert len(kept[0].modules) == CAPS["packages"].limit


class _Environment:
    """Takes what is asked of an environment."""

    def __init__(self) -> None:
        self.wanted: list[Any] = []

    def send(self, wanted: Any) -> None:
        """Note it."""
        self.wanted.append(wanted)


@holds("environment")
def test_words_of_an_environment_without_end(link: Link, small: Callable[[str, int], None]) -> None:
    """An agent says how it stands twice a second."""
    small("environment", 10)
    link.receiver._environment = _Environment()  # type: ignore[assignment]
    building = {"t": "environment_state", "key": "a" * 64, "state": "building"}
    with pytest.raises(HostBroken, match="messages about an environment"):
        for _ in range(11):
            link.hear(building)


@pytest.mark.parametrize(
    ("odd", "payload"),
    [
        ({"key": "../x"}, b""),
        ({"state": "odd"}, b""),
        ({"state": "missing"}, b'[["x", 0]]'),
        ({"state": "missing"}, b"x"),
        ({"state": "missing"}, b'[["' + b"a" * 64 + b'", -1]]'),
    ],
)
def test_what_is_said_of_an_environment_is_checked(link: Link, odd: dict[str, Any], payload: bytes) -> None:
    """Before anything is sent for it; and nothing may be said of one that was not offered."""
    header = {"t": "environment_state", "key": "a" * 64, "state": "building", **odd}
    with pytest.raises(AgentError, match="none was offered"):
        link.hear({"t": "environment_state", "key": "a" * 64, "state": "building"})
    environment = _Environment()
    link.receiver._environment = environment  # type: ignore[assignment]
    with pytest.raises(AgentError, match="protocol"):
        link.hear(header, payload)
    assert environment.wanted == []


@holds("asked")
def test_code_that_is_asked_for_again_and_again(tmp_path: Path) -> None:
    """A few times may be needed."""
    from launcher.agents.plan import Blob

    link = Link(tmp_path, manifest="m", contents={"m": Blob("m", 2, lambda: b"mm")}, files=1).welcome()
    with pytest.raises(HostBroken, match="requested again"):
        for _ in range(100):
            link.hear({"t": "missing", "sha256": [], "manifest": "m"})


# -- jobs ----------------------------------------------------------------------------------------------------------


@holds("given_back")
def test_jobs_that_are_given_back_without_end(tmp_path: Path) -> None:
    """The journal stays small; the host is given up by name, and its jobs run on the other one."""
    controller = Controller(tmp_path)
    for _ in range(100_000):
        job = controller.scheduler.jobs[0]
        if job.host != "h":
            break
        controller.decide(facts.Dropped("h", f"0.{job.attempt}", "full"))
        controller.decide(facts.Opened("h"))
    assert len(controller.events) < 1000
    (lost,) = controller.of(events.HostLost)
    assert (lost.host, "given back unstarted" in lost.why) == ("h", True)
    assert controller.scheduler.hosts["h"].phase is HostPhase.LOST
    assert controller.cancelled[-1][0] is None
    controller.decide(facts.Connected("other", 3, "3", (), "b", {}, ()))
    assert {job.host for job in controller.scheduler.jobs.values()} == {"other"}


def test_what_a_host_was_not_given_it_cannot_give_back(tmp_path: Path) -> None:
    """Nor does it close itself by that, and open again, in the journal."""
    controller = Controller(tmp_path)
    before = len(controller.events)
    for _ in range(100):
        controller.decide(facts.Dropped("h", "7.1", "full"), facts.Opened("h"))
    assert len(controller.events) == before


@holds("reports_at_once")
def test_reports_without_end(link: Link) -> None:
    """An agent sends a hundred at a time."""
    item = [1, {"at": 1.0, "step": None, "values": {}}]
    assert len(link.hear({"t": "reports", "attempt": "0.1", "items": [item] * 1000})) == 1
    with pytest.raises(HostBroken, match="1,001 reports in a message"):
        link.hear({"t": "reports", "attempt": "0.1", "items": [item] * 1001})


@holds("reports")
def test_only_so_many_reports_of_a_job_are_kept(tmp_path: Path, small: Callable[[str, int], None]) -> None:
    """Its host goes on, and so does the job. A number that was there, or that is too high, is no report."""
    small("reports", 3)
    controller = Controller(tmp_path)
    controller.decide(facts.Started("h", "0.1", 0, 1.0))
    items = tuple((number, Report(number, {"a": 1}, 1.0)) for number in (-1, 0, 1, 1, 2, 2**40, 3, 4, 5))
    controller.decide(facts.Reported("h", "0.1", items), facts.Reported("other", "0.1", items))
    assert [event.number for event in controller.of(events.JobReported)] == [1, 2, 3]


@holds("hooks")
def test_hooks_without_end(link: Link, tmp_path: Path) -> None:
    """A job has a few for each callback."""
    hook = {"hook": "on_job_end", "callback": "c", "ok": False, "error": {"message": "m"}}
    with pytest.raises(HostBroken, match="1,001 hooks"):
        link.hear({"t": "final", "attempt": "0.1", "envelope": {**DONE, "hooks": [hook] * 1001}})


def test_hooks_and_aborts_are_believed_of_the_callbacks_that_were_sent(tmp_path: Path) -> None:
    """Nothing is told of others, and only one that may stop the run does."""
    asked = {"warns": False, "stops": True}
    for name, is_stopped in (("nobody", False), ("warns", False), ("stops", True)):
        controller = Controller(tmp_path, callbacks=lambda: asked)
        error = {"type": "E", "message": "m" * 100_000, "traceback": "t" * 100_000}
        hooks = [
            {"hook": hook, "callback": name, "ok": False, "error": error} for hook in ("on_job_end", "on_multirun_end")
        ]
        envelope = {**DONE, "hooks": hooks, "abort": name}
        controller.decide(facts.Ended("h", "0.1", Envelope.from_json(envelope), NO_PARTS, b"", None))
        assert (controller.scheduler.interrupted is not None) is is_stopped
        fired = controller.of(events.HookFired)
        assert [(one.callback, one.hook) for one in fired] == [(name, "on_job_end")] * (name in asked)
        assert all(len(one.message) == CAPS["text"].limit for one in controller.of(events.Warned))


@holds("causes", "error")
def test_long_errors(link: Link) -> None:
    """They are cut."""
    causes = [{"type": "T", "message": "m"}] * 1000
    error = {
        "kind": "exception",
        "type": "E" * 1000,
        "message": "m" * 300_000,
        "traceback": "t" * 300_000,
        "causes": causes,
    }
    (fact,) = link.hear({"t": "final", "attempt": "0.1", "envelope": {**FAILED, "error": error}})
    told = fact.envelope.error.to_json()
    assert (len(told["message"]), len(told["traceback"])) == (CAPS["error"].limit, CAPS["error"].limit)
    assert (len(told["causes"]), len(told["type"])) == (CAPS["causes"].limit, CAPS["name"].limit)


@holds("result", "open_results")
@pytest.mark.parametrize(("name", "size"), [("result", (1 << 38) + 1), ("open_results", 2)])
def test_long_results(link: Link, name: str, size: int) -> None:
    """One is of a length that can be; few are begun at a time: each holds a file open."""
    link.wanted = {f"{num}.1" for num in range(100)}
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(HostBroken, match=CAPS[name].of):
        for num in range(100):
            link.hear({"t": "chunk", "attempt": f"{num}.1", "kind": "result", "size": size, "offset": 0}, b"x")
    assert len(os.listdir("/proc/self/fd")) <= before + CAPS["open_results"].limit + 10
    link.receiver.attempts.close()
    assert not list(link.results.glob("*"))


# -- files ---------------------------------------------------------------------------------------------------------


@holds("files")
@pytest.mark.parametrize("is_reconnecting", [False, True])
def test_files_without_end(tmp_path: Path, is_reconnecting: bool) -> None:
    """Over all connections: what comes again takes the place of what came."""
    folder = OutputFolder(tmp_path, max_files=100)
    for number in range(300):
        if is_reconnecting and number % 50 == 0:
            folder.restart()
        folder.write(f"f{number}", 0o644, b"")
        folder.write_chunk(f"g{number}", 0o644, 1, 0, b"x")
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) <= 100
    folder.restart()
    folder.write("f0", 0o644, b"again")
    assert (tmp_path / "f0").read_bytes() == b"again"


@holds("bytes")
def test_bytes_without_end(tmp_path: Path) -> None:
    """What would be too much is refused by its name."""
    folder = OutputFolder(tmp_path, max_bytes=10)
    folder.write("a", 0o644, b"x" * 8)
    folder.write("b", 0o644, b"x" * 8)
    folder.write_chunk("c", 0o644, 8, 0, b"x")
    assert folder.refused == [("b", "more than 10 bytes"), ("c", "more than 10 bytes")]
    assert OutputFolder(tmp_path).max_bytes == CAPS["bytes"].limit


@pytest.mark.slow
@holds("unfinished")
def test_files_that_are_begun_without_end(tmp_path: Path) -> None:
    """A few descriptors, whatever is begun; a file that is sent whole then arrives."""
    folder = OutputFolder(tmp_path / "out")
    before = len(os.listdir("/proc/self/fd"))
    for number in range(3000):
        folder.write_chunk(f"f{number}", 0o644, 2, 0, b"x")
    assert len(os.listdir("/proc/self/fd")) <= before + CAPS["unfinished"].limit + 5
    for offset in (0, 1):
        folder.write_chunk("whole", 0o644, 2, offset, b"x")
    assert (tmp_path / "out" / "whole").read_bytes() == b"xx"
    assert ("f0", "other files were begun before it was complete") in folder.refused
    folder.close()
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["whole"]


@pytest.mark.slow
@holds("synced")
def test_files_of_a_running_job_without_end(tmp_path: Path) -> None:
    """What is over the cap is not written now, and costs nothing that comes at the end."""
    limit = CAPS["synced"].limit
    folder = OutputFolder(tmp_path / "out")
    for number in range(limit + 10):
        folder.sync(f"{number}", 0o644, 0, 0, 0, b"")
    assert len(os.listdir(tmp_path / "out")) == limit + 1  # with our own folder
    folder.write("last", 0o644, b"x")
    folder.finish_sync()
    assert sorted(os.listdir(tmp_path / "out")) == [".launcher", "last"]
    folder.close()


def test_files_of_running_jobs_cost_few_descriptors(tmp_path: Path) -> None:
    """Of many attempts, only one has a file that is not complete."""
    link = Link(tmp_path).welcome()
    link.receiver.attempts._plan.sync = SyncSpec(1.0, [], says_held=True)
    folders = {f"{num}.1": OutputFolder(tmp_path / str(num)) for num in range(200)}
    link.receiver.attempts._folder_of = lambda host, attempt: folders[attempt]
    before = len(os.listdir("/proc/self/fd"))
    header = {"t": "synced", "path": "a", "mode": 0o644, "size": 2, "base": 0}
    for attempt in folders:
        link.hear({**header, "attempt": attempt, "offset": 0}, b"x")
    assert len(os.listdir("/proc/self/fd")) <= before + 3 * CAPS["open_folders"].limit + 2
    link.hear({**header, "attempt": "199.1", "offset": 1}, b"x")
    assert (tmp_path / "199" / "a").read_bytes() == b"xx"
    for folder in folders.values():
        folder.close()


@pytest.mark.parametrize(
    "wrong",
    [{"base": -1}, {"offset": 3}, {"base": 2, "offset": 1}, {"size": -1}, {"mode": "x"}, {"path": 1}],
    ids=str,
)
def test_a_part_of_a_file_that_makes_no_sense_ends_the_link(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """And so does one that was not asked for."""
    header = {"t": "synced", "attempt": "0.1", "path": "a", "mode": 0o644, "size": 2, "base": 0, "offset": 0}
    for sync, sent in ((SyncSpec(1.0, [], says_held=True), {**header, **wrong}), (None, header)):
        link = Link(tmp_path).welcome()
        link.receiver.attempts._plan.sync = sync
        with pytest.raises(AgentError, match="protocol"):
            link.hear(sent, b"x")
    assert not (tmp_path / "a").exists()


@holds("open_folders")
def test_folders_without_end(tmp_path: Path) -> None:
    """Descriptors of few are kept; files go on arriving in all of them."""
    link = Link(tmp_path).welcome()
    folders = {f"{num}.1": OutputFolder(tmp_path / str(num)) for num in range(200)}
    link.receiver.attempts._folder_of = lambda host, attempt: folders[attempt]
    before = len(os.listdir("/proc/self/fd"))
    for name in ("a/1", "a/2"):
        for attempt in folders:
            link.hear({"t": "files", "attempt": attempt, "items": [[name, 0o644, 1]]}, b"x")
        assert len(os.listdir("/proc/self/fd")) <= before + 4 * CAPS["open_folders"].limit
    assert len(list(tmp_path.glob("*/a/*"))) == 400
    assert not [folder.refused for folder in folders.values() if folder.refused]
    for folder in folders.values():
        folder.close()


@holds("stream_offset")
def test_a_stream_far_away(link: Link) -> None:
    """Nothing is written there."""
    header = {"t": "output", "attempt": "0.1", "stream": "stdout"}
    with pytest.raises(HostBroken, match="bytes from the start"):
        link.hear({**header, "offset": CAPS["stream_offset"].limit + 1}, b"x")


def test_what_a_job_printed_is_shown_once(tmp_path: Path) -> None:
    """However often a host sends it."""
    link = Link(tmp_path, live=True).welcome()
    header = {"t": "output", "attempt": "0.1", "stream": "stdout", "offset": 0}
    assert [fact.data for fact in link.hear(header, b"abc")] == [b"abc"]
    assert link.hear(header, b"abc") == []
    assert [fact.data for fact in link.hear({**header, "offset": 2}, b"cde")] == [b"de"]


@holds("file_name", "file_path", "file_depth")
@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("n" * 256, "too long"),
        ("/".join(["n" * 200] * 30), "too long"),
        ("/".join("d" * 65), "folders deep"),
    ],
)
def test_long_names(tmp_path: Path, path: str, why: str) -> None:
    """Such a file is refused, whole or in pieces; one that is as long as may be arrives."""
    folder = OutputFolder(tmp_path / "out")
    folder.write(path, 0o644, b"x")
    folder.write_chunk(path, 0o644, 2, 0, b"x")
    folder.write("n" * 255, 0o644, b"x")
    folder.write("/".join("d" * 64), 0o644, b"x")
    folder.close()
    assert [one.count(why) for _, one in folder.refused] == [1, 1]
    assert len([one for one in (tmp_path / "out").rglob("*") if one.is_file()]) == 2


@holds("refused")
def test_refusals_without_end(tmp_path: Path) -> None:
    """The first ones are kept."""
    folder = OutputFolder(tmp_path)
    for number in range(2000):
        folder.write(f"../{number}", 0o644, b"")
    assert len(folder.refused) == CAPS["refused"].limit


@holds("unmatched")
def test_patterns_without_end(link: Link) -> None:
    """They are cut."""
    (fact,) = link.hear({"t": "files_end", "attempt": "0.1", "refused": [], "unmatched": [0] * 5000})
    assert len(fact.unmatched) == CAPS["unmatched"].limit


# -- answers -------------------------------------------------------------------------------------------------------


class Flood:
    """A channel over which one frame comes again and again."""

    def __init__(self, frame: bytes) -> None:
        self._frame = frame

    def send(self, data: bytes) -> None: ...

    def recv(self, size: int) -> bytes:
        return self._frame * 50


@holds("answer", "answer_frames")
@pytest.mark.parametrize("name", ["answer", "answer_frames"])
@pytest.mark.parametrize("ask", ["look", "attempts", "survey", "environments", "gpus", "remove"])
def test_answers_without_end(small: Callable[[str, int], None], name: str, ask: str) -> None:
    """`show`, `logs` and `clean` name the host, and take no more of it."""
    small(name, 1000)
    frames = {
        "look": wire.encode({"t": "output", "attempt": "0.1", "stream": "stdout", "offset": 0}, b"x" * 100),
        "attempts": wire.encode({"t": "looked", "attempt": None, "state": "", "more": True}, b'{"0.1": {}}'),
        "survey": wire.encode({"t": "surveyed", "more": True}, b"[1]"),
        "environments": wire.encode({"t": "environments_listed", "more": True}, b"[1]"),
        "gpus": wire.encode({**GPUS_LISTED, "more": True}, b"[1]"),
        "remove": wire.encode({"t": "ping", "n": 1}, b"xxxxx"),
    }
    talk = AgentQuery(HostSpec("far", "far"), "look", "r")
    talk._channel = Flood(frames[ask])  # type: ignore[assignment]
    talk._frames = talk._read(b"")
    arguments = {"look": ("0.1", 0, 0), "remove": (["a"],), "gpus": (None,)}.get(ask, ())
    with pytest.raises(AgentError, match=r"^far: .*the limit is 1,000"):
        getattr(talk, ask)(*arguments)


@pytest.mark.slow
@holds("gpu_processes")
def test_a_host_with_too_many_gpus() -> None:
    """They are cut, as are the words in them."""
    long = "x" * 100_000
    process = {"pid": 1, "name": long, "user": long, "used": 1, "is_of_job": False}
    gpu = {"number": 0, "uuid": long, "name": long, "parent": long, "processes": [process] * 1000}
    found = read_gpus({**GPUS_LISTED, "source": long, "error": long, "why": long}, [gpu] * 2000)
    assert (len(found.gpus), len(found.gpus[0].processes)) == (CAPS["gpus"].limit, CAPS["gpu_processes"].limit)
    names = [
        found.source,
        *dataclasses.astuple(found.gpus[0])[1:4],
        *dataclasses.astuple(found.gpus[0].processes[0])[1:3],
    ]
    assert {len(name) for name in names} == {CAPS["name"].limit}
    assert {len(found.error), len(found.why)} == {CAPS["reason"].limit}


@holds("runs", "jobs_shown")
def test_a_host_with_too_many_runs() -> None:
    """They are cut, as are their jobs."""
    run = {"run": "r", "host": "h", "jobs": [["0.1", 1.0]] * 1000}
    found = read_use({"at": 1.0, "runs": [run] * 1000})
    assert (len(found.runs), len(found.runs[0].jobs)) == (CAPS["runs"].limit, CAPS["jobs_shown"].limit)


class Silent:
    """A channel over which nothing comes until it is closed."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def send(self, data: bytes) -> None: ...

    def recv(self, size: int) -> bytes:
        assert self._closed.wait(30)
        return b""

    def close(self) -> None:
        self._closed.set()


@holds("answer_silence")
def test_an_answer_that_does_not_come(small: Callable[[str, int], None]) -> None:
    """The host is named, and waited for no longer."""
    small("answer_silence", 0)
    talk = AgentQuery(HostSpec("far", "far"), "look", "r")
    talk._channel = Silent()  # type: ignore[assignment]
    talk._frames = talk._read(b"")
    with pytest.raises(AgentError, match=r"^far: .*no answer came"):
        talk.survey()


# -- who goes beyond one -------------------------------------------------------------------------------------------


def test_who_goes_beyond_a_cap_is_given_up_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its link is not made again, so that it cannot do it over and over."""
    from tests.launcher.agents.test_connection import Running

    monkeypatch.setattr(connection, "_MAX_BACKOFF", 0.06)
    running = Running(tmp_path)
    try:
        running.session.start()
        channel = running.ready()
        channel.say(
            {
                "t": "final",
                "attempt": "0.1",
                "envelope": {**DONE, "hooks": [{"hook": "on_job_end", "callback": "c", "ok": True}] * 5000},
            }
        )
        assert "5,000 hooks" in running.fact(facts.Disconnected).why
        assert "5,000 hooks" in running.fact(facts.Refused).why
        assert running.session.wait_finished(30)
        with pytest.raises(queue.Empty):
            running.transport.channels.get_nowait()
    finally:
        running.session.close()


def test_a_cap_that_is_held_costs_nothing_within(link: Link) -> None:
    """A result with as many hooks as may be is a result."""
    hooks = [{"hook": "on_job_end", "callback": "c", "ok": True}] * CAPS["hooks"].limit
    envelope = {**DONE, "hooks": hooks}
    (fact,) = link.hear({"t": "final", "attempt": "0.1", "envelope": envelope, "parts": {"value": part(b"v")}}, b"v")
    assert fact.envelope.status == "COMPLETED"
