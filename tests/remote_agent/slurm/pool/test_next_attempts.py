"""Attempts that follow by themselves: when, what they know of those before, and that everybody makes the same ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_agent.protocol.specs.job import JobSpec
from remote_agent.slurm.pool.next_attempts import agree, follows, make_next, next_id
from remote_agent.slurm.pool.pool import Pool
from remote_agent.slurm.shared_disk.shared_files import SharedFiles
from tests.specs import job_spec

LIMITS = {"preempted": 2, "node_failed": 1}


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """With the first attempt at job 3."""
    pool = Pool(SharedFiles(str(tmp_path), "one"), "one")
    spec = job_spec(num=3, attempt=1)
    pool.put("default", "3.1", {"t": "job", "spec": spec.to_json(), "payload_blob": "b" * 64}, b"payload")
    return pool


def spec_of(pool: Pool, attempt: str) -> JobSpec:
    """What is in the pool of an attempt."""
    frame = pool.job_of(attempt)
    assert frame is not None
    return JobSpec.from_json(frame.header["spec"])


def test_the_next_one_has_all_that_the_last_one_had_and_knows_of_it(pool: Pool):
    """Its number, the same payload, and where and why each earlier attempt ended."""
    assert make_next(pool, "3.1", "login", "preempted", LIMITS, "/outputs/3")
    frame = pool.job_of("3.2")
    assert frame is not None
    assert (frame.payload, frame.header["payload_blob"]) == (b"payload", "b" * 64)
    earlier = [{"attempt": 1, "host": "login", "kind": "preempted", "folder": "/outputs/3"}]
    assert spec_of(pool, "3.2") == spec_of(pool, "3.1")._replace(attempt=2, earlier=earlier)
    assert pool.class_of("3.2") == "default"


def test_the_limits_are_those_of_the_kind(pool: Pool):
    """Whatever ended the attempts before counts. Other kinds never follow."""
    spec = job_spec(num=3, attempt=1)
    once = spec._replace(earlier=[{"attempt": 1, "kind": "preempted"}])
    assert [follows(spec, kind, LIMITS) for kind in ("preempted", "node_failed", "exception")] == [True, True, False]
    assert [follows(once, kind, LIMITS) for kind in ("preempted", "node_failed")] == [True, False]
    assert not make_next(pool, "3.1", "login", "killed", LIMITS)
    assert pool.all_attempts() == ["3.1"]


def test_one_that_never_began_goes_on_whatever_the_limits(pool: Pool):
    """It does not count as a try."""
    assert make_next(pool, "3.1", "login", "", {})
    assert spec_of(pool, "3.2").earlier == []


def test_the_first_one_that_is_made_wins(pool: Pool, tmp_path: Path):
    """Others make the same one at the same time. A controller's own retry has this number, too."""
    other = Pool(SharedFiles(str(tmp_path), "two"), "two")
    assert make_next(pool, "3.1", "login", "preempted", LIMITS, "/first")
    assert make_next(other, "3.1", "login", "node_failed", LIMITS, "/second")
    given = job_spec(num=3, attempt=2)
    other.put("default", "3.2", {"t": "job", "spec": given.to_json(), "payload_blob": None}, b"")
    assert [one["folder"] for one in spec_of(other, "3.2").earlier] == ["/first"]
    assert pool.all_attempts() == ["3.1", "3.2"]


def test_nothing_follows_what_the_controller_has(pool: Pool):
    """Its files are gone, so its end is old news."""
    pool.forget("3.1")
    assert not make_next(pool, "3.1", "login", "preempted", LIMITS)


def test_all_submitters_agree_on_the_limits(tmp_path: Path):
    """Those of the first one hold, so that everybody comes to the same answer. If the user says nothing, there are some."""
    files = SharedFiles(str(tmp_path), "one")
    assert agree(files, {"preempted": 7}) == {"preempted": 7}
    assert agree(SharedFiles(str(tmp_path), "two"), {}) == {"preempted": 7}
    (tmp_path / "other").mkdir()
    assert agree(SharedFiles(str(tmp_path / "other"), "one"), None) == {"preempted": 3, "node_failed": 1}


def test_the_next_id():
    """Only the number of the attempt changes."""
    assert next_id("12.9") == "12.10"
