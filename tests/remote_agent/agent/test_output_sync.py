"""When an agent sends output files of running jobs, and when it does not."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remote_agent.agent import output_sync
from remote_agent.agent.link.sync_frames import SyncPiece
from tests.remote_agent.agent.test_agent_machine import spec
from tests.remote_agent.stepped_agent import Peer, SteppedAgent

SYNC = {"every": 30.0, "only": []}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[SteppedAgent]:
    """An agent with two slots, which does not wait between batches."""
    monkeypatch.setattr(output_sync, "_APART", 0.0)
    made = SteppedAgent()
    yield made
    made.close()


def start(host: SteppedAgent, num: int = 0, **hello: Any) -> Peer:
    """A controller, and a job that runs. The job has made its folder."""
    peer = host.controller(**{"sync": SYNC, **hello})
    peer.say({"t": "job", "spec": spec(attempt_id=f"{num}.1", num=num, output_dir=str(num))}, b"payload")
    host.settle()
    folder(host, num).mkdir(parents=True)
    return peer


def folder(host: SteppedAgent, num: int = 0) -> Path:
    """The output directory of a job there."""
    return Path(host.agent.paths.spool, "outputs", str(num))


def look(host: SteppedAgent, peer: Peer) -> list[tuple[str, int, bytes]]:
    """A look is due, and the controller answers all that comes. Returns (path, offset, bytes) of it."""
    host.agent._sync._next = 0.0
    before = len(peer.frames)
    answered = before
    while True:
        host.settle()
        pings = [frame.header["n"] for frame in peer.frames[answered:] if frame.header["t"] == "ping"]
        answered = len(peer.frames)
        if not pings:
            break
        for number in pings:
            peer.say({"t": "pong", "n": number})
    return [
        (frame.header["path"], frame.header["offset"], frame.payload)
        for frame in peer.frames[before:]
        if frame.header["t"] == "synced"
    ]


def test_what_a_job_writes_is_sent_while_it_runs(host: SteppedAgent) -> None:
    """At each look what is new."""
    peer = start(host)
    (folder(host) / "log").write_text("one")
    assert look(host, peer) == [("log", 0, b"one")]
    with open(folder(host) / "log", "a") as file:
        file.write(" two")
    assert look(host, peer) == [("log", 3, b" two")]
    assert look(host, peer) == []


def test_nothing_is_sent_to_a_controller_that_does_not_ask(host: SteppedAgent) -> None:
    """And there is no thread for it."""
    peer = start(host, sync=None)
    (folder(host) / "log").write_text("one")
    assert look(host, peer) == []
    assert host.agent._sync.thread is None


def test_files_come_also_where_what_jobs_print_is_sent_as_it_comes(host: SteppedAgent) -> None:
    """As with `launcher run`. The streams are looked at in each turn, and that is not what files wait for."""
    peer = start(host, live=True)
    (folder(host) / "log").write_text("one")
    host.agent._sync._next = 0.0
    for _ in range(20):
        host.agent._next_poll = 0.0
        host.agent._turn(0.05)
        peer.hear()
    assert [one["path"] for one in peer.all("synced")] == ["log"]


def test_nothing_is_sent_between_looks(host: SteppedAgent) -> None:
    """The next one is due after the time that the controller said."""
    peer = start(host)
    (folder(host) / "log").write_text("one")
    look(host, peer)
    (folder(host) / "log").write_text("one two")
    host.settle()
    assert len(peer.all("synced")) == 1
    assert host.agent._sync._next > 0


def test_no_more_is_under_way_than_one_batch(host: SteppedAgent) -> None:
    """The next one is sent when the controller has answered. Quick answers make batches larger, up to a bound."""
    peer = start(host)
    (folder(host) / "log").write_bytes(bytes(1 << 20))
    host.agent._sync._next = 0.0
    host.settle()
    sent = [len(frame.payload) for frame in peer.frames if frame.header["t"] == "synced"]
    assert sum(sent) == 1 << 16
    host.settle()
    assert len(peer.all("synced")) == len(sent)
    assert sum(len(data) for _, _, data in look(host, peer)) == 0
    peer.say({"t": "pong", "n": peer.all("ping")[-1]["n"]})
    assert sum(len(data) for _, _, data in look(host, peer)) == (1 << 20) - (1 << 16)
    assert 1 << 16 < host.agent._sync._size <= 1 << 20


def test_slow_answers_make_batches_smaller(host: SteppedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a result never waits long."""
    monkeypatch.setattr(output_sync, "_QUICK", -2.0)
    monkeypatch.setattr(output_sync, "_SLOW", -1.0)
    peer = start(host)
    (folder(host) / "log").write_bytes(bytes(1 << 20))
    look(host, peer)
    assert host.agent._sync._size == 1 << 14


