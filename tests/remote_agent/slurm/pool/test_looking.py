"""Queries about a run on a cluster, which its files answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from remote_agent.protocol import wire
from remote_agent.slurm.pool.looking import Looking
from tests.remote_agent.slurm.pool.test_incarnations import Node
from tests.remote_agent.slurm.pool.test_pool import pool_of, put
from tests.specs import DONE


def asked(looking: Looking, attempt: str | None, stdout: int = 0) -> list[wire.Frame]:
    """What is answered."""
    frames = looking.answer({"t": "look", "attempt": attempt, "stdout": stdout, "stderr": 0})
    return wire.Decoder().feed(b"".join(frames))


@pytest.fixture
def looking(tmp_path: Path) -> Looking:
    """A run of four jobs: one has ended, one runs, one was taken by an allocation that says nothing yet, and one waits."""
    submitter, allocation = pool_of(tmp_path, "submitter"), pool_of(tmp_path, "22.0")
    for num in range(4):
        put(submitter, num)
    assert all(allocation.take(f"{num}.1") for num in range(3))
    node = Node(tmp_path, "22.0")
    node.say("began", node="n1", at=1.0)
    for num in range(2):
        node.say("started", a=f"{num}.1", slot=0, at=2.0)
    node.say("final", b"value", a="0.1", envelope=DONE, parts={})
    streams = tmp_path / "incarnations" / "22.0" / "streams"
    streams.mkdir()
    for name, text in (("0.1.stdout", "said by 0"), ("1.1.stdout", "said by 1"), ("1.1.stderr", "and this")):
        (streams / name).write_text(text)
    return Looking("r1", "login", str(tmp_path))


def test_the_states_of_all_attempts(looking: Looking):
    """What the log of an allocation does not have waits."""
    (frame,) = asked(looking, None)
    found: dict[str, Any] = json.loads(frame.payload)
    assert {name: one["state"] for name, one in found.items()} == {
        "0.1": "final", "1.1": "running", "2.1": "queued", "3.1": "queued",
    }  # fmt: skip
    assert (found["0.1"]["status"], found["1.1"]["started_at"]) == ("COMPLETED", 2.0)
    assert frame.header["more"] is False


def test_what_a_job_has_printed(looking: Looking):
    """From where one has it, in the folder of who has the job."""
    out, err, looked = asked(looking, "1.1", stdout=5)
    assert (out.header["stream"], out.header["offset"], out.payload) == ("stdout", 5, b"by 1")
    assert (err.header["stream"], err.payload) == ("stderr", b"and this")
    assert looked.header["state"] == "running"


@pytest.mark.parametrize(("attempt", "state"), [("3.1", "queued"), ("2.1", "queued"), ("9.1", "unknown")])
def test_what_has_printed_nothing(looking: Looking, attempt: str, state: str):
    """One that waits, and one that is not there."""
    (looked,) = asked(looking, attempt)
    assert looked.header["state"] == state


def test_what_comes_later_is_seen(looking: Looking, tmp_path: Path):
    """The next answer has it."""
    asked(looking, None)
    node = Node(tmp_path, "23.0")
    assert pool_of(tmp_path, "23.0").take("3.1")
    node.say("began", node="n2", at=1.0)
    node.say("started", a="3.1", slot=0, at=3.0)
    (looked,) = asked(looking, "3.1")
    assert looked.header["state"] == "running"
