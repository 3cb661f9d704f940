"""What an earlier agent left is taken up, also that of an earlier version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from remote_agent.agent.spool.attempts import Attempts
from remote_agent.agent.spool.log import SpoolLog
from tests.specs import job_spec

ENVELOPE = {"status": "COMPLETED", "error": None, "duration": 1.0, "pid": 5, "python": "3.8.18"}


def taken_up(path: Path, records: list[dict[str, Any]]) -> tuple[Attempts, list[str], list[str], list[str]]:
    """The attempts of a log; which wait, which may have started, and what was noted."""
    log = SpoolLog(str(path))
    for record in records:
        log.append(record, b"payload")
    log.flush()
    log.close()
    notes: list[str] = []

    def nothing(*_: Any) -> None: ...

    attempts = Attempts(str(path), "boot", nothing, notes.append, nothing, nothing, nothing, nothing, nothing)
    waiting, doubtful = attempts.replay()
    attempts.stop()
    attempts.close()
    return attempts, [one.id for one in waiting], [one.id for one in doubtful], notes


def accepted(num: int, **more: Any) -> dict[str, Any]:
    """The record of a job that came."""
    return {"r": "accepted", "a": f"{num}.1", "spec": {**job_spec(num, attempt=1).to_json(), **more}, "blob": None}


def test_a_spec_that_lacks_what_is_new_is_taken_up(tmp_path):
    """It has what that stood for."""
    first = accepted(0)
    for name in ("shutdown_timeout", "max_output_bytes", "children_timeout"):
        del first["spec"][name]
    attempts, waiting, doubtful, notes = taken_up(tmp_path / "log", [first])
    assert (waiting, doubtful, notes) == (["0.1"], [], [])
    assert attempts.get("0.1").spec == job_spec(0, attempt=1)


def test_a_spec_that_this_version_refuses_keeps_no_agent_from_coming_up(tmp_path):
    """Its job does not start, which is noted; the others are as they were."""
    _, waiting, doubtful, notes = taken_up(tmp_path / "log", [accepted(0, outputs=5), accepted(1)])
    assert (waiting, doubtful) == (["1.1"], ["0.1"])
    assert notes == ["spool log: a record of job 0.1 cannot be read: job: outputs is 5"]


def test_results_are_delivered_that_say_more_than_is_read_now(tmp_path):
    """And one that says nothing of use is as if it had not been recorded."""
    records = [accepted(0), accepted(1)]
    for num, envelope in enumerate((ENVELOPE, {**ENVELOPE, "status": "x"})):
        records.append({"r": "started", "a": f"{num}.1", "slot": num, "at": 1.0})
        records.append({"r": "final", "a": f"{num}.1", "envelope": envelope, "parts": {}, "same": False})
    attempts, waiting, doubtful, notes = taken_up(tmp_path / "log", records)
    assert (waiting, doubtful) == ([], [])
    assert attempts.get("0.1").final[0].duration == 1.0
    assert attempts.get("1.1").final is None
    assert len(notes) == 1