def test_nothing_is_sent_while_anything_else_waits(host: SteppedAgent) -> None:
    """Such as a result that the link does not take now."""
    peer = start(host)
    (folder(host) / "log").write_text("one")
    host.agent.controller.link.outbox.add_source(iter([]))
    host.agent._sync._next = 0.0
    host.agent._sync.tick(1e9)
    assert not host.agent._sync.is_reading
    assert look(host, peer) == [("log", 0, b"one")]


def test_nothing_is_sent_of_a_job_that_has_its_result(host: SteppedAgent) -> None:
    """Not even what was read before: its files follow as a whole."""
    peer = start(host)
    (folder(host) / "log").write_bytes(bytes(1 << 18))
    host.agent._sync._next = 0.0
    host.settle()
    ((zygote, job),) = host.jobs()
    job.finish(b"value")
    host.settle()
    assert peer.all("final")
    before = len(peer.all("synced"))
    peer.say({"t": "pong", "n": peer.all("ping")[-1]["n"]})
    assert look(host, peer) == []
    assert len(peer.all("synced")) == before
    zygote.ended(job, 0)
    host.settle()
    assert peer.all("files_end")
    assert not host.agent._sync.is_busy


def test_over_a_new_link_what_was_confirmed_is_not_sent_again(host: SteppedAgent) -> None:
    """What was not is."""
    peer = start(host)
    (folder(host) / "a").write_text("one")
    look(host, peer)
    (folder(host) / "a").write_text("one two")
    (folder(host) / "b").write_text("three")
    host.agent._sync._next = 0.0
    host.settle()
    assert len(peer.all("synced")) == 3
    peer.close()
    host.settle()
    other = host.controller(sync=SYNC)
    sent = [(frame.header["path"], frame.header["offset"]) for frame in other.frames if frame.header["t"] == "synced"]
    assert sent == [("a", 3), ("b", 0)]


def test_jobs_take_turns_and_one_that_has_ended_is_forgotten(host: SteppedAgent) -> None:
    """All that is known of its files."""
    peer = start(host)
    peer.say({"t": "job", "spec": spec(attempt_id="1.1", num=1, output_dir="1")}, b"payload")
    host.settle()
    folder(host, 1).mkdir()
    for num in (0, 1):
        (folder(host, num) / "log").write_text(str(num))
    assert sorted(look(host, peer)) == [("log", 0, b"0"), ("log", 0, b"1")]
    zygote, job = host.jobs()[0]
    job.finish(b"value")
    zygote.ended(job, 0)
    host.settle()
    look(host, peer)
    assert list(host.agent._sync._sent) == ["1.1"]


def test_a_folder_that_is_the_users_own_is_not_sent(host: SteppedAgent) -> None:
    """It is here already."""
    peer = host.controller(sync=SYNC)
    own = Path(host.folder, "own")
    own.mkdir()
    (own / "log").write_text("one")
    peer.say({"t": "job", "spec": spec(output_dir=str(own))}, b"payload")
    host.settle()
    assert look(host, peer) == []


def test_an_error_ends_the_look_and_not_the_agent(
    host: SteppedAgent, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """It is written to the agent's log, and the next look is another one."""
    peer = start(host)
    (folder(host) / "log").write_text("one")

    def fails(*_: Any) -> Iterator[SyncPiece]:
        raise RuntimeError("a defect")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(output_sync, "sync_pieces", fails)
        assert look(host, peer) == []
    assert "a defect" in capfd.readouterr().err
    assert look(host, peer) == [("log", 0, b"one")]


def test_a_hello_that_makes_no_sense_is_refused(host: SteppedAgent) -> None:
    """As any other wrong field."""
    peer = host.controller(sync={"every": 0, "only": []})
    assert peer.is_over
    assert "sync" in peer.all("fatal")[0]["message"]
    assert os.path.isdir(host.folder)


# -- when the job has ended ------------------------------------------------------------------------------------------

HELD_SYNC = {**SYNC, "says_held": True}


def held(path: str, data: bytes) -> dict[str, Any]:
    """What a controller says of the first bytes of a file."""
    return {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "is_executable": False}


def ended(host: SteppedAgent, peer: Peer) -> None:
    """A job has written, some of it came, and the job has ended."""
    (folder(host) / "log").write_text("one")
    (folder(host) / "best").write_text("two")
    look(host, peer)
    with open(folder(host) / "log", "a") as file:
        file.write(" more")
    ((zygote, job),) = host.jobs()
    job.finish(b"value")
    zygote.ended(job, 0)
    host.settle()


def came(peer: Peer) -> dict[str, tuple[str, int, bytes]]:
    """Path -> (message, from which byte on, bytes) of the files that came in the end."""
    found = {}
    for frame in peer.frames:
        start = 0
        if frame.header["t"] == "rest":
            found[frame.header["path"]] = ("rest", frame.header["offset"], frame.payload)
        elif frame.header["t"] == "files":
            for path, _, size, _ in frame.header["items"]:
                found[path] = ("files", 0, frame.payload[start : start + size])
                start += size
    return found


def test_the_rest_of_what_the_controller_holds_is_sent(host: SteppedAgent) -> None:
    """It is asked first, and the answer may come in parts. What it holds of another content is sent as a whole."""
    peer = start(host, sync=HELD_SYNC)
    ended(host, peer)
    assert [one["attempt"] for one in peer.all("ask_held")] == ["0.1"]
    assert not peer.all("files_end")
    for one, more in ((held("log", b"one"), True), (held("best", b"owt"), False)):
        peer.say({"t": "held", "attempt": "0.1", "more": more}, json.dumps([one]).encode())
        host.settle()
        assert bool(peer.all("files_end")) is not more
    assert came(peer) == {"log": ("rest", 3, b" more"), "best": ("files", 0, b"two")}


def test_a_new_link_is_asked_again(host: SteppedAgent) -> None:
    """What the controller held before does not count."""
    peer = start(host, sync=HELD_SYNC)
    ended(host, peer)
    peer.say({"t": "held", "attempt": "0.1", "more": False}, json.dumps([held("log", b"one")]).encode())
    host.settle()
    peer.close()
    host.settle()
    other = host.controller(sync=HELD_SYNC)
    assert len(other.all("ask_held")) == 1
    assert not other.all("files_end")
    other.say({"t": "held", "attempt": "0.1", "more": False}, b"[]")
    other.say({"t": "held", "attempt": "0.1", "more": False}, b"[]")
    host.settle()
    assert len(other.all("files_end")) == 1
    assert came(other) == {"log": ("files", 0, b"one more"), "best": ("files", 0, b"two")}


@pytest.mark.parametrize("sync", [None, SYNC])
def test_a_controller_that_does_not_say_what_it_holds_gets_all(host: SteppedAgent, sync: Any) -> None:
    """One of an earlier version, or one that takes up the run without the option."""
    peer = start(host)
    ended(host, peer)
    peer.close()
    host.settle()
    other = host.controller(sync=sync)
    assert not other.all("ask_held")
    assert came(other) == {"log": ("files", 0, b"one more"), "best": ("files", 0, b"two")}


def test_nobody_is_asked_about_a_job_of_which_nothing_came_early(host: SteppedAgent) -> None:
    """So a short job waits for no answer."""
    peer = start(host, sync=HELD_SYNC)
    (folder(host) / "log").write_text("one")
    ((zygote, job),) = host.jobs()
    job.finish(b"value")
    zygote.ended(job, 0)
    host.settle()
    assert not peer.all("ask_held")
    assert came(peer) == {"log": ("files", 0, b"one")}


def test_a_batch_waits_until_its_disk_may_be_read(host: SteppedAgent) -> None:
    """And each one that was read is told."""
    peer = start(host)
    (folder(host) / "log").write_text("one")
    told: list[tuple[float, float]] = []
    limit = output_sync.ReadLimit()
    limit.free_at = float("inf")
    limit.read = lambda begun, ended: told.append((begun, ended))  # type: ignore[method-assign]
    host.agent._sync._limit = limit
    assert look(host, peer) == []
    limit.free_at = 0.0
    assert look(host, peer) == [("log", 0, b"one")]
    assert told
    assert all(begun <= ended for begun, ended in told)


@pytest.mark.parametrize("hello", [{}, {"holes": True}], ids=["earlier", "holes"])
def test_holes_are_left_out_if_the_controller_says_so(host: SteppedAgent, hello: dict[str, Any]) -> None:
    """One of an earlier version gets all bytes."""
    peer = start(host, sync=None, **hello)
    with open(folder(host) / "data", "wb") as file:
        file.truncate(1 << 20)
    ((zygote, job),) = host.jobs()
    job.finish(b"value")
    zygote.ended(job, 0)
    host.settle()
    sent = [frame for frame in peer.frames if frame.header["t"] == "chunk"]
    assert sum(len(frame.payload) + frame.header["hole"] for frame in sent) == 1 << 20
    assert sum(frame.header["hole"] for frame in sent) == (1 << 20 if hello else 0)
